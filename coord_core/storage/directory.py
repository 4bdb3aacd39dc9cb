"""The data directory: made for its owner alone, and held by one process at a time.

Files: `coord.db` and `coord.db-wal` (SQLite), `mark`, `reserve` and `suspect` (see there), `lock`.  Whoever copies or restores a
directory takes all of them together or none; the reserve does not matter.
"""

import errno
import fcntl
import os
from pathlib import Path

from coord_core.errors import DataDirInUse, StorageFailed

DATABASE = "coord.db"
WAL = "coord.db-wal"
MARK = "mark"
LOCK = "lock"

_ZEROS = 1024 * 1024


class DataDirectory:
    """An existing directory that this process holds until `release`."""

    def __init__(self, path: Path) -> None:
        """Make the directory if it is not there and lock it.

        Raises `DataDirInUse` where another process (or another storage in this one) has it, `StorageFailed` where it cannot be
        made or entered.
        """
        # A process may change its working directory; an open storage keeps its files.
        self.path = path.absolute()
        self.database = self.path / DATABASE
        self.wal = self.path / WAL
        self.mark = self.path / MARK
        self._lock_fd = -1
        try:
            self._make()
            self._lock()
        except OSError as error:
            self.release()
            raise StorageFailed(f"data directory {self.path}: {_why(error)}", path=str(self.path), full=False) from error

    def sync(self) -> None:
        """Make created, renamed and removed names durable."""
        sync_directory(self.path)

    def release(self) -> None:
        """Let another process in.  Idempotent.  The lock file stays: removing it would race with the next holder."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _make(self) -> None:
        if self.path.is_dir():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self.path.parent)

    def _lock(self) -> None:
        # flock, not fcntl: the lock goes with the process however it dies, and closing another handle does not drop it.
        self._lock_fd = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._lock_fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise DataDirInUse(
                f"data directory {self.path} is in use by process {pid}; stop that one or choose another directory",
                path=str(self.path),
                pid=int(pid) if pid.isdigit() else None,
            ) from error
        # Always as long, and over what is there: on a full disk a file that was cut may find no room to grow again.
        os.pwrite(self._lock_fd, f"{os.getpid():<31}\n".encode("ascii"), 0)


def _why(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename} is there and is no directory"
    return f"it cannot be made or entered: {error.strerror or error}"


def allocate(fd: int, size: int) -> None:
    """Give a file that many bytes of the disk, behind what it holds.  Raises `OSError`."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        # A file system, or a C library, that cannot: zeros take the same room.
        for offset in range(os.fstat(fd).st_size, size, _ZEROS):
            os.pwrite(fd, bytes(min(_ZEROS, size - offset)), offset)


def sync_directory(path: Path) -> None:
    """Make created, renamed and removed names in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
