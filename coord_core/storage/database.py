"""The one connection to `coord.db`: how it is opened, checkpointed and closed.

Durability rests on three settings.  WAL with `synchronous=FULL`: one fsync a COMMIT, before it returns.  No automatic checkpoint:
it would run inside some unlucky COMMIT and make it ten times slower; the owner calls `checkpoint` when it suits.  Exclusive
locking, by SQLite's `unix-excl` file system: one process has the file, so the WAL's index lives in memory instead of in a shared
file, which a full disk could not let grow.  Within the process, a second connection may read (`connect_reader`); `reading` says how
it keeps the WAL from being pinned.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from coord_core.storage.directory import allocate
from coord_core.storage.statements import BEGIN

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=0",
    # Many builds overwrite what is deleted with zeros.  Trimming the log would then write as much as was trimmed, in one
    # transaction.
    "PRAGMA secure_delete=OFF",
)


class Database:
    """An open database.

    `core` is for statements that run seldom: `with database.core.begin(): ...`.  `cursor` is the driver's, on the same connection,
    for the hot path; whoever uses it begins and commits by hand.  There is one only, so that `close` can end what it was doing: a
    statement that is still open keeps SQLite's locks beyond the connection.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises what SQLite raises."""
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._raw = _connect(path)
        self.cursor = self._raw.cursor()
        self._engine = create_engine("sqlite+pysqlite://", creator=lambda: self._raw, poolclass=StaticPool)
        event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql(BEGIN))
        self.core: Connection = self._engine.connect()

    def checkpoint(self) -> bool:
        """Copy the WAL into the database file, both synced; True where all of it went, so that the next write reuses the file."""
        busy, frames, copied = self.cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and frames == copied

    def roll_back(self) -> None:
        """End the transaction that an error has broken, if SQLite has not done it already."""
        if self._raw.in_transaction:
            self.cursor.execute("ROLLBACK")

    def preallocate_wal(self, size: int) -> None:
        """Let the WAL have room for so many bytes, whatever becomes of the disk.  Raises `OSError`.

        SQLite reads a WAL up to the first frame that does not check, zeros included, and does not shorten it while it is open.
        It has no locks on this file, so closing another handle of it drops none.
        """
        fd = os.open(self._wal, os.O_RDWR)
        try:
            allocate(fd, size)
        finally:
            os.close(fd)

    def wal_bytes(self) -> int:
        return _size(self._wal)

    def size_bytes(self) -> int:
        return _size(self._path) + _size(self._wal)

    def close(self) -> None:
        """Close, whatever state the connection is in.  Idempotent."""
        # Each step may fail where the disk has failed; whoever wrote has been told, and there is nothing more to save.
        for step in (self.cursor.close, self._raw.rollback, self.core.close, self._engine.dispose, self._raw.close):
            with contextlib.suppress(sqlite3.Error, SQLAlchemyError):
                step()


def connect_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads a database which is open in this process."""
    return _open(path, "&mode=ro")


def _open(path: Path, mode: str = "") -> sqlite3.Connection:
    # Each connection is used by one thread at a time, but not always by the one that made it.
    name = f"file:{quote(str(path))}?vfs=unix-excl{mode}"
    return sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False)


def _connect(path: Path) -> sqlite3.Connection:
    raw = _open(path)
    try:
        for pragma in _PRAGMAS:
            raw.execute(pragma).fetchall()
    except sqlite3.Error:
        raw.close()
        raise
    return raw


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
