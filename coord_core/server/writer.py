"""The storage thread: the one thread that writes to the storage, so that a slow disk holds up no heartbeat.

Records of topics are read on a thread of their own: who reads a long history must hold up no commit either.

The rule: an error is handed to the loop once and never tried again; what becomes of it is the loop's business (the node stops).
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar, runtime_checkable

from coord_core.protocol.topics import TopicRecord
from coord_core.storage.api import Batch, Storage
from coord_core.storage.room import UNMEASURED, Level, Room
from coord_core.storage.snapshots import Chunk, Staging
from coord_core.types import TopicNumber

T = TypeVar("T")

#: So long without a write is a quiet moment.
IDLE_AFTER_S = 0.02

#: How often a thread without work looks how much room the disk has: others fill it, and make room, too.
LOOK_EVERY_S = 0.25
#: What is told anew of a disk that has no ample room.
TOLD_BYTES = 1024 * 1024


@runtime_checkable
class Housekeeping(Protocol):
    """What a storage on a disk offers besides the contract."""

    def idle(self) -> float | None:
        """Do what waits for a quiet moment; return the seconds after which to call again, None where nothing waits."""

    def size_bytes(self) -> int:
        """Bytes on disk.  May be called from any thread."""


@runtime_checkable
class Measured(Protocol):
    """A storage that knows how much room it has."""

    def look(self) -> Room:
        """Return it; cheap, to be asked after each piece of work."""


class StorageThread:
    """Runs work on the storage, one piece after the other.

    A daemon thread: a disk that never answers must not keep a failed process alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # Set by `open`, on the thread; the loop only asks it for its size.
        self._storage: Storage | None = None
        self._housekeeping: Housekeeping | None = None
        self._measured: Measured | None = None
        #: How much room there was a moment ago.
        self.room: Room = UNMEASURED
        self._room_changed: Callable[[Room], None] | None = None
        self._told: Room | None = None
        # Records to be read; the thread begins with the first.
        self._reads: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._reader: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name="coord-storage", daemon=True)
        self._thread.start()

    async def open(self, open_storage: Callable[[], Storage]) -> None:
        """Open the storage on its thread.  Raises what `open_storage` raises."""

        def work() -> None:
            self._storage = open_storage()
            self._housekeeping = _housekeeping_of(self._storage)
            self._measured = self._storage if isinstance(self._storage, Measured) else None

        await self.run(work)

    def watch_room(self, changed: Callable[[Room], None]) -> None:
        """Call `changed` on the loop, soon, and whenever the room has another level; where it is not ample, with each MiB."""

        def begin() -> None:
            self._room_changed, self._told = changed, None

        self._queue.put(begin)

    @property
    def storage(self) -> Storage:
        """For work given to `run`: to be used on the thread only."""
        assert self._storage is not None, "the storage is not open"
        return self._storage

    def size_bytes(self) -> int:
        return 0 if self._housekeeping is None else self._housekeeping.size_bytes()

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on the thread after everything given before; return or raise what it does."""
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                self._call_back(_fail, future, error)
            else:
                self._call_back(_resolve, future, result)

        self._queue.put(job)
        return await future

    def write(self, batch: Batch, done: Callable[[BaseException | None], None]) -> None:
        """Make the batch durable; `done` is called on the loop, with the error if there was one."""
        storage = self.storage

        def job() -> None:
            error: BaseException | None = None
            try:
                storage.write(batch)
            except BaseException as caught:  # noqa: BLE001 - handed to the loop, which stops the node
                error = caught
            self._call_back(done, error)

        self._queue.put(job)

    def read_chunk(self, staging: Staging, seq: int, done: Callable[[Chunk | None, BaseException | None], None]) -> None:
        """Read a chunk of a snapshot; `done` is called on the loop, with what is there or the error."""
        storage = self.storage

        def job() -> None:
            chunk, error = None, None
            try:
                chunk = storage.read_chunk(staging, seq)
            except BaseException as caught:  # noqa: BLE001 - handed to the loop, which stops the node
                error = caught
            self._call_back(done, chunk, error)

        self._queue.put(job)

    def read_records(
        self,
        topic: TopicNumber,
        offset: int,
        records_max: int,
        bytes_max: int,
        done: Callable[[Sequence[TopicRecord], BaseException | None], None],
    ) -> None:
        """Read records of a topic, beside what is written; `done` is called on the loop, with what is there or the error."""
        storage = self.storage

        def job() -> None:
            records: Sequence[TopicRecord] = ()
            error: BaseException | None = None
            try:
                records = storage.read_records(topic, offset, records_max, bytes_max)
            except BaseException as caught:  # noqa: BLE001 - handed to the loop, which stops the node
                error = caught
            self._call_back(done, records, error)

        if self._reader is None:
            self._reader = threading.Thread(target=self._run_reads, name="coord-reader", daemon=True)
            self._reader.start()
        self._reads.put(job)

    async def close(self) -> None:
        """Finish what is queued, close the storage and end the thread.  Idempotent."""
        if self._storage is not None:
            await self.run(self._storage.close)
            self._storage = self._housekeeping = self._measured = None
        self._queue.put(None)
        self._reads.put(None)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _run_reads(self) -> None:
        while (job := self._reads.get()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        """Wait for work; when there was none for a while, let the storage do its own.

        Not at once: between two writes of a busy node the queue is empty too, and a checkpoint there would hold up the second.
        """
        pause_s: float | None = IDLE_AFTER_S
        while True:
            self._look()
            wait_s = pause_s
            if self._measured is not None:
                wait_s = LOOK_EVERY_S if pause_s is None else min(pause_s, LOOK_EVERY_S)
            try:
                return self._queue.get(timeout=wait_s)
            except Empty:
                if pause_s is not None and wait_s is not None:
                    pause_s = pause_s - wait_s if pause_s > wait_s else self._idle()

    def _look(self) -> None:
        if self._measured is None:
            return
        try:
            self.room = room = self._measured.look()
        except Exception:  # noqa: BLE001 - as in `_idle`
            self._measured = None
            return
        told = self._told
        is_news = told is None or room.level is not told.level
        if room.level is not Level.AMPLE and told is not None:
            is_news = is_news or abs(room.free_bytes - told.free_bytes) >= TOLD_BYTES
        if is_news and self._room_changed is not None:
            self._told = room
            self._call_back(self._room_changed, room)

    def _idle(self) -> float | None:
        if self._housekeeping is None:
            return None
        try:
            return self._housekeeping.idle()
        except Exception:  # noqa: BLE001 - the storage is poisoned now: the next write gets the error and stops the node
            return None

    def _call_back(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is left to be told.
            self._queue.put(None)


def _housekeeping_of(storage: object) -> Housekeeping | None:
    return storage if isinstance(storage, Housekeeping) else None


def _resolve(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[T]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
