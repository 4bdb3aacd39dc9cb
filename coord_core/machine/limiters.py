"""Rate limiters: token buckets in cluster time, with a queue of those for whom there is not enough in it yet.

Rules:
- Integers only.  A level counts *units*, a `per_ms`-th of a permit each: a millisecond brings exactly `permits` of them.
- Strictly in order of arrival.  The first who waits goes on when the bucket has what he wants, or is full where he wants more than
  it holds by now; then it goes below zero.
- A limiter exists while its bucket is not full or somebody waits.  A full one is as good as none: the next to ask says its rate.
- One timer a limiter: no later than when the first can go on, or, where nobody waits, than when it is full.  It may come too early
  (most requests only take), and then looks and is set anew.
- What was taken is spent: nothing comes back from a cancelled request or an ended attachment.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec

from coord_core.machine import refusals
from coord_core.machine.bounds import DURATION_MS_MAX
from coord_core.machine.claims import (
    CLAIM_ROW_BYTES,
    Claim,
    ClaimRow,
    Claims,
    Queued,
    check_wait,
    claim_row,
    claim_state,
    queue,
)
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.sessions import Attachment
from coord_core.machine.stream import decode
from coord_core.machine.timers import Timer, TimerRow
from coord_core.protocol.limiters import (
    BURST_MAX,
    RATE_PER_MS_MAX,
    RATE_PERMITS_MAX,
    LimiterInfo,
    LimiterState,
    RateAcquire,
    RateGranted,
    RateRefused,
)
from coord_core.protocol.results import Failed, Result
from coord_core.types import RequestNumber

_GRANTED = RateGranted()


class Limiter(Queued):
    __slots__ = ("as_of_ms", "burst", "level", "per_ms", "permits", "timer", "wanted")

    kind: ClassVar[str] = "rate limiter"

    def __init__(self, permits: int, per_ms: int, burst: int, as_of_ms: int) -> None:
        self.permits = permits
        self.per_ms = per_ms
        self.burst = burst
        #: In units, at `as_of_ms`; below 0 after somebody who wanted more than there is room for.
        self.level = burst * per_ms
        #: Cluster time.
        self.as_of_ms = as_of_ms
        #: Permits that those who wait want together.
        self.wanted = 0
        self.timer: Timer | None = None
        self.waiters = None

    def fill(self, now_ms: int) -> None:
        """Bring the level up to now."""
        self.level = min(self.burst * self.per_ms, self.level + (now_ms - self.as_of_ms) * self.permits)
        self.as_of_ms = now_ms

    def change(self, permits: int, per_ms: int, burst: int) -> None:
        """From now on the rate is another; what is in the bucket stays, as far as there is room."""
        self.level = min(burst * per_ms, self.level * per_ms // self.per_ms)
        self.permits, self.per_ms, self.burst = permits, per_ms, burst

    def ms_until(self, units: int) -> int:
        """Return how long it takes until the level has come to so many units, rounded up; 0: it has.

        At most DURATION_MS_MAX: all that wait together may want more than a number on the wire can say.
        """
        return min(DURATION_MS_MAX, max(0, -((self.level - units) // self.permits)))


class LimiterRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A rate limiter in a snapshot."""

    path: str
    permits: int
    per_ms: int
    burst: int
    level: int
    as_of_ms: int
    timer: TimerRow
    waiters: list[ClaimRow]


_decode = msgspec.msgpack.Decoder(list[LimiterRow]).decode


