"""Storage in SQLite: one database, one connection, one transaction a batch, one fsync a transaction.

Rule: nothing is acknowledged before COMMIT has returned and the mark is written, and nothing is tried again: the first error
poisons the storage, and the node stops.  The one exception is a disk that has no room, while there is a reserve: `_with_reserve`
says why that is safe.

This file is the shell: opening, poisoning, checkpoints, closing.  The transaction is in `writer`, reading and verifying in
`restore`, the way rows are sealed in `rows` and `integrity`, what is known outside the database in `mark`, room in `reserve`.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Table, insert

from coord_core.errors import NodeError, StorageFailed
from coord_core.protocol.topics import TopicRecord
from coord_core.storage import integrity
from coord_core.storage.api import Batch, Bootstrap, Restored
from coord_core.storage.database import Database
from coord_core.storage.directory import DataDirectory
from coord_core.storage.failures import corrupt, failure_of, is_full
from coord_core.storage.mark import Mark, MarkValue
from coord_core.storage.migrate import bring_up_to_date
from coord_core.storage.reading import RecordReader
from coord_core.storage.reserve import Reserve, file_system_bytes, preallocated
from coord_core.storage.restore import First, Tail, restore
from coord_core.storage.room import Level, Room, RoomLimits
from coord_core.storage.rules import founding_hard_state
from coord_core.storage.snapshots import Chunk, Staging, chunk_crc
from coord_core.storage.statements import SELECT_CHUNK
from coord_core.storage.suspect import refuse_suspect
from coord_core.storage.tables import FORMAT, founding, hard_state, meta
from coord_core.storage.writer import Writer
from coord_core.types import LogIndex, TopicNumber

T = TypeVar("T")

#: A checkpoint is made when the WAL has this much and there is nothing to write ...
CHECKPOINT_IDLE_BYTES = 2 << 20
#: ... and when it has this much in any case, before the next write.  The file is then reused from its start.
CHECKPOINT_BUSY_BYTES = 8 << 20

#: Where room is not ample, a quiet moment makes a checkpoint of less: what comes next is written where the WAL has been already,
#: and takes no room at all.  On a full disk each transaction of a vote is followed by one.
CHECKPOINT_LOW_BYTES = 256 << 10
CHECKPOINT_FULL_BYTES = 1
_CHECKPOINT_IDLE = {Level.AMPLE: CHECKPOINT_IDLE_BYTES, Level.LOW: CHECKPOINT_LOW_BYTES, Level.FULL: CHECKPOINT_FULL_BYTES}

#: Chunks of old snapshots that go in one quiet moment, and how soon that is tried again where there was no room for it.
IDLE_CHUNKS = 16
TIDY_AGAIN_SECONDS = 1.0


class SqliteStorage:
    """`api.Storage` on a data directory, plus `idle`, `look` and `size_bytes` for whoever runs it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        room: RoomLimits | None = None,
        free_bytes: Callable[[Path], int] = file_system_bytes,
    ) -> None:
        """Make, lock and open the directory and bring its tables up to date.

        `room`: what to keep free; None: nothing, and nothing is measured.

        Raises `DataDirInUse`, `StorageCorrupt`, `NodeSuspect`, or `StorageFailed` (also for a database of a newer release).
        """
        self._failure: NodeError | None = None
        #: None until `load` or `form` has found or made a node.
        self._writer: Writer | None = None
        self._directory = DataDirectory(data_dir)
        self._path = self._directory.database
        self._mark = Mark(self._directory.mark, clock)
        self._reserve = Reserve(self._directory.path, room, clock, free_bytes)
        self._final_errors = _FinalErrors(self)
        with self._final_errors:
            self._database = self._open()
        self._reader: RecordReader | None = None
        #: All of the WAL was copied: the next write begins it anew, if nobody reads meanwhile.
        self._begins_wal_anew = False
        #: What its file should have room for and does not have yet.
        self._wal_wants_bytes = 0 if room is None else room.reserve_bytes
        #: About what the WAL holds since it was last copied wholly: its file keeps its size when it is reused.
        self._wal_bytes = self._database.wal_bytes()

    def load(self) -> Restored | None:
        self._check_usable()
        with self._final_errors:
            found = restore(self._database, self._path, self._mark.read())
            if found is None:
                return None
            # What a killed process wrote but did not sync reads like the rest, and from here on counts as durable: make it so.
            self._checkpoint()
            writer = self._take_up(found.restored.bootstrap, found.first, found.tail, found.leftovers)
        return replace(found.restored, records_index=writer.shelf.applied_index, held=dict(writer.shelf.held))

    def form(self, bootstrap: Bootstrap) -> None:
        self._check_usable()
        if self._writer is not None or self.load() is not None:
            raise StorageFailed(f"{self._path}: this directory holds a formed node already", path=str(self._path))
        with self._final_errors:
            data = msgspec.msgpack.encode(bootstrap)
            first = First(bootstrap.snapshot.index, integrity.first_link(data), bootstrap.snapshot.index)
            self._take_up(bootstrap, first, self._insert_founding(bootstrap, data), [])

    def write(self, batch: Batch) -> None:
        self._check_usable()
        with self._final_errors:
            if batch.is_empty:
                return
            writer = self._formed()
            if self._wal_bytes >= CHECKPOINT_BUSY_BYTES:
                self._checkpoint()
            with self._alone() if self._begins_wal_anew else nullcontext():
                written = self._with_reserve(lambda: writer.write(batch))
            self._begins_wal_anew = False
            self._wal_bytes += written
            self._reserve.wrote(written)
            self._mark.advance(MarkValue(writer.tail.commit_seq, writer.tail.chain))

    def read_chunk(self, staging: Staging, seq: int) -> Chunk | None:
        self._check_usable()
        with self._final_errors:
            row = self._database.cursor.execute(SELECT_CHUNK, (staging, seq)).fetchone()
            if row is None or staging in self._formed().leftovers:
                return None
            crc, data = row
            if not isinstance(data, bytes) or chunk_crc(seq, data) != crc:
                raise corrupt(self._path, f"chunk {seq} of staging {staging} is damaged: its checksum does not fit")
            return Chunk(staging, seq, crc, data)

    def read_records(self, topic: TopicNumber, offset: int, records_max: int, bytes_max: int) -> list[TopicRecord]:
        self._check_usable()
        with self._final_errors:
            if self._reader is None:
                self._reader = RecordReader(self._path)
            return self._reader.read(topic, offset, records_max, bytes_max)

    def last_index(self) -> LogIndex:
        self._check_usable()
        return self._formed().tail.last_index

    def idle(self) -> float | None:
        """Do what waits for a quiet moment: a checkpoint, removing old snapshots, the mark's sync.  For the writer thread, when
        it has nothing to write.

        Returns the seconds after which it wants to be called again if no write comes before; None where nothing waits.
        """
        self._check_usable()
        with self._final_errors:
            if self._wal_bytes >= _CHECKPOINT_IDLE[self._reserve.room.level]:
                self._checkpoint()
            writer = self._writer
            # It gives room back, and takes some of the WAL first.
            if writer is not None and writer.has_leftovers and self._reserve.room.level is not Level.FULL:
                return 0.0 if self._if_room(lambda: writer.tidy(IDLE_CHUNKS)) else TIDY_AGAIN_SECONDS
            return self._mark.sync_if_due()

    def look(self) -> Room:
        """Return how much room there is, measured a moment ago at the latest.  For the writer thread, as often as it likes."""
        self._check_usable()
        with self._final_errors:
            room = self._reserve.look()
            if self._wal_wants_bytes and self._writer is not None and room.free_bytes >= 2 * self._wal_wants_bytes:
                self._preallocate_wal()
            return room

    def size_bytes(self) -> int:
        """Bytes on disk, the write-ahead log included.  May be called from any thread."""
        return self._database.size_bytes()

    def close(self) -> None:
        """Release files and locks.  Idempotent."""
        try:
            if self._failure is None:
                with self._final_errors:
                    self._mark.sync_if_written()
        finally:
            self._failure = self._failure or StorageFailed(f"{self._path}: the storage is closed", path=str(self._path))
            self._mark.close()
            if self._reader is not None:
                self._reader.close()
            self._database.close()
            self._directory.release()

    def _open(self) -> Database:
        with ExitStack() as undo:
            undo.callback(self._directory.release)
            refuse_suspect(self._directory.path)
            self._reserve.begin()
            # The mark comes first: from here on, a database without one has lost it.
            if not self._path.exists() and not self._directory.mark.exists():
                self._mark.create()
                self._directory.sync()
            database = Database(self._path)
            undo.callback(database.close)
            bring_up_to_date(database.core, self._path)
            self._directory.sync()
            undo.pop_all()
        return database

    def _take_up(self, bootstrap: Bootstrap, first: First, tail: Tail, leftovers: list[Staging]) -> Writer:
        """Be ready to write after `tail`, which is durable."""
        self._writer = Writer(self._database, self._path, bootstrap.identity, first, tail)
        self._writer.leftovers += leftovers
        self._mark.advance(MarkValue(tail.commit_seq, tail.chain))
        self._mark.sync_if_written()
        return self._writer

    def _insert_founding(self, bootstrap: Bootstrap, data: bytes) -> Tail:
        state = founding_hard_state(bootstrap)
        state_crc = integrity.hard_state_crc(state)
        tail = Tail(1, bootstrap.snapshot.index, integrity.first_link(data), state_crc)
        identity = integrity.identity_crc(bootstrap.identity)
        tables: dict[Table, dict[str, Any]] = {
            founding: {"data": data, "crc": integrity.founding_crc(data)},
            hard_state: {"term": state.term, "voted_for": state.voted_for, "commit_index": state.commit, "crc": state_crc},
            meta: {
                "format": FORMAT,
                **msgspec.structs.asdict(bootstrap.identity),
                "commit_seq": tail.commit_seq,
                "last_index": tail.last_index,
                "chain": tail.chain,
                "hard_state_crc": state_crc,
                "crc": integrity.meta_crc(identity, tail.commit_seq, tail.last_index, tail.chain, state_crc),
            },
        }
        with self._database.core.begin():
            for table, row in tables.items():
                self._database.core.execute(insert(table), {"id": 1, **row})
        return tail

    def _preallocate_wal(self) -> None:
        size = self._wal_wants_bytes
        if preallocated(lambda: self._database.preallocate_wal(size)):
            self._wal_wants_bytes = 0

    def _checkpoint(self) -> None:
        """Copy the WAL into the database, as far as there is room.

        One that ended for want of room has changed nothing that counts: what it copied is in the WAL too and is read from there,
        and SQLite reuses a WAL only when all of it was copied and synced.
        """
        with self._alone():
            if self._if_room(self._database.checkpoint):
                self._wal_bytes = 0
                self._begins_wal_anew = True

    def _alone(self) -> AbstractContextManager[object]:
        """`with` this, nobody reads: a reader would keep the WAL from being copied wholly, or from being reused."""
        return nullcontext() if self._reader is None else self._reader.gate

    def _if_room(self, work: Callable[[], T]) -> T | None:
        """Do `work` that can wait; None where even the reserve had no room for it: it is rolled back, and comes up again."""
        try:
            return self._with_reserve(work)
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
            self._database.roll_back()
            return None

    def _with_reserve(self, work: Callable[[], T]) -> T:
        """Do `work`; where the disk has no room for it, give up the reserve and do it once more.

        Nothing else is ever done twice.  Why this may be: SQLITE_FULL is the answer of a write, never of a sync, so no page was
        dropped that was called clean (those errors have other codes).  The transaction is rolled back; its frames in the WAL
        are not part of the database without the last one, the commit frame.  Even where that one was written whole and the error
        came behind it (padding to a sector), nothing is lost: the second attempt writes the same transaction, with the same
        number, over the same frames, and a crash in between leaves the state before it or after it.
        """
        try:
            return work()
        except sqlite3.OperationalError as error:
            if not is_full(error) or not self._reserve.give_up():
                raise
            self._database.roll_back()
        return work()

    def _formed(self) -> Writer:
        if self._writer is None:
            raise StorageFailed(f"{self._path}: no node was loaded or formed", path=str(self._path))
        return self._writer

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _poison(self, error: BaseException) -> NodeError:
        """Remember the node's error for `error` for good: it is what every later call gets."""
        self._failure = failure_of(error, self._path)
        return self._failure


class _FinalErrors:
    """`with` this, the first error of any kind is the storage's last: it poisons it and comes out as a `NodeError`."""

    def __init__(self, storage: SqliteStorage) -> None:
        self._storage = storage

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            return
        failure = self._storage._poison(error)
        if failure is not error:
            raise failure from error
