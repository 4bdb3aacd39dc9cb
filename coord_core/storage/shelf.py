"""The record table, as the writer's connection sees it: rows in, and old rows out, a few at a time.

Used inside the writer's transactions: `begin`, then `put` and `tidy`, and `committed` after COMMIT.  A transaction that was rolled
back may be done once more, so nothing is noted for good before that.
"""

from collections.abc import Sequence
from pathlib import Path

from coord_core.errors import StorageFailed
from coord_core.storage import statements as sql
from coord_core.storage.api import Batch
from coord_core.storage.database import Database
from coord_core.storage.failures import corrupt
from coord_core.storage.record_rows import RecordRow, pack, progress_crc
from coord_core.storage.records import Held, Stored, Trim
from coord_core.types import LogIndex, TopicNumber


class Shelf:
    """What is stored of topics."""

    def __init__(self, database: Database, path: Path) -> None:
        """Look at what there is.  Raises `StorageCorrupt` where it cannot be."""
        self._path = path
        self._execute = database.cursor.execute
        #: Up to this entry, all records are stored.
        self.applied_index = self._read_progress()
        self.held = self._read_held()
        # What may go, by topic: everything below an offset, or everything.
        self._trims: dict[TopicNumber, int | None] = {}
        # What the transaction under way has done: up to where it reaches, what is held of a topic then (None: nothing more), and
        # the topics of which nothing more may go.
        self._index = self.applied_index
        self._changed: dict[TopicNumber, Held | None] = {}
        self._trimmed: set[TopicNumber] = set()

    @property
    def has_trims(self) -> bool:
        return bool(self._trims)

    def begin(self) -> None:
        """A transaction begins."""
        self._index = self.applied_index
        self._changed = {}
        self._trimmed = set()

    def committed(self, trims: Sequence[Trim]) -> None:
        """The transaction is durable; `trims` may go from now on."""
        self.applied_index = self._index
        for topic, held in self._changed.items():
            if held is None:
                del self.held[topic]
            else:
                self.held[topic] = held
        for topic in self._trimmed:
            del self._trims[topic]
        for topic, below in trims:
            if topic in self.held:
                self._trims[topic] = below

    def put(self, batch: Batch) -> list[RecordRow]:
        """Write the batch's records, and up to where they reach.  Returns the rows."""
        rows = pack(self._new(batch.records)) if batch.records else []
        for row in rows:
            self._execute(sql.INSERT_RECORD_ROW, row)
            held = self._held(row.topic) or Held(row.first_offset, 0)
            self._changed[row.topic] = Held(held.first, max(held.end, row.last_offset + 1))
        index = batch.records_index
        if index is not None and index > self.applied_index and (rows or batch.publish is not None):
            self._execute(sql.DELETE_RECORD_PROGRESS)
            self._execute(sql.INSERT_RECORD_PROGRESS, (1, index, progress_crc(index)))
            self._index = index
        return rows

    def tidy(self, rows: int) -> None:
        """Remove up to so many rows that may go."""
        for topic, below in self._trims.items():
            if rows <= 0:
                break
            found = self._execute(sql.SELECT_FIRST_RECORD_ROWS, (topic, rows)).fetchall()
            going = [first for first, last in found if below is None or last < below]
            if going:
                self._execute(sql.DELETE_RECORD_ROWS_UP_TO, (topic, going[-1]))
                rows -= len(going)
            if len(going) < len(found) or not found:
                self._trimmed.add(topic)
                held = self._held(topic)
                # Where nothing is left the topic is gone, or goes on with its next record.
                self._changed[topic] = Held(found[len(going)][0], held.end) if found and held is not None else None

    def check_trimmed(self, batch: Batch) -> None:
        """Refuse a snapshot whose records are not all here: its log would be trimmed, and with it what they were made from."""
        reached = max(self.applied_index, batch.records_index or 0)
        if batch.publish is not None and 0 < reached < batch.publish.info.metadata.index:
            index = batch.publish.info.metadata.index
            message = f"{self._path}: the records up to the snapshot at {index} are stored up to {reached} only"
            raise StorageFailed(message, path=str(self._path))

    def _held(self, topic: TopicNumber) -> Held | None:
        return self._changed[topic] if topic in self._changed else self.held.get(topic)

    def _new(self, records: Sequence[Stored]) -> list[Stored]:
        """Return the records that are not stored, each once."""
        ends: dict[TopicNumber, int] = {}
        new: list[Stored] = []
        for stored in records:
            topic, record = stored
            end = ends.get(topic)
            if end is None:
                held = self.held.get(topic)
                end = 0 if held is None else held.end
            if record.offset >= end:
                new.append(stored)
                end = record.offset + 1
            ends[topic] = end
        return new

    def _read_progress(self) -> LogIndex:
        row = self._execute(sql.SELECT_RECORD_PROGRESS).fetchone()
        if row is None:
            return LogIndex(0)
        index, crc = row
        if progress_crc(index) != crc:
            raise corrupt(self._path, "the row of table record_progress is damaged: its checksum does not fit")
        return LogIndex(index)

    def _read_held(self) -> dict[TopicNumber, Held]:
        held: dict[TopicNumber, Held] = {}
        topic = TopicNumber(-1)
        while (found := self._execute(sql.SELECT_NEXT_TOPIC, (topic,)).fetchone()[0]) is not None:
            topic = TopicNumber(found)
            first, _ = self._execute(sql.SELECT_FIRST_RECORD_ROWS, (topic, 1)).fetchone()
            (last,) = self._execute(sql.SELECT_LAST_OFFSET, (topic,)).fetchone()
            held[topic] = Held(first, last + 1)
        return held
