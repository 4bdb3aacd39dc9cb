"""What a payload means: msgpack of the records of `coord_core.protocol`, by msgspec.

The rule: whatever bytes come, a decoder returns a record of the expected union or raises `ProtocolError`; nothing else gets out.
Encoders and decoders are built once: building one costs more than a thousand messages.  The messages between nodes have their
codec in `server.peers`, because this room knows nothing of consensus.
"""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from coord_core.errors import ProtocolError
from coord_core.protocol.commands import Command
from coord_core.protocol.messages import ClientMessage, ServerMessage
from coord_core.wire.frames import encode_frames

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_client_decoder: "msgspec.msgpack.Decoder[ClientMessage]" = msgspec.msgpack.Decoder(ClientMessage)
_server_decoder: "msgspec.msgpack.Decoder[ServerMessage]" = msgspec.msgpack.Decoder(ServerMessage)
_command_decoder: "msgspec.msgpack.Decoder[Command]" = msgspec.msgpack.Decoder(Command)


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """Return the payload of one message (without its frame)."""
    return _encoder.encode(message)


def encode_messages(messages: Iterable[ClientMessage | ServerMessage]) -> bytes:
    """Return all messages as frames in one piece, for one write to a socket."""
    return encode_frames(map(_encoder.encode, messages))


def decode_client(payload: bytes) -> ClientMessage:
    """Return what a client said.  Raises `ProtocolError`."""
    return decode_with(_client_decoder, payload, "a client's message")


def decode_server(payload: bytes) -> ServerMessage:
    """Return what a server said.  Raises `ProtocolError`."""
    return decode_with(_server_decoder, payload, "a server's message")


def encode_command(command: Command) -> bytes:
    """Return the bytes of a command: what `Submit` carries and what stands in the log behind the time stamp."""
    return _encoder.encode(command)


def decode_command(data: bytes | memoryview) -> Command:
    """Return the command in `data`.  Raises `ProtocolError`."""
    return decode_with(_command_decoder, data, "a command")


def decode_with(decoder: "msgspec.msgpack.Decoder[T]", payload: bytes | memoryview, expected: str) -> T:
    """Decode, and turn every way in which bytes can be wrong into a `ProtocolError` that says what was expected.

    `RecursionError`: deeply nested arrays.  `ValueError` (of which `UnicodeDecodeError` is one): text that is not UTF-8.
    """
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"expected {expected}, but {len(payload)} bytes do not decode as one: {error}") from error
