"""Exactly once: what an attachment asked and was answered (dissertation, 6.3).

Every request number is in one of four states, and only ever moves down this list:

1. unseen: neither in `answers` nor in `forgotten`;
2. waiting: `answers[number]` is None;
3. answered: `answers[number]` is the answer, given again to whoever asks again;
4. forgotten: the client has said that it needs the answer no more.  Asked again, it is refused as stale, never applied.

A cancelled request that was unseen goes to 3 at once: that answer is its tombstone.  What a client acknowledges while it still
waits (a client does not do that) goes to 4 when it is answered.

Numbers refused because the window is full go to 4 as well: an older copy of such a request, applied once there is room again, would
take a lock for a caller that has been told it did not get it.
"""

from collections.abc import Iterable

import msgspec

from coord_core.machine import refusals
from coord_core.machine.bounds import ANSWER_BYTES_MAX, ANSWERED_RANGES_MAX, NUMBER_MAX
from coord_core.protocol.ranges import RequestRanges
from coord_core.protocol.results import Failed, Result, ValueConflict
from coord_core.protocol.streams import Announced, Joined
from coord_core.types import RequestNumber

Ranges = tuple[tuple[int, int], ...]

#: About what an answer and a range take in a snapshot, besides values.
_ANSWER_ROW_BYTES = 16
_RANGE_ROW_BYTES = 12

#: Answers that may be long, and about what one subscription of an audience takes.
_LARGE = frozenset({ValueConflict, Joined, Announced})
_SUBSCRIPTION_BYTES = 9


class WindowRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A window in a snapshot."""

    low_water: int
    ranges: Ranges
    answers: list[tuple[RequestNumber, Result | None]]


class RequestWindow:
    __slots__ = ("_value_bytes", "answers", "forgotten")

    def __init__(self) -> None:
        #: States 2 and 3.  At most WINDOW_CONTROL_MAX.
        self.answers: dict[RequestNumber, Result | None] = {}
        #: State 4.
        self.forgotten = RequestRanges()
        # Bytes of what is large in `answers`.
        self._value_bytes = 0

    @classmethod
    def restored(cls, row: WindowRow) -> "RequestWindow":
        window = cls()
        window.forgotten = RequestRanges(row.low_water, row.ranges)
        for request, answer in row.answers:
            window.record(request, answer)
        return window

    def row(self) -> tuple[WindowRow, int]:
        """Return it as a snapshot has it, and about how many bytes that is."""
        row = WindowRow(self.forgotten.low_water, self.forgotten.ranges, list(self.answers.items()))
        return row, self._value_bytes + _ANSWER_ROW_BYTES * len(row.answers) + _RANGE_ROW_BYTES * len(row.ranges)

    @property
    def last(self) -> RequestNumber:
        """The highest number that is not unseen; 0: all are."""
        ranges = self.forgotten.ranges
        return RequestNumber(max(self.forgotten.low_water, ranges[-1][1] if ranges else 0, max(self.answers, default=0)))

    def acknowledge(self, low_water: RequestNumber, answered: Ranges) -> Failed | None:
        """Forget what the client needs no more; return what is wrong with its ranges, if anything, and then forget nothing."""
        forgotten = self.forgotten
        mark = forgotten.low_water
        if not answered:
            if low_water == mark + 1:
                # A client that asks one thing at a time: the last answer has arrived.
                self._drop(low_water)
                forgotten.add(low_water)
            elif low_water > mark:
                self._forget(mark + 1, low_water)
            return None
        fault = self._check(answered)
        if fault is not None:
            return fault
        if low_water > mark:
            self._forget(mark + 1, low_water)
        for start, end in answered:
            # The client sends all its ranges every time; only what is new in them costs work here.
            for first, last in forgotten.gaps(start, end):
                self._forget(first, last)
        return None

    def admit(self, request: RequestNumber, requests_max: int) -> Failed | None:
        """Return why an unseen request must not be applied, or None."""
        if request in self.forgotten:
            return refusals.stale_request(request)
        if len(self.answers) >= requests_max:
            return self._turn_away(request, "unanswered requests of an attachment", requests_max, len(self.answers) + 1)
        if self._value_bytes >= ANSWER_BYTES_MAX:
            return self._turn_away(request, "bytes of values in unacknowledged answers", ANSWER_BYTES_MAX, self._value_bytes)
        return None

    def is_unseen(self, request: RequestNumber) -> bool:
        return request not in self.answers and request not in self.forgotten

    def record(self, request: RequestNumber, answer: Result | None) -> None:
        """Keep the answer to a request just applied; None: it waits."""
        self.answers[request] = answer
        if type(answer) in _LARGE:
            self._value_bytes += _weight(answer)

    def settle(self, request: RequestNumber, answer: Result) -> None:
        """Replace what is known of a request: it has waited, or its grant was cancelled."""
        if request in self.forgotten:
            self.answers.pop(request, None)
        else:
            self._value_bytes += _weight(answer) - _weight(self.answers.get(request))
            self.answers[request] = answer

    def _check(self, answered: Ranges) -> Failed | None:
        count = len(answered) + self.forgotten.range_count
        if count > ANSWERED_RANGES_MAX:
            return refusals.over_limit("ranges of answered requests", ANSWERED_RANGES_MAX, count)
        for start, end in answered:
            if not 1 <= start <= end <= NUMBER_MAX:
                return refusals.invalid("answered", "must be closed ranges of request numbers")
        return None

    def _turn_away(self, request: RequestNumber, what: str, limit: int, value: int) -> Failed:
        if self.forgotten.range_count < ANSWERED_RANGES_MAX:
            self.forgotten.add(request)
        return refusals.over_limit(what, limit, value)

    def _forget(self, start: int, end: int) -> None:
        # Whichever is less work: the numbers of the range, or the answers at hand.
        numbers: Iterable[int] = range(start, end + 1)
        if end - start >= len(self.answers):
            numbers = [number for number in self.answers if start <= number <= end]
        for number in numbers:
            self._drop(RequestNumber(number))
        self.forgotten.add_range(start, end)

    def _drop(self, number: RequestNumber) -> None:
        answer = self.answers.get(number)
        if answer is None:
            return  # Not there, or still waiting: see `settle`.
        del self.answers[number]
        if type(answer) in _LARGE:
            self._value_bytes -= _weight(answer)


def _weight(answer: Result | None) -> int:
    if type(answer) is ValueConflict:
        return len(answer.value)
    return _SUBSCRIPTION_BYTES * len(answer.audience) if isinstance(answer, Joined | Announced) else 0
