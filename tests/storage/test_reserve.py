"""Room on the disk: measured, set aside, given up and taken again; and SQLite's last transaction that found none.

The disk is a number here, but for its last page: a bound on the pages of the database stands in for that.
`tests/server/test_full_disk.py` fills a real one.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coord_core.errors import StorageFailed
from coord_core.storage.api import Batch
from coord_core.storage.directory import allocate
from coord_core.storage.reserve import LOOK_BYTES, LOOK_SECONDS, Reserve
from coord_core.storage.room import UNMEASURED, Level, Room, RoomLimits
from coord_core.storage.sqlite import CHECKPOINT_LOW_BYTES, SqliteStorage
from tests.storage.building import BOOTSTRAP, FOUNDING_STATE, content, entries, state

MIB = 1024 * 1024
LIMITS = RoomLimits(reserve_bytes=4 * MIB, low_bytes=16 * MIB)

AMPLE, LOW, FULL = Level


class Disk:
    """A disk of which others have used so much."""

    def __init__(self, size: int = 100 * MIB) -> None:
        self.size = size
        self.used_by_others = 0
        self.looks = 0
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def free_bytes(self, data_dir: Path) -> int:
        self.looks += 1
        return self.size - self.used_by_others - self.reserved(data_dir)

    @staticmethod
    def reserved(data_dir: Path) -> int:
        reserve = data_dir / "reserve"
        return reserve.stat().st_size if reserve.exists() else 0

    def leave(self, free: int) -> None:
        """Let others take all but `free`, not counting the reserve that is held now."""
        self.used_by_others = self.size - free - 4 * MIB

    def reserve(self, data_dir: Path, limits: RoomLimits = LIMITS) -> Reserve:
        found = Reserve(data_dir, limits, self.clock, self.free_bytes)
        found.begin()
        return found


def look(reserve: Reserve, disk: Disk) -> Level:
    disk.now += 2 * LOOK_SECONDS
    return reserve.look().level


def test_a_node_sets_its_reserve_aside_when_it_starts(tmp_path: Path) -> None:
    """Preallocated: what is free after it is really free."""
    disk = Disk()
    reserve = disk.reserve(tmp_path)
    assert reserve.room == Room(AMPLE, 96 * MIB)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 4 * MIB


def test_room_is_low_before_the_reserve_is_touched(tmp_path: Path) -> None:
    """New commands are refused while there is room for everything else; and it comes back later than it went."""
    disk = Disk()
    reserve = disk.reserve(tmp_path)
    for free, level in ((16, AMPLE), (15, LOW), (16, LOW), (20, LOW), (21, AMPLE), (16, AMPLE), (2, LOW)):
        disk.leave(free * MIB)
        assert look(reserve, disk) is level, free
        assert disk.reserved(tmp_path) == 4 * MIB
        assert reserve.room.needed_bytes == 21 * MIB, "what must be free is told as what is free: without the reserve"


def test_the_reserve_is_given_up_last_and_taken_again_first(tmp_path: Path) -> None:
    """With it a node is low; when half of it is gone too, it is full; when there is plenty, all is as before."""
    disk = Disk()
    reserve = disk.reserve(tmp_path)
    disk.leave(MIB - 1)
    assert look(reserve, disk) is LOW
    assert disk.reserved(tmp_path) == 0
    assert reserve.room.free_bytes == 5 * MIB - 1, "what was the reserve is free for SQLite now"
    assert reserve.room.needed_bytes == 25 * MIB, "it will be taken again"
    disk.leave(-2 * MIB - 1)
    assert look(reserve, disk) is FULL
    disk.leave(-1)
    assert look(reserve, disk) is FULL
    disk.leave(0)
    assert look(reserve, disk) is LOW
    assert disk.reserved(tmp_path) == 0
    disk.leave(4 * MIB)
    assert look(reserve, disk) is LOW
    assert disk.reserved(tmp_path) == 4 * MIB
    disk.leave(30 * MIB)
    assert look(reserve, disk) is AMPLE


def test_a_node_that_starts_on_a_full_disk_still_has_its_reserve(tmp_path: Path) -> None:
    """Starting it again is what people do first."""
    disk = Disk()
    disk.reserve(tmp_path)
    disk.leave(2 * MIB)
    assert disk.reserve(tmp_path).room == Room(LOW, 2 * MIB)


def test_a_reserve_of_another_size_is_made_anew(tmp_path: Path) -> None:
    """Cut off while it was made, or of another configuration."""
    disk = Disk()
    (tmp_path / "reserve").write_bytes(b"half")
    disk.reserve(tmp_path)
    assert disk.reserved(tmp_path) == 4 * MIB
    disk.reserve(tmp_path, RoomLimits(reserve_bytes=2 * MIB, low_bytes=16 * MIB))
    assert disk.reserved(tmp_path) == 2 * MIB


def test_a_disk_that_never_had_room_is_no_error(tmp_path: Path) -> None:
    """A node on a tiny disk runs, and says that its room is low."""
    assert Disk(6 * MIB).reserve(tmp_path).room == Room(LOW, 6 * MIB)
    assert not (tmp_path / "reserve").exists()


def test_a_quota_is_a_disk_of_its_own(tmp_path: Path) -> None:
    """Counted is what lies in the directory, the reserve too."""
    limits = RoomLimits(reserve_bytes=4 * MIB, low_bytes=16 * MIB, quota_bytes=40 * MIB)
    (tmp_path / "coord.db").write_bytes(bytes(10 * MIB))
    disk = Disk()
    reserve = disk.reserve(tmp_path, limits)
    assert reserve.room == Room(AMPLE, 26 * MIB)
    (tmp_path / "coord.db").write_bytes(bytes(21 * MIB))
    assert look(reserve, disk) is LOW


def test_a_file_that_goes_while_the_directory_is_counted_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every file is the node's: whoever makes a backup may put one there for a moment, and the node must not stop for it."""
    limits = RoomLimits(reserve_bytes=4 * MIB, low_bytes=16 * MIB, quota_bytes=40 * MIB)
    (tmp_path / "coord.db").write_bytes(bytes(10 * MIB))
    (tmp_path / "copy.tmp").write_bytes(bytes(MIB))
    scandir = os.scandir

    @contextmanager
    def scan(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as files:
            found = list(files)
        (tmp_path / "copy.tmp").unlink(missing_ok=True)
        yield found

    disk = Disk()
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scan)
        reserve = disk.reserve(tmp_path, limits)
    assert reserve.room == Room(AMPLE, 26 * MIB)


