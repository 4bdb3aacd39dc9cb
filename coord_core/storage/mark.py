"""The mark: a file beside the database that knows which transaction was acknowledged last.

A database cannot tell that its newest transactions are gone: SQLite takes the write-ahead log up to the first frame that does not
check and answers as if the rest had never been.  A node that goes on from there has forgotten its votes and the entries it
acknowledged.  The mark is written after COMMIT and before the batch is acknowledged, so a database *below* its mark has lost
something.  A database above it is normal: the process died between the two.

The write is always made (it costs microseconds and survives the process); it is synced every 100 ms at most, since a sync of its
own for every batch would halve the speed.  What remains unseen: power loss *and* a damaged write-ahead log within those 100 ms.
"""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from coord_core.storage.failures import corrupt
from coord_core.storage.integrity import CHAIN_SIZE

#: How long an acknowledged transaction may stay unsynced in the mark.
SYNC_INTERVAL_SECONDS = 0.1

_MAGIC = b"coordmk1"
#: One record at offset 0, far smaller than a disk sector: overwriting it in place is atomic.
_RECORD = Struct(f">8sQ{CHAIN_SIZE}s")
_CRC = Struct(">I")


class MarkValue(NamedTuple):
    commit_seq: int
    #: End of the log's hash chain with that transaction.
    chain: bytes


class Mark:
    """The open mark file."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._fd = -1
        self._synced_at = float("-inf")
        #: When the oldest write that is not synced yet was made; None where all are.
        self._unsynced_since: float | None = None

    def create(self) -> None:
        """Write a first mark, below every transaction, durable before it has its name.  The caller syncs the directory."""
        draft = self._path.with_name(self._path.name + ".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, _record(MarkValue(0, bytes(CHAIN_SIZE))))
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.rename(self._path)

    def read(self) -> MarkValue:
        """Return the last value written.  Raises `StorageCorrupt` where the file is missing or not what was written."""
        try:
            data = os.pread(self._open(), 4096, 0)
        except FileNotFoundError as error:
            raise corrupt(self._path, "the mark of the last acknowledged transaction is missing") from error
        if len(data) != _RECORD.size + _CRC.size or not data.startswith(_MAGIC):
            raise corrupt(self._path, "this is not the mark of the last acknowledged transaction")
        if _CRC.unpack_from(data, _RECORD.size)[0] != zlib.crc32(data[: _RECORD.size]):
            raise corrupt(self._path, "the mark of the last acknowledged transaction is damaged: its checksum does not fit")
        _, commit_seq, chain = _RECORD.unpack_from(data)
        return MarkValue(commit_seq, chain)

    def advance(self, value: MarkValue) -> None:
        """Write the value; sync it only where earlier ones have waited for the whole interval (nobody called `sync_if_due`)."""
        os.pwrite(self._open(), _record(value), 0)
        now = self._clock()
        if self._unsynced_since is None:
            self._unsynced_since = now
        elif now - self._unsynced_since >= SYNC_INTERVAL_SECONDS:
            self.sync()

    def sync_if_due(self) -> float | None:
        """Sync now if the last sync is an interval ago.  Returns the seconds until it is; None where nothing is unsynced."""
        if self._unsynced_since is None:
            return None
        wait = self._synced_at + SYNC_INTERVAL_SECONDS - self._clock()
        if wait > 0:
            return wait
        self.sync()
        return None

    def sync_if_written(self) -> None:
        """Sync what was written since the last sync, if anything."""
        if self._unsynced_since is not None:
            self.sync()

    def sync(self) -> None:
        os.fdatasync(self._open())
        self._synced_at = self._clock()
        self._unsynced_since = None

    def close(self) -> None:
        """Idempotent.  Does not sync: after a failure nothing is to be touched any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR)
        return self._fd


def _record(value: MarkValue) -> bytes:
    record = _RECORD.pack(_MAGIC, value.commit_seq, value.chain)
    return record + _CRC.pack(zlib.crc32(record))
