"""One question to one node, on a connection of its own: no session, no second try."""

import asyncio
import ssl
from contextlib import AsyncExitStack

from coord_core.client.driver import reason_of
from coord_core.client.url import split_address
from coord_core.errors import ProtocolError, Unavailable, error_from_wire
from coord_core.protocol.messages import (
    CLIENT_FRAME_BYTES_MAX,
    MAGIC,
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    ClientMessage,
    Hello,
    Members,
    Refused,
    ServerMessage,
    Welcome,
)
from coord_core.wire.codec import decode_server, encode_messages
from coord_core.wire.frames import FrameParser

_READ_BYTES = 65_536
_CLOSED = "the node closed the connection"


async def converse(
    address: str, token: str, tls: ssl.SSLContext | None, message: ClientMessage, timeout_s: float, welcome_s: float | None = None
) -> ServerMessage:
    """Connect, shake hands (within `welcome_s`, where that is less), say `message` and return the first answer.

    Raises `Unavailable` where the node does not answer in time (what was asked may have been done all the same), and what it
    refuses the connection with.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _converse(address, token, tls, message, welcome_s)
    except TimeoutError:
        raise Unavailable(f"{address} did not answer in time") from None
    except (OSError, ValueError) as error:
        raise Unavailable(f"{address}: {reason_of(error)}") from error


async def _converse(
    address: str, token: str, tls: ssl.SSLContext | None, message: ClientMessage, welcome_s: float | None
) -> ServerMessage:
    host, port = split_address(address)
    async with AsyncExitStack() as closing:
        async with asyncio.timeout(welcome_s):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=host if tls else None)
            closing.callback(writer.close)
            incoming = _Incoming(reader)
            await _shake_hands(address, token, tls, writer, incoming)
        writer.write(encode_messages([message]))
        return await incoming.next()


async def _shake_hands(
    address: str, token: str, tls: ssl.SSLContext | None, writer: asyncio.StreamWriter, incoming: "_Incoming"
) -> None:
    hello = Hello(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, "client", "", token)
    writer.write(MAGIC + encode_messages([hello]))
    try:
        welcome = await incoming.next()
    except Unavailable as error:
        if tls is None and error.message == _CLOSED:
            raise Unavailable(f"{_CLOSED} without a word; perhaps it wants TLS: coords://") from None
        raise
    if not isinstance(welcome, Welcome):
        raise ProtocolError(f"{address} answered {type(welcome).__name__} where Welcome was due")


class _Incoming:
    """The messages of one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._frames = FrameParser(CLIENT_FRAME_BYTES_MAX)
        self._messages: list[ServerMessage] = []

    async def next(self) -> ServerMessage:
        """Return the next message that is no mere news.  Raises what it says where it is a refusal."""
        while not self._messages:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise Unavailable(_CLOSED)
            said = map(decode_server, self._frames.feed(data))
            self._messages.extend(message for message in said if not isinstance(message, Members))
        message = self._messages.pop(0)
        if isinstance(message, Refused):
            raise error_from_wire(message.code, message.message, {})
        return message
