"""What a forked child has of the node that its parent runs, and must let go of.

A child has copies of all descriptors.  While it has that of the lock, nobody can serve after the parent's death; while it has the
sockets, those who were connected to the parent do not notice it; and a destructor that closed SQLite's would write.

The rule: the child puts /dev/null in the place of each.  Nothing of the parent's is closed, written or unlocked by that, and
whatever in the child still knows a number does no harm with it.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def let_go(directory: Path, sockets: Iterable[int]) -> None:
    """Replace, in this process, the descriptors of files in `directory` and of `sockets`."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in [*_of_files(directory), *sockets]:
        with contextlib.suppress(OSError):
            os.dup2(null, fd, inheritable=False)
    os.close(null)


def _of_files(directory: Path) -> list[int]:
    below = f"{directory.resolve()}/"
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one with which the list was read
            if os.readlink(f"/proc/self/fd/{name}").startswith(below):
                found.append(int(name))
    return found
