"""Frames survive every way in which a network cuts and joins bytes, and nothing over the limit is ever gathered."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord_core.errors import ProtocolError
from coord_core.protocol.messages import MAGIC
from coord_core.wire.frames import FrameParser, encode_frame, encode_frames


def test_a_frame_is_its_length_in_four_bytes_and_its_payload() -> None:
    """The layout is a contract with other versions and languages, so it is pinned byte by byte."""
    assert encode_frame(b"abc") == b"\x00\x00\x00\x03abc"
    assert encode_frames([b"abc", b""]) == b"\x00\x00\x00\x03abc\x00\x00\x00\x00"


def test_frames_come_out_whole_when_bytes_come_one_at_a_time() -> None:
    """TCP promises order, not sizes of reads."""
    parser = FrameParser(100, magic=MAGIC)
    stream = MAGIC + encode_frames([b"one", b"", b"three"])
    seen: list[bytes] = []
    for at in range(len(stream)):
        seen += parser.feed(stream[at : at + 1])
    assert seen == [b"one", b"", b"three"]
    assert parser.at_boundary()


def test_frames_that_came_in_one_read_all_come_out() -> None:
    """Coalesced writes are the rule at load."""
    assert FrameParser(100).feed(encode_frames([b"one", b"two", b"three"])) == [b"one", b"two", b"three"]


def test_two_frames_split_at_every_position_come_out_the_same() -> None:
    """Each position is a different state of the parser: in the magic, in a length, in a payload, between frames."""
    stream = MAGIC + encode_frames([b"first", b"second"])
    for at in range(len(stream) + 1):
        parser = FrameParser(100, magic=MAGIC)
        assert parser.feed(stream[:at]) + parser.feed(stream[at:]) == [b"first", b"second"], f"split at {at}"


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=10), st.booleans())
def test_any_cutting_of_any_frames_gives_the_frames(payloads: list[bytes], cuts: list[int], with_magic: bool) -> None:
    """The property behind the examples above."""
    magic = MAGIC if with_magic else b""
    stream = magic + encode_frames(payloads)
    parser = FrameParser(40, magic=magic)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    seen: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        seen += parser.feed(stream[start:end])
    assert seen == payloads
    assert parser.at_boundary()


def test_a_stream_that_ends_in_the_midst_of_a_frame_is_noticed() -> None:
    """A truncated frame at the end of a connection is worth a log line; a clean end is not."""
    parser = FrameParser(100, magic=MAGIC)
    assert not parser.at_boundary()
    parser.feed(MAGIC)
    assert parser.at_boundary()
    parser.feed(encode_frame(b"abc")[:-1])
    assert not parser.at_boundary()
    assert parser.feed(b"c") == [b"abc"]
    assert parser.at_boundary()


def test_a_frame_over_the_limit_is_refused_before_its_payload_comes() -> None:
    """Otherwise four bytes could make us gather four gigabytes."""
    parser = FrameParser(10)
    assert parser.feed(encode_frame(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(ProtocolError, match="11 bytes is over the limit of 10"):
        parser.feed(b"\x00\x00\x00\x0b")


def test_the_limit_may_be_raised_after_the_handshake() -> None:
    """A peer may send larger frames than a stranger."""
    parser = FrameParser(10)
    parser.limit = 20
    assert parser.feed(encode_frame(b"x" * 20)) == [b"x" * 20]


@pytest.mark.parametrize(
    ("first_bytes", "complaint"),
    [
        (b"GET /livez HTTP/1.1\r\n", "HTTP request"),
        (b"GE", "HTTP request"),
        (b"\x16\x03\x01\x02\x00", "TLS handshake"),
        (b"\x00\x00\x00\x05hello", "does not begin as coord's protocol"),
        (b"coord\x00\x00\x02", "does not begin as coord's protocol"),
        (b"corrd", "does not begin as coord's protocol"),
    ],
)
def test_what_is_not_our_protocol_is_named(first_bytes: bytes, complaint: str) -> None:
    """The log line is what tells somebody that a health check or a browser points at the wrong port."""
    with pytest.raises(ProtocolError, match=complaint):
        FrameParser(100, magic=MAGIC).feed(first_bytes)


def test_a_large_frame_in_many_reads_is_gathered_in_linear_time() -> None:
    """Re-reading the buffer on every read would copy gigabytes for a frame of 16 MiB in 1 KiB reads."""
    parser = FrameParser(16 * 1024 * 1024)
    stream = encode_frame(bytes(16 * 1024 * 1024))
    seen: list[bytes] = []
    for start in range(0, len(stream), 1024):
        seen += parser.feed(stream[start : start + 1024])
    assert [len(payload) for payload in seen] == [16 * 1024 * 1024]
