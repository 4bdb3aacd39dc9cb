"""A network of sockets on loopback: in front of every node a proxy, which forwards, or keeps what it should have forwarded.

Who dials is known by the first words: a node's Hello has its name, and everybody else is a client.  All clients are one host here.
A blocked direction is not read any more, so nothing is told to either side; what the kernels hold meanwhile comes late, when the
block is lifted.  Connections made meanwhile are accepted, and silent.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from coord_core.protocol.messages import MAGIC, Hello, PeerIdentity
from coord_core.wire import codec
from coord_core.wire.frames import FrameParser

T = TypeVar("T")

HOST = "127.0.0.1"
#: The one host of all that are no nodes.
CLIENTS = "clients"
_READ_BYTES = 65_536
_HELLO_BYTES_MAX = 65_536


class Proxies:
    kind = "userspace proxies"

    def __init__(self, nodes: Sequence[str]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._nodes = frozenset(nodes)
        ports = free_ports(2 * len(nodes))
        self._fronts = {node: f"{HOST}:{port}" for node, port in zip(nodes, ports, strict=False)}
        self._backs = {node: f"{HOST}:{port}" for node, port in zip(nodes, ports[len(nodes) :], strict=True)}
        # Open where a direction is not blocked.
        self._gates: dict[tuple[str, str], asyncio.Event] = {}
        self._servers = [self._do(self._serve(node)) for node in nodes]

    def address(self, node: str) -> str:
        return self._fronts[node]

    def listening(self, node: str) -> list[str]:
        return ["--listen", self._backs[node], "--advertise", self._fronts[node]]

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        return list(command)

    def run(self, work: Callable[[], T]) -> T:
        """Whoever watches is a client like any other here."""
        return work()

    def block(self, links: Iterable[tuple[str, str]]) -> None:
        for source, target in links:
            self._loop.call_soon_threadsafe(self._set, source, target, False)

    def unblock(self, links: Iterable[tuple[str, str]]) -> None:
        for source, target in links:
            self._loop.call_soon_threadsafe(self._set, source, target, True)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _set(self, source: str, target: str, is_open: bool) -> None:
        gate = self._gate(source, target)
        if is_open:
            gate.set()
        else:
            gate.clear()

    def _gate(self, source: str, target: str) -> asyncio.Event:
        link = (source if source in self._nodes else CLIENTS, target if target in self._nodes else CLIENTS)
        if link not in self._gates:
            self._gates[link] = asyncio.Event()
            self._gates[link].set()
        return self._gates[link]

    async def _serve(self, node: str) -> asyncio.Server:
        host, _, port = self._fronts[node].rpartition(":")
        return await asyncio.start_server(lambda reader, writer: self._carry(node, reader, writer), host, int(port))

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, node: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first words to its end."""
        onward: asyncio.StreamWriter | None = None
        try:
            caller, said = await _who_calls(reader)
            await self._gate(caller, node).wait()
            host, _, port = self._backs[node].rpartition(":")
            back, onward = await asyncio.open_connection(host, int(port))
            onward.write(said)
            ways = [
                asyncio.ensure_future(_forward(reader, onward, self._gate(caller, node))),
                asyncio.ensure_future(_forward(back, writer, self._gate(node, caller))),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
        except (OSError, EOFError):
            pass
        finally:
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort()


async def _who_calls(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return the name of the node that calls, or `CLIENTS`, and the bytes that told."""
    said = await reader.readexactly(len(MAGIC))
    parser = FrameParser(_HELLO_BYTES_MAX)
    while True:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise EOFError
        said += data
        for payload in parser.feed(data):
            match codec.decode_client(payload):
                case Hello(peer=PeerIdentity(name=name)):
                    return name, said
                case _:
                    return CLIENTS, said


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while True:
            await gate.wait()
            data = await reader.read(_READ_BYTES)
            await gate.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()


def free_ports(count: int) -> list[int]:
    """Draw ports that are free now.  All are held until the last is drawn, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
