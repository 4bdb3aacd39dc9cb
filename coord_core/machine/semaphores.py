"""Semaphores: a number of permits, holders who took some, a queue of those who want some.

Rules:
- Strictly in order of arrival: nobody passes the first who waits, however few permits he wants.
- A semaphore exists while somebody holds or waits, or while its limit is set.  How many permits there are is said by whoever binds
  the name, and changed only by `SemaphoreSetLimit`.
- A token is the index of the entry that asked.  One entry may let several go on, so the index of the grant would not name one.
- Fewer permits than are taken: nobody loses any.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from coord_core import errors
from coord_core.machine import refusals
from coord_core.machine.claims import (
    CLAIM_ROW_BYTES,
    Claim,
    ClaimRow,
    Claims,
    Index,
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
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.sessions import Attachment
from coord_core.machine.stream import decode
from coord_core.protocol.locks import ListedLock, LockParty
from coord_core.protocol.results import Done, Failed, NotGranted, Result
from coord_core.protocol.semaphores import (
    PARTIES_NAMED_MAX,
    PERMITS_MAX,
    PermitsGranted,
    SemaphoreAcquire,
    SemaphoreInfo,
    SemaphoreParty,
    SemaphoreRelease,
    SemaphoreSetLimit,
    SemaphoreState,
)
from coord_core.types import FencingToken, RequestNumber

_DONE = Done()


class Semaphore(Queued):
    __slots__ = ("holders", "is_set", "limit", "taken")

    kind: ClassVar[str] = "semaphore"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: The limit is kept though nobody holds or waits.
        self.is_set = False
        #: Permits of all holders together.
        self.taken = 0
        #: In order of their grants, which is that of their tokens.
        self.holders: dict[FencingToken, Claim] = {}
        self.waiters = None

    def has_room(self, permits: int) -> bool:
        return self.waiters is None and self.taken + permits <= self.limit


class SemaphoreRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A semaphore in a snapshot."""

    path: str
    limit: int
    is_set: bool
    holders: list[ClaimRow]
    waiters: list[ClaimRow]


_decode = msgspec.msgpack.Decoder(list[SemaphoreRow]).decode


