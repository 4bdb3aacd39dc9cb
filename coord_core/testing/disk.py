"""A disk that can lose what was not synced.

It keeps what `storage.api` promises and nothing more: a batch is durable, wholly, once its write has completed; a crash while it is
on its way leaves it there or not, never half, and so does an error.  After an error it takes nothing more in that life of its node.
Damage is found, as the contract demands: when the node starts, or reads the damaged chunk.  Rows, checksums and torn pages are the
storage room's own subject and its own tests.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from coord_core.errors import StorageCorrupt, StorageFailed
from coord_core.protocol.topics import TopicRecord
from coord_core.raft.messages import Entry, HardState
from coord_core.storage.api import Batch, Bootstrap, Restored
from coord_core.storage.memory import MemoryStorage
from coord_core.storage.snapshots import Chunk, Staging
from coord_core.testing.simulator import MILLISECOND, SECOND, Violation
from coord_core.types import LogIndex, Term, TopicNumber


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
        #: Bytes that still fit; None for plenty.  A write for which there is no room fails, and nothing of it is there.
        self.room: int | None = None
        #: The next write fails, and nobody can say whether it is there.
        self.failing = False
        #: What is wrong with the bytes, if anything: no node may go on from them.
        self.damage = ""
        #: With what every call fails until the node starts anew.
        self._failure: StorageFailed | None = None

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
        """The write that was on its way is durable.  Raises `StorageFailed` where it is not, or may not be: the node must stop."""
        batch, self._in_flight = self._in_flight, None
        if batch is None:
            raise AssertionError("no write is on its way")
        if self._failure is not None:
            raise self._failure
        if not self._fits(batch):
            raise self._fails("the disk is full", full=True)
        if not self.failing or self._rng.random() < 0.5:
            self.write(batch)
        if self.failing:
            self.failing = False
            raise self._fails("input/output error", full=False)

    def crash(self) -> bool:
        """Power is lost.  Returns whether the write on its way had made it."""
        batch, self._in_flight = self._in_flight, None
        if batch is None or self._failure is not None or not self._fits(batch) or self._rng.random() < 0.5:
            return False
        self.write(batch)
        return True

    @property
    def in_doubt(self) -> bool:
        """Whether it is damaged, or may turn out to be."""
        return bool(self.damage)

    def spoil(self, what: str) -> None:
        """Damage what is there."""
        self.damage = what

    def mend(self, speed: DiskSpeed) -> None:
        """Undo every trouble but damage."""
        self.speed, self.room, self.failing = speed, None, False

    def _fits(self, batch: Batch) -> bool:
        return self.room is None or _size(batch) <= self.room

    def _fails(self, what: str, *, full: bool) -> StorageFailed:
        self._failure = StorageFailed(what, full=full)
        return self._failure

    def write(self, batch: Batch) -> None:
        try:
            self._storage.write(batch)
        except StorageFailed as fault:
            raise Violation(f"a write that no storage would take: {fault.message}") from fault
        if self.room is not None:
            self.room -= _size(batch)

    def read_chunk(self, staging: Staging, seq: int) -> Chunk | None:
        """Return a chunk, or None where it was discarded.  Raises `StorageCorrupt`, or the error of a write that failed before."""
        if self._failure is not None:
            raise self._failure
        if self.damage:
            raise StorageCorrupt(self.damage)
        return self._storage.read_chunk(staging, seq)

    def read_records(self, topic: TopicNumber, offset: int, records_max: int, bytes_max: int) -> Sequence[TopicRecord]:
        """Return records of a topic.  Raises as `read_chunk` does."""
        if self._failure is not None:
            raise self._failure
        if self.damage:
            raise StorageCorrupt(self.damage)
        return self._storage.read_records(topic, offset, records_max, bytes_max)

    def restored(self) -> Restored:
        """Return what a node that starts now finds.  Raises `StorageCorrupt`."""
        if self.damage:
            raise StorageCorrupt(self.damage)
        self._failure = None
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


def _size(batch: Batch) -> int:
    """About how many bytes it takes: every write is a page at least."""
    records = sum(len(record.payload) for _, record in batch.records)
    return 100 + sum(len(entry.data) for entry in batch.entries) + sum(len(chunk.data) for chunk in batch.stage) + records
