"""Virtual time: one queue of events, ordered by (time, sequence), and everything drawn from one seed.

The rule of this room: nothing in it reads a clock, the system's randomness or the order of a set.  Two runs of a seed are the
same run, event by event; `Trace.digest` proves it, and a failing seed is its own replay.

Every subject draws from a stream of its own (`stream("network")`), so that one more draw by the workload does not shift the
network's luck.  Time is whole microseconds: no rounding, no two platforms that disagree.

What happens in the events lives elsewhere: `network`, `disk`, `node`, `client`, `faults`; `cluster` puts them together.
"""

import hashlib
import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

MILLISECOND = 1_000
SECOND = 1_000_000


class Violation(AssertionError):
    """A checker found a promise broken.  The run stops there, so that the trace ends at the event that shows it."""


class Timer:
    """An event to come; `cancel` makes it none."""

    __slots__ = ("action", "arguments")

    def __init__(self, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        #: None once it is cancelled.
        self.action: Callable[..., None] | None = action
        self.arguments = arguments

    def cancel(self) -> None:
        self.action = None
        self.arguments = ()


class Stream(random.Random):
    """What one subject draws from."""

    def randint(self, a: int, b: int) -> int:
        """As `random.Random`, in a third of the time: a seed draws a hundred thousand of them."""
        return a + int(self.random() * (b - a + 1))


class Trace:
    """What happened: a digest of all of it, and the last lines for people."""

    #: Lines kept for the report of a failure.
    TAIL_LINES = 40

    def __init__(self, *, echo: Callable[[str], None] | None = None) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._tail: deque[str] = deque(maxlen=self.TAIL_LINES)
        self._echo = echo
        self.length = 0

    def add(self, line: str) -> None:
        self.length += 1
        self._tail.append(line)
        self._digest.update(line.encode())
        if self._echo is not None:
            self._echo(line)

    def detail(self, line: str) -> None:
        """Add a line that is too common for the tail: it counts for the digest and is echoed."""
        self.length += 1
        self._digest.update(line.encode())
        if self._echo is not None:
            self._echo(line)

    def digest(self) -> str:
        return self._digest.hexdigest()

    def tail(self) -> list[str]:
        return list(self._tail)


class Simulator:
    """The event queue.  Events of one instant happen in the order in which they were scheduled."""

    def __init__(self, seed: int, *, echo: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.now_us = 0
        self.trace = Trace(echo=echo)
        self._queue: list[tuple[int, int, Timer]] = []
        self._scheduled = 0

    def stream(self, subject: str) -> random.Random:
        """Return the generator from which `subject` draws; the same (seed, subject) draws the same."""
        return Stream(f"{self.seed}/{subject}")

    def after(self, delay_us: int, action: Callable[..., None], *arguments: Any) -> Timer:
        """Schedule `action(*arguments)` for `delay_us` from now."""
        timer = Timer(action, arguments)
        self._scheduled += 1
        heappush(self._queue, (self.now_us + delay_us if delay_us > 0 else self.now_us, self._scheduled, timer))
        return timer

    def note(self, actor: str, what: str) -> None:
        """Add a line to the trace: who did what, now."""
        self.trace.add(f"{self.now_us / SECOND:11.6f} {actor:<4} {what}")

    def detail(self, actor: str, what: str) -> None:
        """The same, for what happens all the time."""
        self.trace.detail(f"{self.now_us / SECOND:11.6f} {actor:<4} {what}")

    def run_until(self, end_us: int, until: Callable[[], bool] | None = None) -> bool:
        """Run events up to `end_us`, or until the condition holds after some event.  Returns whether it held."""
        queue = self._queue
        while queue and queue[0][0] <= end_us:
            self.now_us, _, timer = heappop(queue)
            action = timer.action
            if action is None:
                continue
            action(*timer.arguments)
            if until is not None and until():
                return True
        self.now_us = max(self.now_us, end_us)
        return False


class Clock:
    """The monotonic clock of one process: its own origin and its own rate, constant while the process lives."""

    __slots__ = ("_origin_us", "_rate", "_simulator")

    def __init__(self, simulator: Simulator, *, origin_us: int, drift: float) -> None:
        self._simulator = simulator
        self._origin_us = origin_us
        #: Local microseconds that pass in one real one.
        self._rate = 1.0 + drift

    def now_us(self) -> int:
        return self._origin_us + int(self._simulator.now_us * self._rate)

    def now_ms(self) -> int:
        return self.now_us() // MILLISECOND

    def now_s(self) -> float:
        return self.now_us() / SECOND

    def real_us(self, local_us: int) -> int:
        """Return how long `local_us` of this clock take in virtual time, rounded up."""
        return int(local_us / self._rate) + 1
