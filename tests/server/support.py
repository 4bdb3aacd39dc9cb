"""What the tests of this room share: a client that speaks raw frames, nodes to stop and start, and storages that fail."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from coord_core.config import RaftTimes, ServerConfig
from coord_core.errors import StorageFailed
from coord_core.protocol.commands import Call, Command, OpenSession
from coord_core.protocol.messages import (
    MAGIC,
    ClientMessage,
    GetStatus,
    Hello,
    Members,
    NodeStatus,
    Reply,
    ServerMessage,
    Submit,
    Welcome,
)
from coord_core.protocol.operations import LockAcquire, Operation, Owner
from coord_core.protocol.results import Granted, Result, SessionOpened
from coord_core.server.server import Server
from coord_core.storage.api import Batch, Bootstrap
from coord_core.storage.sqlite import SqliteStorage
from coord_core.types import RequestNumber
from coord_core.wire import codec
from coord_core.wire.frames import FrameParser, encode_frame

OWNER = Owner("test", 1)
PATIENCE_S = 45.0


async def until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait until `condition()` is true and return it."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (found := condition()):  # noqa: ASYNC110 - conditions over any state of a server
                await asyncio.sleep(0.005)
            return found
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {PATIENCE_S:g} s") from None


def hello(**fields: Any) -> Hello:
    return msgspec.structs.replace(Hello(1, 1, "client", ""), **fields)


class RawClient:
    """Says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._parser = FrameParser(64 * 1024 * 1024)
        self._ready: list[bytes] = []
        self.seq = 0

    @classmethod
    async def dial(cls, address: str, **options: Any) -> "RawClient":
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), **options))

    @classmethod
    async def greeted(cls, address: str, **fields: Any) -> "RawClient":
        client = await cls.dial(address)
        assert isinstance(await client.greet(hello(**fields)), Welcome)
        return client

    async def greet(self, first: ClientMessage) -> ServerMessage | None:
        self.writer.write(MAGIC + encode_frame(codec.encode(first)))
        return await self.heard()

    def say(self, *messages: ClientMessage) -> None:
        self.writer.write(codec.encode_messages(messages))

    async def heard(self) -> ServerMessage | None:
        """Return the next message that is no mere news; None at the end of the stream."""
        while (payload := await self.payload()) is not None:
            message = codec.decode_server(payload)
            if not isinstance(message, Members):
                return message
        return None

    async def payload(self) -> bytes | None:
        async with asyncio.timeout(PATIENCE_S):
            while not self._ready:
                data = await self._read()
                if not data:
                    return None
                self._ready = self._parser.feed(data)
        return self._ready.pop(0)

    async def raw(self) -> bytes:
        """Return what comes next, or no bytes at the end of the stream, without looking for frames."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._read()

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(65_536)
        except ConnectionError:
            return b""

    async def do(self, command: Command) -> Result:
        """Send one command and return what it answered; nothing else may be on the way."""
        self.seq += 1
        self.say(Submit(self.seq, msgspec.Raw(codec.encode_command(command))))
        reply = await self.heard()
        assert isinstance(reply, Reply), reply
        assert reply.seq == self.seq
        return reply.result

    async def status(self) -> NodeStatus:
        self.say(GetStatus(77))
        status = await self.heard()
        assert isinstance(status, NodeStatus), status
        assert status.seq == 77
        return status

    async def open_session(self, ttl_ms: int = 60_000) -> SessionOpened:
        opened = await self.do(OpenSession(ttl_ms, OWNER))
        assert isinstance(opened, SessionOpened), opened
        return opened

    async def lock(self, session: SessionOpened, number: int, path: str) -> Granted:
        granted = await self.do(call(session, number, LockAcquire(path, 0, OWNER)))
        assert isinstance(granted, Granted), granted
        return granted

    async def close(self) -> None:
        self.writer.close()


def call(session: SessionOpened, number: int, operation: Operation) -> Call:
    return Call(session.session, session.attachment, RequestNumber(number), RequestNumber(0), (), operation)


class Nodes:
    """Servers in this event loop, each with a directory of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.running: dict[str, Server] = {}
        # Where a node was reached before: it comes back there.
        self._addresses: dict[str, str] = {}

    def config(self, name: str, **fields: Any) -> ServerConfig:
        address = self._addresses.get(name, "127.0.0.1:0")
        return replace(ServerConfig(name=name, data_dir=self._root / name, listen=address), **fields)

    async def start(self, name: str, *, open_storage: Callable[[Path], Any] = SqliteStorage, **fields: Any) -> Server:
        server = await Server(self.config(name, **fields), open_storage=open_storage).start()
        self.running[name] = server
        self._addresses[name] = server.client_address
        return server

    async def begin(self, *names: str, **fields: Any) -> list[Server]:
        """Start the nodes of a new cluster; the first one forms it."""
        if len(names) == 1:
            # Nobody to wait for: the only voter may seek its election soon.
            fields.setdefault("raft", RaftTimes(tick_ms=10, election_timeout_ms=30, heartbeat_ms=10))
        first = await self.start(names[0], init=True, founders=names, **fields)
        return [first, *[await self.start(name, join=(first.peer_address,), **fields) for name in names[1:]]]

    async def cluster(self, *names: str, **fields: Any) -> list[Server]:
        """Form a cluster and wait for its leader."""
        servers = await self.begin(*names, **fields)
        await self.leader_of_formed()
        return servers

    async def leader(self) -> Server:
        """Wait until all running nodes agree on one leader among them."""

        def agreed() -> Server | None:
            known = {server.status().leader for server in self.running.values()}
            return next((server for server in self.running.values() if known == {server.client_address}), None)

        found = await until(agreed, "a leader that all nodes know")
        assert isinstance(found, Server)
        return found

    async def leader_of_formed(self) -> Server:
        for server in self.running.values():
            await server.wait_formed()
        return await self.leader()

    def forget_address(self, name: str) -> None:
        """The node comes back somewhere else."""
        self._addresses.pop(name, None)

    async def stop(self, name: str) -> None:
        await self.running.pop(name).stop()

    def kill(self, name: str) -> Server:
        """End a node as a crash would: its sockets close, and not a word is said."""
        server = self.running.pop(name)
        server.fail(StorageFailed("killed by the test"))
        return server

    async def stop_all(self) -> None:
        for name in list(self.running):
            await self.stop(name)


