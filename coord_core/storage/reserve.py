"""Measures the room of a data directory, and keeps some of it aside.

Others may share the disk, and a node that finds it full must still be able to vote, to store a term, to release a lock.  So a file
`reserve` is preallocated: nobody else can have those bytes.  When almost nothing is free besides, it is given up; when there is
enough again, it is taken anew.

Who is so hungry that it takes what was given up in the same moment finds that the write-ahead log has as much again of its own,
preallocated in its file.  All that is on its way then fits in there, and so do terms and votes, over and over.

The rule: a measurement is cheap and good for so long (`LOOK_SECONDS`) and so many bytes written (`LOOK_BYTES`); what happens faster
than that, SQLite finds out, and then the reserve is given up at once (`sqlite`).
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from coord_core.storage.directory import allocate, sync_directory
from coord_core.storage.room import UNMEASURED, Room, RoomLimits

RESERVE = "reserve"

#: The longest that a measurement is good for, in seconds and in bytes written since.
LOOK_SECONDS = 0.1
LOOK_BYTES = 4 * 1024 * 1024

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def file_system_bytes(data_dir: Path) -> int:
    """Return how many bytes this process could write there, as the file system says."""
    found = os.statvfs(data_dir)
    return found.f_bavail * found.f_frsize


def preallocated(preallocate: Callable[[], None]) -> bool:
    """Do it; False where somebody else was faster and has the room.  Raises any other `OSError`."""
    try:
        preallocate()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        return False
    return True


class Reserve:
    """The room of one data directory.  For the storage thread; `room` may be read by anybody."""

    def __init__(
        self,
        data_dir: Path,
        limits: RoomLimits | None,
        clock: Callable[[], float],
        free_bytes: Callable[[Path], int] = file_system_bytes,
    ) -> None:
        """`limits`: None measures nothing and sets nothing aside."""
        self.room: Room = UNMEASURED
        self._data_dir = data_dir
        self._path = data_dir / RESERVE
        self._limits = limits
        self._clock = clock
        self._file_system_bytes = free_bytes
        self._looked_at = float("-inf")
        self._written = 0
        #: Bytes of the file; 0 where it was given up.
        self._held = 0

    def begin(self) -> None:
        """Take up what an earlier run left, measure, and set aside what is missing.  Raises `OSError`."""
        if self._limits is None:
            return
        with suppress(FileNotFoundError):
            self._held = self._path.stat().st_size
        if self._held not in (0, self._limits.reserve_bytes):
            # Cut off while it was made, or of another configuration.
            self.give_up()
        self.look()

    def wrote(self, count: int) -> None:
        """About so many bytes were written."""
        self._written += count

    def look(self) -> Room:
        """Measure, where the last time is long ago; act on it; return what is known.  Raises `OSError`."""
        if self._limits is None:
            return self.room
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS or self._written >= LOOK_BYTES:
            self._looked_at, self._written = now, 0
            self._measure(self._limits)
        return self.room

    def give_up(self) -> bool:
        """Give the reserved bytes back to the disk; False where there are none left to give.  Raises `OSError`."""
        if not self._held:
            return False
        self._path.unlink(missing_ok=True)
        # Many file systems let nobody have the blocks before that is committed.
        sync_directory(self._data_dir)
        self._held = 0
        self._looked_at = float("-inf")
        return True

    def _measure(self, limits: RoomLimits) -> None:
        free = self._free_bytes(limits)
        if self._held and free < limits.give_up_bytes:
            self.give_up()
            free = self._free_bytes(limits)
        elif not self._held and free >= 2 * limits.reserve_bytes:
            self._take(limits.reserve_bytes)
            free = self._free_bytes(limits)
        self.room = Room(limits.level(free + self._held, self.room.level), free, limits.ample_again_bytes - self._held)

    def _take(self, size: int) -> None:
        if preallocated(lambda: self._make(size)):
            self._held = size
        else:
            self._path.unlink(missing_ok=True)

    def _make(self, size: int) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            allocate(fd, size)
        finally:
            os.close(fd)

    def _free_bytes(self, limits: RoomLimits) -> int:
        free = self._file_system_bytes(self._data_dir)
        if limits.quota_bytes:
            free = min(free, limits.quota_bytes - self._used_bytes())
        return max(free, 0)

    def _used_bytes(self) -> int:
        used = 0
        with os.scandir(self._data_dir) as files:
            for file in files:
                # Others may put files there too, and take them away just now.
                with suppress(FileNotFoundError):
                    used += file.stat(follow_symlinks=False).st_size
        return used
