"""Accepted connections: what is the same for all of them, and the handshake by which they become something particular.

A connection begins as a stranger: it has a deadline for magic and Hello, and then becomes a `clients.Client`, an incoming peer of
`peers` or a joiner of `forming`, which take what follows.

The rule: bad bytes harm the connection they came on and no other.  It gets a clear `Refused`, the log gets a line, the socket is
closed.  What is our own fault (any error that is not a `CoordError`) stops the node instead.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from coord_core.config import LimitsConfig
from coord_core.errors import Busy, CoordError, ProtocolError, Unavailable
from coord_core.protocol.messages import MAGIC, Hello, Refused, ServerMessage
from coord_core.server.handshake import Doorway
from coord_core.server.seldom import Seldom
from coord_core.server.silence import notice_silence
from coord_core.wire import codec
from coord_core.wire.frames import FrameParser

log = logging.getLogger("coord.server")

#: A client whose machine has answered nothing for this long is gone.  Its session, not its connection, says what it still holds.
SILENCE_S_MAX = 60
#: Connections that have not said yet who they are.  One more is refused.
STRANGERS_MAX = 1_000
#: What a stranger may make us hold besides one read: a Hello is far smaller.
STRANGER_BYTES_MAX = 64 * 1024


class Part(Protocol):
    """What a connection has become."""

    def payloads(self, payloads: list[bytes]) -> None:
        """Frames came.  Raises `CoordError` to have the connection refused."""

    def paused(self, paused: bool) -> None:
        """What was written gathers because the other side does not read; or it has gone out again."""

    def lost(self, by_other_side: bool) -> None:
        """The connection is gone: closed by the other side or the network, or by us."""


class Host(Protocol):
    """What connections need of their server."""

    limits: LimitsConfig

    def take_in(self, connection: "Connection", hello: Hello) -> Part:
        """Say Welcome and return what the connection is now, or raise `CoordError`."""

    def fail(self, error: BaseException) -> None:
        """Something that must not happen happened: stop the node."""


class Registry:
    """Every accepted connection that is not closed."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        #: How many of them have not said yet who they are.
        self.strangers = 0
        #: Refusals that were logged: who is refused may dial on for days.
        self.refusals = Seldom()
        self._emptied = asyncio.Event()

    async def emptied(self) -> None:
        """Wait until there is no connection."""
        while self.connections:
            self._emptied.clear()
            await self._emptied.wait()

    def discard(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._emptied.set()


class Connection(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, host: Host, doorway: Doorway, registry: Registry) -> None:
        self._host = host
        self.doorway = doorway
        # This connection adds and removes itself.
        self._registry = registry
        self.parser = FrameParser(host.limits.client_frame_bytes_max, magic=MAGIC)
        # None: still a stranger.
        self._part: Part | None = None
        self._closed_by_us = False
        self.who = "a stranger"

    @property
    def has_certificate(self) -> bool:
        tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        return tls is not None and bool(tls.getpeercert())

    def fileno(self) -> int:
        """Return the descriptor of the socket; -1 where it is closed."""
        socket = self.transport.get_extra_info("socket")
        return -1 if socket is None else int(socket.fileno())

    # --- what asyncio calls -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.who = _address(self.transport)
        notice_silence(self.transport, SILENCE_S_MAX)
        self._registry.connections.add(self)
        self._registry.strangers += 1
        limit_ms = self._host.limits.handshake_timeout_ms
        self._deadline = asyncio.get_running_loop().call_later(limit_ms / 1000, self._too_late)
        if self._registry.strangers > STRANGERS_MAX:
            self.refuse(Busy(f"more than {STRANGERS_MAX} connections have not said yet who they are", limit="strangers"))

    def data_received(self, data: bytes) -> None:
        if self._closed_by_us:
            return
        self._guard(self._take, data)

    def eof_received(self) -> bool | None:
        if not self.parser.at_boundary() and not self._closed_by_us:
            log.info("connection of %s ended in the midst of a frame", self.who)
        return None

    def pause_writing(self) -> None:
        if self._part is not None:
            self._guard(self._part.paused, True)

    def resume_writing(self) -> None:
        if self._part is not None:
            self._guard(self._part.paused, False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._registry.discard(self)
        if self._part is None:
            self._registry.strangers -= 1
        else:
            self._guard(self._part.lost, not self._closed_by_us)

    # --- what parts call --------------------------------------------------------------------------------------------------------

    def send(self, message: ServerMessage) -> None:
        if not self.transport.is_closing():
            self.transport.write(codec.encode_messages((message,)))

    def refuse(self, error: CoordError) -> None:
        """Tell the other side why, note it (the same of one host seldom), and close."""
        host = self.who.rpartition(":")[0]
        level = logging.INFO if isinstance(error, Unavailable) else logging.WARNING
        if not self._registry.refusals.is_due((host, error.code, error.message)):
            level = logging.DEBUG
        log.log(level, "connection of %s refused: %s: %s", self.who, error.code, error.message)
        self.end(Refused(error.code, error.message))

    def end(self, last_word: ServerMessage | None = None) -> None:
        """Close from our side, after one last message."""
        if self._closed_by_us:
            return
        self._closed_by_us = True
        if last_word is not None:
            self.send(last_word)
        self.transport.close()
        # Who does not read its last message must not keep the socket.
        self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(1.0, self.transport.abort)

    def abort(self) -> None:
        """Close from our side at once, whatever has not gone out."""
        self._closed_by_us = True
        self.transport.abort()

    # --- inside -------------------------------------------------------------------------------------------------------------------

    def _guard(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        except CoordError as error:
            self.refuse(error)
        except Exception as error:  # noqa: BLE001 - handed to the node, which stops
            self._host.fail(error)

    def _take(self, data: bytes) -> None:
        try:
            payloads = self.parser.feed(data)
        except ProtocolError as error:
            if self._part is None and error.details.get("instead") == "http":
                log.warning("connection of %s closed: %s", self.who, error.message)
                self.abort()
                return
            raise
        if self._part is None and payloads:
            self._part = self._shake_hands(payloads.pop(0))
        elif self._part is None and self.parser.held_bytes > STRANGER_BYTES_MAX:
            raise ProtocolError(f"a connection begins with a Hello of at most {STRANGER_BYTES_MAX} bytes", limit=STRANGER_BYTES_MAX)
        if self._part is not None and payloads:
            self._part.payloads(payloads)

    def _shake_hands(self, payload: bytes) -> Part:
        hello = codec.decode_client(payload)
        if not isinstance(hello, Hello):
            raise ProtocolError(f"a connection begins with Hello, not with {type(hello).__name__}")
        part = self._host.take_in(self, hello)
        self._registry.strangers -= 1
        self._deadline.cancel()
        return part

    def _too_late(self) -> None:
        seconds = self._host.limits.handshake_timeout_ms / 1000
        self.refuse(Unavailable(f"no handshake within {seconds:g} s"))


def _address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) and len(name) >= 2 else "a local socket"
