"""Who leads: campaigns, votes, and the lease that keeps a working leader in place (Raft, 5.2 and 5.4.1; dissertation, 9.6 and
6.2).

Three rules work together, and each alone would be a trap:

- Pre-vote: a node asks first whether it could win, without raising its term.
- Lease: who heard a leader within the election timeout ignores (pre-)votes, so one broken link deposes nobody.
- Check quorum: a leader that hears no quorum steps down, so the lease of a cut-off leader ends.

The deadlock they could make (a node with a higher term that neither wins nor follows: etcd#8501, #8243) is broken in
`on_lower_term`: a message of an older leader, or an older pre-vote, is answered with the newer term.
"""

from coord_core.raft import outbox, replication, roles
from coord_core.raft.messages import Append, AppendReply, Heartbeat, Message, TimeoutNow, VoteReply, VoteRequest
from coord_core.raft.quorum import Outcome, active, joint_outcome
from coord_core.raft.refusals import TransferRefused
from coord_core.raft.state import Role, State
from coord_core.raft.zero import NO_TERM, NOBODY, START
from coord_core.types import NodeId, Term

# -- campaigns


def tick(state: State) -> None:
    """One tick of a node that does not lead: campaign when the leader was not heard for the time drawn (Raft, 5.2)."""
    state.election_elapsed += 1
    if state.campaign_countdown:
        state.campaign_countdown -= 1
        if state.campaign_countdown == 0 and state.is_promotable:
            state.election_elapsed = 0
            _campaign_and_ask_again(state)
            return
    if state.is_promotable and state.election_elapsed >= state.timeout_drawn:
        state.election_elapsed = 0
        hup(state)


def hup(state: State, *, transfer: bool = False) -> None:
    """Campaign, unless this node leads, does not vote, or does not know yet who votes."""
    if state.role is Role.LEADER or not state.is_promotable:
        return
    # With a committed membership change not yet applied, this node would ask and count the wrong voters.
    if state.log.has_unapplied_configuration():
        return
    if state.config.pre_vote and not transfer:
        _pre_campaign(state)
    else:
        campaign(state, transfer=transfer)


def _pre_campaign(state: State) -> None:
    roles.become_pre_candidate(state)
    _ask(state, Term(state.term + 1), pre_vote=True, transfer=False)


def campaign(state: State, *, transfer: bool) -> None:
    """Enter the next term and ask for votes."""
    roles.become_candidate(state)
    _ask(state, state.term, pre_vote=False, transfer=transfer)


def _ask(state: State, term: Term, *, pre_vote: bool, transfer: bool) -> None:
    log, own = state.log, state.node_id
    for voter in sorted({*state.configuration.voters, *state.configuration.outgoing}):
        if voter == own:
            outbox.send_after_persist(state, VoteReply(sender=own, to=own, term=term, pre_vote=pre_vote, granted=True))
            continue
        request = VoteRequest(
            sender=own,
            to=voter,
            term=term,
            last_index=log.last_index,
            last_term=log.last_term,
            pre_vote=pre_vote,
            transfer=transfer,
        )
        # A real request says that this node is in `term` and has voted: not before the disk knows.
        outbox.send(state, request)


