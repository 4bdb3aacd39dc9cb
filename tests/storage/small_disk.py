"""A small disk to fill up: a tmpfs of its own where this process may mount one, else a directory with a quota."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True)
class SmallDisk:
    """What is on it, is in `path`; others use `filler`."""

    path: Path
    size: int
    #: Whether the kernel itself refuses what does not fit.
    is_real: bool

    @property
    def quota_bytes(self) -> int:
        """For the node's configuration."""
        return 0 if self.is_real else self.size

    def free(self) -> int:
        if self.is_real:
            found = os.statvfs(self.path)
            return found.f_bavail * found.f_frsize
        return self.size - sum(file.stat().st_size for file in self.path.iterdir())

    def fill(self, leave: int) -> None:
        """Let others take all but `leave` bytes of what is free now."""
        more = self.free() - leave
        if more <= 0:
            return
        with (self.path / "filler").open("ab") as filler:
            size = filler.seek(0, os.SEEK_END)
            if self.is_real:
                os.posix_fallocate(filler.fileno(), size, more)
            else:
                filler.truncate(size + more)

    def clear(self) -> None:
        """Others remove what they had there."""
        (self.path / "filler").unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[SmallDisk]:
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "coord-test", str(path)]
    is_real = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield SmallDisk(path, size, is_real)
    finally:
        if is_real:
            subprocess.run(["umount", "-l", str(path)], check=True)


#: Makes a small disk at a place that a test names; it is gone with the test.
MakeDisk = Callable[[Path], SmallDisk]
