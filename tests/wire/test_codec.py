"""Every message of the protocol survives the wire, and bytes that are none raise `ProtocolError` and nothing else."""

import contextlib
import types
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord_core.errors import ProtocolError
from coord_core.protocol.commands import Call, Command, OpenSession
from coord_core.protocol.messages import ClientMessage, GetStatus, KeptAlive, Redirect, ServerMessage, Submit
from coord_core.protocol.operations import LockAcquire, Owner
from coord_core.types import AttachmentId, RequestNumber, SessionId
from coord_core.wire import codec
from coord_core.wire.frames import FrameParser


def records(kind: Any) -> st.SearchStrategy[Any]:
    """A strategy for a type of the protocol: hypothesis knows the plain types, msgspec tells the fields of ours."""
    if kind is msgspec.Raw:
        return records(Command).map(lambda command: msgspec.Raw(codec.encode_command(command)))
    if isinstance(kind, types.UnionType):
        return st.one_of([records(one) for one in get_args(kind)])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.name: records(field.type) for field in msgspec.structs.fields(kind)}
        return st.builds(kind, **fields)
    origin, args = getattr(kind, "__origin__", None), get_args(kind)
    if origin is tuple:
        return st.lists(records(args[0]), max_size=3).map(tuple) if args[-1] is Ellipsis else st.tuples(*map(records, args))
    if origin is dict:
        return st.dictionaries(records(args[0]), records(args[1]), max_size=3)
    kind = getattr(kind, "__supertype__", kind)
    if kind is int:
        return st.integers(-(2**63), 2**63 - 1)
    if kind is type(None):
        return st.none()
    return st.from_type(kind)


@given(records(ClientMessage))
def test_every_client_message_survives_the_wire(message: Any) -> None:
    """Including ones that carry an encoded command untouched."""
    assert codec.decode_client(codec.encode(message)) == message


@given(records(ServerMessage))
def test_every_server_message_survives_the_wire(message: Any) -> None:
    """All results and answers are inside."""
    assert codec.decode_server(codec.encode(message)) == message


@given(records(Command))
def test_every_command_survives_the_wire(command: Any) -> None:
    """These bytes are also what stands in the log."""
    assert codec.decode_command(codec.encode_command(command)) == command
    assert codec.decode_command(memoryview(codec.encode_command(command))) == command


def test_the_server_passes_the_command_of_a_submit_through_untouched() -> None:
    """Followers never decode what they only store; the leader does not encode it again."""
    operation = LockAcquire("/jobs/nightly", None, Owner("h", 1))
    call = Call(SessionId(5), AttachmentId(5), RequestNumber(7), RequestNumber(3), ((5, 6),), operation)
    encoded = codec.encode_command(call)
    message = codec.decode_client(codec.encode(Submit(1, msgspec.Raw(encoded))))
    assert isinstance(message, Submit)
    assert bytes(message.command) == encoded
    assert codec.decode_command(bytes(message.command)) == call


@given(st.binary(max_size=200))
def test_no_bytes_get_anything_but_a_message_or_a_protocol_error(garbage: bytes) -> None:
    """An exception of another type would escape the connection and harm others."""
    for decode in (codec.decode_client, codec.decode_server, codec.decode_command):
        with contextlib.suppress(ProtocolError):
            decode(garbage)


@given(records(ClientMessage), st.data())
def test_a_truncated_message_is_a_protocol_error(message: Any, data: st.DataObject) -> None:
    """A message is never understood by its beginning."""
    encoded = codec.encode(message)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ProtocolError, match="expected a client's message"):
        codec.decode_client(encoded[:cut])


@pytest.mark.parametrize("payload", [b"\x91" * 100_000, b"\x92\x0d\xa1\xff", b"", b"\x92\x63\x01", b"\x92\x0d\xa1x"])
def test_known_bad_payloads_are_protocol_errors(payload: bytes) -> None:
    """Deep nesting, text that is not UTF-8, nothing at all, an unknown tag, a field of the wrong type."""
    with pytest.raises(ProtocolError, match="expected a client's message"):
        codec.decode_client(payload)


def test_bytes_that_are_not_utf8_are_a_protocol_error() -> None:
    """msgspec reports them by an error that is not its own."""
    good = codec.encode_command(OpenSession(1000, Owner("hh", 1)))
    with pytest.raises(ProtocolError, match="expected a command"):
        codec.decode_command(good.replace(b"hh", b"\xff\xfe"))


def test_a_server_message_is_not_a_client_message() -> None:
    """The two directions are two unions: neither side can be made to act on an echo of its own words."""
    with pytest.raises(ProtocolError):
        codec.decode_client(codec.encode(KeptAlive(1, 2)))
    with pytest.raises(ProtocolError):
        codec.decode_server(codec.encode(GetStatus(1)))


def test_messages_of_one_turn_become_one_piece_of_frames() -> None:
    """One write a connection a turn is where much of the throughput comes from."""
    messages: list[ServerMessage] = [KeptAlive(1, 2), Redirect(2, "h:1")]
    assert [codec.decode_server(one) for one in FrameParser(100).feed(codec.encode_messages(messages))] == messages
