"""Changing the cluster while some of it is gone: which is when it is changed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from coord_core.client.administration import administer
from coord_core.protocol.administration import RemoveMember
from coord_core.protocol.messages import MAGIC, Administer, Reply, Welcome
from coord_core.protocol.results import Done
from coord_core.types import NodeId
from coord_core.wire import codec
from coord_core.wire.frames import FrameParser

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def listening(serve: Serve) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    return server, f"{host}:{port}"


async def test_a_node_that_says_nothing_costs_a_moment_and_not_all_the_time_there_is() -> None:
    """A machine that is off, or a process that is stopped, is just what is being removed; the others are asked too."""
    silenced = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        silenced.set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = FrameParser(1_000_000, magic=MAGIC)
        writer.write(codec.encode_messages([Welcome(1, "c" * 32, "n2", (), "")]))
        while data := await reader.read(65_536):
            for payload in parser.feed(data):
                message = codec.decode_client(payload)
                if isinstance(message, Administer):
                    writer.write(codec.encode_messages([Reply(message.seq, Done())]))
        writer.close()

    (first, silent), (second, alive) = await listening(say_nothing), await listening(answer)
    async with first, second:
        began = asyncio.get_running_loop().time()
        await administer([silent, alive], "", None, RemoveMember(NodeId(1)), 30.0)
        took_s = asyncio.get_running_loop().time() - began
        await silenced.wait()
    assert took_s < 10.0
