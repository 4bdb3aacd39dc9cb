"""What locks, semaphores and rate limiters have in common: claims that wait in order of arrival, and claims that hold.

A *claim* is one request's wish for one resource.  It belongs to (attachment, request): two requests of one attachment exclude each
other like strangers.  Each type of resource has tables of its own here; when a claim may go ahead is that type's matter.

Rule: a claim is in exactly one of two tables, `_waiting` as long as it stands in its resource's queue, and `_held` as long as it
holds.  What its resource does not hold for anybody (a rate limiter) is never in `_held`.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, ClassVar, TypeAlias

import msgspec

from coord_core.machine import refusals
from coord_core.machine.bounds import NUMBER_MAX, WAITERS_MAX, WAITERS_PER_LOCK_MAX
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.names import Named, Names
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.spread import SPREAD_AT, spread
from coord_core.machine.timers import Timer, TimerRow, Timers
from coord_core.protocol.base import Owner
from coord_core.protocol.results import Failed, NotGranted, Result
from coord_core.types import AttachmentId, FencingToken, RequestNumber

#: About what a claim takes in a snapshot.
CLAIM_ROW_BYTES = 48

_NOT_GRANTED = FencingToken(0)
#: To an earlier request of a detached session that waits: a later one has its place.
_MOVED = NotGranted("moved")


class Claim:
    __slots__ = ("attachment", "owner", "path", "request", "since_ms", "terms", "timer", "token")

    def __init__(self, path: str, attachment: Attachment, request: RequestNumber, owner: Owner, since_ms: int, terms: int) -> None:
        self.path = path
        self.attachment = attachment
        self.request = request
        self.owner = owner
        #: Cluster time at which it began to wait, or was granted.
        self.since_ms = since_ms
        #: What it asked for besides its place.  Of a lock: the delay, in ms, should it end without a release; else: permits.
        self.terms = terms
        #: Of a lock: 0 while it waits.  Of a semaphore: its name from the beginning.
        self.token = _NOT_GRANTED
        #: Set while it waits and its patience is limited.
        self.timer: Timer | None = None


class Queued(Named):
    """What claims can wait for."""

    __slots__ = ("waiters",)

    #: In order of arrival; an OrderedDict gives up its first and any other in constant time.  None, never empty, while nobody
    #: waits: most locks are never waited for.
    waiters: OrderedDict[Claim, None] | None

    def has_room(self, permits: int) -> bool:
        """Whether somebody who came now would have so many at once, as far as that is known."""
        return True


class ClaimRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A claim in a snapshot.  The path is its resource's."""

    attachment: AttachmentId
    request: RequestNumber
    #: None: the attachment's.
    owner: Owner | None
    since_ms: int
    token: FencingToken
    timer: TimerRow | None
    terms: int = 0


#: The claims of each attachment that has any, by request.
Index: TypeAlias = dict[AttachmentId, MutableMapping[RequestNumber, Claim]]


