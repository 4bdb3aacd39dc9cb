"""Snapshots in storages: staged, published with the log's trimming, discarded; the same contract over every implementation."""

import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from coord_core.errors import NodeError, StorageCorrupt, StorageFailed
from coord_core.raft.messages import Configuration, Entry, HardState, SnapshotMetadata
from coord_core.storage import migrate
from coord_core.storage.api import Batch, Storage
from coord_core.storage.snapshots import Chunk, Publish, SnapshotInfo, SnapshotSum, Staging, chunk_crc
from coord_core.storage.sqlite import IDLE_CHUNKS, SqliteStorage
from coord_core.types import LogIndex, NodeId, Term
from tests.storage.building import BOOTSTRAP, FOUNDING_STATE, MEMBERS, content, copy_as_after_a_crash, entries, state
from tests.storage.places import Place

Open = Callable[[Path], SqliteStorage]


def pieces(number: int, count: int = 3, size: int = 5_000) -> list[bytes]:
    """Chunks that no other snapshot has."""
    return [f"{number}/{seq};".encode().ljust(size, b".") for seq in range(count)]


def staged(staging: int, data: Sequence[bytes], first: int = 0) -> Batch:
    return Batch(stage=[Chunk(Staging(staging), seq, chunk_crc(seq, each), each) for seq, each in enumerate(data, first)])


def info(index: int, data: Sequence[bytes], term: int = 1) -> SnapshotInfo:
    configuration = Configuration((NodeId(1), NodeId(3)), learners=(NodeId(7),))
    metadata = SnapshotMetadata(LogIndex(index), Term(term), configuration)
    total = SnapshotSum(metadata, MEMBERS)
    for each in data:
        total.add(each)
    return SnapshotInfo(metadata, MEMBERS, total.chunks, total.size, total.digest())


def published(staging: int, data: Sequence[bytes], index: int, log_index: int, *, term: int = 1, replaces: bool = False) -> Publish:
    return Publish(Staging(staging), info(index, data, term), LogIndex(log_index), Term(term), replaces)


def take(storage: Storage, staging: int, index: int, log_index: int) -> list[bytes]:
    """Put a snapshot of the node's own into the storage; return its chunks."""
    data = pieces(staging)
    storage.write(staged(staging, data))
    storage.write(Batch(publish=published(staging, data, index, log_index)))
    return data


def log_of(storage: Storage) -> tuple[int, list[Entry]]:
    """Where the log begins, and what there is of it."""
    restored = storage.load()
    assert restored is not None
    return (1 if restored.snapshot is None else restored.snapshot.log_index), list(restored.entries)


# --- the contract ----------------------------------------------------------------------------------------------------------------


def test_a_published_snapshot_is_there_after_a_restart_with_the_log_behind_it(formed_place: Place) -> None:
    """Index, term, configuration, members and chunks; and the trailing window of the log before it."""
    formed_place.storage.write(Batch(entries(2, 30)))
    data = take(formed_place.storage, 1, index=20, log_index=15)
    restored = formed_place.restart().load()
    assert restored is not None
    assert restored.snapshot is not None
    assert restored.snapshot.info == info(20, data)
    assert list(restored.snapshot.chunks) == data
    assert (restored.snapshot.log_index, restored.snapshot.log_term) == (15, 1)
    assert list(restored.entries) == entries(16, 16)
    assert restored.members == MEMBERS
    assert formed_place.storage.last_index() == 31


def test_what_was_staged_and_not_published_is_gone_after_a_restart(formed_place: Place) -> None:
    """A crash in mid-stage: the node has its former snapshot and the whole log (LogCabin #174)."""
    formed_place.storage.write(Batch(entries(2, 9)))
    data = take(formed_place.storage, 1, index=5, log_index=5)
    formed_place.storage.write(staged(2, pieces(2)))
    restored = formed_place.restart().load()
    assert restored is not None
    assert restored.snapshot is not None
    assert list(restored.snapshot.chunks) == data
    with pytest.raises(StorageFailed, match="are staged"):
        formed_place.storage.write(Batch(publish=published(restored.next_staging, pieces(2), 9, 9)))


def test_a_restarted_node_numbers_its_stagings_anew_and_never_twice(formed_place: Place) -> None:
    """Left-over chunks under a number must not become part of another snapshot."""
    formed_place.storage.write(Batch(entries(2, 9)))
    take(formed_place.storage, 4, index=5, log_index=5)
    formed_place.storage.write(staged(9, pieces(9)))
    restored = formed_place.restart().load()
    assert restored is not None
    assert restored.next_staging > 4
    data = pieces(50, count=1)
    formed_place.storage.write(staged(restored.next_staging, data))
    formed_place.storage.write(Batch(publish=published(restored.next_staging, data, 9, 9), discard=[Staging(4)]))
    assert log_of(formed_place.restart()) == (9, entries(10, 1))


