"""What may leave, and when: no message may say something that this node would not know any more after a crash.

    now       may leave: says nothing beyond what is durable (a leader's Appends: its own disk write runs beside the sending)
    waiting   depends on state that no Persist covers yet
    covered   depends on the outstanding Persist
    after     may leave, but was an answer that had to be durable; goes behind `now`

Votes, vote requests of a new term and append acknowledgements depend on the disk (Raft, figure 2: persistent state is updated
before responding).  So does anything at all that is said in a term which the disk does not have.  Rejections are held as well:
they may rest on a vote or an entry that a crash would undo.

A node's own vote travels the same way, addressed to itself: it counts when it is durable, as everybody else's does.

At most one Persist is outstanding.  What gathers meanwhile goes into the next one: group commit.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coord_core.raft.messages import AppendReply, Entry, HardState, Message, SnapshotMetadata, VoteReply
from coord_core.types import LogIndex, Term

if TYPE_CHECKING:
    from coord_core.raft.state import State


@dataclass(frozen=True, slots=True)
class PersistAck:
    """What the driver gives back when a Persist is durable.  Its facts must equal the outstanding one's, or it is ignored."""

    term: Term
    last_index: LogIndex
    last_term: Term
    #: Counts the Persists of this node's life: an acknowledgement that comes twice must not stand for the next write.
    number: int = 0


@dataclass(frozen=True, slots=True)
class Persist:
    """One transaction: all of it becomes durable, or none."""

    #: Contiguous.  `entries[0].index` may lie at or below the last stored index, and then replaces that suffix.
    entries: tuple[Entry, ...]
    #: None where it did not change.  Its commit never exceeds the last index of the same transaction.
    hard_state: HardState | None
    ack: PersistAck
    #: Not None: the log begins anew after it; `entries` follow it, everything stored before goes.
    snapshot: SnapshotMetadata | None = None
    #: With `async_storage_writes` only: sent by the driver when this is durable, those to this node stepped back into it.
    replies: tuple[Message, ...] = ()


@dataclass(slots=True)
class Outbox:
    """The queues, and what the disk is known and about to have."""

    #: On the disk.
    durable: HardState
    #: On the disk, or in the outstanding Persist.
    taken: HardState
    outstanding: Persist | None = None
    #: Persists given out so far.
    number: int = 0
    now: list[Message] = field(default_factory=list)
    waiting: list[Message] = field(default_factory=list)
    covered: list[Message] = field(default_factory=list)
    after: list[Message] = field(default_factory=list)
    #: This node's votes for itself, durable, to be counted.
    own: list[VoteReply] = field(default_factory=list)
    #: With `async_storage_writes` only (`pipeline.py`): the highest number acknowledged, and the snapshot last given out, with
    #: the number of its Persist.
    acknowledged: int = 0
    installing: SnapshotMetadata | None = None
    installing_number: int = 0


def send(state: "State", message: Message) -> None:
    """Send what depends on nothing but this node's term."""
    outbox = state.outbox
    if outbox.durable.term == state.term or state.config.async_storage_writes:
        outbox.now.append(message)
    else:
        send_after_persist(state, message)


def send_after_persist(state: "State", message: Message) -> None:
    """Send what depends on everything this node has accepted so far."""
    outbox = state.outbox
    if is_dirty(state) or state.config.async_storage_writes:
        outbox.waiting.append(message)
    elif outbox.outstanding is not None:
        outbox.covered.append(message)
    else:
        _release(state, [message])


def acknowledge_own(state: "State") -> None:
    """With `async_storage_writes` a leader acknowledges its new entries to itself; otherwise `persisted` says it all."""
    if state.config.async_storage_writes:
        own = state.node_id
        send_after_persist(state, AppendReply(sender=own, to=own, term=state.term, index=state.log.last_index))


def is_dirty(state: "State") -> bool:
    """Tell whether something must be written that no Persist covers.

    A risen commit index alone is not worth a write, unless the driver wants it to be durable.
    """
    taken, log = state.outbox.taken, state.log
    if taken.commit < state.commit_to_keep <= log.persisting:
        return True
    if log.persisting < log.last_index or taken.term != state.term or taken.voted_for != state.voted_for:
        return True
    outstanding = state.outbox.outstanding
    return log.installing is not None and (outstanding is None or outstanding.snapshot is not log.installing)


def take_persist(state: "State") -> Persist | None:
    """Return the next transaction, or None while one is outstanding or nothing must be written."""
    outbox, log = state.outbox, state.log
    if outbox.outstanding is not None or not is_dirty(state):
        return None
    entries = log.take_unpersisted()
    hard_state = state.hard_state()
    outbox.number += 1
    persist = Persist(
        entries=entries,
        hard_state=hard_state if hard_state != outbox.taken else None,
        ack=PersistAck(state.term, log.last_index, log.last_term, outbox.number),
        snapshot=log.installing,
    )
    outbox.taken, outbox.outstanding = hard_state, persist
    outbox.covered, outbox.waiting = outbox.waiting, []
    return persist


def take_messages(state: "State") -> list[Message]:
    """Return what may leave."""
    outbox = state.outbox
    messages = outbox.now
    outbox.now = []
    if outbox.after:
        messages.extend(outbox.after)
        outbox.after = []
    return messages


def take_own(state: "State") -> list[VoteReply]:
    """Return this node's votes for itself that count from now on."""
    if not state.outbox.own:
        return []
    own, state.outbox.own = state.outbox.own, []
    return own


def _release(state: "State", messages: list[Message]) -> None:
    outbox = state.outbox
    for message in messages:
        if message.to != state.node_id:
            outbox.after.append(message)
        elif isinstance(message, VoteReply):
            outbox.own.append(message)


def persisted(state: "State", ack: PersistAck) -> bool:
    """The outstanding Persist is durable; false where `ack` is not its own.

    The log knows which part of it still stands: where a suffix was replaced while the write was under way, only the part before
    counts, even if the same index and term have come back since (the ABA hazard of asynchronous writes).
    """
    outbox = state.outbox
    outstanding = outbox.outstanding
    if outstanding is None or outstanding.ack != ack:
        return False
    outbox.outstanding = None
    outbox.durable = outbox.taken
    state.log.persisted()
    if outstanding.snapshot is not None and outstanding.snapshot is state.log.installing:
        state.log.installing = None
    _release(state, outbox.covered)
    outbox.covered = []
    return True
