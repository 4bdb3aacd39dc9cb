"""A storage without a disk, for tests and the simulator.

It keeps the whole contract of `api` except surviving its process: what `write` took is there until the object goes.  Lost and torn
writes are the simulator's business, which wraps it.
"""

from coord_core.errors import StorageFailed
from coord_core.raft.messages import Entry, HardState
from coord_core.storage.api import Batch, Bootstrap, Restored
from coord_core.storage.rules import founding_hard_state, misfit
from coord_core.types import LogIndex


class MemoryStorage:
    """Durable for as long as the object lives."""

    def __init__(self) -> None:
        self._bootstrap: Bootstrap | None = None
        self._hard_state = HardState()
        #: Entry i of the list has index snapshot index + 1 + i.
        self._entries: list[Entry] = []
        self._failure: StorageFailed | None = None

    def load(self) -> Restored | None:
        self._check_usable()
        if self._bootstrap is None:
            return None
        return Restored(self._bootstrap, self._hard_state, list(self._entries))

    def form(self, bootstrap: Bootstrap) -> None:
        self._check_usable()
        if self._bootstrap is not None:
            raise StorageFailed(f"node {self._bootstrap.identity.name} is formed already")
        self._bootstrap = bootstrap
        self._hard_state = founding_hard_state(bootstrap)

    def write(self, batch: Batch) -> None:
        self._check_usable()
        if self._bootstrap is None:
            raise self._poison("the node has not been formed")
        if batch.entries:
            fault = misfit(batch, self._bootstrap.snapshot.index, self.last_index())
            if fault:
                raise self._poison(fault)
            kept = batch.entries[0].index - self._bootstrap.snapshot.index - 1
            self._entries[kept:] = batch.entries
        if batch.hard_state is not None:
            self._hard_state = batch.hard_state

    def last_index(self) -> LogIndex:
        self._check_usable()
        if self._bootstrap is None:
            raise StorageFailed("the node has not been formed")
        return LogIndex(self._bootstrap.snapshot.index + len(self._entries))

    def close(self) -> None:
        self._failure = self._failure or StorageFailed("the storage is closed")

    def clone(self) -> "MemoryStorage":
        """Return an open storage with the same content, as a restarted node would find it.  Entries are shared, not copied."""
        other = MemoryStorage()
        other._bootstrap = self._bootstrap
        other._hard_state = self._hard_state
        other._entries = self._entries.copy()
        return other

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _poison(self, message: str) -> StorageFailed:
        self._failure = StorageFailed(message)
        return self._failure