class Semaphores(Claims):
    __slots__ = ()

    noun = "semaphore"

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {SemaphoreAcquire: self._acquire, SemaphoreRelease: self._release, SemaphoreSetLimit: self._set_limit}

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {SemaphoreInfo: self._info}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _acquire(self, attachment: Attachment, request: RequestNumber, operation: SemaphoreAcquire) -> Result | None:
        owner = owner_of(attachment, operation.owner)
        if isinstance(owner, Failed):
            return owner
        fault = check_wait(operation.wait_ms) or _check_permits(operation)
        if fault is not None:
            return fault
        semaphore = self._names.find(operation.path, Semaphore)
        if isinstance(semaphore, Failed):
            return semaphore
        claim = Claim(operation.path, attachment, request, owner, self._entry.time_ms, operation.permits)
        claim.token = FencingToken(self._entry.index)
        if semaphore is None:
            semaphore = Semaphore(operation.limit)
            return self._names.bind(claim.path, semaphore) or self._grant(semaphore, claim)
        if attachment.detached is not None:
            found = self._take_up(claim, operation.wait_ms)
            if found is not None:
                return PermitsGranted(found.token) if found.token in semaphore.holders else None
        if semaphore.waiters is None and _has_room(semaphore, claim):
            return self._grant(semaphore, claim)
        if operation.wait_ms == 0:
            return _not_granted("busy", semaphore)
        return self._enqueue(semaphore, claim, operation.wait_ms)

    def _take_up(self, claim: Claim, wait_ms: int | None) -> Claim | None:
        """Return what a detached session has there already, now the request's; None: nothing of that many permits."""
        held = self._of_as_many(self._held, claim)
        if held is not None:
            self._renew(self._held, held, claim)
            return held
        waiting = self._of_as_many(self._waiting, claim)
        if waiting is None or wait_ms == 0:
            return None
        self._renew_wait(waiting, claim, wait_ms)
        return waiting

    def _of_as_many(self, index: Index, claim: Claim) -> Claim | None:
        return next((found for found in self._inherited(index, claim, claim.attachment) if found.terms == claim.terms), None)

    def _release(self, attachment: Attachment, request: RequestNumber, operation: SemaphoreRelease) -> Result:
        semaphore = self._names.find(operation.path, Semaphore)
        if isinstance(semaphore, Failed):
            return semaphore
        claim = None if semaphore is None else semaphore.holders.get(operation.token)
        if semaphore is None or claim is None or claim.attachment is not attachment:
            message = f"nothing of {operation.path} is held by this attachment under token {operation.token}"
            return refusals.refuse(errors.NotHolder, message, path=operation.path, token=operation.token)
        self._give_back(semaphore, claim)
        self._go_on(claim.path, semaphore)
        return _DONE

    def _set_limit(self, attachment: Attachment, request: RequestNumber, operation: SemaphoreSetLimit) -> Result:
        limit = operation.limit
        if limit is not None and not 0 <= limit <= PERMITS_MAX:
            return refusals.invalid("limit", f"must be between 0 and {PERMITS_MAX}")
        semaphore = self._names.find(operation.path, Semaphore)
        if isinstance(semaphore, Failed):
            return semaphore
        if semaphore is None:
            if limit is None:
                return _DONE
            semaphore = Semaphore(limit)
            fault = self._names.bind(operation.path, semaphore)
            if fault is not None:
                return fault
        semaphore.is_set = limit is not None
        semaphore.limit = semaphore.limit if limit is None else limit
        self._go_on(operation.path, semaphore)
        return _DONE

    # --- what happens to a semaphore ---------------------------------------------------------------------------------------------

    def _grant(self, semaphore: Semaphore, claim: Claim) -> PermitsGranted:
        assert claim.attachment.alive, "a waiter leaves its queue in the entry that ends its attachment"
        semaphore.holders[claim.token] = claim
        semaphore.taken += claim.terms
        claim.since_ms = self._entry.time_ms
        add(self._held, claim)
        if self._entry.gates.watched:
            self._entry.gates.granted(claim.path)
        return PermitsGranted(claim.token)

    def _give_back(self, semaphore: Semaphore, claim: Claim) -> None:
        del semaphore.holders[claim.token]
        semaphore.taken -= claim.terms
        remove(self._held, claim)

    def _go_on(self, path: str, semaphore: Semaphore) -> None:
        """Let those who wait go on as far as there are permits; forget a semaphore that nobody needs.  It was looked up last."""
        if self._entry.gates.watched:
            self._entry.gates.has_room(path)
        while semaphore.waiters is not None:
            claim = next(iter(semaphore.waiters))
            if not _has_room(semaphore, claim):
                return
            self._stop_waiting(semaphore, claim)
            self._entry.reply(claim.attachment, claim.request, self._grant(semaphore, claim))
        if not semaphore.holders and not semaphore.is_set:
            self._names.drop(path)

    def _timed_out(self, semaphore: Semaphore, claim: Claim) -> None:
        self._stop_waiting(semaphore, claim)
        self._entry.reply(claim.attachment, claim.request, _not_granted("timeout", semaphore))
        # It may have been the first, and have wanted more than the next one does.
        self._go_on(claim.path, semaphore)

    def _place_of(self, claim: Claim) -> Semaphore:
        semaphore = self._names.get(claim.path)
        assert type(semaphore) is Semaphore, "a claim's semaphore exists as long as the claim"
        return semaphore

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        # All that end have left before anybody goes on.
        gone = self._end_waits(ended, answer)
        for attachment in ended:
            for claim in in_order(self._held, attachment):
                self._give_back(self._place_of(claim), claim)
                gone.append(claim)
        for path in dict.fromkeys(claim.path for claim in gone):
            semaphore = self._names.get(path)
            assert isinstance(semaphore, Semaphore), "dropped at its first turn, which is its only one"
            self._go_on(path, semaphore)

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """Permits and places in queues pass on: see `_take_up`."""

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        waiting = self._waiting.get(attachment.id, {})
        path = waiting[request].path if request in waiting else ""
        semaphore: Semaphore | None = self._withdraw_wait(attachment, request, answer)
        if semaphore is None:
            claim = self._held_by(attachment, request)
            if claim is None:
                return False
            # It was answered already: only its cached answer changes.
            attachment.window.settle(request, answer)
            path, semaphore = claim.path, self._place_of(claim)
            self._give_back(semaphore, claim)
        self._go_on(path, semaphore)
        return True

    def state(self) -> list[Any]:
        return [
            (path, it.limit, it.is_set, list(map(claim_state, it.holders.values())), list(map(claim_state, queue(it))))
            for path, it in self.all()
        ]

    @property
    def named(self) -> type[Semaphore]:
        return Semaphore

    def row(self, path: str, semaphore: Semaphore) -> tuple[SemaphoreRow, int]:
        holders, waiters = list(map(claim_row, semaphore.holders.values())), list(map(claim_row, queue(semaphore)))
        size = len(path) + CLAIM_ROW_BYTES * (1 + len(holders) + len(waiters))
        return SemaphoreRow(path, semaphore.limit, semaphore.is_set, holders, waiters), size

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[SemaphoreRow] = decode(_decode, rows)
        for row in found:
            semaphore = Semaphore(row.limit)
            semaphore.is_set = row.is_set
            for holder in row.holders:
                claim = self._restored(row.path, holder, self._held)
                semaphore.holders[claim.token] = claim
                semaphore.taken += claim.terms
            self._restore_queue(row.path, semaphore, row.waiters)
            self._names.restore(row.path, semaphore)
        return len(found)

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Semaphore]]:
        """Return every semaphore with its path, in order of paths."""
        return self._names.of_type(Semaphore)

    def listed(self, path: str, semaphore: Semaphore) -> ListedLock:
        claim = next(iter(semaphore.holders.values()), None)
        holder = None
        if claim is not None:
            since_ms = self._entry.time_ms - claim.since_ms
            holder = LockParty(claim.attachment.session, claim.attachment.number, claim.owner, since_ms, claim.token)
        return ListedLock(path, Semaphore.kind, semaphore.limit, semaphore.taken, holder, len(queue(semaphore)))

    def _info(self, query: SemaphoreInfo) -> SemaphoreState | Failed:
        semaphore = self._names.find(query.path, Semaphore)
        if semaphore is None:
            return SemaphoreState(None, False, 0, (), 0, (), 0)
        if isinstance(semaphore, Failed):
            return semaphore
        holders: Sequence[Claim] | Any = semaphore.holders.values()
        if query.token:
            holders = [semaphore.holders[query.token]] if query.token in semaphore.holders else []
        named = tuple(map(self._party, first(holders, min(query.holders_max, PARTIES_NAMED_MAX))))
        waiters = tuple(map(self._party, first(queue(semaphore), min(query.waiters_max, PARTIES_NAMED_MAX))))
        counts = len(semaphore.holders), len(queue(semaphore))
        return SemaphoreState(semaphore.limit, semaphore.is_set, semaphore.taken, named, counts[0], waiters, counts[1])

    def _party(self, claim: Claim) -> SemaphoreParty:
        attachment, since_ms = claim.attachment, self._entry.time_ms - claim.since_ms
        return SemaphoreParty(attachment.session, attachment.number, claim.owner, since_ms, claim.token, claim.terms)


def _check_permits(operation: SemaphoreAcquire) -> Failed | None:
    if not 1 <= operation.limit <= PERMITS_MAX:
        return refusals.invalid("limit", f"must be between 1 and {PERMITS_MAX}")
    if not 1 <= operation.permits <= operation.limit:
        return refusals.invalid("permits", f"must be between 1 and the limit, {operation.limit}")
    return None


def _has_room(semaphore: Semaphore, claim: Claim) -> bool:
    return semaphore.taken + claim.terms <= semaphore.limit


def _not_granted(reason: str, semaphore: Semaphore) -> NotGranted:
    oldest = next(iter(semaphore.holders.values()), None)
    if oldest is None:
        return NotGranted(reason, waiters=len(queue(semaphore)))
    return NotGranted(reason, oldest.owner, oldest.token, len(queue(semaphore)))
