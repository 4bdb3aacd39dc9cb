"""Locks: one holder, a queue of waiters in order of arrival, a fencing token a grant.

Rules:
- A lock exists (its name is bound) exactly while somebody holds it or it is closed.  Whoever frees it grants it to the first waiter
  in the same entry, or drops it, or closes it.  So there is no free lock with waiters.
- *Closed*: nobody holds it, nobody gets it yet.  It was given back with a quarantine; or its holder, which had asked for a delay,
  ended without giving it back; or a process that was replaced may still believe in it.  A timer opens it in cluster time.
- A token is the index of the entry that granted it.  No entry grants one lock twice: all waiters that end in an entry leave their
  queues before anything is given back, so nobody inherits who would lose it again at once; and what a timer opens is granted at the
  end of the entry, after its command (`open_due`).
- Owners are for people; nothing here looks into them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec

from coord_core import errors
from coord_core.machine import refusals
from coord_core.machine.bounds import WAITERS_NAMED_MAX
from coord_core.machine.claims import (
    CLAIM_ROW_BYTES,
    Claim,
    ClaimRow,
    Claims,
    Queued,
    add,
    check_wait,
    claim_row,
    claim_state,
    first,
    in_order,
    owner_of,
    queue,
    remove,
)
from coord_core.machine.detached import Detached
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.names import Names
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.stream import decode
from coord_core.machine.streams import Streams
from coord_core.machine.timers import Timer, TimerRow, Timers
from coord_core.protocol.locks import (
    CLOSED_MS_MAX,
    REASON_BYTES_MAX,
    ListedLock,
    LockBreak,
    LockBroken,
    LockChanged,
    LockClosure,
    LockParty,
)
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.protocol.queries import LockInfo, LockState
from coord_core.protocol.results import Done, Failed, Granted, NotGranted, Result
from coord_core.types import FencingToken, RequestNumber

_DONE = Done()


class Closure:
    """Why a lock is closed, and after whom."""

    __slots__ = ("owner", "reason", "timer", "token")

    def __init__(self, reason: str, token: FencingToken, owner: Owner) -> None:
        self.reason = reason
        #: Of the last holder, as the owner is.
        self.token = token
        self.owner = owner
        #: None once due: only until the end of that entry.
        self.timer: Timer | None = None


class Lock(Queued):
    __slots__ = ("broken", "closed", "holder")

    kind: ClassVar[str] = "lock"

    def __init__(self, holder: Claim | None) -> None:
        #: None exactly while it is closed.
        self.holder = holder
        self.waiters = None
        self.closed: Closure | None = None
        #: How it was last taken from its holder, which may not know yet.  Forgotten with the name.
        self.broken: LockBroken | None = None

    def has_room(self, permits: int) -> bool:
        return False  # there is no free lock


class ClosureRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A closure in a snapshot."""

    reason: str
    token: FencingToken
    owner: Owner
    timer: TimerRow


class LockRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lock in a snapshot."""

    path: str
    holder: ClaimRow | None
    #: In order of arrival.
    waiters: list[ClaimRow]
    closed: ClosureRow | None = None
    broken: LockBroken | None = None


_decode = msgspec.msgpack.Decoder(list[LockRow]).decode


class Locks(Claims):
    __slots__ = ("_due", "_streams")

    noun = "lock"

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, timers: Timers, streams: Streams) -> None:
        super().__init__(entry, sessions, names, timers)
        self._streams = streams
        # What timers opened in the present entry.
        self._due: list[tuple[str, Closure]] = []

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {LockAcquire: self._acquire, LockRelease: self._release, LockBreak: self._break}

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {LockInfo: self._info}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {Lock.kind: self._state}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _acquire(self, attachment: Attachment, request: RequestNumber, operation: LockAcquire) -> Result | None:
        owner = operation.owner
        if owner == attachment.owner:
            owner = attachment.owner  # as `owner_of` does, in the hottest path
        else:
            fault = refusals.check_owner(owner)
            if fault is not None:
                return fault
        if operation.wait_ms or operation.delay_ms:
            fault = check_wait(operation.wait_ms) or _check_closed_ms("delay_ms", operation.delay_ms)
            if fault is not None:
                return fault
        lock = self._names.find(operation.path, Lock)
        claim = Claim(operation.path, attachment, request, owner, self._entry.time_ms, operation.delay_ms)
        if lock is None:
            return self._names.bind(claim.path, Lock(claim)) or self._grant(claim)
        if isinstance(lock, Failed):
            return lock
        if attachment.detached is not None:
            return self._take_up(lock, claim, attachment.detached, operation)
        if operation.wait_ms == 0:
            return _not_granted("busy", lock)
        return self._enqueue(lock, claim, operation.wait_ms)

    def _take_up(self, lock: Lock, claim: Claim, detached: Detached, operation: LockAcquire) -> Result | None:
        """Acquire for a detached session: it may hold the lock, or wait for it, already; or a lower attempt may."""
        holder = lock.holder
        places = [place for each in detached.line for place in self._inherited(self._waiting, claim, each)]
        if holder is not None and holder.attachment is claim.attachment and holder.request <= detached.inherited:
            self._give_up(lock, places)
            self._renew(self._held, holder, claim)
            return Granted(holder.token)
        elder = None if holder is None or not detached.is_later_than(holder.attachment.detached) else holder.attachment.detached
        if holder is not None and elder is not None and (operation.fences or self._is_left(holder, elder)):
            self._give_up(lock, places)
            remove(self._held, holder)
            lock.holder = claim
            return self._grant(claim)
        if operation.wait_ms == 0:
            self._give_up(lock, places)
            return _not_granted("busy", lock)
        if places:
            self._give_up(lock, places[1:])
            self._renew_wait(places[0], claim, operation.wait_ms)
        else:
            fault = self._enqueue(lock, claim, operation.wait_ms)
            if fault is not None:
                return fault
        if elder is not None and lock.waiters is not None:
            # Its next: nobody comes between two attempts of the same.
            lock.waiters.move_to_end(places[0] if places else claim, last=False)
        return None

    def _is_left(self, holder: Claim, elder: Detached) -> bool:
        """Whether no process of a lower attempt may believe in what it holds."""
        return not elder.is_attended and not self._believed_ms(holder)

    def _give_up(self, lock: Lock, places: list[Claim]) -> None:
        """A request goes on in the stead of these, or wants none of them: else they would be granted to nobody."""
        for place in places:
            self._stop_waiting(lock, place)
            self._entry.reply(place.attachment, place.request, _not_granted("moved", lock))

    def _release(self, attachment: Attachment, request: RequestNumber, operation: LockRelease) -> Result:
        lock = self._names.find(operation.path, Lock)
        if type(lock) is Failed:
            return lock
        holder = None if lock is None else lock.holder
        if lock is None or holder is None or holder.token != operation.token or holder.attachment is not attachment:
            return _not_holder(operation.path, operation.token, lock)
        if operation.quarantine_ms:
            fault = _check_closed_ms("quarantine_ms", operation.quarantine_ms)
            if fault is not None:
                return fault
        self._free(lock, holder, "quarantine", operation.quarantine_ms)
        return _DONE

    def _break(self, attachment: Attachment, request: RequestNumber, operation: LockBreak) -> Result:
        owner = owner_of(attachment, operation.owner)
        if isinstance(owner, Failed):
            return owner
        lock = _check_reason(operation.reason) or self._names.find(operation.path, Lock)
        if isinstance(lock, Failed):
            return lock
        if lock is not None:
            last = lock.holder or lock.closed
            assert last is not None, "there is no free lock"
            if last.token == operation.token:
                lock.broken = broken = LockBroken(operation.path, last.token, last.owner, owner, operation.reason)
                self._take_away(operation.path, lock)
                return broken
        return _not_holder(operation.path, operation.token, lock)

    # --- what happens to a lock --------------------------------------------------------------------------------------------------

    def _grant(self, claim: Claim) -> Granted:
        assert claim.attachment.alive, "a waiter leaves its queue in the entry that ends its attachment"
        claim.token = token = FencingToken(self._entry.index)
        held = self._held.get(claim.attachment.id)
        if held is None:
            self._held[claim.attachment.id] = {claim.request: claim}  # `add`, without the call: the hottest path
        else:
            add(self._held, claim)
        if self._entry.gates.watched:
            self._entry.gates.granted(claim.path)
        if self._streams.by_name:
            self._streams.emit((Lock.kind, claim.path), LockChanged(self._party(claim)))
        return Granted(token)

    def _give_back(self, lock: Lock, released: Claim) -> None:
        """End the holder's claim; the first waiter, if any, holds the lock from this entry on."""
        remove(self._held, released)
        if lock.waiters is None:
            self._drop(released.path)
        else:
            assert released.token < self._entry.index, "an entry grants a lock once"
            self._promote(lock)

    def _free(self, lock: Lock, claim: Claim, reason: str = "", closed_ms: int = 0) -> None:
        """End the holder's claim, and let nobody have the lock for so long, or while another process may believe in it."""
        if claim.attachment.detached is not None and (believed_ms := self._believed_ms(claim)) > closed_ms:
            reason, closed_ms = "replaced", believed_ms
        if closed_ms:
            self._close(lock, claim, reason, closed_ms)
        else:
            self._give_back(lock, claim)

    def _believed_ms(self, claim: Claim) -> int:
        detached = claim.attachment.detached
        return 0 if detached is None else detached.believed_ms(claim.token, self._entry.time_ms)

    def _take_away(self, path: str, lock: Lock) -> None:
        if lock.holder is not None:
            self._give_back(lock, lock.holder)
        else:
            self._open(path, lock)

    def _promote(self, lock: Lock) -> None:
        successor = next(iter(queue(lock)))
        self._stop_waiting(lock, successor)
        lock.holder = successor
        successor.since_ms = self._entry.time_ms
        self._entry.reply(successor.attachment, successor.request, self._grant(successor))

    def _close(self, lock: Lock, released: Claim, reason: str, duration_ms: int) -> None:
        """End the holder's claim, and let nobody have the lock for a while."""
        remove(self._held, released)
        lock.holder = None
        lock.closed = closure = Closure(reason, released.token, released.owner)
        on_due = partial(self._closed_long_enough, released.path, closure)
        closure.timer = self._timers.set(self._entry.time_ms + duration_ms, on_due)
        if self._streams.by_name:
            self._streams.emit((Lock.kind, released.path), LockChanged(None, self._closure(lock)))

    def _closed_long_enough(self, path: str, closure: Closure) -> None:
        self._names.get(path)  # it changes
        closure.timer = None
        self._due.append((path, closure))
        self._entry.closures_due = True

    def open_due(self) -> None:
        """At the end of an entry: grant what its timers opened."""
        due, self._due = self._due, []
        self._entry.closures_due = False
        for path, closure in due:
            lock = self._names.find(path, Lock)
            # An operator may have been faster.
            if isinstance(lock, Lock) and lock.closed is closure:
                self._open(path, lock)

    def _open(self, path: str, lock: Lock) -> None:
        """Let the first waiter have a closed lock, or forget it.  It was looked up last."""
        assert lock.closed is not None
        if lock.closed.timer is not None:
            self._timers.cancel(lock.closed.timer)
        lock.closed = None
        if lock.waiters is None:
            self._drop(path)
        else:
            self._promote(lock)

    def _drop(self, path: str) -> None:
        self._names.drop(path)
        if self._entry.gates.watched:
            self._entry.gates.has_room(path)
        if self._streams.by_name:
            self._streams.emit((Lock.kind, path), LockChanged(None))

    def _timed_out(self, lock: Lock, claim: Claim) -> None:
        self._stop_waiting(lock, claim)
        self._entry.reply(claim.attachment, claim.request, _not_granted("timeout", lock))

    def _place_of(self, claim: Claim) -> Lock:
        lock = self._names.get(claim.path)
        assert type(lock) is Lock, "a claim's lock exists as long as the claim"
        return lock

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        # In two rounds: a waiter of an ended attachment must be out of the queue before another one's lock is given on.
        self._end_waits(ended, answer)
        for attachment in ended:
            for claim in in_order(self._held, attachment):
                self._free(self._place_of(claim), claim, "delay", claim.terms)

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """Locks and places in queues pass on: see `_take_up`."""

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        if self._withdraw_wait(attachment, request, answer) is not None:
            return True
        claim = self._held_by(attachment, request)
        if claim is None:
            return False
        # It was answered already: only its cached answer changes.
        attachment.window.settle(request, answer)
        self._free(self._place_of(claim), claim)
        return True

    def state(self) -> list[Any]:
        return [_lock_state(path, lock) for path, lock in self.all()]

    @property
    def named(self) -> type[Lock]:
        return Lock

    def row(self, path: str, lock: Lock) -> tuple[LockRow, int]:
        holder = None if lock.holder is None else claim_row(lock.holder)
        waiters = [claim_row(claim) for claim in queue(lock)]
        return LockRow(path, holder, waiters, _closure_row(lock), lock.broken), len(path) + CLAIM_ROW_BYTES * (1 + len(waiters))

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[LockRow] = decode(_decode, rows)
        for row in found:
            lock = Lock(None if row.holder is None else self._restored(row.path, row.holder, self._held))
            self._restore_queue(row.path, lock, row.waiters)
            lock.broken = row.broken
            if row.closed is not None:
                lock.closed = closure = Closure(row.closed.reason, row.closed.token, row.closed.owner)
                on_due = partial(self._closed_long_enough, row.path, closure)
                closure.timer = self._timers.restore(row.closed.timer, on_due)
            self._names.restore(row.path, lock)
        return len(found)

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Lock]]:
        """Return every lock with its path, in order of paths."""
        return self._names.of_type(Lock)

    def listed(self, path: str, lock: Lock) -> ListedLock:
        holder = None if lock.holder is None else self._party(lock.holder)
        return ListedLock(path, Lock.kind, 1, int(holder is not None), holder, len(queue(lock)), self._closure(lock))

    def _info(self, query: LockInfo) -> LockState | Failed:
        return self._state(query.path, query.waiters_max)

    def _state(self, path: str, waiters_max: int = 0) -> LockState | Failed:
        lock = self._names.find(path, Lock)
        if lock is None:
            return LockState(None, (), 0)
        if isinstance(lock, Failed):
            return lock
        waiters = tuple(map(self._party, first(queue(lock), min(waiters_max, WAITERS_NAMED_MAX))))
        holder = None if lock.holder is None else self._party(lock.holder)
        return LockState(holder, waiters, len(queue(lock)), self._closure(lock))

    def _party(self, claim: Claim) -> LockParty:
        since_ms = self._entry.time_ms - claim.since_ms
        return LockParty(claim.attachment.session, claim.attachment.number, claim.owner, since_ms, claim.token)

    def _closure(self, lock: Lock) -> LockClosure | None:
        closed = lock.closed
        if closed is None or closed.timer is None:
            return None
        return LockClosure(closed.reason, closed.token, closed.owner, closed.timer.deadline_ms - self._entry.time_ms)


