"""Frames: a length of four bytes (big-endian) and that many bytes of payload.

The rule: a frame's length is checked against the limit as soon as its four bytes are there, before any of its payload is kept, so
that what a connection can make us hold is bounded by the limit and one read.  What a payload means is `codec`'s business.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final

from coord_core.errors import ProtocolError

HEADER_BYTES: Final = 4
_HEADER = Struct(">I")

_HTTP_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE ", b"PRI * HTTP")
#: First bytes of a TLS handshake record: content type 22, major version 3.
_TLS_HANDSHAKE = b"\x16\x03"


def encode_frame(payload: bytes) -> bytes:
    """Return the payload with its length in front."""
    return _HEADER.pack(len(payload)) + payload


def encode_frames(payloads: Iterable[bytes]) -> bytes:
    """Return all payloads as frames in one piece, for one write to a socket."""
    parts: list[bytes] = []
    for payload in payloads:
        parts.append(_HEADER.pack(len(payload)))
        parts.append(payload)
    return b"".join(parts)


class FrameParser:
    """Cuts a stream of bytes into payloads, however the network cut it into reads.

    `magic`: bytes that must come before the first frame (the side that accepts a connection expects them).
    After `feed` has raised, the parser is of no further use: close the connection.
    """

    __slots__ = ("_buffer", "_magic", "_needed", "limit")

    def __init__(self, limit: int, *, magic: bytes = b"") -> None:
        #: Largest payload in bytes.  May be raised while the connection lives (a peer may send more than a client).
        self.limit = limit
        # What has come and is not a whole frame yet; empty between frames.
        self._buffer = bytearray()
        # Bytes that must be in the buffer before looking at it again pays: so a large frame is gathered without re-reading it.
        self._needed = HEADER_BYTES
        # Still expected before the first frame; empty once it was seen.
        self._magic = magic

    def feed(self, data: bytes) -> list[bytes]:
        """Take what the socket gave and return the payloads that are now whole, in order.

        Raises `ProtocolError` where the magic is wrong or a frame is over the limit; payloads before it in the same `data` are lost
        with the connection.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed and not self._magic:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        start = 0
        if self._magic:
            start = len(self._magic)
            if not self._saw_magic(data):
                self._buffer += data
                return []
        return self._cut(data, start)

    def at_boundary(self) -> bool:
        """Tell whether the stream may end here: False in the midst of a frame or before the magic."""
        return not self._buffer and not self._magic

    @property
    def held_bytes(self) -> int:
        """What has come of a frame that is not whole yet."""
        return len(self._buffer)

    def _cut(self, data: bytes, start: int) -> list[bytes]:
        payloads: list[bytes] = []
        end = len(data)
        self._needed = HEADER_BYTES
        while end - start >= HEADER_BYTES:
            (length,) = _HEADER.unpack_from(data, start)
            if length > self.limit:
                raise ProtocolError(f"a frame of {length} bytes is over the limit of {self.limit}", value=length, limit=self.limit)
            stop = start + HEADER_BYTES + length
            if stop > end:
                self._needed = HEADER_BYTES + length
                break
            payloads.append(data[start + HEADER_BYTES : stop])
            start = stop
        if start < end:
            self._buffer += data[start:]
        return payloads

    def _saw_magic(self, data: bytes) -> bool:
        """Tell whether the whole magic is there; raise as soon as it cannot be any more."""
        if data.startswith(self._magic):
            self._magic = b""
            return True
        if not self._magic.startswith(data[: len(self._magic)]):
            raise _what_came_instead(data)
        return False


def _what_came_instead(data: bytes) -> ProtocolError:
    """Name what was mistaken for us: `details["instead"]` is "http", "tls" or "unknown"."""
    if data.startswith(_HTTP_METHODS) or any(method.startswith(data) for method in _HTTP_METHODS):
        return ProtocolError("an HTTP request came to a port that speaks coord's own protocol", instead="http")
    if data.startswith(_TLS_HANDSHAKE):
        return ProtocolError("a TLS handshake came to a port that speaks without TLS", instead="tls")
    return ProtocolError(f"the connection does not begin as coord's protocol does (first bytes: {data[:8]!r})", instead="unknown")