def leader_lost(state: State) -> None:
    """The connection to the leader closed: forget its lease, campaign, and grant to others.

    Followers of a dead leader notice at the same moment and would split the vote, so they take turns by rank: the first voter
    goes at once, each next one a third of an election timeout later, if nobody leads by then.  Where the leader lives and only
    this node's link broke, the others still hear it and ignore the pre-vote.  They ignore it too where they have not noticed yet
    that it died, or do not hear the question: so whoever's turn it is asks again after one tick, two, four, until somebody leads
    or the time drawn for an ordinary campaign has come.
    """
    if state.role is not Role.FOLLOWER or not state.leader_id or state.config.lease_relied_on:
        return
    lost = state.leader_id
    forget_leader(state)
    if not state.is_promotable:
        return
    others = [voter for voter in state.configuration.voters if voter != lost]
    rank = others.index(state.node_id) if state.node_id in others else len(others)
    state.campaign_countdown = rank * max(state.config.election_timeout_ticks // 3, 1)
    state.ask_again_ticks = 1
    if rank == 0:
        state.election_elapsed = 0
        _campaign_and_ask_again(state)


def _campaign_and_ask_again(state: State) -> None:
    again = state.ask_again_ticks
    hup(state)
    # A candidate's real election has a timeout of its own.
    if state.config.pre_vote and again < state.config.election_timeout_ticks:
        state.campaign_countdown, state.ask_again_ticks = again, 2 * again


def forget_leader(state: State) -> None:
    """Drop the lease: this node may vote for another within the same election timeout.  Nothing where the lease is relied on."""
    if state.role is Role.FOLLOWER and not state.config.lease_relied_on:
        state.leader_id = NOBODY


# -- votes


def in_lease(state: State) -> bool:
    """Tell whether this node has heard a leader within the minimum election timeout (dissertation, 4.2.3)."""
    return state.config.check_quorum and bool(state.leader_id) and state.election_elapsed < state.config.election_timeout_ticks


def on_vote_request(state: State, message: VoteRequest) -> None:
    """Grant a vote, or say what one would be (Raft, 5.2 and 5.4.1).  The message is of this node's term, or a pre-vote of a
    later.

    Learners vote too when asked: who asks may have learned of a promotion before the one promoted has.
    """
    later_pre_vote = message.pre_vote and message.term > state.term
    free = state.voted_for == message.sender or (not state.voted_for and not state.leader_id) or later_pre_vote
    granted = free and state.log.is_up_to_date(message.last_index, message.last_term)
    if granted and not message.pre_vote:
        state.election_elapsed = 0
        state.voted_for = message.sender
    if granted:
        # A granted pre-vote answers in the term asked for, which is not this node's.
        reply = VoteReply(sender=state.node_id, to=message.sender, term=message.term, pre_vote=message.pre_vote, granted=True)
        outbox.send_after_persist(state, reply)
    else:
        _refuse(state, message)
    if not granted and message.pre_vote and state.campaign_countdown:
        # The first in line has the shorter log: no use in waiting longer.
        state.campaign_countdown = 1


def _refuse(state: State, message: VoteRequest) -> None:
    log = state.log
    told = log.commit if state.config.refusals_tell_commit else START
    refusal = VoteReply(
        sender=state.node_id,
        to=message.sender,
        term=state.term,
        pre_vote=message.pre_vote,
        granted=False,
        commit=told,
        commit_term=log.term(told) or NO_TERM,
    )
    outbox.send_after_persist(state, refusal)


def on_vote_reply(state: State, message: VoteReply) -> None:
    """Count an answer to this node's own (pre-)campaign; learn from a refusal what is committed.

    The latter opens a lock: a leader that was removed may be the only one to know, and have the longer log, but it does not
    campaign; the one that should follow it counts by the old configuration and needs that vote.  An entry with the same index
    and term is the same entry (Raft, 5.3), so what the other knows to be committed there is committed here.
    """
    if message.commit > state.log.commit and state.log.term(message.commit) == message.commit_term:
        state.log.commit_to(message.commit)
    expected = Role.PRE_CANDIDATE if message.pre_vote else Role.CANDIDATE
    if state.role is not expected:
        return
    if message.pre_vote and message.granted and message.term != state.term + 1:
        return
    # The first answer counts; a node does not change its mind within a term.
    state.votes.setdefault(message.sender, message.granted)
    configuration = state.configuration
    outcome = joint_outcome(configuration.voters, configuration.outgoing, state.votes)
    if outcome is Outcome.LOST:
        roles.become_follower(state, state.term, NOBODY)
    elif outcome is Outcome.WON:
        _won(state)


def _won(state: State) -> None:
    if state.role is Role.PRE_CANDIDATE:
        campaign(state, transfer=False)
        return
    roles.become_leader(state)
    replication.broadcast_append(state)


def on_lower_term(state: State, message: Message) -> None:
    """Answer what comes from an older term, where silence could leave its sender stuck; ignore the rest."""
    if isinstance(message, Append | Heartbeat):
        if state.config.check_quorum or state.config.pre_vote:
            # This node has moved on and cannot come back; the old leader learns the newer term and steps down.
            reply = AppendReply(sender=state.node_id, to=message.sender, term=state.term, index=START)
            outbox.send_after_persist(state, reply)
    elif isinstance(message, VoteRequest) and message.pre_vote:
        _refuse(state, message)


# -- keeping the leader in place


def check_quorum(state: State) -> None:
    """Once an election timeout: step down where no quorum answered since the last time (dissertation, 6.2)."""
    heard = [peer for peer, progress in state.progress.items() if progress.recent_active]
    if state.node_id in state.progress:
        heard.append(state.node_id)
    if not active(state.configuration.voters, state.configuration.outgoing, heard):
        roles.become_follower(state, state.term, NOBODY)
    for peer, progress in state.progress.items():
        if peer != state.node_id:
            progress.was_active, progress.recent_active = progress.recent_active, False


def tick_leader(state: State) -> None:
    """One tick of a leader: count the quorum, give up a transfer that takes too long, send heartbeats (Raft, 5.2)."""
    state.heartbeat_elapsed += 1
    state.election_elapsed += 1
    if state.election_elapsed >= state.config.election_timeout_ticks:
        state.election_elapsed = 0
        if state.config.check_quorum:
            check_quorum(state)
        # Whoever was to take over has not done so: lead on (dissertation, 3.10).
        state.transferee = NOBODY
    if state.is_leader and state.heartbeat_elapsed >= state.config.heartbeat_ticks:
        state.heartbeat_elapsed = 0
        replication.broadcast_heartbeat(state, state.reads.pending_number)


def transfer(state: State, to: NodeId) -> None:
    """Let `to` catch up and then ask it to campaign at once (dissertation, 3.10).  Raises `TransferRefused`."""
    progress = state.progress.get(to)
    if progress is None or progress.is_learner:
        raise TransferRefused(f"node {to} is not a voter", to=to)
    if to == state.transferee:
        return
    if to == state.node_id:
        # Lead on: whoever was to take over need not.
        state.transferee = NOBODY
        return
    state.election_elapsed = 0
    state.transferee = to
    if progress.match == state.log.last_index:
        outbox.send(state, TimeoutNow(sender=state.node_id, to=to, term=state.term))
    else:
        replication.send_append(state, to, progress)