def _check_closed_ms(field: str, duration_ms: int) -> Failed | None:
    if not 0 <= duration_ms <= CLOSED_MS_MAX:
        return refusals.invalid(field, f"must be between 0 and {CLOSED_MS_MAX} ms")
    return None


def _check_reason(reason: str) -> Failed | None:
    length = refusals.utf8_length(reason)
    if length < 1:
        return refusals.invalid("reason", "must be given, and be UTF-8")
    if length > REASON_BYTES_MAX:
        return refusals.over_limit("bytes of a reason", REASON_BYTES_MAX, length)
    return None


def _not_holder(path: str, token: FencingToken, lock: Lock | None) -> Failed:
    broken = None if lock is None else lock.broken
    if broken is None or broken.token != token:
        message = f"{path} is not held by this attachment under token {token}"
        return refusals.refuse(errors.NotHolder, message, path=path, token=token)
    by = f"{broken.by.host}:{broken.by.pid}" + (f" {broken.by.label}" if broken.by.label else "")
    message = f"{path} was taken from token {token} by {by}: {broken.reason}"
    return refusals.refuse(errors.NotHolder, message, path=path, token=token, broken_by=by, reason=broken.reason)


def _not_granted(reason: str, lock: Lock) -> NotGranted:
    if lock.holder is not None:
        return NotGranted(reason, lock.holder.owner, lock.holder.token, len(queue(lock)))
    return NotGranted("closed" if reason == "busy" else reason, waiters=len(queue(lock)))


def _lock_state(path: str, lock: Lock) -> tuple[Any, ...]:
    holder = None if lock.holder is None else claim_state(lock.holder)
    state = (path, holder, [claim_state(claim) for claim in queue(lock)])
    if lock.closed is None and lock.broken is None:
        return state
    return (*state, _closure_row(lock), lock.broken)


def _closure_row(lock: Lock) -> ClosureRow | None:
    closed = lock.closed
    if closed is None:
        return None
    assert closed.timer is not None, "what is due is opened before the entry ends"
    return ClosureRow(closed.reason, closed.token, closed.owner, closed.timer.row())
