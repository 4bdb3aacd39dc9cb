"""Locks: one holder, a queue of waiters in order of arrival, a fencing token a grant.

Rules:
- A lock exists (its name is bound) exactly while somebody holds it; whoever frees it grants it to the first waiter in the same
  entry or drops it.  So there is no free lock with waiters.
- A token is the index of the entry that granted it.  No entry grants one lock twice: all waiters that end in an entry leave their
  queues before anything is given back, so nobody inherits who would lose it again at once, and timers never grant.
- A claim belongs to (attachment, request): two requests of one attachment exclude each other like strangers.
- Owners are for people; nothing here looks into them.
"""

from collections import OrderedDict
from collections.abc import Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias

import msgspec

from coord_core import errors
from coord_core.machine import refusals
from coord_core.machine.bounds import WAITERS_MAX, WAITERS_NAMED_MAX, WAITERS_PER_LOCK_MAX
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.names import Named, Names
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.spread import SPREAD_AT, spread
from coord_core.machine.stream import decode
from coord_core.machine.timers import Timer, TimerRow, Timers
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.protocol.queries import LockInfo, LockParty, LockState
from coord_core.protocol.results import Done, Failed, Granted, NotGranted, Result
from coord_core.types import AttachmentId, FencingToken, RequestNumber

_NOT_GRANTED = FencingToken(0)
_DONE = Done()


class Claim:
    """One request's claim to one lock: first it waits, perhaps, then it holds."""

    __slots__ = ("attachment", "owner", "path", "request", "since_ms", "timer", "token")

    def __init__(self, path: str, attachment: Attachment, request: RequestNumber, owner: Owner, since_ms: int) -> None:
        self.path = path
        self.attachment = attachment
        self.request = request
        self.owner = owner
        #: Cluster time at which it began to wait, or was granted.
        self.since_ms = since_ms
        #: 0 while it waits.
        self.token = _NOT_GRANTED
        #: Set while it waits and its patience is limited.
        self.timer: Timer | None = None


class Lock(Named):
    __slots__ = ("holder", "waiters")

    kind: ClassVar[str] = "lock"

    def __init__(self, holder: Claim) -> None:
        self.holder = holder
        #: In order of arrival; an OrderedDict gives up its first and any other in constant time.  None, never empty, while nobody
        #: waits: most locks are never waited for.
        self.waiters: OrderedDict[Claim, None] | None = None


class ClaimRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A claim in a snapshot.  The path is its lock's."""

    attachment: AttachmentId
    request: RequestNumber
    #: None: the attachment's.
    owner: Owner | None
    since_ms: int
    token: FencingToken
    timer: TimerRow | None


class LockRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lock in a snapshot."""

    path: str
    holder: ClaimRow
    #: In order of arrival.
    waiters: list[ClaimRow]


_decode = msgspec.msgpack.Decoder(list[LockRow]).decode

#: About what a row takes besides the path, and for each waiter.
_ROW_BYTES = 48

#: The claims of each attachment that has any, by request.
_Index: TypeAlias = dict[AttachmentId, MutableMapping[RequestNumber, Claim]]


class Locks:
    __slots__ = ("_entry", "_held", "_names", "_sessions", "_timers", "_waiters_total", "_waiting")

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, timers: Timers) -> None:
        self._entry = entry
        self._sessions = sessions
        self._names = names
        self._timers = timers
        # Every claim is in exactly one of the two: in `_held` once it has a token.
        self._held: _Index = {}
        self._waiting: _Index = {}
        self._waiters_total = 0

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {LockAcquire: self._acquire, LockRelease: self._release}

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {LockInfo: self._info}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _acquire(self, attachment: Attachment, request: RequestNumber, operation: LockAcquire) -> Result | None:
        owner = operation.owner
        if owner == attachment.owner:
            # Nearly always, and then a million held locks share one record; it was checked when the attachment was opened.
            owner = attachment.owner
        else:
            fault = refusals.check_owner(owner)
            if fault is not None:
                return fault
        wait_ms = operation.wait_ms
        if wait_ms is not None and wait_ms != 0:
            fault = refusals.check_duration("wait_ms", wait_ms, 0)
            if fault is not None:
                return fault
        lock = self._names.find(operation.path, Lock)
        claim = Claim(operation.path, attachment, request, owner, self._entry.time_ms)
        if lock is None:
            return self._names.bind(claim.path, Lock(claim)) or self._grant(claim)
        if isinstance(lock, Failed):
            return lock
        if wait_ms == 0:
            return _not_granted("busy", lock)
        return self._enqueue(lock, claim, wait_ms)

    def _release(self, attachment: Attachment, request: RequestNumber, operation: LockRelease) -> Result:
        lock = self._names.find(operation.path, Lock)
        if isinstance(lock, Failed):
            return lock
        if lock is None or lock.holder.token != operation.token or lock.holder.attachment is not attachment:
            message = f"{operation.path} is not held by this attachment under token {operation.token}"
            return refusals.refuse(errors.NotHolder, message, path=operation.path, token=operation.token)
        self._give_back(lock)
        return _DONE

    # --- what happens to a claim -------------------------------------------------------------------------------------------------

    def _grant(self, claim: Claim) -> Granted:
        attachment = claim.attachment
        assert attachment.alive, "a waiter leaves its queue in the entry that ends its attachment"
        claim.token = token = FencingToken(self._entry.index)
        held = self._held.get(attachment.id)
        if held is None:
            self._held[attachment.id] = {claim.request: claim}
        else:
            held[claim.request] = claim
            if len(held) == SPREAD_AT:
                self._held[attachment.id] = spread(held)
        return Granted(token)

    def _enqueue(self, lock: Lock, claim: Claim, wait_ms: int | None) -> Failed | None:
        ahead = len(_queue(lock))
        if ahead >= WAITERS_PER_LOCK_MAX:
            return refusals.over_limit("waiters of a lock", WAITERS_PER_LOCK_MAX, ahead + 1)
        if self._waiters_total >= WAITERS_MAX:
            return refusals.over_limit("waiters of all locks", WAITERS_MAX, self._waiters_total + 1)
        if lock.waiters is None:
            lock.waiters = OrderedDict()
        lock.waiters[claim] = None
        self._waiters_total += 1
        _index(self._waiting, claim)
        if wait_ms is not None:
            claim.timer = self._timers.set(self._entry.time_ms + wait_ms, partial(self._timed_out, claim))
        return None

    def _stop_waiting(self, lock: Lock, claim: Claim) -> None:
        """Take a waiter out of its queue, wherever in it it stands."""
        waiters = lock.waiters
        assert waiters is not None, "a waiting claim is in its lock's queue"
        del waiters[claim]
        if not waiters:
            lock.waiters = None
        self._waiters_total -= 1
        _remove(self._waiting, claim)
        if claim.timer is not None:
            self._timers.cancel(claim.timer)
            claim.timer = None

    def _give_back(self, lock: Lock) -> None:
        """End the holder's claim; the first waiter, if any, holds the lock from this entry on."""
        released = lock.holder
        _remove(self._held, released)
        waiters = lock.waiters
        if waiters is None:
            self._names.drop(released.path)
            return
        successor = next(iter(waiters))
        self._stop_waiting(lock, successor)
        assert released.token < self._entry.index, "an entry grants a lock once"
        lock.holder = successor
        successor.since_ms = self._entry.time_ms
        self._entry.reply(successor.attachment, successor.request, self._grant(successor))

    def _timed_out(self, claim: Claim) -> None:
        lock = self._lock_of(claim)
        claim.timer = None
        self._stop_waiting(lock, claim)
        self._entry.reply(claim.attachment, claim.request, _not_granted("timeout", lock))

    def _lock_of(self, claim: Claim) -> Lock:
        lock = self._names.get(claim.path)
        assert type(lock) is Lock, "a claim's lock exists as long as the claim"
        return lock

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        # In two rounds: a waiter of an ended attachment must be out of the queue before another one's lock is given on.
        for attachment in ended:
            for claim in _in_order(self._waiting, attachment):
                self._stop_waiting(self._lock_of(claim), claim)
                self._entry.reply(attachment, claim.request, answer)
        for attachment in ended:
            for claim in _in_order(self._held, attachment):
                self._give_back(self._lock_of(claim))

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        waiting = self._waiting.get(attachment.id)
        if waiting is not None and request in waiting:
            claim = waiting[request]
            self._stop_waiting(self._lock_of(claim), claim)
            self._entry.reply(attachment, request, answer)
            return True
        held = self._held.get(attachment.id)
        if held is not None and request in held:
            # It was answered already: only its cached answer changes.
            attachment.window.settle(request, answer)
            self._give_back(self._lock_of(held[request]))
            return True
        return False

    def holdings(self, attachment: Attachment) -> int:
        return len(self._held.get(attachment.id, ()))

    def state(self) -> list[Any]:
        return [(path, _claim_state(lock.holder), [_claim_state(claim) for claim in _queue(lock)]) for path, lock in self.all()]

    @property
    def named(self) -> type[Lock]:
        return Lock

    def row(self, path: str, lock: Lock) -> tuple[LockRow, int]:
        waiters = [_claim_row(claim) for claim in _queue(lock)]
        return LockRow(path, _claim_row(lock.holder), waiters), len(path) + _ROW_BYTES * (1 + len(waiters))

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[LockRow] = decode(_decode, rows)
        for row in found:
            self._restore(row)
        return len(found)

    def _restore(self, row: LockRow) -> None:
        lock = Lock(self._restored_claim(row.path, row.holder, self._held))
        if row.waiters:
            lock.waiters = OrderedDict.fromkeys(self._restored_claim(row.path, claim, self._waiting) for claim in row.waiters)
            self._waiters_total += len(row.waiters)
        self._names.restore(row.path, lock)

    def _restored_claim(self, path: str, row: ClaimRow, index: _Index) -> Claim:
        attachment = self._sessions.attachment(row.attachment)
        claim = Claim(path, attachment, row.request, row.owner or attachment.owner, row.since_ms)
        claim.token = row.token
        if row.timer is not None:
            claim.timer = self._timers.restore(row.timer, partial(self._timed_out, claim))
        _index(index, claim)
        return claim

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Lock]]:
        """Return every lock with its path, in order of paths."""
        return self._names.of_type(Lock)

    def _info(self, query: LockInfo) -> LockState | Failed:
        lock = self._names.find(query.path, Lock)
        if lock is None:
            return LockState(None, (), 0)
        if isinstance(lock, Failed):
            return lock
        named = max(0, min(query.waiters_max, WAITERS_NAMED_MAX))
        waiters = tuple(self._party(claim) for claim, _ in zip(_queue(lock), range(named), strict=False))
        return LockState(self._party(lock.holder), waiters, len(_queue(lock)))

    def _party(self, claim: Claim) -> LockParty:
        since_ms = self._entry.time_ms - claim.since_ms
        return LockParty(claim.attachment.session, claim.attachment.id, claim.owner, since_ms, claim.token)


