"""Deadlines in cluster time.

Timers fire only inside an entry, in (deadline, id) order, at most TIMERS_FIRED_MAX an entry; ids rise in the order in which timers
were set, so replicas agree on the order of equal deadlines.  A timer that is due but not fired yet has not happened: its waiter
still waits, its value is still there.
"""

import heapq
from collections.abc import Callable
from typing import Any, TypeAlias

from coord_core.machine.bounds import TIMERS_FIRED_MAX

#: Fewer cancelled timers than this are not worth rebuilding the heap for.
_CANCELLED_KEPT = 64


#: A timer in a snapshot: deadline and number.
TimerRow: TypeAlias = tuple[int, int]


class Timer:
    __slots__ = ("deadline_ms", "id", "on_due")

    def __init__(self, deadline_ms: int, number: int, on_due: Callable[[], None]) -> None:
        self.deadline_ms = deadline_ms
        self.id = number
        #: None once fired or cancelled; also breaks the circle timer -> resource -> timer, so that no garbage collection is needed.
        self.on_due: Callable[[], None] | None = on_due

    def row(self) -> TimerRow:
        return self.deadline_ms, self.id


class Timers:
    __slots__ = ("_cancelled", "_heap", "next_id")

    def __init__(self) -> None:
        # By (deadline, id), cancelled ones among them, but never at the top.
        self._heap: list[tuple[int, int, Timer]] = []
        self._cancelled = 0
        #: Of the next timer set.
        self.next_id = 1

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def next_deadline_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def set(self, deadline_ms: int, on_due: Callable[[], None]) -> Timer:
        timer = Timer(deadline_ms, self.next_id, on_due)
        self.next_id += 1
        heapq.heappush(self._heap, (deadline_ms, timer.id, timer))
        return timer

    def restore(self, row: TimerRow, on_due: Callable[[], None]) -> Timer:
        """Set a timer from a snapshot, with the number that it had."""
        timer = Timer(*row, on_due)
        heapq.heappush(self._heap, (*row, timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """Unset a timer that has not fired."""
        assert timer.on_due is not None, "a timer is cancelled once, and not after it fired"
        timer.on_due = None
        self._cancelled += 1
        self._uncover()
        # Most waits end before their time: without this the heap would keep every one of them until its deadline.
        if self._cancelled > _CANCELLED_KEPT and self._cancelled * 2 > len(self._heap):
            self._heap = [item for item in self._heap if item[2].on_due is not None]
            self._cancelled = 0
            heapq.heapify(self._heap)

    def fire(self, time_ms: int) -> int:
        """Fire what is due at `time_ms`, at most TIMERS_FIRED_MAX; return how many."""
        fired = 0
        while fired < TIMERS_FIRED_MAX and self._heap and self._heap[0][0] <= time_ms:
            _, _, timer = heapq.heappop(self._heap)
            self._uncover()
            on_due = timer.on_due
            assert on_due is not None, "a cancelled timer is never at the top"
            timer.on_due = None
            on_due()
            fired += 1
        return fired

    def _uncover(self) -> None:
        heap = self._heap
        while heap and heap[0][2].on_due is None:
            heapq.heappop(heap)
            self._cancelled -= 1

    def state(self) -> tuple[Any, ...]:
        """Return the state as plain data, equal for equal states."""
        live = sorted((deadline_ms, number) for deadline_ms, number, timer in self._heap if timer.on_due is not None)
        return self.next_id, live
