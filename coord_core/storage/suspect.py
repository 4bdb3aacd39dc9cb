"""The node that was told that it cannot be trusted any more stays so: a file in its data directory says why.

What a node finds out while it runs (its leader saw it acknowledge what it does not have, a majority has another state) it would
have to find out again after every restart, and until then it would vote.  So it writes the reason down before it ends, and no
storage opens in a directory that has one.  A node has no way to take it back; the directory is to be moved away, as it advises.
"""

import os
from pathlib import Path

from coord_core.errors import NodeSuspect
from coord_core.storage.directory import sync_directory

SUSPECT = "suspect"

#: Enough for any reason; more was not written by this code.
_BYTES_MAX = 65_536


def condemn(data_dir: Path, reason: str) -> None:
    """Write down, durably, why the node of this directory must not run again.  An earlier reason stays: it is nearer to the cause.

    Raises `OSError`.
    """
    path = data_dir / SUSPECT
    if path.exists():
        return
    draft = path.with_name(SUSPECT + ".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, reason.encode()[:_BYTES_MAX])
        os.fsync(fd)
    finally:
        os.close(fd)
    draft.rename(path)
    sync_directory(data_dir)


def acquit(data_dir: Path) -> None:
    """Take the reason back, durably: for who wrote it down against his own work, which is whole now.  Raises `OSError`."""
    (data_dir / SUSPECT).unlink()
    sync_directory(data_dir)


def refuse_suspect(data_dir: Path) -> None:
    """Raise `NodeSuspect` with the reason where the node of this directory was condemned."""
    path = data_dir / SUSPECT
    try:
        reason = path.read_bytes()[:_BYTES_MAX].decode(errors="replace")
    except FileNotFoundError:
        return
    raise NodeSuspect(f"{path}: this node found out earlier that it must not go on: {reason}", path=str(path))