class Claims(ABC):
    """Base of the resources that are claimed."""

    __slots__ = ("_entry", "_held", "_names", "_sessions", "_timers", "_waiters_total", "_waiting")

    #: For people, in refusals.
    noun: ClassVar[str]

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, timers: Timers) -> None:
        self._entry = entry
        self._sessions = sessions
        self._names = names
        self._timers = timers
        self._held: Index = {}
        self._waiting: Index = {}
        self._waiters_total = 0

    # --- the type's own matter ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _place_of(self, claim: Claim) -> Any:
        """Return what it claims, to change it."""

    @abstractmethod
    def _timed_out(self, place: Any, claim: Claim) -> None:
        """The patience of one who waits is over; his timer is gone already."""

    # --- what happens to a claim -------------------------------------------------------------------------------------------------

    def _enqueue(self, place: Queued, claim: Claim, wait_ms: int | None) -> Failed | None:
        ahead = 0 if place.waiters is None else len(place.waiters)
        if ahead >= WAITERS_PER_LOCK_MAX:
            return refusals.over_limit(f"waiters of a {self.noun}", WAITERS_PER_LOCK_MAX, ahead + 1)
        if self._waiters_total >= WAITERS_MAX:
            return refusals.over_limit(f"waiters of all {self.noun}s", WAITERS_MAX, self._waiters_total + 1)
        if place.waiters is None:
            place.waiters = OrderedDict()
        place.waiters[claim] = None
        self._waiters_total += 1
        add(self._waiting, claim)
        if wait_ms is not None:
            claim.timer = self._timers.set(self._entry.time_ms + wait_ms, partial(self._impatient, claim))
        return None

    def _impatient(self, claim: Claim) -> None:
        place = self._place_of(claim)  # looked up before anything of it changes
        claim.timer = None
        self._timed_out(place, claim)

    def _stop_waiting(self, place: Queued, claim: Claim) -> None:
        """Take a waiter out of its queue, wherever in it it stands."""
        waiters = place.waiters
        assert waiters is not None, "a waiting claim is in the queue of what it claims"
        del waiters[claim]
        if not waiters:
            place.waiters = None
        self._waiters_total -= 1
        remove(self._waiting, claim)
        if claim.timer is not None:
            self._timers.cancel(claim.timer)
            claim.timer = None

    def _end_waits(self, ended: Sequence[Attachment], answer: Failed) -> list[Claim]:
        """Answer all that ended attachments wait for; return the claims that have left their queues."""
        gone = [claim for attachment in ended for claim in in_order(self._waiting, attachment)]
        for claim in gone:
            self._stop_waiting(self._place_of(claim), claim)
            self._entry.reply(claim.attachment, claim.request, answer)
        return gone

    def _withdraw_wait(self, attachment: Attachment, request: RequestNumber, answer: Result) -> Any:
        """End the wait of a request; return what it waited for, or None where it does not wait here."""
        waiting = self._waiting.get(attachment.id)
        if waiting is None or request not in waiting:
            return None
        claim = waiting[request]
        place = self._place_of(claim)
        self._stop_waiting(place, claim)
        self._entry.reply(attachment, request, answer)
        return place

    def _held_by(self, attachment: Attachment, request: RequestNumber) -> Claim | None:
        held = self._held.get(attachment.id)
        return None if held is None or request not in held else held[request]

    # --- of detached sessions ----------------------------------------------------------------------------------------------------

    def _inherited(self, index: Index, by: Claim, attachment: Attachment) -> list[Claim]:
        """Return what a request of a detached session finds: claims of an attachment's earlier processes there.

        `attachment` is its own, or that of a lower attempt, all of whose processes are earlier ones.
        """
        own, claims = by.attachment, index.get(attachment.id, {})
        assert own.detached is not None
        until = NUMBER_MAX if attachment is not own else own.detached.inherited
        return [claims[request] for request in sorted(claims) if claims[request].path == by.path and request <= until]

    def _renew(self, index: Index, claim: Claim, by: Claim) -> None:
        """Let a claim be that of a later request, or of a later attempt, of the same detached session."""
        remove(index, claim)
        claim.attachment, claim.request, claim.owner, claim.terms = by.attachment, by.request, by.owner, by.terms
        add(index, claim)

    def _renew_wait(self, claim: Claim, by: Claim, wait_ms: int | None) -> None:
        """As `_renew`, in its place in the queue; who asked before is told that it waits no more."""
        self._entry.reply(claim.attachment, claim.request, _MOVED)
        self._renew(self._waiting, claim, by)
        if claim.timer is not None:
            self._timers.cancel(claim.timer)
            claim.timer = None
        if wait_ms is not None:
            claim.timer = self._timers.set(self._entry.time_ms + wait_ms, partial(self._impatient, claim))

    def holdings(self, attachment: Attachment) -> int:
        return len(self._held.get(attachment.id, ()))

    # --- snapshots ---------------------------------------------------------------------------------------------------------------

    def _restore_queue(self, path: str, place: Queued, rows: list[ClaimRow]) -> None:
        place.waiters = OrderedDict.fromkeys(self._restored(path, row, self._waiting) for row in rows) if rows else None
        self._waiters_total += len(rows)

    def _restored(self, path: str, row: ClaimRow, index: Index) -> Claim:
        attachment = self._sessions.attachment(row.attachment)
        claim = Claim(path, attachment, row.request, row.owner or attachment.owner, row.since_ms, row.terms)
        claim.token = row.token
        if row.timer is not None:
            claim.timer = self._timers.restore(row.timer, partial(self._impatient, claim))
        add(index, claim)
        return claim


def owner_of(attachment: Attachment, owner: Owner) -> Owner | Failed:
    """Return the owner to keep, or why it cannot be kept."""
    if owner == attachment.owner:
        # Nearly always, and then a million held locks share one record; it was checked when the attachment was opened.
        return attachment.owner
    return refusals.check_owner(owner) or owner


def check_wait(wait_ms: int | None) -> Failed | None:
    return None if wait_ms is None or wait_ms == 0 else refusals.check_duration("wait_ms", wait_ms, 0)


def add(index: Index, claim: Claim) -> None:
    number = claim.attachment.id
    claims = index.get(number)
    if claims is None:
        index[number] = {claim.request: claim}
        return
    claims[claim.request] = claim
    if len(claims) == SPREAD_AT:
        index[number] = spread(claims)


def remove(index: Index, claim: Claim) -> None:
    claims = index[claim.attachment.id]
    del claims[claim.request]
    if not claims:
        del index[claim.attachment.id]


def in_order(index: Index, attachment: Attachment) -> list[Claim]:
    """Return the attachment's claims in order of their requests."""
    claims = index.get(attachment.id)
    return [] if claims is None else [claims[request] for request in sorted(claims)]


def queue(place: Queued) -> Mapping[Claim, None]:
    return {} if place.waiters is None else place.waiters


def first(claims: Iterable[Claim], most: int) -> Iterable[Claim]:
    return islice(claims, max(0, most))


def claim_state(claim: Claim) -> tuple[Any, ...]:
    timer = None if claim.timer is None else claim.timer.row()
    state = (claim.attachment.id, claim.request, msgspec.structs.astuple(claim.owner), claim.since_ms, claim.token, timer)
    return (*state, claim.terms) if claim.terms else state


def claim_row(claim: Claim) -> ClaimRow:
    attachment = claim.attachment
    # Nearly always the same record; so a million locks of one process do not repeat its name.
    owner = None if claim.owner is attachment.owner else claim.owner
    timer = None if claim.timer is None else claim.timer.row()
    return ClaimRow(attachment.id, claim.request, owner, claim.since_ms, claim.token, timer, claim.terms)
