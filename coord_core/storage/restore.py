"""Reads a whole database and checks everything before anybody acts on it.

Nothing found here is repaired: a node that guesses what it promised can vote twice.  Each fault names the file and the row and says
what to do.
"""

from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, Table, select

from coord_core.errors import StorageFailed
from coord_core.raft.messages import Entry, HardState
from coord_core.storage import integrity
from coord_core.storage.api import Bootstrap, Identity, Restored
from coord_core.storage.database import Database
from coord_core.storage.failures import corrupt
from coord_core.storage.mark import MarkValue
from coord_core.storage.published import SnapshotRow
from coord_core.storage.rows import DamagedRow, LogRow, unpack
from coord_core.storage.snapshots import SnapshotSum, Staging, StoredSnapshot, chunk_crc
from coord_core.storage.statements import SELECT_CHUNKS, SELECT_ROWS, SELECT_STAGINGS
from coord_core.storage.tables import FORMAT, founding, hard_state, meta
from coord_core.storage.tables import snapshot as snapshot_table
from coord_core.types import LogIndex, NodeId, Term


class First(NamedTuple):
    """Where the log begins."""

    #: The entries up to here count as gone.
    log_index: LogIndex
    #: The link of the hash chain before the first row that is left.
    link: bytes
    #: What it covers is never replaced.
    snapshot_index: LogIndex


@dataclass(slots=True)
class Tail:
    """Where the last transaction left the database: what the next one builds on."""

    commit_seq: int
    last_index: LogIndex
    #: Link of the last log row; the founding's where there is none.
    chain: bytes
    hard_state_crc: int


@dataclass(frozen=True, slots=True)
class Found:
    restored: Restored
    first: First
    tail: Tail
    #: Stagings of which something is left and nothing is needed.
    leftovers: list[Staging]


def restore(database: Database, path: Path, mark: MarkValue) -> Found | None:
    """Return the content of the database at `path`, wholly verified, or None where no node has been formed in it.

    Raises `StorageCorrupt`, or `StorageFailed` where the content is of a newer format.
    """
    with database.core.begin():
        meta_row = _only_row(database.core, meta)
        founding_row = _only_row(database.core, founding)
        state_row = _only_row(database.core, hard_state)
        snapshot_row = _only_row(database.core, snapshot_table)
    if meta_row is None:
        _check_never_formed(mark, path)
        return None
    try:
        identity, tail = _read_meta(meta_row, path)
        _check_mark(tail, mark, path)
        bootstrap, first_link = _read_founding(founding_row, identity, path)
        state = _read_hard_state(state_row, tail, path)
        row = None if snapshot_row is None else _checked_snapshot(SnapshotRow._make(snapshot_row), tail, path)
        founded = bootstrap.snapshot.index
        first, row_index = First(founded, first_link, founded), founded
        if row is not None:
            first, row_index = First(row.log_index, row.chain, row.last_index), row.row_index
        entries = _read_log(database, row_index, first.link, tail, path)
        del entries[: first.log_index - row_index]
        snapshot = None if row is None else _read_snapshot(database, row, path)
        stagings = [Staging(staging) for (staging,) in database.cursor.execute(SELECT_STAGINGS).fetchall()]
    except (TypeError, ValueError, StructError, msgspec.MsgspecError) as error:
        # SQLite gives a column back as whatever type its damaged header claims.
        raise corrupt(path, f"a row holds what was never written there ({error})") from error
    leftovers = [staging for staging in stagings if row is None or staging != row.staging]
    next_staging = Staging(max(stagings, default=0) + 1)
    return Found(Restored(bootstrap, state, entries, snapshot, next_staging), first, tail, leftovers)


def _only_row(connection: Connection, table: Table) -> Row[Any] | None:
    return connection.execute(select(table)).one_or_none()


def _checked_snapshot(row: SnapshotRow, tail: Tail, path: Path) -> SnapshotRow:
    if not row.is_sound:
        raise corrupt(path, f"the row of table snapshot, at {row.last_index}, is damaged: its checksum does not fit")
    if row.last_index > tail.last_index:
        raise corrupt(path, f"the snapshot at {row.last_index} goes beyond the log, which ends at {tail.last_index}")
    return row


