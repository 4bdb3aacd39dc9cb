"""Copying the log: what a leader sends, what a follower accepts, and when an entry is committed (Raft, 5.3 and 5.4).

The leader sends at once and writes its own disk beside it; it counts its own copy when `persisted` says so, so that it is one
vote of the quorum like any other (dissertation, 10.2.1).  A follower acknowledges what it has made durable (`outbox.py` sees to
it).
"""

from coord_core.errors import START_ANEW, NodeSuspect
from coord_core.raft import outbox
from coord_core.raft.messages import (
    Append,
    AppendReply,
    Entry,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    TimeoutNow,
)
from coord_core.raft.progress import Progress, Sending
from coord_core.raft.quorum import joint_index
from coord_core.raft.state import State
from coord_core.raft.zero import START
from coord_core.types import LogIndex, NodeId

# -- the leader sends


def append_own(state: State, entries: list[Entry]) -> None:
    """Append the leader's new entries and send them to everybody."""
    state.log.append(entries)
    outbox.acknowledge_own(state)
    broadcast_append(state)


def broadcast_append(state: State) -> None:
    """Send every follower what it lacks, be it only the commit index."""
    own = state.node_id
    for peer, progress in state.progress.items():
        if peer != own:
            send_append(state, peer, progress)


def send_append(state: State, to: NodeId, progress: Progress, *, even_if_empty: bool = True) -> bool:
    """Send the next entries to one follower, or a snapshot where they are compacted; tell whether anything was sent."""
    if progress.is_paused:
        return False
    log = state.log
    prev_index = LogIndex(progress.next - 1)
    prev_term = log.term(prev_index)
    if prev_term is None:
        return _send_snapshot(state, to, progress)
    entries: tuple[Entry, ...] = ()
    # With a full window only an empty Append leaves: its answer shows whether those in the window were lost.
    if progress.next <= log.last_index and not (progress.state is Sending.REPLICATE and progress.inflight.is_full):
        high = log.limit(progress.next, LogIndex(log.last_index + 1), state.config.max_append_bytes)
        entries = log.slice(progress.next, high)
    if not entries and not even_if_empty:
        return False
    outbox.send(
        state,
        Append(
            sender=state.node_id,
            to=to,
            term=state.term,
            prev_index=prev_index,
            prev_term=prev_term,
            commit=log.commit,
            entries=entries,
        ),
    )
    count = len(entries)
    last = LogIndex(prev_index + count)
    progress.sent(last, count, log.bytes_between(prev_index + 1, last + 1) if count else 0)
    progress.sent_commit = log.commit
    return True


def _send_snapshot(state: State, to: NodeId, progress: Progress) -> bool:
    # A follower that does not answer would not take a snapshot either.
    if not progress.recent_active:
        return False
    snapshot = state.log.snapshot
    progress.become_snapshot(snapshot.index)
    outbox.send(state, InstallSnapshot(sender=state.node_id, to=to, term=state.term, metadata=snapshot))
    return True


def broadcast_heartbeat(state: State, read_number: int) -> None:
    """Tell everybody that this leader lives, with the read round `read_number` (0: none)."""
    own, commit = state.node_id, state.log.commit
    for peer, progress in state.progress.items():
        if peer == own:
            continue
        # No further than the follower is known to match: it could not tell whether its own entries are the committed ones.
        known = LogIndex(min(progress.match, commit))
        outbox.send(state, Heartbeat(sender=own, to=peer, term=state.term, commit=known, context=read_number))
        progress.sent_commit = known


# -- the leader counts


def maybe_commit(state: State) -> bool:
    """Commit what a quorum has, if it is of the leader's own term (Raft, 5.4.2 and figure 8); tell whether anything was."""
    configuration = state.configuration
    matches = {peer: progress.match for peer, progress in state.progress.items()}
    index = LogIndex(joint_index(configuration.voters, configuration.outgoing, matches))
    if index <= state.log.commit or state.log.term(index) != state.term:
        return False
    return state.log.commit_to(index)


def _announce(state: State) -> None:
    """The commit index has risen: let the followers know now, or with what they get next."""
    if state.config.announce_commits:
        broadcast_append(state)


def own_log_durable(state: State) -> None:
    """The leader's own disk has more of the log: it may count it."""
    own = state.progress.get(state.node_id)
    if own is not None:
        _count_own(state, own, state.log.durable)


def _count_own(state: State, own: Progress, index: LogIndex) -> None:
    if own.accepted(index) and maybe_commit(state):
        _announce(state)