def test_looking_is_cheap(tmp_path: Path) -> None:
    """Once in a tenth of a second, and once more for every few MiB written: not with each transaction."""
    disk = Disk()
    reserve = disk.reserve(tmp_path)
    looks = disk.looks
    for _ in range(1_000):
        reserve.wrote(LOOK_BYTES // 1_000)
        reserve.look()
    assert disk.looks == looks
    reserve.wrote(LOOK_BYTES)
    reserve.look()
    assert disk.looks == looks + 1


def test_where_nothing_can_be_preallocated_zeros_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind what a file holds: the write-ahead log has content when its turn comes."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("coord_core.storage.directory.os.posix_fallocate", refuse)
    disk = Disk()
    disk.reserve(tmp_path)
    assert (tmp_path / "reserve").read_bytes() == bytes(4 * MIB)
    (tmp_path / "file").write_bytes(b"content")
    fd = os.open(tmp_path / "file", os.O_RDWR)
    allocate(fd, 3 * MIB // 2)
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"content".ljust(3 * MIB // 2, b"\0")


def test_without_limits_nothing_is_measured_and_nothing_set_aside(tmp_path: Path) -> None:
    disk = Disk()
    reserve = Reserve(tmp_path, None, disk.clock, disk.free_bytes)
    reserve.begin()
    assert (reserve.look(), reserve.give_up(), disk.looks) == (UNMEASURED, False, 0)


# --- SQLite


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def storage(tmp_path: Path, disk: Disk) -> SqliteStorage:
    storage = SqliteStorage(tmp_path / "node", clock=disk.clock, room=LIMITS, free_bytes=disk.free_bytes)
    storage.form(BOOTSTRAP)
    return storage


def no_page_more(storage: SqliteStorage) -> None:
    [[pages]] = storage._database.cursor.execute("PRAGMA page_count").fetchall()
    storage._database.cursor.execute(f"PRAGMA max_page_count = {pages}")


def room_from_the_reserve(storage: SqliteStorage, patch: pytest.MonkeyPatch) -> None:
    """Let the disk have room again in the moment in which the reserve is gone."""
    patch.setattr(
        "coord_core.storage.reserve.sync_directory",
        lambda path: storage._database.cursor.execute("PRAGMA max_page_count = 1000000"),
    )


def test_a_transaction_that_finds_no_room_is_written_once_more_with_the_reserve(
    storage: SqliteStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_sqlite: Callable[[Path], SqliteStorage]
) -> None:
    """The disk filled up faster than anybody looks; what was on its way must not stop the node.

    It is one transaction, not one and a half: an end of the log that is replaced is replaced once, and the next one follows.
    """
    storage.write(Batch(entries(2, 3), state(2)))
    no_page_more(storage)
    room_from_the_reserve(storage, monkeypatch)
    storage.write(Batch(entries(4, 100, term=3, size=1000), state(3, voted_for=2)))
    assert not (tmp_path / "node" / "reserve").exists()
    storage.write(Batch(entries(104, 1, term=3)))
    storage.close()
    expected = (state(3, voted_for=2), [*entries(2, 2), *entries(4, 100, term=3, size=1000), *entries(104, 1, term=3)])
    assert content(open_sqlite(tmp_path / "node")) == expected


def test_a_transaction_that_finds_no_room_twice_stops_the_node(
    storage: SqliteStorage, tmp_path: Path, open_sqlite: Callable[[Path], SqliteStorage]
) -> None:
    """The reserve is gone and did not help."""
    no_page_more(storage)
    with pytest.raises(StorageFailed, match=r"the disk is full .*reserve is used.*free some space"):
        storage.write(Batch(entries(2, 100, size=1000)))
    with pytest.raises(StorageFailed):
        storage.look()
    storage.close()
    assert content(open_sqlite(tmp_path / "node")) == (FOUNDING_STATE, [])


def test_a_checkpoint_without_room_is_left_for_later(
    storage: SqliteStorage,
    disk: Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_sqlite: Callable[[Path], SqliteStorage],
) -> None:
    """All that it would have copied is in the write-ahead log still, and is read from there."""
    storage.write(Batch(entries(2, 400, size=1000)))
    disk.leave(8 * MIB)
    disk.now += 2 * LOOK_SECONDS
    assert storage.look().level is LOW
    assert storage._wal_bytes > CHECKPOINT_LOW_BYTES
    real = storage._database.checkpoint
    attempts: list[None] = []

    def full() -> bool:
        attempts.append(None)
        no_page_more(storage)
        storage._database.cursor.execute("CREATE TABLE filler AS SELECT * FROM log")
        raise AssertionError("there was room")

    monkeypatch.setattr(storage._database, "checkpoint", full)
    storage.idle()
    assert len(attempts) == 2, "once more with what the reserve gave"
    assert storage._wal_bytes > CHECKPOINT_LOW_BYTES
    monkeypatch.setattr(storage._database, "checkpoint", real)
    storage.write(Batch(entries(402, 1), state(2)))
    storage.idle()
    assert storage._wal_bytes == 0
    storage.close()
    assert content(open_sqlite(tmp_path / "node")) == (state(2), [*entries(2, 400, size=1000), *entries(402, 1)])


def test_where_room_is_low_the_write_ahead_log_begins_anew_early(storage: SqliteStorage, disk: Disk) -> None:
    """It keeps its size: what comes next is written where it has been, and takes no room."""
    storage.write(Batch(entries(2, 400, size=1000)))
    storage.idle()
    assert storage._wal_bytes
    disk.leave(8 * MIB)
    disk.now += 2 * LOOK_SECONDS
    storage.look()
    storage.idle()
    assert storage._wal_bytes == 0
    size = storage.size_bytes()
    for number in range(20):
        storage.write(Batch((), state(number + 2, voted_for=1)))
    assert storage.size_bytes() == size
    storage.close()
