"""A process's seat at a directory: its thread serves, or looks until it can.

All clients of a process that use one directory share a seat.  It ends with the last of them: the node stops in order, and another
process that uses the directory serves on.

The rule: whoever holds the directory's lock runs the node, on this thread and its loop; clients reach it through its socket, also
those of the same process.  A node that fails ends its seat; the next client makes another.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable

import uvloop

from coord_core.client import forks
from coord_core.client.url import split_address
from coord_core.config import RaftTimes, ServerConfig, StorageConfig
from coord_core.embedded.directory import EmbeddedDirectory
from coord_core.embedded.inherited import let_go
from coord_core.errors import CoordError, Unavailable
from coord_core.server.server import Server

log = logging.getLogger("coord.embedded")

#: How often a process that does not serve looks whether it can.
LOOK_EVERY_S = 0.05
#: How long a client that finds nobody serving waits for an address, looking this often, before it counts the attempt as failed.
RESOLVE_S_MAX = 1.0
_RESOLVE_EVERY_S = 0.01
#: A node that does not lead by then is told of all the same, and clients ask on.
_ELECTED_S_MAX = 5.0
_MIB = 1024 * 1024


class Seat:
    """This process's part in serving one directory."""

    def __init__(self, directory: EmbeddedDirectory) -> None:
        self.directory = directory
        #: Guarded by `_door`, as is who is told of the end.
        self.clients = 0
        #: Because of which it has ended; None: it goes on, or was ended.
        self.failure: CoordError | None = None
        self._server: Server | None = None
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: asyncio.Event | None = None
        self._has_ended = False
        self._tell: list[Callable[[], object]] = []
        # Guards the four above, between this thread and the clients'.
        self._handover = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="coord-embedded", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Have the node stop in order, and the thread end; callable from any thread.  Idempotent."""
        with self._handover:
            self._stopping.set()
            if self._loop is not None and self._asked is not None:
                self._loop.call_soon_threadsafe(self._asked.set)

    async def wait_ended(self) -> None:
        """Return when the thread has nothing more to do.  Needs no helper thread: as the interpreter ends none can be started."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        with self._handover:
            if self._has_ended:
                return
            self._tell.append(lambda: loop.call_soon_threadsafe(ended.set))
        await ended.wait()

    def let_go_in_child(self) -> None:
        """In a forked child: this is the parent's."""
        let_go(self.directory.path, [] if self._server is None else self._server.sockets())

    # --- on the thread -----------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                lock = self.directory.try_to_serve()
                if lock is None:
                    self._stopping.wait(LOOK_EVERY_S)
                else:
                    self._serve_under(lock)
        except CoordError as error:
            self.failure = error
            log.error("the embedded node of %s has ended: %s", self.directory.path, error.message)
        except OSError as error:
            self.failure = Unavailable(f"the embedded node of {self.directory.path} cannot be run: {error.strerror or error}")
            log.error("%s", self.failure.message)
        finally:
            self._end()

    def _end(self) -> None:
        with self._handover:
            if not self._stopping.is_set() and self.failure is None:
                self.failure = Unavailable(f"the embedded node of {self.directory.path} has ended; its log says why")
            self._has_ended = True
            for tell in self._tell:
                with contextlib.suppress(RuntimeError):  # whoever waited has closed its loop
                    tell()

    def _serve_under(self, lock: int) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        finally:
            os.close(lock)

    async def _serve(self) -> None:
        with self._handover:
            self._loop, self._asked = asyncio.get_running_loop(), asyncio.Event()
            if self._stopping.is_set():
                self._asked.set()
        self._server = server = Server(_config(self.directory))
        try:
            await server.start()
            await server.wait_formed()
            await _elected(server)
            self.directory.publish(server.client_address)
            log.info("process %d serves %s at %s", os.getpid(), self.directory.path, server.client_address)
            await _first_of(server, self._asked)
        finally:
            with self._handover:
                self._loop = self._asked = None
            with contextlib.suppress(OSError):
                self.directory.withdraw()
            await server.stop()
            self._server = None


