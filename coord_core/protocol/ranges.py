"""A set of request numbers in which most are consecutive: a low-water mark and the ranges above it.

The client keeps one of what was answered to it and sends it along; the machine keeps one of what it may forget and must refuse.
Numbers are only ever added.  With at most n numbers missing below the highest one there are at most n ranges.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class RequestRanges:
    """The numbers 1..low_water and the closed `ranges` above."""

    __slots__ = ("_ends", "_starts", "low_water")

    def __init__(self, low_water: int = 0, ranges: Iterable[tuple[int, int]] = ()) -> None:
        #: Every number up to and including this one is in the set.
        self.low_water = low_water
        # Rising, disjoint, not adjacent, all above low_water + 1.
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add_range(start, end)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self._starts, self._ends, strict=True))

    @property
    def range_count(self) -> int:
        return len(self._starts)

    def __contains__(self, number: int) -> bool:
        if number <= self.low_water:
            return True
        if not self._starts:
            return False
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]

    def add(self, number: int) -> None:
        if number == self.low_water + 1 and not self._starts:
            self.low_water = number
        else:
            self.add_range(number, number)

    def raise_low_water(self, number: int) -> None:
        if number > self.low_water:
            self.add_range(self.low_water + 1, number)

    def add_range(self, start: int, end: int) -> None:
        """Add every number of the closed range."""
        if end <= self.low_water:
            return
        if start <= self.low_water + 1:
            self.low_water = end
            self._absorb()
            return
        # Ranges that overlap or touch [start, end] are those whose end >= start - 1 and whose start <= end + 1.
        first = bisect_right(self._ends, start - 2)
        last = bisect_right(self._starts, end + 1)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return, rising, the closed ranges of numbers within start..end that are not in the set."""
        found = []
        start = max(start, self.low_water + 1)
        at = bisect_left(self._ends, start)
        while start <= end:
            if at == len(self._starts) or self._starts[at] > end:
                found.append((start, end))
                break
            if start < self._starts[at]:
                found.append((start, self._starts[at] - 1))
            start = self._ends[at] + 1
            at += 1
        return found

    def _absorb(self) -> None:
        """Let the low-water mark swallow the ranges it has reached."""
        count = 0
        while count < len(self._starts) and self._starts[count] <= self.low_water + 1:
            self.low_water = max(self.low_water, self._ends[count])
            count += 1
        del self._starts[:count]
        del self._ends[:count]
