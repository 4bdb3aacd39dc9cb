"""Deadlines in cluster time.

Timers fire only inside an entry, in (deadline, id) order, at most TIMERS_FIRED_MAX an entry; ids rise in the order in which timers
were set, so replicas agree on the order of equal deadlines.  A timer that is due but not fired yet has not happened: its waiter
still waits, its value is still there.

Most waits end before their time, so a timer is cancelled as often as it is set.  They stand in sorted blocks, and a cancelled one
is taken out at once.  A heap would keep it until its deadline, or until half of the heap is cancelled: to rebuild one of a million,
or to take a long run of cancelled timers off its top, stops the node for half a second.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import Any, TypeAlias

from coord_core.machine.bounds import TIMERS_FIRED_MAX

#: A block with more is split into two: what it takes to move its items stays far below what it takes to fire one.
_BLOCK_MAX = 1_024

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


#: Numbers differ, so two timers are never compared.
_Item: TypeAlias = tuple[int, int, Timer]

# Below whatever a snapshot can say.
_LEAST: TimerRow = (-(2**64), 0)


class Timers:
    __slots__ = ("_blocks", "_bounds", "_count", "next_id")

    def __init__(self) -> None:
        # All in order of (deadline, id).  Block i has what is not below bound i and below bound i + 1; only a lone block is empty.
        self._blocks: list[list[_Item]] = [[]]
        self._bounds: list[TimerRow] = [_LEAST]
        self._count = 0
        #: Of the next timer set.
        self.next_id = 1

    def __len__(self) -> int:
        return self._count

    def next_deadline_ms(self) -> int | None:
        return self._blocks[0][0][0] if self._count else None

    def set(self, deadline_ms: int, on_due: Callable[[], None]) -> Timer:
        timer = Timer(deadline_ms, self.next_id, on_due)
        self.next_id += 1
        self._add(timer)
        return timer

    def restore(self, row: TimerRow, on_due: Callable[[], None]) -> Timer:
        """Set a timer from a snapshot, with the number that it had."""
        timer = Timer(*row, on_due)
        self._add(timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Unset a timer that has not fired."""
        assert timer.on_due is not None, "a timer is cancelled once, and not after it fired"
        timer.on_due = None
        self._remove(timer)

    def fire(self, time_ms: int) -> int:
        """Fire what is due at `time_ms`, at most TIMERS_FIRED_MAX; return how many."""
        fired = 0
        while fired < TIMERS_FIRED_MAX and self._count and self._blocks[0][0][0] <= time_ms:
            timer = self._blocks[0][0][2]
            on_due, timer.on_due = timer.on_due, None
            assert on_due is not None, "a cancelled timer is taken out"
            self._remove(timer)
            on_due()
            fired += 1
        return fired

    def state(self) -> tuple[Any, ...]:
        """Return the state as plain data, equal for equal states."""
        return self.next_id, [(deadline_ms, number) for block in self._blocks for deadline_ms, number, _ in block]

    def _add(self, timer: Timer) -> None:
        key = (timer.deadline_ms, timer.id)
        at = bisect_right(self._bounds, key) - 1
        block = self._blocks[at]
        insort(block, (*key, timer))
        self._count += 1
        if len(block) > _BLOCK_MAX:
            upper = block[_BLOCK_MAX // 2 :]
            del block[_BLOCK_MAX // 2 :]
            self._blocks.insert(at + 1, upper)
            self._bounds.insert(at + 1, upper[0][:2])

    def _remove(self, timer: Timer) -> None:
        key = (timer.deadline_ms, timer.id)
        at = bisect_right(self._bounds, key) - 1
        block = self._blocks[at]
        del block[bisect_left(block, key)]
        self._count -= 1
        if not block and len(self._blocks) > 1:
            del self._blocks[at], self._bounds[at]
            self._bounds[0] = _LEAST
