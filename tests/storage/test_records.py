"""Records of topics in storages: written with the batch that comes next, read beside it, removed when it suits."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from coord_core.errors import StorageCorrupt, StorageFailed
from coord_core.protocol.topics import TopicRecord
from coord_core.storage.api import Batch, Storage
from coord_core.storage.record_rows import ROW_BYTES_MAX, pack, unpack
from coord_core.storage.records import Held, Stored
from coord_core.storage.sqlite import CHECKPOINT_BUSY_BYTES, SqliteStorage
from coord_core.types import LogIndex, TopicNumber
from tests.storage.building import copy_as_after_a_crash, entries
from tests.storage.places import Place
from tests.storage.test_snapshots import pieces, published, staged

Open = Callable[[Path], SqliteStorage]

NEWS, JOBS = TopicNumber(5), TopicNumber(7)


def record(offset: int, size: int = 20, revision: int = 0) -> TopicRecord:
    payload = f"record {offset}".encode().ljust(size, b".")
    return TopicRecord(offset, LogIndex(revision or 100 + offset), offset * 10, payload, b"key", (("n", b"%d" % offset),))


def records(first: int, count: int, topic: TopicNumber = NEWS, size: int = 20) -> list[Stored]:
    return [(topic, record(offset, size)) for offset in range(first, first + count)]


def put(storage: Storage, stored: Sequence[Stored], index: int | None = None) -> None:
    storage.write(Batch(records=stored, records_index=None if index is None else LogIndex(index)))


def offsets(storage: Storage, start: int = 0, topic: TopicNumber = NEWS) -> list[int]:
    return [found.offset for found in storage.read_records(topic, start, 10_000, 1 << 30)]


def again(place: Place) -> Storage:
    """Restart and load."""
    storage = place.restart()
    assert storage.load() is not None
    return storage


def held(storage: Storage) -> dict[TopicNumber, Held]:
    restored = storage.load()
    assert restored is not None
    return dict(restored.held)


# --- the contract ----------------------------------------------------------------------------------------------------------------


def test_records_are_there_after_a_restart_with_every_field(formed_place: Place) -> None:
    """With up to where they reach: what comes after must be applied again."""
    put(formed_place.storage, [*records(0, 3), *records(0, 2, JOBS), *records(3, 2)], 140)
    reopened = formed_place.restart()
    restored = reopened.load()
    assert restored is not None
    assert restored.records_index == 140
    assert dict(restored.held) == {NEWS: Held(0, 5), JOBS: Held(0, 2)}
    assert list(reopened.read_records(NEWS, 0, 100, 10_000)) == [record(offset) for offset in range(5)]


def test_records_come_with_the_entries_of_the_same_batch_or_not_at_all(formed_place: Place) -> None:
    """One transaction: a batch that does not fit leaves none of them."""
    with pytest.raises(StorageFailed):
        formed_place.storage.write(Batch(entries(9, 1), records=records(0, 3)))
    assert held(formed_place.restart()) == {}
    formed_place.storage.write(Batch(entries(2, 1), records=records(0, 3)))
    assert held(formed_place.restart()) == {NEWS: Held(0, 3)}


def test_a_record_is_written_once(formed_place: Place) -> None:
    """A node that applies again what it had stored before a crash, in other batches than before, adds only what is new."""
    put(formed_place.storage, records(0, 4), 103)
    put(formed_place.storage, records(2, 5), 106)
    put(again(formed_place), records(0, 9), 108)
    assert offsets(formed_place.storage) == list(range(9))
    assert list(formed_place.storage.read_records(NEWS, 3, 1, 1)) == [record(3)]


def test_a_record_that_comes_twice_in_a_batch_is_written_once(formed_place: Place) -> None:
    """A follower has applied some of what its leader sends along with a snapshot."""
    put(formed_place.storage, records(0, 2))
    put(formed_place.storage, [*records(1, 4), *records(0, 2, JOBS), *records(2, 6), *records(1, 2, JOBS)])
    assert offsets(again(formed_place)) == list(range(8))
    assert offsets(formed_place.storage, topic=JOBS) == [0, 1, 2]


def test_where_records_reach_never_falls(formed_place: Place) -> None:
    """After a restart the first batches say less than what is stored."""
    put(formed_place.storage, records(0, 4), 200)
    put(formed_place.storage, records(4, 4), 150)
    restored = formed_place.restart().load()
    assert restored is not None
    assert restored.records_index == 200


@pytest.mark.parametrize("start", [0, 1, 7, 99, 100, 101, 149])
def test_reading_begins_anywhere_and_is_bounded(formed_place: Place, start: int) -> None:
    """In the middle of a row, at its end, in the next: and never more than was asked for, but one record at least."""
    for first in range(0, 150, 50):
        put(formed_place.storage, records(first, 50))
    storage = formed_place.storage
    assert offsets(storage, start) == list(range(start, 150))
    assert [found.offset for found in storage.read_records(NEWS, start, 3, 10_000)] == list(range(start, min(start + 3, 150)))
    assert [found.offset for found in storage.read_records(NEWS, start, 100, 1)] == [start]
    size = sum(len(found.payload) for found in storage.read_records(NEWS, start, 100, 500))
    assert size <= 500
    assert offsets(storage, 150) == []
    assert offsets(storage, 0, JOBS) == []


def test_large_records_have_rows_of_their_own(formed_place: Place) -> None:
    """What has to be decoded for one record is bounded."""
    large = records(0, 5, size=200_000)
    put(formed_place.storage, large)
    assert list(formed_place.storage.read_records(NEWS, 2, 10, 250_000)) == [large[2][1]]
    assert [len(row.data) > ROW_BYTES_MAX for row in pack(large)] == [True] * 5
    rows = pack(records(0, 5_000))
    assert all(len(row.data) <= ROW_BYTES_MAX for row in rows)
    assert [found for row in rows for found in unpack(row)] == [stored[1] for stored in records(0, 5_000)]


def settle(storage: Storage) -> None:
    """Let the storage do what waits for a quiet moment."""
    if isinstance(storage, SqliteStorage):
        while storage.idle() == 0.0:
            pass


def test_what_retention_has_passed_goes_and_the_rest_stays(formed_place: Place) -> None:
    """Whole rows: of one that retention has passed in part, more may stay."""
    for first in range(0, 100, 10):
        put(formed_place.storage, [*records(first, 10), *records(first, 10, JOBS)])
    formed_place.storage.write(Batch(trims=[(NEWS, 35)]))
    settle(formed_place.storage)
    left = offsets(formed_place.storage)
    assert left[0] in range(30, 36)
    assert left == list(range(left[0], 100))
    assert offsets(formed_place.storage, 35) == list(range(35, 100))
    assert offsets(formed_place.storage, topic=JOBS) == list(range(100))
    put(again(formed_place), records(100, 1))
    assert offsets(formed_place.storage, 99) == [99, 100]


def test_a_topic_that_is_gone_leaves_nothing(formed_place: Place) -> None:
    """And one of which everything has aged goes on with its next record."""
    put(formed_place.storage, [*records(0, 10), *records(0, 10, JOBS)])
    formed_place.storage.write(Batch(trims=[(NEWS, None), (JOBS, 10), (TopicNumber(99), None)]))
    settle(formed_place.storage)
    assert held(formed_place.restart()) == {}
    put(formed_place.storage, records(10, 2, JOBS))
    assert offsets(formed_place.storage, topic=JOBS) == [10, 11]


def test_the_log_is_not_trimmed_beyond_what_is_stored_of_its_records(formed_place: Place) -> None:
    """They could not be made from it any more."""
    formed_place.storage.write(Batch(entries(2, 30), records=records(0, 3), records_index=LogIndex(20)))
    data = pieces(1)
    formed_place.storage.write(staged(1, data))
    formed_place.storage.write(Batch(publish=published(1, data, 20, 20)))
    more = pieces(2)
    formed_place.storage.write(staged(2, more))
    with pytest.raises(StorageFailed, match="stored up to 20 only"):
        formed_place.storage.write(Batch(publish=published(2, more, 25, 25)))
    reopened = formed_place.restart()
    restored = reopened.load()
    assert restored is not None
    reopened.write(staged(int(restored.next_staging), more))
    publish = published(int(restored.next_staging), more, 25, 25)
    reopened.write(Batch(publish=publish, records=records(3, 2), records_index=LogIndex(25)))
    assert offsets(formed_place.restart()) == [0, 1, 2, 3, 4]


# --- on a disk -------------------------------------------------------------------------------------------------------------------


def test_records_that_were_acknowledged_survive_a_crash(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """As entries do: they are in the transaction that was."""
    formed.write(Batch(entries(2, 1), records=records(0, 100), records_index=LogIndex(2)))
    with closing(open_sqlite(copy_as_after_a_crash(tmp_path / "node", tmp_path / "copy"))) as survivor:
        assert survivor.load() is not None
        assert offsets(survivor) == list(range(100))


def test_a_damaged_record_is_found_when_it_is_read(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """Not at start: there may be very many.  It poisons the storage, which must not be served from."""
    put(formed, records(0, 10))
    put(formed, records(10, 10))
    formed.close()
    with closing(sqlite3.connect(tmp_path / "node" / "coord.db")) as database, database:
        (data,) = database.execute("SELECT data FROM record WHERE first_offset = 10").fetchone()
        damaged = data.replace(b"record 13", b"record 66")
        database.execute("UPDATE record SET data = ? WHERE first_offset = 10", (damaged,))
    storage = open_sqlite(tmp_path / "node")
    storage.load()
    assert len(storage.read_records(NEWS, 0, 10, 10_000)) == 10
    with pytest.raises(StorageCorrupt, match="topic 5 at 10 is damaged"):
        storage.read_records(NEWS, 12, 10, 10_000)
    with pytest.raises(StorageCorrupt):
        storage.write(Batch(entries(2, 1)))


def test_progress_that_was_damaged_is_found_at_start(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """It says what may be trimmed."""
    put(formed, records(0, 10), 50)
    formed.close()
    with closing(sqlite3.connect(tmp_path / "node" / "coord.db")) as database, database:
        database.execute("UPDATE record_progress SET applied_index = 60")
    with pytest.raises(StorageCorrupt, match="record_progress"):
        open_sqlite(tmp_path / "node").load()


def test_no_other_process_can_open_the_database(formed: SqliteStorage, tmp_path: Path) -> None:
    """Though a second connection of this one reads: what is not ours must not pin or change it."""
    put(formed, records(0, 10))
    assert len(formed.read_records(NEWS, 0, 10, 10_000)) == 10
    assert sorted(path.name for path in (tmp_path / "node").glob("coord.db*")) == ["coord.db", "coord.db-wal"]


def test_a_reader_beside_the_writer_does_not_let_the_write_ahead_log_grow(formed: SqliteStorage, tmp_path: Path) -> None:
    """Somebody reads the whole history again and again while others publish."""
    put(formed, records(0, 2_000, size=200))
    done, seen = False, []

    def read() -> None:
        while not done:
            seen.append(len(formed.read_records(NEWS, 0, 2_000, 1 << 20)))

    reader = Thread(target=read)
    reader.start()
    try:
        for number in range(4 * CHECKPOINT_BUSY_BYTES // 20_000):
            put(formed, records(2_000 + number * 100, 100, size=200))
    finally:
        done = True
        reader.join()
    assert set(seen) == {2_000}
    assert (tmp_path / "node" / "coord.db-wal").stat().st_size < 1.25 * CHECKPOINT_BUSY_BYTES


def test_removing_what_has_passed_is_spread_over_many_transactions(formed: SqliteStorage) -> None:
    """Half of a large topic at once would hold up the log's next write."""
    for first in range(0, 2_000, 10):
        put(formed, records(first, 10))
    formed.write(Batch(trims=[(NEWS, 2_000)]))
    steps = 0
    while formed.idle() == 0.0:
        steps += 1
    assert steps >= 10
    assert offsets(formed) == []