def test_a_leaders_snapshot_replaces_the_log(formed_place: Place) -> None:
    """In one transaction with what follows it: there is no moment without a state (braft #119)."""
    formed_place.storage.write(Batch(entries(2, 9), state(1, commit=8)))
    data = pieces(1)
    formed_place.storage.write(staged(1, data))
    install = published(1, data, 100, 100, term=7, replaces=True)
    formed_place.storage.write(Batch(entries(101, 2, term=8), state(9, commit=100), publish=install))
    restored = formed_place.restart().load()
    assert restored is not None
    assert restored.snapshot is not None
    assert restored.snapshot.info.metadata == install.info.metadata
    assert (restored.snapshot.log_index, restored.snapshot.log_term) == (100, 7)
    assert content(formed_place.storage) == (state(9, commit=100), entries(101, 2, term=8))
    formed_place.storage.write(Batch(entries(103, 1, term=9)))
    assert log_of(formed_place.restart()) == (100, entries(101, 2, term=8) + entries(103, 1, term=9))


def test_the_term_on_the_disk_is_not_taken_from_a_snapshot(formed_place: Place) -> None:
    """A snapshot's term is that of its last entry; the node may have voted in a later one (jgroups-raft #23)."""
    formed_place.storage.write(Batch((), state(12, voted_for=3)))
    data = pieces(1)
    formed_place.storage.write(staged(1, data))
    formed_place.storage.write(Batch(publish=published(1, data, 100, 100, term=7, replaces=True)))
    assert content(formed_place.restart())[0] == state(12, voted_for=3)


def test_chunks_are_read_back_until_they_are_discarded(formed_place: Place) -> None:
    """A snapshot that is being sent stays when the next one is published, until its node has no more use for it."""
    storage = formed_place.storage
    storage.write(Batch(entries(2, 20)))
    first, second = take(storage, 1, 5, 5), take(storage, 2, 10, 10)
    for staging, data in ((1, first), (2, second)):
        for seq, each in enumerate(data):
            assert storage.read_chunk(Staging(staging), seq) == Chunk(Staging(staging), seq, chunk_crc(seq, each), each)
    assert storage.read_chunk(Staging(2), 3) is None
    storage.write(Batch(discard=[Staging(1)]))
    assert storage.read_chunk(Staging(1), 0) is None
    assert storage.read_chunk(Staging(2), 0) is not None


def test_what_a_snapshot_covers_cannot_be_replaced(formed_place: Place) -> None:
    formed_place.storage.write(Batch(entries(2, 20)))
    take(formed_place.storage, 1, 10, 8)
    with pytest.raises(StorageFailed, match="what the snapshot at 10 covers"):
        formed_place.storage.write(Batch(entries(10, 1, term=2)))


@pytest.mark.parametrize("first", range(6, 13))
def test_the_log_behind_a_trim_is_cut_like_any_other(formed_place: Place, first: int) -> None:
    """Through a row that begins before the trim, too: it is kept whole, and only its end counts."""
    for start, count in ((2, 6), (8, 3), (11, 2)):
        formed_place.storage.write(Batch(entries(start, count)))
    take(formed_place.storage, 1, 5, 5)
    formed_place.storage.write(Batch(entries(first, 2, term=2)))
    assert log_of(formed_place.restart()) == (5, entries(6, first - 6) + entries(first, 2, term=2))


def unfit() -> dict[str, Publish]:
    data = pieces(1)
    return {
        "a chunk too few": published(1, pieces(1, count=4), 10, 5),
        "never staged": published(2, data, 10, 5),
        "beyond the log": published(1, data, 32, 5),
        "trims more than it covers": published(1, data, 10, 11),
        "goes back": published(1, data, 10, 3),
        "replaces what is trimmed": published(1, data, 4, 4, replaces=True),
        "replaces a log and keeps some": published(1, data, 100, 99, replaces=True),
    }


@pytest.mark.parametrize("name", unfit())
def test_a_snapshot_that_does_not_fit_poisons_the_storage(formed_place: Place, name: str) -> None:
    """Published, it would leave a node that cannot start: nothing of the batch is stored."""
    formed_place.storage.write(Batch(entries(2, 30)))
    before = take(formed_place.storage, 7, 4, 4)
    formed_place.storage.write(staged(1, pieces(1)))
    with pytest.raises(StorageFailed):
        formed_place.storage.write(Batch((), state(9), publish=unfit()[name]))
    restored = formed_place.restart().load()
    assert restored is not None
    assert restored.snapshot is not None
    assert list(restored.snapshot.chunks) == before
    assert content(formed_place.storage) == (FOUNDING_STATE, entries(5, 27))


