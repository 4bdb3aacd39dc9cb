"""The write transaction: take chunks, publish a snapshot and trim the log, cut the log's end where it is replaced, append,
store the hard state, seal it all in the meta row.

Rule: everything of a batch in one transaction, which is one fsync.  `Writer` raises whatever goes wrong and must not be used again
then (but for want of room: it has changed nothing of its own before COMMIT); `sqlite` sees to that.
"""

from pathlib import Path
from typing import NamedTuple

from coord_core.errors import StorageFailed
from coord_core.storage import integrity
from coord_core.storage import statements as sql
from coord_core.storage.api import Batch, Identity
from coord_core.storage.database import Database
from coord_core.storage.failures import corrupt
from coord_core.storage.published import seal_snapshot
from coord_core.storage.restore import First, Tail
from coord_core.storage.rows import DamagedRow, LogRow, pack, unpack
from coord_core.storage.rules import misfit, misfit_of_snapshot
from coord_core.storage.shelf import Shelf
from coord_core.storage.snapshots import Publish, Staging
from coord_core.types import LogIndex

#: A page in the WAL, with the header of its frame.  A transaction rewrites a page of each table it touches.
_PAGE_BYTES = 4096
_FRAME_BYTES = _PAGE_BYTES + 24


class LogEnd(NamedTuple):
    """Where the log ends."""

    last_index: LogIndex
    chain: bytes