class Limiters(Claims):
    __slots__ = ()

    noun = "rate limiter"

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {RateAcquire: self._acquire}

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {LimiterInfo: self._info}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _acquire(self, attachment: Attachment, request: RequestNumber, operation: RateAcquire) -> Result | None:
        fault = check_wait(operation.wait_ms) or _check(operation)
        if fault is not None:
            return fault
        path, now_ms = operation.path, self._entry.time_ms
        limiter = self._names.find(path, Limiter)
        if isinstance(limiter, Failed):
            return limiter
        rate = operation.permits, operation.per_ms, operation.burst
        if limiter is None:
            limiter = Limiter(*rate, now_ms)
            fault = self._names.bind(path, limiter)
            if fault is not None:
                return fault
        else:
            limiter.fill(now_ms)
            if rate != (limiter.permits, limiter.per_ms, limiter.burst):
                limiter.change(*rate)
                self._serve(limiter)
        answer = self._ask(limiter, Claim(path, attachment, request, attachment.owner, now_ms, operation.amount), operation.wait_ms)
        self._rest(path, limiter)
        return answer

    def _ask(self, limiter: Limiter, claim: Claim, wait_ms: int | None) -> Result | None:
        units = claim.terms * limiter.per_ms
        if limiter.waiters is None and limiter.level >= units:
            limiter.level -= units
            return _GRANTED
        if wait_ms == 0:
            return _refused("busy", limiter, claim)
        fault = self._enqueue(limiter, claim, wait_ms)
        if fault is None:
            limiter.wanted += claim.terms
        return fault

    # --- what happens to a limiter -----------------------------------------------------------------------------------------------

    def _serve(self, limiter: Limiter) -> None:
        """Let those who wait go on as far as the bucket, filled up to now, has what they want."""
        while limiter.waiters is not None:
            claim = next(iter(limiter.waiters))
            if limiter.level < _enough_for(limiter, claim):
                return
            self._leave(limiter, claim)
            limiter.level -= claim.terms * limiter.per_ms
            self._entry.reply(claim.attachment, claim.request, _GRANTED)

    def _rest(self, path: str, limiter: Limiter) -> None:
        """After everything that happened to it: set its timer, or forget it.  It was looked up last."""
        head = next(iter(queue(limiter)), None)
        goal = limiter.burst * limiter.per_ms if head is None else _enough_for(limiter, head)
        left_ms = limiter.ms_until(goal)
        if head is None and not left_ms:
            self._set_timer(path, limiter, None)
            self._names.drop(path)
            return
        deadline_ms = self._entry.time_ms + left_ms
        if limiter.timer is None or limiter.timer.deadline_ms > deadline_ms:
            self._set_timer(path, limiter, deadline_ms)

    def _set_timer(self, path: str, limiter: Limiter, deadline_ms: int | None) -> None:
        if limiter.timer is not None:
            self._timers.cancel(limiter.timer)
            limiter.timer = None
        if deadline_ms is not None:
            limiter.timer = self._timers.set(deadline_ms, partial(self._look, path, limiter))

    def _look(self, path: str, limiter: Limiter) -> None:
        found = self._names.get(path)
        assert found is limiter, "a limiter's timer ends with the limiter"
        limiter.timer = None
        self._go_on(path, limiter)

    def _go_on(self, path: str, limiter: Limiter) -> None:
        limiter.fill(self._entry.time_ms)
        self._serve(limiter)
        self._rest(path, limiter)

    def _leave(self, limiter: Limiter, claim: Claim) -> None:
        self._stop_waiting(limiter, claim)
        limiter.wanted -= claim.terms

    def _timed_out(self, limiter: Limiter, claim: Claim) -> None:
        limiter.fill(self._entry.time_ms)
        self._leave(limiter, claim)
        self._entry.reply(claim.attachment, claim.request, _refused("timeout", limiter, claim))
        self._go_on(claim.path, limiter)

    def _place_of(self, claim: Claim) -> Limiter:
        limiter = self._names.get(claim.path)
        assert type(limiter) is Limiter, "a claim's limiter exists as long as the claim"
        return limiter

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        gone = self._end_waits(ended, answer)
        for claim in gone:
            self._place_of(claim).wanted -= claim.terms
        for path in dict.fromkeys(claim.path for claim in gone):
            limiter = self._names.get(path)
            assert isinstance(limiter, Limiter), "dropped at its first turn, which is its only one"
            self._go_on(path, limiter)

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """Nobody would use what is taken for one who has gone."""
        self.attachments_ended([attachment], answer)

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        waiting = self._waiting.get(attachment.id, {})
        if request not in waiting:
            return False  # what it took is spent
        claim = waiting[request]
        limiter = self._place_of(claim)
        self._leave(limiter, claim)
        self._entry.reply(attachment, request, answer)
        self._go_on(claim.path, limiter)
        return True

    def state(self) -> list[Any]:
        return [
            (path, it.permits, it.per_ms, it.burst, it.level, it.as_of_ms, _timer_row(it), list(map(claim_state, queue(it))))
            for path, it in self.all()
        ]

    @property
    def named(self) -> type[Limiter]:
        return Limiter

    def row(self, path: str, limiter: Limiter) -> tuple[LimiterRow, int]:
        waiters = list(map(claim_row, queue(limiter)))
        rate = limiter.permits, limiter.per_ms, limiter.burst
        row = LimiterRow(path, *rate, limiter.level, limiter.as_of_ms, _timer_row(limiter), waiters)
        return row, len(path) + CLAIM_ROW_BYTES * (1 + len(waiters))

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[LimiterRow] = decode(_decode, rows)
        for row in found:
            limiter = Limiter(row.permits, row.per_ms, row.burst, row.as_of_ms)
            limiter.level = row.level
            limiter.timer = self._timers.restore(row.timer, partial(self._look, row.path, limiter))
            self._restore_queue(row.path, limiter, row.waiters)
            limiter.wanted = sum(claim.terms for claim in row.waiters)
            self._names.restore(row.path, limiter)
        return len(found)

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Limiter]]:
        """Return every limiter with its path, in order of paths."""
        return self._names.of_type(Limiter)

    def _info(self, query: LimiterInfo) -> LimiterState | Failed:
        limiter = self._names.find(query.path, Limiter)
        if limiter is None:
            return LimiterState(0, 0, 0, 0, 0)
        if isinstance(limiter, Failed):
            return limiter
        level = limiter.level + (self._entry.time_ms - limiter.as_of_ms) * limiter.permits
        whole = min(limiter.burst, level // limiter.per_ms)
        return LimiterState(limiter.permits, limiter.per_ms, limiter.burst, whole, len(queue(limiter)))


def _check(operation: RateAcquire) -> Failed | None:
    bounds = (
        ("permits", operation.permits, RATE_PERMITS_MAX),
        ("per_ms", operation.per_ms, RATE_PER_MS_MAX),
        ("burst", operation.burst, BURST_MAX),
        ("amount", operation.amount, operation.burst),
    )
    for field, value, most in bounds:
        if not 1 <= value <= most:
            return refusals.invalid(field, f"must be between 1 and {most}")
    return None


def _enough_for(limiter: Limiter, claim: Claim) -> int:
    return min(claim.terms, limiter.burst) * limiter.per_ms


def _refused(reason: str, limiter: Limiter, claim: Claim) -> RateRefused:
    """Say how long it would take, the limiter being filled up to now, and the claim in no queue."""
    wait_ms = limiter.ms_until((limiter.wanted + claim.terms) * limiter.per_ms)
    return RateRefused(reason, wait_ms, len(queue(limiter)))


def _timer_row(limiter: Limiter) -> TimerRow:
    assert limiter.timer is not None, "what is not full waits for something"
    return limiter.timer.row()