class Random:
    """A row of writes of every sort, and what must be there after each."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.hard_state: HardState = FOUNDING_STATE
        self.log: list[Entry] = []
        self.log_index = 1
        self.snapshot: list[bytes] = []
        self._staging = 0
        self._published = 0
        # Of the published snapshot: nothing at or below it is ever replaced.
        self._index = 1
        self._staged: list[bytes] = []

    @property
    def last_index(self) -> int:
        return self.log_index + len(self.log)

    def restarted(self, next_staging: int) -> None:
        self._staged = []
        self._staging = next_staging

    def next(self) -> Batch:
        draw = self._draw.random()
        if draw < 0.35 or not self.log:
            return self._append()
        if draw < 0.6:
            return self._stage()
        if draw < 0.8 and self._staged:
            return self._publish()
        if draw < 0.9 and self._staged:
            return self._install()
        return Batch(discard=[Staging(self._staging)]) if self._forget() else self._append()

    def _append(self) -> Batch:
        first = self.last_index + 1
        if self.log and self._draw.random() < 0.4:
            first -= self._draw.randint(0, min(self.last_index - max(self._index, self.log_index), 8))
        added = entries(first, self._draw.choice((1, 3, 12)), term=self.hard_state.term)
        self.hard_state = state(self.hard_state.term + self._draw.randint(0, 1))
        self.log = self.log[: first - self.log_index - 1] + added
        return Batch(added, self.hard_state)

    def _stage(self) -> Batch:
        if not self._staged:
            self._staging += 1
        more = [self._draw.randbytes(self._draw.choice((10, 9_000))) for _ in range(self._draw.randint(1, 3))]
        batch = staged(self._staging, more, len(self._staged))
        self._staged += more
        return batch

    def _publish(self) -> Batch:
        index = self._draw.randint(max(self._index, self.log_index), self.last_index)
        log_index = self._draw.randint(self.log_index, index)
        self.log = self.log[log_index - self.log_index :]
        self.log_index = log_index
        return self._take_over(published(self._staging, self._staged, index, log_index))

    def _install(self) -> Batch:
        index = max(self._index, self.log_index) + self._draw.randint(1, 60)
        self.log_index, self.log = index, entries(index + 1, self._draw.choice((0, 2)))
        return self._take_over(published(self._staging, self._staged, index, index, replaces=True), self.log)

    def _take_over(self, publish: Publish, added: Sequence[Entry] = ()) -> Batch:
        self._index = int(publish.info.metadata.index)
        former, self._published = self._published, self._staging
        self.snapshot, self._staged = self._staged, []
        return Batch(added, publish=publish, discard=[Staging(former)] if former else [])

    def _forget(self) -> bool:
        found, self._staged = bool(self._staged), []
        return found


@pytest.mark.parametrize("seed", range(10))
def test_any_row_of_writes_with_snapshots_leaves_what_it_says(formed_place: Place, seed: int) -> None:
    """Appends, cuts, stagings, publishings, installs and discards in any order, with restarts between them."""
    model = Random(seed)
    for step in range(150):
        formed_place.storage.write(model.next())
        if step % 10 == 9:
            restored = formed_place.restart().load()
            assert restored is not None
            assert restored.hard_state == model.hard_state, f"seed {seed}, step {step}"
            assert list(restored.entries) == model.log, f"seed {seed}, step {step}"
            found = [] if restored.snapshot is None else list(restored.snapshot.chunks)
            assert found == model.snapshot, f"seed {seed}, step {step}"
            model.restarted(restored.next_staging)


# --- SQLite ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(formed: SqliteStorage, tmp_path: Path) -> Path:
    """The directory of a node with a snapshot at 20 (three chunks), the log from 16 on in rows, and one staging that came to
    nothing.
    """
    for first in range(2, 32, 5):
        formed.write(Batch(entries(first, 5)))
    take(formed, 1, index=10, log_index=10)
    take(formed, 2, index=20, log_index=15)
    formed.close()
    return tmp_path / "node"


def tamper(directory: Path, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(directory / "coord.db")) as database, database:
        assert database.execute(statement, parameters).rowcount >= 1


def test_an_undamaged_snapshot_loads(stopped: Path, open_sqlite: Open) -> None:
    """The other tests of this section would pass on a storage that refuses everything."""
    assert log_of(open_sqlite(stopped)) == (15, entries(16, 16))


COLUMNS = ["last_index", "term", "chunks", "size", "log_index", "log_term", "row_index", "crc", "staging"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_snapshot_row_is_found(stopped: Path, open_sqlite: Open, column: str) -> None:
    """It says what the node has applied and where its log begins."""
    tamper(stopped, f"UPDATE snapshot SET {column} = {column} + 1")
    with pytest.raises(StorageCorrupt, match=r"the row of table snapshot.*is damaged"):
        open_sqlite(stopped).load()


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_a_damaged_chunk_is_named(stopped: Path, open_sqlite: Open, seq: int) -> None:
    tamper(stopped, "UPDATE snapshot_chunk SET data = CAST(data || x'00' AS BLOB) WHERE staging = 2 AND seq = ?", seq)
    with pytest.raises(StorageCorrupt, match=f"chunk {seq} of the snapshot at 20 is damaged"):
        open_sqlite(stopped).load()


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_a_lost_chunk_is_found(stopped: Path, open_sqlite: Open, seq: int) -> None:
    tamper(stopped, "DELETE FROM snapshot_chunk WHERE staging = 2 AND seq = ?", seq)
    with pytest.raises(StorageCorrupt, match=r"of the snapshot at 20 is missing|their sum differs"):
        open_sqlite(stopped).load()


def test_a_chunk_of_another_snapshot_is_found(stopped: Path, open_sqlite: Open) -> None:
    """Good by its own checksum: only the sum over all of them knows."""
    tamper(
        stopped,
        "UPDATE snapshot_chunk SET (crc, data) = (SELECT crc, data FROM snapshot_chunk WHERE staging = 1 AND seq = 1)"
        " WHERE staging = 2 AND seq = 1",
    )
    with pytest.raises(StorageCorrupt, match="their sum differs"):
        open_sqlite(stopped).load()


def test_an_older_snapshot_row_does_not_fit_the_log_that_was_trimmed_since(
    formed: SqliteStorage, tmp_path: Path, open_sqlite: Open
) -> None:
    """A page that was never written back: the row is good by itself and its chunks are still there."""
    for first in range(2, 32, 5):
        formed.write(Batch(entries(first, 5)))
    take(formed, 1, index=10, log_index=10)
    with closing(sqlite3.connect(copy_as_after_a_crash(tmp_path / "node", tmp_path / "copy") / "coord.db")) as database:
        older = database.execute("SELECT * FROM snapshot").fetchone()
    take(formed, 2, index=20, log_index=15)
    formed.close()
    tamper(tmp_path / "node", "DELETE FROM snapshot")
    tamper(tmp_path / "node", f"INSERT INTO snapshot VALUES ({', '.join('?' * len(older))})", *older)
    with pytest.raises(StorageCorrupt, match=r"log rows are missing|hash chain"):
        open_sqlite(tmp_path / "node").load()


def test_a_lost_snapshot_row_is_not_an_empty_node(stopped: Path, open_sqlite: Open) -> None:
    """Its log does not begin where that of a founder does."""
    tamper(stopped, "DELETE FROM snapshot")
    with pytest.raises(StorageCorrupt, match="log rows are missing"):
        open_sqlite(stopped).load()


def test_rows_kept_behind_a_trim_are_verified_like_all(stopped: Path, open_sqlite: Open) -> None:
    """The chain goes on from the link that the trim left."""
    tamper(stopped, "UPDATE log SET data = (SELECT data FROM log WHERE first_index = 17) WHERE first_index = 12")
    with pytest.raises(StorageCorrupt, match="the log row at 12"):
        open_sqlite(stopped).load()


def test_a_damaged_chunk_is_not_sent_to_anybody(formed: SqliteStorage, tmp_path: Path) -> None:
    """Read again for a follower, much later than at load."""
    formed.write(Batch(entries(2, 5)))
    take(formed, 1, 5, 5)
    formed._database.cursor.execute("UPDATE snapshot_chunk SET data = data || x'00' WHERE seq = 1")
    with pytest.raises(StorageCorrupt, match="chunk 1 of staging 1 is damaged"):
        formed.read_chunk(Staging(1), 1)


def chunks_on_disk(storage: SqliteStorage) -> int:
    [count] = storage._database.cursor.execute("SELECT count(*) FROM snapshot_chunk").fetchone()
    return int(count)


def test_discarded_chunks_go_a_few_at_a_time_in_quiet_moments(formed: SqliteStorage) -> None:
    """A hundred megabytes removed at once would hold up the next commit."""
    count = 3 * IDLE_CHUNKS
    formed.write(staged(1, pieces(1, count, size=10)))
    formed.write(Batch(discard=[Staging(1)]))
    left = [chunks_on_disk(formed)]
    while formed.idle() == 0.0:
        left.append(chunks_on_disk(formed))
    assert left[:4] == [count, count - IDLE_CHUNKS, count - 2 * IDLE_CHUNKS, 0]
    assert formed.idle() != 0.0


def test_discarded_chunks_make_room_for_new_ones_where_there_is_no_quiet_moment(formed: SqliteStorage) -> None:
    """Under steady load the disk must not fill with former snapshots."""
    formed.write(Batch(entries(2, 400)))
    for staging in range(1, 30):
        for seq, data in enumerate(pieces(staging, 5, size=100)):
            formed.write(staged(staging, [data], seq))
        publish = published(staging, pieces(staging, 5, size=100), 10 + staging, 10 + staging)
        formed.write(Batch(publish=publish, discard=[Staging(staging - 1)] if staging > 1 else []))
    assert chunks_on_disk(formed) <= 15


def test_leftovers_of_a_former_life_go_as_well(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    formed.write(Batch(entries(2, 5)))
    take(formed, 1, 5, 5)
    formed.write(staged(2, pieces(2)))
    formed.close()
    storage = open_sqlite(tmp_path / "node")
    storage.load()
    while storage.idle() == 0.0:
        pass
    assert chunks_on_disk(storage) == 3


def test_the_file_does_not_grow_with_what_was_written_but_with_what_is_kept(formed: SqliteStorage) -> None:
    """Pages of trimmed rows and removed chunks are used again."""
    index, sizes = 1, []
    for round_ in range(1, 41):
        for _ in range(10):
            formed.write(Batch(entries(index + 1, 100, size=100)))
            index += 100
        data = pieces(round_, 4, size=50_000)
        formed.write(staged(round_, data))
        publish = published(round_, data, index, index - 200)
        formed.write(Batch(publish=publish, discard=[Staging(round_ - 1)] if round_ > 1 else []))
        while formed.idle() == 0.0:
            pass
        formed._checkpoint()
        sizes.append(formed._path.stat().st_size)
    assert max(sizes[10:]) <= 1.3 * sizes[9]


@pytest.mark.parametrize("file", ["coord.db", "coord.db-wal", "mark"])
def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path: Path, open_sqlite: Open, file: str) -> None:
    """No single bit of any file makes the node load something else than what was written."""
    node = tmp_path / "node"
    storage = open_sqlite(node)
    storage.form(BOOTSTRAP)
    for first in range(2, 32, 5):
        storage.write(Batch(entries(first, 5)))
    take(storage, 1, 10, 10)
    storage._checkpoint()
    take(storage, 2, 20, 15)
    storage.write(Batch(discard=[Staging(1)]))
    crashed = copy_as_after_a_crash(node, tmp_path / "crashed")
    sound = {path.name: path.read_bytes() for path in crashed.iterdir()}
    draw = random.Random(file)
    # Most of a young database is empty.
    written = [position for position, byte in enumerate(sound[file]) if byte]
    found = 0
    for _ in range(60):
        for name, data in sound.items():
            (crashed / name).write_bytes(data)
        position, bit = draw.choice(written), draw.randrange(8)
        flipped = bytearray(sound[file])
        flipped[position] ^= 1 << bit
        (crashed / file).write_bytes(flipped)
        try:
            damaged = SqliteStorage(crashed)
        except NodeError:
            found += 1
            continue
        try:
            assert log_of(damaged) == (15, entries(16, 16)), f"bit {bit} of byte {position} of {file}"
            restored = damaged.load()
            assert restored is not None
            assert restored.snapshot is not None
            assert list(restored.snapshot.chunks) == pieces(2)
        except NodeError:
            found += 1
        finally:
            damaged.close()
    assert found


def test_a_database_of_the_first_schema_gets_the_tables_and_keeps_its_log(
    formed: SqliteStorage, tmp_path: Path, open_sqlite: Open
) -> None:
    """A node of the release before snapshots is started with this one."""
    formed.write(Batch(entries(2, 5)))
    formed.close()
    with closing(sqlite3.connect(tmp_path / "node" / "coord.db")) as database, database:
        database.execute("DROP TABLE snapshot")
        database.execute("DROP TABLE snapshot_chunk")
        database.execute("DROP TABLE record")
        database.execute("DROP TABLE record_progress")
        database.execute("UPDATE alembic_version SET version_num = '0001'")
    storage = open_sqlite(tmp_path / "node")
    assert log_of(storage) == (1, entries(2, 5))
    take(storage, 1, 5, 4)
    assert log_of(storage) == (4, entries(5, 2))
    assert migrate.NEWEST == "0003"
