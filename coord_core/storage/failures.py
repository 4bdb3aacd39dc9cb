"""Turns what the disk and SQLite raise into the errors that a node stops with.

Nothing is retried (but for want of room, once: `sqlite`): after a failed COMMIT or fsync nobody knows what is durable, and the
kernel may have dropped the very pages that a second try would call clean.
"""

import errno
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from coord_core.errors import START_ANEW, NodeError, StorageCorrupt, StorageFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

#: SQLite's extended codes carry the primary one in their low byte.
_PRIMARY_CODE = 0xFF


def corrupt(path: Path, what: str) -> StorageCorrupt:
    """The error for a file that is not what was written; it says what to do, since no restart will help."""
    return StorageCorrupt(
        f"{path}: {what}. This node must not vote on these files: move the directory {path.parent} away and {START_ANEW}.",
        path=str(path),
    )


def failure_of(error: BaseException, path: Path) -> NodeError:
    """Return the error to stop with for `error`, which came up while working on the database at `path`."""
    if isinstance(error, NodeError):
        return error
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    code = _primary_code(error)
    if code in _DAMAGED or _is_undecodable(error):
        return corrupt(path, f"SQLite finds it damaged ({error})")
    if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno in _FULL):
        return StorageFailed(
            f"{path}: the disk is full ({error}), and the reserve is used. The last batch was not stored; free some space and start"
            " the node again.",
            path=str(path),
            full=True,
        )
    return StorageFailed(
        f"{path}: {str(error) or type(error).__name__}. The node stops; what it was writing may or may not be durable.",
        path=str(path),
        full=False,
    )


def is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite had no room to write."""
    return _primary_code(error) == sqlite3.SQLITE_FULL


def _primary_code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY_CODE


def _is_undecodable(error: BaseException) -> bool:
    """Text that is no text: the driver's own complaint, the only one of its kind without a code of SQLite's."""
    return isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode")