async def _elected(server: Server) -> None:
    """Return when it leads: it has only itself to ask.  Whoever finds its address is served at once then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ELECTED_S_MAX):
            while server.status().role != "leader":  # noqa: ASYNC110 - it tells nobody, and this is a fraction of a second
                await asyncio.sleep(_RESOLVE_EVERY_S)


async def _first_of(server: Server, asked: asyncio.Event) -> None:
    """Return when it is asked to stop; raise the error because of which the node ended."""
    ended, told = asyncio.ensure_future(server.wait_stopped()), asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait([ended, told], return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
    if ended.done():
        ended.result()
    ended.cancel()


def _config(directory: EmbeddedDirectory) -> ServerConfig:
    return ServerConfig(
        name="embedded",
        data_dir=directory.node,
        listen="127.0.0.1:0",
        init=True,
        token=directory.token,
        # It is alone: there is nobody to be outvoted by, so it need not wait for anybody.
        raft=RaftTimes(tick_ms=50, election_timeout_ms=150, heartbeat_ms=50),
        storage=StorageConfig(reserve_bytes=_MIB, low_bytes=8 * _MIB),
    )


# --- the seats of this process ----------------------------------------------------------------------------------------------------

_door = threading.Lock()
_seats: dict[str, Seat] = {}
#: Of a parent: kept for ever, so that no destructor runs.
_inherited: list[Seat] = []
_warned: set[str] = set()


class EmbeddedPlace:
    """What one client has of a seat; see `coord_core.client.place.Place`."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._born = forks.generation()
        self.token = seat.directory.token
        self._left = False

    async def resolve(self, address: str) -> tuple[str, int]:
        """Return where the process listens that serves now, whatever address is known from before."""
        loop = asyncio.get_running_loop()
        end = loop.time() + RESOLVE_S_MAX
        while (found := self._seat.directory.address()) is None:
            if self._seat.failure is not None:
                raise self._seat.failure
            if loop.time() > end:
                raise Unavailable(f"no process serves {self._seat.directory.path} yet")
            await asyncio.sleep(_RESOLVE_EVERY_S)
        return split_address(found)

    async def addresses(self, known: Iterable[str]) -> list[str]:
        host, port = await self.resolve("")
        return [f"{host}:{port}"]

    async def leave(self) -> None:
        """Return when the node has stopped, where this was the last client of this process."""
        if self._left or self._born != forks.generation():
            return
        self._left = True
        if not _leave(self._seat):
            return
        await self._seat.wait_ended()


def join(path: str) -> EmbeddedPlace:
    """Take part in serving a directory, and use what is served.  Raises `InvalidUrl` where it cannot be used."""
    directory = EmbeddedDirectory(path)
    key = os.path.realpath(path)
    with _door:
        seat = _seats.get(key)
        if seat is None or seat.failure is not None:
            seat = _seats[key] = Seat(directory)
            seat.start()
        seat.clients += 1
        is_first = key not in _warned
        _warned.add(key)
    if is_first:
        log.warning("the embedded node of %s is one process on one disk, not a cluster: it is not highly available", path)
    return EmbeddedPlace(seat)


def _leave(seat: Seat) -> bool:
    """Return whether the seat ends with it."""
    with _door:
        seat.clients -= 1
        if seat.clients > 0:
            return False
        for key in [key for key, each in _seats.items() if each is seat]:
            del _seats[key]
    seat.stop()
    return True


def _forked() -> None:
    """In a child: what is here belongs to the parent, whose threads are not here."""
    global _door
    _door = threading.Lock()
    seats = list(_seats.values())
    _inherited.extend(seats)
    _seats.clear()
    for seat in seats:
        seat.let_go_in_child()


os.register_at_fork(after_in_child=_forked)
