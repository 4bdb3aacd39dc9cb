"""Reading records beside the writer: a second connection, for one other thread, that only reads.

Rule: a read is one short transaction, bounded in records and bytes, and it holds the *gate* meanwhile.  The writer takes the gate
for a checkpoint and for the write after it, so that no reader keeps the write-ahead log from being copied and reused.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from coord_core.protocol.topics import TopicRecord
from coord_core.storage import statements as sql
from coord_core.storage.database import connect_reader
from coord_core.storage.failures import corrupt
from coord_core.storage.record_rows import RecordRow, unpack
from coord_core.storage.records import size_of, take
from coord_core.storage.rows import DamagedRow
from coord_core.types import TopicNumber

Execute: TypeAlias = Callable[[str, tuple[int, ...]], sqlite3.Cursor]


class RecordReader:
    """Reads records of one database that is open for writing in this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect_reader(path)
        #: Held while a read is under way.
        self.gate = threading.Lock()
        self._closed = False

    def read(self, topic: TopicNumber, offset: int, records_max: int, bytes_max: int) -> list[TopicRecord]:
        """Return records from `offset` on, or from the first one behind it that is left.  Raises `StorageCorrupt`."""
        with self.gate:
            if self._closed:
                return []
            with closing(self._connection.cursor()) as cursor:
                cursor.execute("BEGIN")
                try:
                    return take(self._read(cursor.execute, topic, offset, records_max, bytes_max), records_max, bytes_max)
                finally:
                    cursor.execute("COMMIT")

    def _read(self, execute: Execute, topic: TopicNumber, offset: int, records_max: int, bytes_max: int) -> list[TopicRecord]:
        (begin,) = execute(sql.SELECT_RECORD_ROW_BEFORE, (topic, offset)).fetchone()
        found: list[TopicRecord] = []
        size = 0
        for row in map(RecordRow._make, execute(sql.SELECT_RECORD_ROWS, (topic, offset if begin is None else begin))):
            if row.last_offset < offset:
                continue
            wanted = [record for record in self._unpack(row) if record.offset >= offset]
            found += wanted
            size += sum(map(size_of, wanted))
            if len(found) >= records_max or size >= bytes_max:
                break
        return found

    def _unpack(self, row: RecordRow) -> list[TopicRecord]:
        try:
            return unpack(row)
        except DamagedRow as damage:
            raise corrupt(self._path, f"the record row of topic {row.topic} at {row.first_offset} {damage}") from damage

    def close(self) -> None:
        """Idempotent; waits for a read that is under way."""
        with self.gate:
            self._closed = True
            self._connection.close()
