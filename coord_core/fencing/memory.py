"""Fences in this process's memory, for what this one process guards, and for tests.

The rule: what is kept here is forgotten with the process, so what it guards must be too.  Nothing is forgotten earlier: a name that
was thrown out to make room would let a late writer in, so a full table refuses new names.
"""

import threading

from coord_core.errors import LimitExceeded
from coord_core.fencing.tokens import Holding, fencing_of, stale

NAMES_MAX = 1_000_000


class MemoryFences:
    """The greatest token seen of each name.  Use it from any thread."""

    def __init__(self, names_max: int = NAMES_MAX) -> None:
        self._newest: dict[str, int] = {}
        self._names_max = names_max
        self._door = threading.Lock()

    def check(self, holding: Holding, *, name: str | None = None) -> None:
        """Remember the token, or raise `StaleToken`; `LimitExceeded` where there are too many names."""
        fencing = fencing_of(holding, name)
        with self._door:
            newest = self._newest.get(fencing.name)
            if newest is not None and newest > fencing.token:
                raise stale(fencing, newest)
            if newest is None and len(self._newest) >= self._names_max:
                message = f"there are tokens of {self._names_max} names already: use SqlFences or RedisFences"
                raise LimitExceeded(message, limit=self._names_max, value=len(self._newest) + 1)
            self._newest[fencing.name] = fencing.token

    def newest(self, name: str) -> int | None:
        """Return the greatest token seen; None: none yet."""
        return self._newest.get(name)
