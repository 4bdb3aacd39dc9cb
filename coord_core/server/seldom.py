"""What goes on for a night must not fill a disk with log lines: it is said once, and then seldom."""

import time
from collections.abc import Callable, Hashable

#: Between two lines that say the same.
PAUSE_S = 60.0
#: What is remembered as said; beyond it the oldest is forgotten, and may be said again early.
SAID_MAX = 256


class Seldom:
    """Tells what is due to be said."""

    def __init__(self, pause_s: float = PAUSE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._clock = clock
        # By what was said, in the order of saying: when.
        self._said: dict[Hashable, float] = {}

    def is_due(self, what: Hashable) -> bool:
        """Return whether to say `what` now; it counts as said then."""
        now = self._clock()
        at = self._said.get(what)
        if at is not None and now - at < self._pause_s:
            return False
        self._said.pop(what, None)
        self._said[what] = now
        if len(self._said) > SAID_MAX:
            del self._said[next(iter(self._said))]
        return True