def on_append_reply(state: State, message: AppendReply, progress: Progress) -> None:
    """A follower accepted or rejected (leader)."""
    if message.sender == state.node_id:
        # `outbox.acknowledge_own`
        _count_own(state, progress, message.index)
        return
    progress.recent_active, progress.unreachable = True, False
    if message.rejected:
        _on_rejection(state, message, progress)
        return
    if message.index == START and state.log.snapshot.index > START:
        # Not an acceptance: the answer to an older term's message, from before this node led.
        return
    probing = progress.state is Sending.PROBE
    if not progress.accepted(message.index) and not (probing and progress.match == message.index):
        return
    if probing:
        progress.become_replicate()
    elif progress.state is Sending.SNAPSHOT:
        # Whatever index it installed: as soon as the log continues from there, it is a follower like any other.
        if progress.match + 1 >= state.log.first_index:
            progress.become_probe()
            progress.become_replicate()
    else:
        progress.inflight.acknowledge(message.index)
    if maybe_commit(state):
        _announce(state)
    elif state.config.announce_commits and progress.would_learn(state.log.commit):
        send_append(state, message.sender, progress)
    while send_append(state, message.sender, progress, even_if_empty=False):
        pass
    if message.sender == state.transferee and progress.match == state.log.last_index:
        outbox.send(state, TimeoutNow(sender=state.node_id, to=message.sender, term=state.term))


def _on_rejection(state: State, message: AppendReply, progress: Progress) -> None:
    guess = message.hint_index
    if message.hint_term > 0:
        guess, _ = state.log.agreement(message.hint_index, message.hint_term)
    if progress.rejected(message.index, guess):
        if progress.state is Sending.REPLICATE:
            progress.become_probe()
        send_append(state, message.sender, progress)


def on_heartbeat_reply(state: State, message: HeartbeatReply, progress: Progress) -> None:
    """A follower lives (leader)."""
    progress.recent_active, progress.unreachable = True, False
    progress.paused = False
    # Behind, or not known to be level: if nothing was lost this costs an empty Append, otherwise its answer restarts the flow.
    if progress.match < state.log.last_index or progress.state is Sending.PROBE:
        send_append(state, message.sender, progress)
    if message.context:
        state.reads.answer(message.sender, message.context, state.configuration)


# -- the follower


def on_append(state: State, message: Append) -> None:
    """Accept what continues a matching log, reject the rest with a hint (Raft, figure 2: AppendEntries)."""
    log = state.log
    if message.prev_index < log.commit:
        # Everything committed matches the leader's log, whatever this old Append says.
        _acknowledge(state, message.sender, log.commit)
        return
    if not log.matches(message.prev_index, message.prev_term):
        _reject(state, message)
        return
    entries = message.entries
    last = LogIndex(message.prev_index + len(entries))
    known = log.conflict(entries)
    # Only a conflict removes anything: a delayed, shorter Append must not cut off a suffix that matches.
    if known < len(entries):
        log.replace(entries[known:] if known else entries)
    # No further than this Append has verified (etcd-io/raft#139): what lies behind it may be another leader's.
    log.commit_to(LogIndex(min(message.commit, last)))
    _acknowledge(state, message.sender, last)


def _acknowledge(state: State, to: NodeId, index: LogIndex) -> None:
    outbox.send_after_persist(state, AppendReply(sender=state.node_id, to=to, term=state.term, index=index))


def _reject(state: State, message: Append) -> None:
    log = state.log
    hint_index, hint_term = log.agreement(LogIndex(min(message.prev_index, log.last_index)), message.prev_term)
    outbox.send_after_persist(
        state,
        AppendReply(
            sender=state.node_id,
            to=message.sender,
            term=state.term,
            index=message.prev_index,
            rejected=True,
            hint_index=hint_index,
            hint_term=hint_term,
        ),
    )


def on_heartbeat(state: State, message: Heartbeat) -> None:
    """The leader lives; what it knows to be matched and committed is committed."""
    if message.commit > state.log.last_index:
        raise _lost(state, message)
    state.log.commit_to(message.commit)
    outbox.send(
        state,
        HeartbeatReply(sender=state.node_id, to=message.sender, term=state.term, context=message.context),
    )


def _lost(state: State, message: Heartbeat) -> NodeSuspect:
    """This node acknowledged an entry that it does not have any more.

    That cannot be a late message or a restart at a bad moment.  A heartbeat commits no further than the leader *of this term* has
    heard this node acknowledge in this term, and every acknowledgement waited for the disk.  In one term what matches the leader's
    log is never cut off (a conflict would need a second leader), and a snapshot only ever takes the place of a log that ends
    before it.  In a later term the heartbeat would not have come this far.

    So the disk has lost it, or the directory is an old copy.  Such a node has forgotten promises: if it voted on, a leader without
    committed entries could be elected (Protocol-Aware Recovery, FAST 2018, section 2).
    """
    last = state.log.last_index
    return NodeSuspect(
        f"this node acknowledged entry {message.commit} to the leader of term {message.term}, node {message.sender}, but its log"
        f" ends at {last}: its disk lost entries, or its data directory is an old copy. This node must not vote on these files:"
        f" move its data directory away and {START_ANEW}.",
        acknowledged=int(message.commit),
        last_index=int(last),
        leader=int(message.sender),
        term=int(message.term),
    )