def _read_snapshot(database: Database, row: SnapshotRow, path: Path) -> StoredSnapshot:
    info = row.info()
    total, chunks = SnapshotSum(info.metadata, info.members), []
    for seq, crc, data in database.cursor.execute(SELECT_CHUNKS, (row.staging,)):
        if seq != total.chunks:
            raise corrupt(path, f"chunk {total.chunks} of the snapshot at {row.last_index} is missing")
        if chunk_crc(seq, data) != crc:
            raise corrupt(path, f"chunk {seq} of the snapshot at {row.last_index} is damaged: its checksum does not fit")
        total.add(data)
        chunks.append(data)
    if not total.fits(info):
        raise corrupt(path, f"the chunks of the snapshot at {row.last_index} are not those that were published: their sum differs")
    return StoredSnapshot(row.staging, info, row.log_index, row.log_term, chunks)


def _check_never_formed(mark: MarkValue, path: Path) -> None:
    if mark.commit_seq:
        raise corrupt(path, f"the database is empty, but {mark.commit_seq} transactions were acknowledged in this directory")


def _read_meta(row: Row[Any], path: Path) -> tuple[Identity, Tail]:
    if row.format > FORMAT:
        raise StorageFailed(
            f"{path} was written by a newer release (format {row.format}; this one knows up to {FORMAT}): start that release.",
            path=str(path),
            full=False,
        )
    identity = Identity(row.cluster_id, NodeId(row.node_id), row.name, row.incarnation)
    tail = Tail(row.commit_seq, LogIndex(row.last_index), row.chain, row.hard_state_crc)
    crc = integrity.meta_crc(integrity.identity_crc(identity), tail.commit_seq, tail.last_index, tail.chain, tail.hard_state_crc)
    if crc != row.crc:
        raise corrupt(path, "the row of table meta is damaged: its checksum does not fit")
    return identity, tail


def _check_mark(tail: Tail, mark: MarkValue, path: Path) -> None:
    if tail.commit_seq < mark.commit_seq:
        raise corrupt(
            path,
            f"committed transactions are missing: {mark.commit_seq} were acknowledged (says the mark), the database ends at"
            f" {tail.commit_seq}; a damaged write-ahead log, or a database restored without its directory, looks like this",
        )
    if tail.commit_seq == mark.commit_seq and tail.chain != mark.chain:
        raise corrupt(path, f"the log of transaction {tail.commit_seq} is not the one that was acknowledged (says the mark)")


def _read_founding(row: Row[Any] | None, identity: Identity, path: Path) -> tuple[Bootstrap, bytes]:
    if row is None or integrity.founding_crc(row.data) != row.crc:
        raise corrupt(path, "the row of table founding is missing or damaged")
    bootstrap = msgspec.msgpack.decode(row.data, type=Bootstrap)
    if bootstrap.identity != identity:
        raise corrupt(path, "tables founding and meta belong to different nodes")
    return bootstrap, integrity.first_link(row.data)


def _read_hard_state(row: Row[Any] | None, tail: Tail, path: Path) -> HardState:
    if row is None:
        raise corrupt(path, "the row of table hard_state is missing")
    state = HardState(Term(row.term), NodeId(row.voted_for), LogIndex(row.commit_index))
    if integrity.hard_state_crc(state) != row.crc:
        raise corrupt(path, "the row of table hard_state is damaged: its checksum does not fit")
    if row.crc != tail.hard_state_crc:
        raise corrupt(path, f"the row of table hard_state is not the one of the last transaction, {tail.commit_seq}")
    return state


def _read_log(database: Database, last_index: LogIndex, link: bytes, tail: Tail, path: Path) -> list[Entry]:
    """Return all entries, verified; the first row must follow `last_index` and `link`."""
    entries: list[Entry] = []
    for row in map(LogRow._make, database.cursor.execute(SELECT_ROWS)):
        if row.first_index != last_index + 1:
            raise corrupt(path, f"log rows are missing: {last_index} is followed by {row.first_index}")
        try:
            entries += unpack(row, link)
        except DamagedRow as damage:
            raise corrupt(path, f"the log row at {row.first_index} {damage}") from damage
        last_index, link = LogIndex(row.last_index), row.chain
    if (last_index, link) != (tail.last_index, tail.chain):
        raise corrupt(path, f"the log ends at {last_index}, but the last transaction left it ending at {tail.last_index}")
    return entries
