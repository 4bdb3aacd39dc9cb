"""What a system is to the comparison: servers that are started here, and a client that does what is measured.

Rules for a client: one process has one, and one connection to the system unless its library wants more; `number` tells logical
users apart, each of which has one call under way at most.  A library is imported by `open`: who only starts servers does without.
"""

import os
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

from coord_core.cli.processes import die_with_parent

VALUE = b"v" * 128

Self = TypeVar("Self", bound="System")


class Client:
    """What a process does with a system.  A system lists what its client can do in `System.measures`."""

    def __init__(self, servers: Sequence[str], ttl_s: int) -> None:
        self.servers = servers
        #: Of the session, or of whatever frees what a dead process held.
        self.ttl_s = ttl_s

    async def open(self, users: int) -> None:
        """Connect, and be ready for so many users.  Raises whatever the library does where the servers are not up yet."""
        raise NotImplementedError

    async def pair(self, number: int) -> None:
        """Acquire and release a lock that nobody else wants."""
        raise NotImplementedError

    async def acquire(self, number: int) -> None:
        """Wait for the one lock that all want."""
        raise NotImplementedError

    async def release(self, number: int) -> None:
        raise NotImplementedError

    async def write(self, number: int) -> None:
        """Write a value of 128 bytes."""
        raise NotImplementedError

    async def read(self, number: int) -> None:
        """Read it, linearizably where the system can."""
        raise NotImplementedError

    async def publish(self, message: bytes) -> None:
        """Return when the message is as safe as the system makes it."""
        raise NotImplementedError

    async def subscribe(self, heard: Callable[[bytes], object]) -> None:
        """Return when subscribed; each message from then on is handed to `heard`."""
        raise NotImplementedError

    async def campaign(self, name: str) -> None:
        """Return when this process leads."""
        raise NotImplementedError

    async def resign(self) -> None:
        raise NotImplementedError


class System(ABC):
    """Context manager: its servers run in `directory` between entry and exit."""

    name: ClassVar[str]
    #: For the table's caption: version and how durable a write is.
    promise: ClassVar[str]
    measures: ClassVar[frozenset[str]]
    client: ClassVar[type[Client]]
    #: Of the distribution, to be unpacked; and of PyPI, for the client.
    packages: ClassVar[Sequence[str]] = ()
    requirements: ClassVar[Sequence[str]] = ()
    #: What must be there to start it.
    programs: ClassVar[Sequence[str]] = ()

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory = directory
        self.root = root
        self.servers: list[str] = []
        self.pids: list[int] = []
        self._undo = ExitStack()

    @abstractmethod
    def start(self) -> None:
        """Start the servers; `servers` and `pids` name them then.  They need not be ready."""

    def __enter__(self: Self) -> Self:
        try:
            self.start()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._undo.close()

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start one server; it ends with this process, however that ends."""
        parent = os.getpid()
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **libraries(self.root), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: die_with_parent(parent, signal.SIGKILL),
            )
        self.pids.append(process.pid)
        self._undo.callback(_end, process)

    def program(self, name: str) -> str:
        found = find_program(name, self.root)
        if found is None:
            raise FileNotFoundError(f"{self.name}: there is no program {name}")
        return found


def find_program(name: str, root: Path) -> str | None:
    """Return where a program is: unpacked under `root`, or on the machine."""
    places = [root / "usr/bin", root / "usr/sbin", *map(Path, os.environ.get("PATH", "").split(os.pathsep))]
    return next((str(place / name) for place in places if os.access(place / name, os.X_OK)), None)


def libraries(root: Path) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, (root / "usr/lib").glob("*-linux-gnu")))}


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
