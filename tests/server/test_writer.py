"""The storage thread: work in order, errors to whoever waits, housekeeping only when it is quiet."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from coord_core.errors import StorageFailed
from coord_core.server import writer
from coord_core.server.writer import StorageThread
from coord_core.storage.api import Batch
from coord_core.storage.memory import MemoryStorage
from coord_core.storage.room import Level, Room
from tests.server.support import until


class Busy(MemoryStorage):
    """Notes what is done to it, and on which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.threads: set[str] = set()
        self.idle_answers: list[float | None] = [0.001, None]
        self.broken = False

    def write(self, batch: Batch) -> None:
        self._note("write")
        if self.broken:
            raise StorageFailed("broken")

    def idle(self) -> float | None:
        self._note("idle")
        if self.broken:
            raise StorageFailed("broken")
        return self.idle_answers.pop(0) if self.idle_answers else None

    def size_bytes(self) -> int:
        return 42

    def close(self) -> None:
        self._note("close")
        super().close()

    def _note(self, what: str) -> None:
        self.done.append(what)
        self.threads.add(threading.current_thread().name)


@pytest.fixture
async def thread() -> AsyncIterator[StorageThread]:
    found = StorageThread(asyncio.get_running_loop())
    yield found
    await found.close()


async def opened(thread: StorageThread) -> Busy:
    storage = Busy()
    await thread.open(lambda: storage)
    return storage


async def test_work_is_done_in_order_on_one_thread(thread: StorageThread) -> None:
    """SQLite's connection, and the contract of the storage, know one thread."""
    storage = await opened(thread)
    errors: list[BaseException | None] = []
    for _ in range(3):
        thread.write(Batch(), errors.append)
    assert await thread.run(lambda: len(storage.done)) == 3
    await thread.close()
    await until(lambda: errors == [None, None, None], "the three writes")
    assert [what for what in storage.done if what != "idle"] == ["write", "write", "write", "close"]
    assert storage.threads == {"coord-storage"}


async def test_an_error_comes_to_whoever_waits(thread: StorageThread) -> None:
    """And the thread goes on: what becomes of it is for the loop to say."""
    storage = await opened(thread)
    storage.broken = True
    errors: list[BaseException | None] = []
    thread.write(Batch(), errors.append)
    await until(lambda: errors, "the error")
    assert isinstance(errors[0], StorageFailed)
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 5) == 5


async def test_a_storage_that_cannot_be_opened_says_so(thread: StorageThread) -> None:
    """Closing is harmless then."""

    def fail() -> MemoryStorage:
        raise StorageFailed("no such disk")

    with pytest.raises(StorageFailed, match="no such disk"):
        await thread.open(fail)
    assert thread.size_bytes() == 0


async def test_housekeeping_is_done_when_it_is_quiet_for_a_while(thread: StorageThread) -> None:
    """Then again after as long as it asked for, and not any more when it has nothing to do."""
    storage = await opened(thread)
    await until(lambda: storage.done == ["idle", "idle"], "two rounds of housekeeping")
    assert thread.size_bytes() == 42


async def test_housekeeping_does_not_come_between_two_writes(thread: StorageThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint there would hold up the second."""
    monkeypatch.setattr(writer, "IDLE_AFTER_S", 60.0)
    storage = await opened(thread)
    await thread.run(lambda: None)
    storage.done.clear()
    errors: list[BaseException | None] = []
    for number in range(1, 11):
        thread.write(Batch(), errors.append)
        await until(lambda number=number: len(errors) == number, "the write")  # type: ignore[misc]
    assert storage.done == ["write"] * 10


async def test_an_error_of_housekeeping_is_left_to_the_next_write(thread: StorageThread) -> None:
    """The storage is poisoned by it and answers every later call with the same error."""
    storage = await opened(thread)
    storage.broken = True
    await until(lambda: "idle" in storage.done, "housekeeping")
    errors: list[BaseException | None] = []
    thread.write(Batch(), errors.append)
    await until(lambda: errors, "the error")
    assert isinstance(errors[0], StorageFailed)


class Filling(Busy):
    """Its disk has as much room as the test says."""

    def __init__(self, *rooms: Room) -> None:
        super().__init__()
        self.rooms = list(rooms)

    def look(self) -> Room:
        if self.broken:
            raise StorageFailed("broken")
        return self.rooms.pop(0) if len(self.rooms) > 1 else self.rooms[0]


async def test_the_room_of_a_disk_is_told_when_it_changes(thread: StorageThread) -> None:
    """Also to a node that has nothing to write: others fill its disk, and free it.  Not with every look."""
    ample, mib = Room(Level.AMPLE, 500 << 20), 1 << 20
    low = [Room(Level.LOW, 5 * mib), Room(Level.LOW, 5 * mib - 1), Room(Level.LOW, 4 * mib)]
    storage = Filling(ample, Room(Level.AMPLE, 400 << 20), *low, ample)
    await thread.open(lambda: storage)
    told: list[Room] = []
    thread.watch_room(told.append)
    await until(lambda: len(storage.rooms) == 1 and told and told[-1] is ample and len(told) > 2, "room again")
    assert [room for room in told if room.level is Level.LOW] == [low[0], low[2]]
    assert thread.room is ample


async def test_a_storage_that_cannot_measure_its_room_is_left_to_the_next_write(thread: StorageThread) -> None:
    """As with any housekeeping: it is poisoned, and the write gets the error."""
    storage = Filling(Room(Level.AMPLE, 1))
    await thread.open(lambda: storage)
    storage.broken = True
    errors: list[BaseException | None] = []
    await thread.run(lambda: None)
    thread.write(Batch(), errors.append)
    await until(lambda: errors, "the error")
    assert isinstance(errors[0], StorageFailed)
