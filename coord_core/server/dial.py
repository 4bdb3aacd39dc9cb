"""Connections to other nodes: dialled, and of no use before the other side has said Welcome.

What comes after the Welcome goes to `on_payload`; how a connection ended goes to `on_lost`, once, and only for connections that
were welcomed.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from coord_core.config import parse_address
from coord_core.errors import CoordError, ProtocolError, Unavailable, error_from_wire
from coord_core.protocol.messages import MAGIC, Hello, Refused, Welcome
from coord_core.server.silence import notice_silence
from coord_core.wire import codec
from coord_core.wire.frames import FrameParser, encode_frame

#: A node whose kernel has taken nothing for this long is gone, or the network is.  Without it a link that lost packets for a minute
#: would, by TCP's own reckoning, stay silent for another minute after the network has healed.
NODE_SILENCE_S_MAX = 3


class Dialled(asyncio.Protocol):
    """One connection to another node.  Made by `dial`."""

    def __init__(self, hello: Hello, frame_bytes_max: int, on_payload: Callable[[bytes], None], *, has_tls: bool) -> None:
        self._hello = hello
        self._has_tls = has_tls
        self._parser = FrameParser(frame_bytes_max)
        self._on_payload = on_payload
        self._on_lost: Callable[[Exception | None], None] | None = None
        # Why this side ended the connection.
        self._reason: CoordError | None = None
        self.welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        notice_silence(self.transport, NODE_SILENCE_S_MAX)
        self.transport.write(MAGIC + encode_frame(codec.encode(self._hello)))

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._parser.feed(data):
                if self.welcome.done():
                    self._on_payload(payload)
                else:
                    self.welcome.set_result(self._welcomed(payload))
        except CoordError as error:
            self._give_up(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(self._unwelcome(exc))
        elif self._on_lost is not None:
            self._on_lost(exc or self._reason)

    def watch(self, on_lost: Callable[[Exception | None], None]) -> None:
        """Have `on_lost` called when the connection ends; at once where it has ended already."""
        self._on_lost = on_lost
        if self.transport.is_closing():
            asyncio.get_running_loop().call_soon(on_lost, self._reason)

    def close(self) -> None:
        """End the connection without telling `on_lost`.  Idempotent."""
        self._on_lost = None
        self.transport.abort()

    def _unwelcome(self, exc: Exception | None) -> Unavailable:
        """Return what a connection means that ends without an answer to the Hello."""
        what = f"the connection was closed before the handshake was over: {exc or 'end of stream'}"
        if isinstance(exc, ssl.SSLError):
            return Unavailable(
                f"{what}; the other side wants a certificate of this cluster's authority (tls.cert, tls.ca)", tls=True
            )
        if not self._has_tls:
            return Unavailable(f"{what}; perhaps it wants TLS (tls.cert, tls.key and tls.ca)", tls=True)
        return Unavailable(what)

    def _welcomed(self, payload: bytes) -> Welcome:
        match codec.decode_server(payload):
            case Welcome() as welcome:
                return welcome
            case Refused(code, message):
                raise error_from_wire(code, message, {})
            case other:
                raise ProtocolError(f"expected Welcome or Refused, but {type(other).__name__} came")

    def _give_up(self, error: CoordError) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(error)
        self._reason = error
        self.transport.abort()


async def dial(
    address: str,
    hello: Hello,
    *,
    tls: ssl.SSLContext | None,
    timeout_s: float,
    frame_bytes_max: int,
    on_payload: Callable[[bytes], None],
) -> tuple[Dialled, Welcome]:
    """Connect, shake hands, and return the connection.

    Raises `Unavailable` where nobody answers in time (with `tls` in its details where that will not help until somebody changes
    something), and what the other side refused with.
    """
    try:
        host, port = parse_address(address)
    except ValueError as error:
        raise Unavailable(f"{address!r} is no address: {error}") from error
    loop = asyncio.get_running_loop()
    protocol: Dialled | None = None
    try:
        async with asyncio.timeout(timeout_s):
            _, protocol = await loop.create_connection(
                lambda: Dialled(hello, frame_bytes_max, on_payload, has_tls=tls is not None),
                host,
                port,
                ssl=tls,
                server_hostname=host if tls else None,
            )
            return protocol, await protocol.welcome
    except TimeoutError as error:
        _drop(protocol)
        raise Unavailable(f"{address} did not answer within {timeout_s:g} s") from error
    except ssl.SSLCertVerificationError as error:
        _drop(protocol)
        raise Unavailable(
            f"the certificate at {address} does not hold: {error.verify_message}; it must name the host or address by which that "
            "node is dialled, and come from this cluster's authority (tls.ca)",
            tls=True,
        ) from error
    except ssl.SSLError as error:
        _drop(protocol)
        raise Unavailable(f"{address} cannot be reached by TLS ({error.reason or error}); perhaps it has none", tls=True) from error
    except (OSError, ValueError) as error:  # ValueError: the host's name cannot be one, for `getaddrinfo` or for TLS
        _drop(protocol)
        why = getattr(error, "strerror", None) or error
        raise Unavailable(f"{address} cannot be reached: {why}") from error
    except BaseException:
        _drop(protocol)
        raise


def _drop(protocol: Dialled | None) -> None:
    if protocol is not None:
        protocol.close()
