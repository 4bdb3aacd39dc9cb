"""The transitions between roles: all of them live here.

    FOLLOWER --timeout--> PRE_CANDIDATE --a quorum would vote--> CANDIDATE --a quorum voted--> LEADER
        ^                       |                                    |                            |
        +-----------------------+------- a leader, a higher term, or a lost vote -----------------+

Without pre-vote a timeout leads to CANDIDATE at once.  A leader never campaigns; a follower never leads without having been a
candidate; a term is entered once and never again.  What a role does is in `election.py` and `replication.py`.
"""

from coord_core.raft import outbox
from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.messages import Entry, EntryKind
from coord_core.raft.progress import Inflight, Progress
from coord_core.raft.reads import ReadRounds
from coord_core.raft.state import Role, State
from coord_core.raft.zero import NOBODY, START
from coord_core.types import LogIndex, NodeId, Term


def become_follower(state: State, term: Term, leader_id: NodeId) -> None:
    """Follow `leader_id` (0: whoever will lead) in `term`."""
    _reset(state, term)
    state.role = Role.FOLLOWER
    state.leader_id = leader_id


def become_pre_candidate(state: State) -> None:
    """Ask whether an election could be won.  Neither the term nor the vote changes (dissertation, 9.6)."""
    if state.role is Role.LEADER:
        raise InvariantViolation("a leader does not campaign")
    state.role = Role.PRE_CANDIDATE
    state.leader_id = NOBODY
    state.votes = {}
    state.campaign_countdown = 0


def become_candidate(state: State) -> None:
    """Enter the next term with a vote for oneself (Raft, 5.2)."""
    if state.role is Role.LEADER:
        raise InvariantViolation("a leader does not campaign")
    _reset(state, Term(state.term + 1))
    state.voted_for = state.node_id
    state.role = Role.CANDIDATE


def become_leader(state: State) -> None:
    """Lead the term in which this node is a candidate, and append the no-op that lets it commit (Raft, 8; dissertation, 6.4)."""
    if state.role is not Role.CANDIDATE:
        raise InvariantViolation(f"a {state.role.value} does not become leader")
    _reset(state, state.term)
    state.role = Role.LEADER
    state.leader_id = state.node_id
    own = state.progress[state.node_id]
    own.become_replicate()
    own.recent_active = True
    # Whether the tail of the log has a membership change is not worth a scan: none is accepted until all of it is applied.
    state.pending_membership = state.log.last_index
    state.leading_from = LogIndex(state.log.last_index + 1)
    state.log.append([Entry(state.leading_from, state.term, EntryKind.COMMAND, b"")])
    outbox.acknowledge_own(state)


def _reset(state: State, term: Term) -> None:
    if term != state.term:
        if term < state.term:
            raise InvariantViolation(f"the term would fall from {state.term} to {term}")
        state.term = term
        # One vote a term: cleared where the term rises, and only there.
        state.voted_for = NOBODY
    state.leader_id = NOBODY
    state.election_elapsed = state.heartbeat_elapsed = state.campaign_countdown = state.ask_again_ticks = 0
    timeout = state.config.election_timeout_ticks
    state.timeout_drawn = state.rng.randrange(timeout, 2 * timeout)
    state.transferee = NOBODY
    state.votes = {}
    state.pending_membership = state.leading_from = START
    state.reads = ReadRounds()
    _forget_progress(state)


def _forget_progress(state: State) -> None:
    config, following = state.config, LogIndex(state.log.last_index + 1)
    for peer, old in state.progress.items():
        inflight = Inflight(config.max_inflight_appends, config.max_inflight_bytes)
        state.progress[peer] = Progress(following, inflight, is_learner=old.is_learner)
    own = state.progress.get(state.node_id)
    if own is not None:
        own.match = state.log.durable
        own.next = following
