"""A disk that is really full: the kernel refuses, SQLite says so, and the reserve helps once."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coord_core.errors import StorageFailed
from coord_core.storage.api import Batch
from coord_core.storage.room import Level, RoomLimits
from coord_core.storage.sqlite import SqliteStorage
from tests.storage.building import BOOTSTRAP, FOUNDING_STATE, content, copy_as_after_a_crash, entries, state
from tests.storage.small_disk import MIB, SmallDisk, small_disk

LIMITS = RoomLimits(reserve_bytes=2 * MIB, low_bytes=4 * MIB)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "node", 12 * MIB) as disk:
        yield disk


@pytest.fixture
def open_on(disk: SmallDisk) -> Iterator[Callable[[], SqliteStorage]]:
    """Opens the storage on the small disk, with a clock that stands still: nobody looks in time."""
    with ExitStack() as stack:

        def opened() -> SqliteStorage:
            storage = SqliteStorage(disk.path, clock=lambda: 0.0, room=LIMITS)
            stack.callback(storage.close)
            return storage

        yield opened


def test_what_was_on_its_way_when_the_disk_filled_up_is_stored_with_the_reserve(
    disk: SmallDisk, open_on: Callable[[], SqliteStorage]
) -> None:
    """Without a byte left for anybody: and after a restart it is there, once."""
    storage = open_on()
    storage.form(BOOTSTRAP)
    storage.write(Batch(entries(2, 10), state(1)))
    assert (disk.path / "reserve").exists()
    disk.fill(leave=0)
    storage.write(Batch(entries(8, 500, term=2, size=1000), state(2, voted_for=2)))
    storage.write(Batch((), state(3, voted_for=3)))
    assert disk.is_real is not (disk.path / "reserve").exists()
    storage.close()
    expected = (state(3, voted_for=3), [*entries(2, 6), *entries(8, 500, term=2, size=1000)])
    assert content(open_on()) == expected


def test_terms_and_votes_are_stored_on_a_disk_without_a_free_byte(disk: SmallDisk, open_on: Callable[[], SqliteStorage]) -> None:
    """The reserve is gone and others have taken that too: the write-ahead log begins anew in the place that it has."""
    storage, clock = open_on(), iter(range(1, 1_000))
    storage.form(BOOTSTRAP)
    storage.write(Batch(entries(2, 400, size=1000), state(1)))
    storage._reserve._clock = lambda: float(next(clock))
    seen = []
    for leave in (3 * MIB, MIB // 4, 0):
        disk.fill(leave)
        seen.append(storage.look().level)
        storage.idle()
    disk.fill(leave=0)
    assert storage.look().level is Level.FULL
    assert seen[:2] == [Level.LOW, Level.LOW]
    assert not (disk.path / "reserve").exists()
    for term in range(2, 200):
        storage.write(Batch((), state(term, voted_for=2)))
        storage.idle()
    storage.close()
    assert content(open_on()) == (state(199, voted_for=2), entries(2, 400, size=1000))


def test_what_is_on_its_way_is_stored_though_others_take_the_reserve_as_soon_as_it_is_given_up(
    disk: SmallDisk, open_on: Callable[[], SqliteStorage], tmp_path: Path, open_sqlite: Callable[[Path], SqliteStorage]
) -> None:
    """The write-ahead log has room of its own; what it cannot copy for want of room it keeps, and a crash loses none of it."""
    storage = open_on()
    storage.form(BOOTSTRAP)
    storage.look()
    disk.fill(leave=0)
    storage._reserve.give_up()
    disk.fill(leave=0)
    for first in range(2, 1_002, 100):
        storage.write(Batch(entries(first, 100, size=1000), state(first)))
        storage.idle()
    if disk.is_real:
        assert disk.free() == 0
        assert storage._wal_bytes > MIB
    copy = copy_as_after_a_crash(disk.path, tmp_path / "copy")
    disk.clear()
    storage.close()
    expected = (state(902), entries(2, 1_000, size=1000))
    assert content(open_on()) == content(open_sqlite(copy)) == expected


def test_a_write_ahead_log_with_room_to_spare_is_an_empty_one(
    disk: SmallDisk, open_on: Callable[[], SqliteStorage], tmp_path: Path, open_sqlite: Callable[[Path], SqliteStorage]
) -> None:
    """A crash before anything was written into the space set aside."""
    storage = open_on()
    storage.form(BOOTSTRAP)
    storage.look()
    assert (disk.path / "coord.db-wal").stat().st_size == LIMITS.reserve_bytes
    copy = copy_as_after_a_crash(disk.path, tmp_path / "copy")
    assert content(open_sqlite(copy)) == (FOUNDING_STATE, [])


def test_a_batch_too_large_for_what_is_left_stops_the_node_and_harms_nothing(
    disk: SmallDisk, open_on: Callable[[], SqliteStorage]
) -> None:
    """Neither half a batch nor a lost one: what was acknowledged is there when there is room again."""
    storage = open_on()
    storage.form(BOOTSTRAP)
    storage.write(Batch(entries(2, 10), state(1)))
    disk.fill(leave=0)
    batch = Batch(entries(12, 4_000, size=1000), state(2, voted_for=2))
    if disk.is_real:
        with pytest.raises(StorageFailed, match="the disk is full"):
            storage.write(batch)
    storage.close()
    disk.clear()
    assert content(open_on()) == (state(1), entries(2, 10))