def cut(one: Server, other: Server) -> None:
    """Reset the connections between two nodes in both directions, as a network might."""
    peers = one._running._peers  # type: ignore[union-attr]
    number = next(member.node_id for member in one.status().members if member.name == other.config.name)
    peers._links[number]._connection.transport.abort()  # type: ignore[union-attr]
    peers._incoming[number].connection.transport.abort()


class FailingStorage(SqliteStorage):
    """A disk that fails when told to.  `failing`: the storages of a test share one, so that it can be set from outside."""

    def __init__(self, path: Path, failing: set[str]) -> None:
        super().__init__(path)
        self._failing = failing

    def form(self, bootstrap: Bootstrap) -> None:
        if "before form" in self._failing:
            raise StorageFailed("crashed before the founding was stored")
        super().form(bootstrap)
        if "after form" in self._failing:
            raise StorageFailed("crashed after the founding was stored")

    def write(self, batch: Batch) -> None:
        if "write" in self._failing:
            raise StorageFailed("the disk is gone")
        super().write(batch)


class SlowStorage(SqliteStorage):
    """A disk whose writes wait while the gate is closed."""

    def __init__(self, path: Path, gate: threading.Event) -> None:
        super().__init__(path)
        self._gate = gate

    def write(self, batch: Batch) -> None:
        self._gate.wait()
        super().write(batch)