class Writer:
    """Writes to a database that is formed and verified."""

    def __init__(self, database: Database, path: Path, identity: Identity, first: First, tail: Tail) -> None:
        self._path = path
        self._execute = database.cursor.execute
        self._identity_crc = integrity.identity_crc(identity)
        self._first = first
        self.shelf = Shelf(database, path)
        #: Moves only after COMMIT.
        self.tail = tail
        #: Stagings to be removed, a few chunks at a time: a large one at once would hold up the log's next write.
        self.leftovers: list[Staging] = []

    def write(self, batch: Batch) -> int:
        """Commit the batch.  Returns about how many bytes the WAL took."""
        old, first = self.tail, self._first
        end, state_crc = LogEnd(old.last_index, old.chain), old.hard_state_crc
        wal_bytes = _FRAME_BYTES
        self.shelf.check_trimmed(batch)
        self._execute(sql.BEGIN)
        self.shelf.begin()
        if batch.stage:
            self._remove(2 * len(batch.stage))
            wal_bytes += self._stage(batch)
        if batch.publish is not None:
            first, end = self._publish(batch.publish, end)
            wal_bytes += _FRAME_BYTES
        if batch.entries:
            rows = self._replace_end(batch, first, end)
            end = LogEnd(LogIndex(rows[-1].last_index), rows[-1].chain)
            wal_bytes += sum(_frames(len(row.data)) for row in rows) * _FRAME_BYTES
        if batch.hard_state is not None:
            state = batch.hard_state
            state_crc = integrity.hard_state_crc(state)
            self._execute(sql.UPDATE_HARD_STATE, (state.term, state.voted_for, state.commit, state_crc))
            wal_bytes += _FRAME_BYTES
        if batch.records or batch.records_index is not None:
            record_rows = self.shelf.put(batch)
            self.shelf.tidy(2 * len(record_rows))
            # With a page of the index each, and one for how far they reach.
            wal_bytes += (1 + sum(1 + _frames(len(record_row.data)) for record_row in record_rows)) * _FRAME_BYTES
        commit_seq = old.commit_seq + 1
        crc = integrity.meta_crc(self._identity_crc, commit_seq, end.last_index, end.chain, state_crc)
        self._execute(sql.UPDATE_META, (commit_seq, end.last_index, end.chain, state_crc, crc))
        self._execute(sql.COMMIT)
        self.tail = Tail(commit_seq, end.last_index, end.chain, state_crc)
        self._first = first
        self.leftovers += batch.discard
        self.shelf.committed(batch.trims)
        return wal_bytes

    # --- snapshots ---------------------------------------------------------------------------------------------------------------

    @property
    def has_leftovers(self) -> bool:
        """Whether there is anything for `tidy`."""
        return bool(self.leftovers) or self.shelf.has_trims

    def tidy(self, chunks: int) -> bool:
        """Remove up to so many chunks and rows of records that nobody needs, in a transaction that nobody would miss."""
        self._execute(sql.BEGIN)
        self.shelf.begin()
        self._remove(chunks)
        self.shelf.tidy(chunks)
        self._execute(sql.COMMIT)
        self.shelf.committed(())
        return True

    def _remove(self, chunks: int) -> None:
        while chunks > 0 and self.leftovers:
            staging = self.leftovers[0]
            [first_seq] = self._execute(sql.SELECT_FIRST_SEQ, (staging,)).fetchone()
            if first_seq is None:
                self.leftovers.pop(0)
                continue
            self._execute(sql.DELETE_CHUNKS_BELOW, (staging, first_seq + chunks))
            chunks = 0

    def _stage(self, batch: Batch) -> int:
        wal_bytes = 0
        for chunk in batch.stage:
            self._execute(sql.INSERT_CHUNK, (chunk.staging, chunk.seq, chunk.crc, chunk.data))
            wal_bytes += _frames(len(chunk.data)) * _FRAME_BYTES
        return wal_bytes

    def _publish(self, publish: Publish, end: LogEnd) -> tuple[First, LogEnd]:
        """Make a snapshot the node's own.  Returns where the log begins and ends then."""
        chunks, size = self._execute(sql.MEASURE_STAGING, (publish.staging,)).fetchone()
        fault = misfit_of_snapshot(publish, chunks, size or 0, self._first.log_index, end.last_index)
        if fault is not None:
            raise StorageFailed(f"{self._path}: {fault}", path=str(self._path))
        if publish.replaces_log:
            self._execute(sql.DELETE_ALL_ROWS)
            end = LogEnd(publish.log_index, integrity.link_behind_snapshot(publish.info.sha256))
            row_index, link = publish.log_index, end.chain
        else:
            row_index, link = self._trim(publish.log_index)
        self._execute(sql.DELETE_SNAPSHOT)
        self._execute(sql.INSERT_SNAPSHOT, seal_snapshot(publish, row_index, link))
        return First(publish.log_index, link, publish.info.metadata.index), end

    def _trim(self, log_index: LogIndex) -> tuple[LogIndex, bytes]:
        """Remove the rows that end at or before `log_index`.  Returns what the first row that is left follows."""
        keep = log_index + 1
        row = self._row_before(keep + 1)
        if row is not None and row.last_index > log_index:
            keep = row.first_index
        before = self._row_before(keep)
        self._execute(sql.DELETE_ROWS_BEFORE, (keep,))
        return LogIndex(keep - 1), self._first.link if before is None else before.chain

    # --- the log -----------------------------------------------------------------------------------------------------------------

    def _replace_end(self, batch: Batch, first: First, end: LogEnd) -> list[LogRow]:
        fault = misfit(batch, first.snapshot_index, end.last_index)
        if fault is not None:
            raise StorageFailed(f"{self._path}: {fault}", path=str(self._path))
        first_index = batch.entries[0].index
        link = end.chain if first_index > end.last_index else self._cut(first_index, first.link)
        rows = pack(batch.entries, link)
        for row in rows:
            self._execute(sql.INSERT_LOG_ROW, row)
        return rows

    def _cut(self, first_index: int, first_link: bytes) -> bytes:
        """Remove the entries from `first_index` on.  Returns the link of the row that is the last one then."""
        row = self._row_before(first_index)
        self._execute(sql.DELETE_ROWS_FROM, (first_index,))
        if row is None:
            return first_link
        if row.last_index < first_index:
            return row.chain
        return self._shorten(row, first_index, first_link)

    def _shorten(self, row: LogRow, first_index: int, first_link: bytes) -> bytes:
        """Write anew, without its entries from `first_index` on, a row that the cut goes through."""
        before = self._row_before(row.first_index)
        link = first_link if before is None else before.chain
        try:
            kept = unpack(row, link)[: first_index - row.first_index]
        except DamagedRow as damage:
            # A fresh checksum would turn the damage into content.
            raise corrupt(self._path, f"the log row at {row.first_index} {damage}") from damage
        [head] = pack(kept, link)
        self._execute(sql.DELETE_ROWS_FROM, (row.first_index,))
        self._execute(sql.INSERT_LOG_ROW, head)
        return head.chain

    def _row_before(self, index: int) -> LogRow | None:
        """The newest row that begins before `index`; it may reach beyond it."""
        columns = self._execute(sql.SELECT_ROW_BEFORE, (index,)).fetchone()
        return None if columns is None else LogRow(*columns)


def _frames(size: int) -> int:
    """About how many pages a row dirties: a leaf, or a leaf, a chain of overflow pages and the first page, which counts pages."""
    return 1 if size < _PAGE_BYTES // 2 else 2 + size // _PAGE_BYTES
