"""A disk that can lose what was not synced.

It keeps what `storage.api` promises and nothing more: a batch is durable, wholly, once its write has completed; a crash while it is
on its way leaves it there or not, never half.  Rows, checksums and torn pages are the storage room's own subject and its own tests.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from coord_core.errors import StorageFailed
from coord_core.raft.messages import Entry, HardState
from coord_core.storage.api import Batch, Bootstrap, Restored
from coord_core.storage.memory import MemoryStorage
from coord_core.storage.snapshots import Chunk, Staging
from coord_core.testing.simulator import MILLISECOND, SECOND, Violation
from coord_core.types import LogIndex, Term


@dataclass(frozen=True, slots=True)
class DiskSpeed:
    """How long a commit takes, in microseconds: usually between the first two, sometimes up to the third."""

    usual_us_min: int = 300
    usual_us_max: int = 4 * MILLISECOND
    hiccup_us_max: int = 40 * MILLISECOND
    hiccup_chance: float = 0.01


#: A disk in trouble: each commit takes up to ten seconds.
STALLED = DiskSpeed(usual_us_min=500 * MILLISECOND, usual_us_max=10 * SECOND, hiccup_us_max=10 * SECOND, hiccup_chance=0.0)


class SimulatedDisk:
    """What one node's disk holds, and the one write that may be on its way to it."""

    def __init__(self, bootstrap: Bootstrap, rng: random.Random, speed: DiskSpeed) -> None:
        self.bootstrap = bootstrap
        self.speed = speed
        self._storage = MemoryStorage()
        self._storage.form(bootstrap)
        self._rng = rng
        self._in_flight: Batch | None = None

    @property
    def busy(self) -> bool:
        return self._in_flight is not None

    def begin(self, batch: Batch) -> int:
        """Start to write; returns how many microseconds it will take.  At most one write is on its way."""
        if self._in_flight is not None:
            raise Violation("two writes at once: a node must wait for the first")
        self._in_flight = batch
        if self._rng.random() < self.speed.hiccup_chance:
            return self._rng.randint(self.speed.usual_us_max, self.speed.hiccup_us_max)
        return self._rng.randint(self.speed.usual_us_min, self.speed.usual_us_max)

    def complete(self) -> None:
        """The write that was on its way is durable."""
        if self._in_flight is None:
            raise AssertionError("no write is on its way")
        self.write(self._in_flight)
        self._in_flight = None

    def crash(self) -> bool:
        """Power is lost.  Returns whether the write on its way had made it."""
        landed = self._in_flight is not None and self._rng.random() < 0.5
        if landed:
            self.complete()
        self._in_flight = None
        return landed

    def write(self, batch: Batch) -> None:
        try:
            self._storage.write(batch)
        except StorageFailed as fault:
            raise Violation(f"a write that no storage would take: {fault.message}") from fault

    def read_chunk(self, staging: Staging, seq: int) -> Chunk | None:
        return self._storage.read_chunk(staging, seq)

    def restored(self) -> Restored:
        """Return what a node that starts now finds."""
        restored = self._storage.load()
        assert restored is not None, "it was formed when it was made"
        return restored

    @property
    def hard_state(self) -> HardState:
        return self._storage.hard_state

    @property
    def entries(self) -> Sequence[Entry]:
        """Durable entries; the first follows `log_index`."""
        return self._storage.entries

    @property
    def log_index(self) -> LogIndex:
        """What came before it is in a snapshot only; the founding one's where there is no other."""
        return self._storage.log_index

    def last_index(self) -> LogIndex:
        return self._storage.last_index()

    def term_at(self, index: int) -> Term | None:
        """Return the term of the durable entry at `index`, or None where there is none."""
        if index == self.log_index:
            return self._storage.log_term
        at = index - int(self.log_index) - 1
        return self.entries[at].term if 0 <= at < len(self.entries) else None
