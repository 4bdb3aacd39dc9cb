"""A simulated disk whose node writes real files: `SqliteStorage`, and what a power cut or damage makes of its bytes.

    run(7, disks=Files(directory))

Whatever the node is given back must be what `SimulatedDisk` says that it wrote: all of what was acknowledged, and of the write that
was on its way everything or nothing.  Otherwise the storage must have refused to start.

- *Power is lost*: of the sectors that the write-ahead log was given since its last sync, any may be there and any not.
- *Damage*: bits flip anywhere in the files, or the end of the write-ahead log is gone, synced or not.

Rule: a power cut leaves the mark of the last acknowledged transaction as it was before the write under way.  That an older mark and
damage come together is what the storage does not promise to see.
"""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from coord_core.errors import StorageCorrupt
from coord_core.raft.messages import Entry, HardState
from coord_core.storage.api import Batch, Bootstrap, Restored
from coord_core.storage.directory import DATABASE, MARK, WAL
from coord_core.storage.snapshots import Chunk, Staging
from coord_core.storage.sqlite import SqliteStorage
from coord_core.testing.disk import DiskSpeed, SimulatedDisk
from coord_core.testing.simulator import Violation

#: What a disk writes wholly or not at all.
SECTOR_BYTES = 512


class Files:
    """Makes the disks of one cluster, below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.disks: list[FileDisk] = []

    def __call__(self, bootstrap: Bootstrap, rng: random.Random, speed: DiskSpeed) -> SimulatedDisk:
        disk = FileDisk(bootstrap, rng, speed, self._directory / f"{bootstrap.identity.name} {bootstrap.identity.node_id}")
        self.disks.append(disk)
        return disk

    def close(self) -> None:
        for disk in self.disks:
            disk.close()


class FileDisk(SimulatedDisk):
    """See the module's text.  What `SimulatedDisk` keeps in memory is the expectation."""

    def __init__(self, bootstrap: Bootstrap, rng: random.Random, speed: DiskSpeed, directory: Path) -> None:
        super().__init__(bootstrap, rng, speed)
        self._directory = directory
        self._life = 0
        self._flips = False
        self._files = SqliteStorage(self._place())
        self._files.form(bootstrap)
        #: How often power was lost in the middle of a write, how often it left all of that write, and how often damage was found.
        self.torn = self.survived = self.refused = 0

    def close(self) -> None:
        self._files.close()

    def _place(self) -> Path:
        return self._directory / f"life {self._life}"

    # --- what the node does -------------------------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        super().write(batch)
        self._files.write(batch)

    def read_chunk(self, staging: Staging, seq: int) -> Chunk | None:
        expected, chunk = super().read_chunk(staging, seq), self._files.read_chunk(staging, seq)
        if chunk != expected and expected is not None:
            raise Violation(f"chunk {seq} of staging {staging} is not what was written")
        return expected

    def restored(self) -> Restored:
        """Return what the files hold.  Raises `StorageCorrupt` where they are damaged and `Violation` where that is not noticed."""
        expected = super().restored()
        self._files.close()
        try:
            self._files = SqliteStorage(self._place())
            found = self._files.load()
        except StorageCorrupt as fault:
            if not self._flips:
                raise Violation(f"the storage refuses files that nothing has damaged: {fault.message}") from fault
            self.refused += 1
            # Without the storage's own words: they name a directory, and equal seeds have equal traces.
            self.damage = "the storage finds its files damaged"
            raise StorageCorrupt(self.damage) from fault
        if found is None or _content(found) != _content(expected):
            raise Violation("the storage serves what was not written")
        self._flips = False
        return found

    # --- what happens to the bytes ------------------------------------------------------------------------------------------------

    @property
    def in_doubt(self) -> bool:
        return self._flips or super().in_doubt

    def spoil(self, what: str) -> None:
        """Damage the files when the node's process ends, which need not be now.  It may concern nothing that is still needed."""
        self._flips = True

    def crash(self) -> bool:
        """Power is lost: go on with a copy of the files as the cut has left them."""
        batch, self._in_flight = self._in_flight, None
        begun = batch is not None and self._failure is None and self._fits(batch)
        before = self._place()
        wal = (before / WAL).read_bytes()
        mark = (before / MARK).read_bytes()
        if begun:
            assert batch is not None
            self._files.write(batch)
        self._life += 1
        shutil.copytree(before, self._place())
        self._files.close()
        shutil.rmtree(before)
        landed = False
        if begun:
            assert batch is not None
            (self._place() / MARK).write_bytes(mark)
            self._tear(wal)
            landed = self._has_landed(batch)
        if self._flips:
            self._damage()
        return landed

    def _tear(self, before: bytes) -> None:
        path = self._place() / WAL
        path.write_bytes(_torn(before, path.read_bytes(), self._rng))
        self.torn += 1

    def _has_landed(self, batch: Batch) -> bool:
        """Look, in a copy, whether all of the write is there; what is there by half `restored` will find."""
        look = self._directory / "look"
        shutil.copytree(self._place(), look)
        storage = SqliteStorage(look)
        try:
            found = storage.load()
        finally:
            storage.close()
            shutil.rmtree(look)
        assert found is not None
        expected = self._storage.clone()
        expected.write(batch)
        after = expected.load()
        assert after is not None
        if _content(found) != _content(after) or _content(found) == _content(super().restored()):
            return False
        self.survived += 1
        super().write(batch)
        return True

    def _damage(self) -> None:
        if self._rng.random() < 0.5:
            path = self._place() / WAL
            data = path.read_bytes()
            path.write_bytes(data[: self._rng.randint(0, len(data))])
            return
        path = self._place() / self._rng.choice((DATABASE, WAL, WAL, MARK))
        flipped = bytearray(path.read_bytes())
        for _ in range(self._rng.choice((1, 1, 8))):
            if flipped:
                flipped[self._rng.randint(0, len(flipped) - 1)] ^= 1 << self._rng.randint(0, 7)
        path.write_bytes(flipped)


def _torn(before: bytes, after: bytes, rng: random.Random) -> bytes:
    """Return what may be there of `after`, written over `before` and not synced: a beginning, or any sectors of it."""
    at = range(0, len(after), SECTOR_BYTES)
    changed = [offset for offset in at if after[offset : offset + SECTOR_BYTES] != before[offset : offset + SECTOR_BYTES]]
    choice = rng.random()
    if choice < 0.2:
        there = set(changed)
    elif choice < 0.6:
        there = set(changed[: rng.randint(0, len(changed))])
    else:
        there = {offset for offset in changed if rng.random() < 0.8}
    found = bytearray(after)
    for offset in changed:
        if offset not in there:
            old = before[offset : offset + SECTOR_BYTES]
            found[offset : offset + SECTOR_BYTES] = old.ljust(len(after[offset : offset + SECTOR_BYTES]), b"\0")
    end = max((offset + SECTOR_BYTES for offset in there), default=0)
    return bytes(found[: max(len(before), end)]) if rng.random() < 0.5 else bytes(found)


def _content(restored: Restored) -> tuple[HardState, Sequence[Entry], object]:
    """What writes can change, in a form that can be compared."""
    snapshot = restored.snapshot
    kept = None if snapshot is None else (snapshot.info, snapshot.log_index, snapshot.log_term, list(snapshot.chunks))
    return restored.hard_state, list(restored.entries), kept
