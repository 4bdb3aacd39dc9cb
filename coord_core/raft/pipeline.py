"""Several writes under way at once: what `async_storage_writes` changes about leaving and being durable.

With one outstanding Persist (`outbox.py`) a write begins when the one before it is durable.  A driver with a writer of its own
may instead queue them, as etcd/raft's option of the same name has it; its scenarios show that option, and this file follows
them:

- A Persist comes whenever something is new, a risen commit index too, however many are under way.
- It carries `replies`: what may be said only when it is durable.  The driver sends them then, past `ready()`; those that are
  addressed to this node it steps back into it, so that a vote for oneself and a leader's own entries count like anybody else's.
- Everything else leaves at once, even in a term that the disk does not have: only what votes or acknowledges waits.
- What is committed is handed out when it is on this node's own disk, and no more than `max_committed_bytes` of it unapplied.

The price is a promise less: a candidate's question leaves before its vote for itself is durable, so a late answer may reach it
after a crash, in the same term again.  This project's own driver leaves the option off.

The rule: writes become durable in the order of their numbers, and an acknowledgement says only what still stands.  One whose term
is over may speak of entries that a later write replaces on the disk, even if the same index and term have come back since (the
ABA hazard); it is passed over, and the next Persist's acknowledgement speaks for those entries again.
"""

from coord_core.raft.outbox import Persist, PersistAck
from coord_core.raft.state import State
from coord_core.raft.zero import NO_TERM, START

#: Writes under way before the next waits for an acknowledgement; what gathers meanwhile goes into it.
MAX_UNDER_WAY = 4096


def take_persist(state: State) -> Persist | None:
    """Return the next transaction, or None where nothing is new."""
    outbox, log = state.outbox, state.log
    if outbox.number - outbox.acknowledged >= MAX_UNDER_WAY:
        return None
    hard_state = state.hard_state()
    snapshot = log.installing if log.installing is not outbox.installing else None
    if not (outbox.waiting or snapshot is not None or hard_state != outbox.taken or log.persisting < log.last_index):
        return None
    entries = log.take_unpersisted()
    outbox.number += 1
    if snapshot is not None:
        outbox.installing, outbox.installing_number = snapshot, outbox.number
    replies, outbox.waiting = tuple(outbox.waiting), []
    persist = Persist(
        entries=entries,
        hard_state=hard_state if hard_state != outbox.taken else None,
        ack=_ack(state),
        snapshot=snapshot,
        replies=replies,
    )
    outbox.taken = hard_state
    return persist


def _ack(state: State) -> PersistAck:
    # It speaks for all entries not known to be durable, not only for its own: those of a write whose acknowledgement was passed
    # over would never be otherwise.
    outbox, log = state.outbox, state.log
    if log.durable < log.last_index:
        return PersistAck(state.term, log.last_index, log.last_term, outbox.number)
    return PersistAck(state.term, START, NO_TERM, outbox.number)


def persisted(state: State, ack: PersistAck) -> None:
    """The Persist of `ack`, and all before it, are durable.  One that was never given out is ignored."""
    outbox, log = state.outbox, state.log
    if not 0 < ack.number <= outbox.number:
        return
    outbox.acknowledged = max(outbox.acknowledged, ack.number)
    if ack.number == outbox.installing_number and outbox.installing is log.installing:
        # A snapshot is committed whatever the term: it stands.
        log.installing = None
    if ack.term == state.term:
        log.stable_to(ack.last_index, ack.last_term)
