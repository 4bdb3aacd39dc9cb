"""The write transaction: cut the log's end where it is replaced, append, store the hard state, seal it all in the meta row.

Rule: everything of a batch in one transaction, which is one fsync.  `Writer` raises whatever goes wrong and must not be used again
then; `sqlite` sees to that.
"""

from pathlib import Path

from coord_core.errors import StorageFailed
from coord_core.storage import integrity
from coord_core.storage import statements as sql
from coord_core.storage.api import Batch, Bootstrap
from coord_core.storage.database import Database
from coord_core.storage.failures import corrupt
from coord_core.storage.restore import Tail
from coord_core.storage.rows import DamagedRow, LogRow, pack, unpack
from coord_core.storage.rules import misfit
from coord_core.types import LogIndex

#: A page in the WAL, with the header of its frame.  A transaction rewrites a page of each table it touches.
_PAGE_BYTES = 4096
_FRAME_BYTES = _PAGE_BYTES + 24


class Writer:
    """Writes to a database that is formed and verified."""

    def __init__(self, database: Database, path: Path, bootstrap: Bootstrap, first_link: bytes, tail: Tail) -> None:
        self._path = path
        self._execute = database.cursor.execute
        self._snapshot_index = bootstrap.snapshot.index
        self._first_link = first_link
        self._identity_crc = integrity.identity_crc(bootstrap.identity)
        #: Moves only after COMMIT.
        self.tail = tail

    def write(self, batch: Batch) -> int:
        """Commit the batch.  Returns about how many bytes the WAL took."""
        old = self.tail
        last_index, chain, state_crc = old.last_index, old.chain, old.hard_state_crc
        wal_bytes = _FRAME_BYTES
        self._execute(sql.BEGIN)
        if batch.entries:
            rows = self._replace_end(batch)
            last_index, chain = LogIndex(rows[-1].last_index), rows[-1].chain
            wal_bytes += sum(_frames(row) for row in rows) * _FRAME_BYTES
        if batch.hard_state is not None:
            state = batch.hard_state
            state_crc = integrity.hard_state_crc(state)
            self._execute(sql.UPDATE_HARD_STATE, (state.term, state.voted_for, state.commit, state_crc))
            wal_bytes += _FRAME_BYTES
        commit_seq = old.commit_seq + 1
        crc = integrity.meta_crc(self._identity_crc, commit_seq, last_index, chain, state_crc)
        self._execute(sql.UPDATE_META, (commit_seq, last_index, chain, state_crc, crc))
        self._execute(sql.COMMIT)
        self.tail = Tail(commit_seq, last_index, chain, state_crc)
        return wal_bytes

    def _replace_end(self, batch: Batch) -> list[LogRow]:
        fault = misfit(batch, self._snapshot_index, self.tail.last_index)
        if fault is not None:
            raise StorageFailed(f"{self._path}: {fault}", path=str(self._path))
        first_index = batch.entries[0].index
        link = self.tail.chain if first_index > self.tail.last_index else self._cut(first_index)
        rows = pack(batch.entries, link)
        for row in rows:
            self._execute(sql.INSERT_LOG_ROW, row)
        return rows

    def _cut(self, first_index: int) -> bytes:
        """Remove the entries from `first_index` on.  Returns the link of the row that is the last one then."""
        row = self._row_before(first_index)
        self._execute(sql.DELETE_ROWS_FROM, (first_index,))
        if row is None:
            return self._first_link
        if row.last_index < first_index:
            return row.chain
        return self._shorten(row, first_index)

    def _shorten(self, row: LogRow, first_index: int) -> bytes:
        """Write anew, without its entries from `first_index` on, a row that the cut goes through."""
        before = self._row_before(row.first_index)
        link = self._first_link if before is None else before.chain
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


def _frames(row: LogRow) -> int:
    """About how many pages a row dirties: a leaf, or a leaf, a chain of overflow pages and the first page, which counts pages."""
    return 1 if len(row.data) < _PAGE_BYTES // 2 else 2 + len(row.data) // _PAGE_BYTES
