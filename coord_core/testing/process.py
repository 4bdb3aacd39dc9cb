"""What a node and a client have in common: they live, are stopped (SIGSTOP), are killed, and may come back.

A stopped process takes no step; what arrives and what its timers wanted waits, and then comes all at once, to a process whose
clock has jumped.  Nothing that was scheduled for one life happens in the next.
"""

import random
from collections.abc import Callable
from typing import Any

from coord_core.testing.simulator import MILLISECOND, Clock, Simulator, Timer


class Process:
    """One process of the simulation."""

    def __init__(self, simulator: Simulator, name: str, *, drift: float) -> None:
        self.name = name
        self.machine = name
        self.simulator = simulator
        self.rng: random.Random = simulator.stream(f"process {name}")
        self.drift = drift
        self.clock = Clock(simulator, origin_us=0, drift=drift)
        #: Counts births; 0 before the first.
        self.life = 0
        self._alive = False
        self.stopped = False
        self._stopped_since_us = 0
        self._stopped_us = 0
        #: How often it was stopped.
        self.stops = 0
        self._waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    @property
    def up(self) -> bool:
        """Whether the process exists (stopped or not): its sockets are open."""
        return self._alive

    def start(self) -> None:
        """Begin a life, with a monotonic clock that has its origin anywhere."""
        self.life += 1
        self._alive, self.stopped = True, False
        self.clock = Clock(self.simulator, origin_us=self.rng.randint(0, 10**12), drift=self.drift)
        self.note("starts")

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self.note("is killed")
        self._stopped_us = self.stopped_us()
        self._alive = self.stopped = False
        self._waiting.clear()

    def stop(self) -> None:
        """SIGSTOP."""
        if self._alive and not self.stopped:
            self.note("is stopped")
            self.stopped = True
            self.stops += 1
            self._stopped_since_us = self.simulator.now_us

    def stopped_us(self) -> int:
        """Return how long the process has been stopped, in all."""
        return self._stopped_us + (self.simulator.now_us - self._stopped_since_us if self.stopped else 0)

    def resume(self) -> None:
        """SIGCONT: what has waited happens now, in the order in which it came, in one gulp or in several."""
        if not self._alive or not self.stopped:
            return
        self.note("is resumed")
        self._stopped_us = self.stopped_us()
        self.stopped = False
        self._catch_up(self.life)

    def arrive(self, action: Callable[..., None], *arguments: Any) -> None:
        """Something happens to the process: now, or when it is resumed; never where it is dead."""
        if not self._alive:
            return
        if self.stopped or self._waiting:
            self._waiting.append((action, arguments))
            return
        action(*arguments)
        self.stirred()

    def _catch_up(self, life: int) -> None:
        """Take some of what has waited, in order; the rest a moment later, after the process had a chance to act on the first."""
        if life != self.life or self.stopped or not self._waiting:
            return
        some = self.rng.randint(1, len(self._waiting))
        taken = self._waiting[:some]
        for action, arguments in taken:
            if life != self.life or not self._alive:
                return
            del self._waiting[0]
            action(*arguments)
        self.stirred()
        if self._waiting:
            self.simulator.after(self.rng.randint(1, 2 * MILLISECOND), self._catch_up, life)

    def stirred(self) -> None:
        """Something happened: an occasion to act on it."""

    def later(self, local_us: int, action: Callable[..., None], *arguments: Any) -> None:
        """Run `action` after `local_us` of this process's own clock, in this life."""
        self.alarm(local_us, action, *arguments)

    def alarm(self, local_us: int, action: Callable[..., None], *arguments: Any) -> Timer:
        """The same, and it can be cancelled."""
        return self.simulator.after(self.clock.real_us(local_us), self._timed, self.life, action, arguments)

    def _timed(self, life: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if life == self.life:
            self.arrive(action, *arguments)

    def note(self, what: str) -> None:
        self.simulator.note(self.name, what)