def _index(index: _Index, claim: Claim) -> None:
    number = claim.attachment.id
    claims = index.setdefault(number, {})
    claims[claim.request] = claim
    if len(claims) == SPREAD_AT:
        index[number] = spread(claims)


def _remove(index: _Index, claim: Claim) -> None:
    claims = index[claim.attachment.id]
    del claims[claim.request]
    if not claims:
        del index[claim.attachment.id]


def _in_order(index: _Index, attachment: Attachment) -> list[Claim]:
    """Return the attachment's claims in order of their requests."""
    claims = index.get(attachment.id)
    return [] if claims is None else [claims[request] for request in sorted(claims)]


def _queue(lock: Lock) -> Mapping[Claim, None]:
    return {} if lock.waiters is None else lock.waiters


def _not_granted(reason: str, lock: Lock) -> NotGranted:
    return NotGranted(reason, lock.holder.owner, lock.holder.token, len(_queue(lock)))


def _claim_state(claim: Claim) -> tuple[Any, ...]:
    timer = None if claim.timer is None else claim.timer.row()
    owner = msgspec.structs.astuple(claim.owner)
    return claim.attachment.id, claim.request, owner, claim.since_ms, claim.token, timer


def _claim_row(claim: Claim) -> ClaimRow:
    attachment = claim.attachment
    # Nearly always the same record; so a million locks of one process do not repeat its name.
    owner = None if claim.owner is attachment.owner else claim.owner
    timer = None if claim.timer is None else claim.timer.row()
    return ClaimRow(attachment.id, claim.request, owner, claim.since_ms, claim.token, timer)
