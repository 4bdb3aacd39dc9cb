"""The links between nodes: what another node may say, and what becomes of one that says anything else."""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord_core.config import LimitsConfig
from coord_core.errors import ProtocolError
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PeerIdentity, Refused, Welcome
from coord_core.raft.messages import Append, Configuration, Entry, EntryKind, Heartbeat, SnapshotMetadata, VoteReply, VoteRequest
from coord_core.replica import PeerMessage, SnapshotAck, SnapshotChunk, SnapshotOffer
from coord_core.server import handshake
from coord_core.server.peers import Link, Peers, Ways, decode_peer_message, encode_peer_messages
from coord_core.server.server import Server
from coord_core.storage.snapshots import SnapshotInfo
from coord_core.types import LogIndex, NodeId, Term
from coord_core.wire import codec
from coord_core.wire.frames import FrameParser, encode_frame
from tests.server.support import Nodes, RawClient, hello, until

NAMES = ("n1", "n2", "n3")


def heartbeat(sender: int, to: int, term: int = 1) -> Heartbeat:
    return Heartbeat(sender=NodeId(sender), to=NodeId(to), term=Term(term), commit=LogIndex(0))


def append_of(sender: int, to: int, size: int) -> Append:
    """One entry of so many bytes."""
    entry = Entry(LogIndex(2), Term(1), EntryKind.COMMAND, bytes(size))
    one, index = Term(1), LogIndex(1)
    return Append(sender=NodeId(sender), to=NodeId(to), term=one, prev_index=index, prev_term=one, commit=index, entries=(entry,))


def transfer(sender: int, to: int) -> list[PeerMessage]:
    """One of each about a snapshot."""
    who: dict[str, Any] = {"sender": NodeId(sender), "to": NodeId(to), "term": Term(1)}
    metadata = SnapshotMetadata(LogIndex(5), Term(1), Configuration((NodeId(1), NodeId(2))))
    members = (Member(NodeId(1), "n1", "h:1", "h:2", "life"),)
    return [
        SnapshotOffer(**who, info=SnapshotInfo(metadata, members, 3, 40, b"s" * 32)),
        SnapshotChunk(**who, sha256=b"s" * 32, seq=2, crc=77, data=b"x" * 20),
        SnapshotAck(**who, sha256=b"s" * 32, safe=2, resume=None),
    ]


def test_messages_of_a_turn_are_one_piece_of_frames() -> None:
    """One message a frame, so that the limit of a frame holds for each of them."""
    messages: list[PeerMessage] = [append_of(1, 2, 100), heartbeat(1, 2), *transfer(1, 2)]
    assert [decode_peer_message(payload) for payload in FrameParser(1000).feed(encode_peer_messages(messages))] == messages


@given(st.binary(max_size=100))
def test_no_bytes_get_anything_but_a_message_or_a_protocol_error(garbage: bytes) -> None:
    """A node with a bug, or of a version we do not know, must not take others down with it."""
    try:
        message = decode_peer_message(garbage)
    except ProtocolError as error:
        assert "a message between nodes" in error.message  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(message.sender, int)


# --- accepted connections ---------------------------------------------------------------------------------------------------------


async def cluster_without_n3(nodes: Nodes) -> tuple[Server, Member, str]:
    """Two nodes that run, and what the third would say of itself."""
    server, *_ = await nodes.cluster(*NAMES)
    status = server.status()
    await nodes.stop("n3")
    await nodes.leader()
    return server, status.members[2], status.cluster_id


def identity(member: Member, **changes: Any) -> PeerIdentity:
    fields = {"name": member.name, "incarnation": member.incarnation, "node_id": int(member.node_id), **changes}
    return PeerIdentity(fields["name"], fields["incarnation"], member.peer_address, member.client_address, fields["node_id"])


async def call_as(server: Server, member: Member, cluster_id: str) -> RawClient:
    client = await RawClient.dial(server.peer_address)
    assert isinstance(await client.greet(hello(role="peer", cluster_id=cluster_id, peer=identity(member))), Welcome)
    return client


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"incarnation": "another life"}, "its data directory was lost"),
        ({"name": "n4"}, "is not the 'n3'"),
        ({"node_id": 0}, "node 0 ('n3') is no other member of this cluster"),
        ({"node_id": 1}, "node 1 ('n3') is no other member of this cluster"),
    ],
)
async def test_only_a_member_in_its_present_life_is_heard(nodes: Nodes, changes: dict[str, Any], words: str) -> None:
    """Another incarnation has forgotten its votes; a stranger has none."""
    server, third, cluster_id = await cluster_without_n3(nodes)
    client = await RawClient.dial(server.peer_address)
    heard = await client.greet(hello(role="peer", cluster_id=cluster_id, peer=identity(third, **changes)))
    assert isinstance(heard, Refused)
    assert heard.code == "WrongCluster"
    assert words in heard.message


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"garbage", "expected a message between nodes"),
        (encode_peer_messages([heartbeat(2, 1)])[4:], "node 3 sent a message from node 2 to node 1"),
        (encode_peer_messages([heartbeat(3, 2)])[4:], "node 3 sent a message from node 3 to node 2"),
    ],
)
async def test_a_node_that_says_what_it_may_not_is_cut_off(nodes: Nodes, payload: bytes, words: str) -> None:
    """Its connection ends with the reason; the cluster goes on."""
    server, third, cluster_id = await cluster_without_n3(nodes)
    client = await call_as(server, third, cluster_id)
    client.writer.write(encode_frame(payload))
    heard = await client.heard()
    assert isinstance(heard, Refused)
    assert words in heard.message
    assert await client.heard() is None
    await nodes.leader()


async def test_a_message_of_a_node_reaches_consensus(nodes: Nodes) -> None:
    """A vote request of a higher term is answered on the node's own link, here to nobody, and seen in its log."""
    server, third, cluster_id = await cluster_without_n3(nodes)
    client = await call_as(server, third, cluster_id)
    term = server.status().term
    request = VoteRequest(
        sender=third.node_id,
        to=NodeId(1),
        term=Term(term + 5),
        last_index=LogIndex(99),
        last_term=Term(term),
        pre_vote=False,
        transfer=True,
    )
    client.writer.write(encode_peer_messages([request]))
    await until(lambda: server.status().term >= term + 5, "the higher term")


async def test_a_node_that_calls_again_is_heard_on_the_new_connection(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    """The old one may be half dead; the node that dials knows best.  The change is no sign of death."""
    server, third, cluster_id = await cluster_without_n3(nodes)
    first = await call_as(server, third, cluster_id)
    second = await call_as(server, third, cluster_id)
    assert await first.heard() is None
    second.writer.write(encode_frame(b"garbage"))
    assert isinstance(await second.heard(), Refused)


async def test_frames_between_nodes_may_be_larger_than_a_clients(nodes: Nodes) -> None:
    """An Append carries many commands."""
    server, third, cluster_id = await cluster_without_n3(nodes)
    client = await call_as(server, third, cluster_id)
    entry = Entry(LogIndex(2), Term(1), EntryKind.COMMAND, bytes(3_000_000))
    old = Append(
        sender=third.node_id,
        to=NodeId(1),
        term=Term(1),
        prev_index=LogIndex(1),
        prev_term=Term(1),
        commit=LogIndex(1),
        entries=(entry,),
    )
    client.writer.write(encode_peer_messages([old, heartbeat(2, 1)]))
    heard = await client.heard()
    assert isinstance(heard, Refused)
    assert "from node 2" in heard.message, "the large frame before it was taken"


# --- dialled connections ----------------------------------------------------------------------------------------------------------


class Recorder:
    """Stands for the node's loop."""

    def __init__(self) -> None:
        self.unreachable_peers: list[NodeId] = []
        self.lost: list[NodeId] = []
        self.errors: list[BaseException] = []

    def receive(self, message: PeerMessage) -> None:
        raise AssertionError("nothing is received on a dialled connection")

    def peer_lost(self, peer: NodeId) -> None:
        self.lost.append(peer)

    def unreachable(self, peer: NodeId) -> None:
        self.unreachable_peers.append(peer)

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)


class FakePeer:
    """Listens as node 2 would, and answers a Hello with what it is told."""

    def __init__(self) -> None:
        self.connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answer: Welcome | Refused | None = None
        self._server: asyncio.Server | None = None

    async def listen(self) -> Member:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1)
        port = self._server.sockets[0].getsockname()[1]
        member = Member(NodeId(2), "n2", f"127.0.0.1:{port}", "h:1", "life of n2")
        self.answer = Welcome(1, "c" * 32, "n2", (member,), "")
        return member

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for _, writer in self.connections:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.answer is not None
        self.connections.append((reader, writer))
        writer.write(encode_frame(codec.encode(self.answer)))


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakePeer, Peers, Recorder]]:
    """A node to dial, the way to it, and what is told of it."""
    fake_peer, recorder = FakePeer(), Recorder()
    member = await fake_peer.listen()
    own = PeerIdentity("n1", "life of n1", "h:1", "h:2", 1)
    ways = Ways("c" * 32, own, "", None, LimitsConfig(peer_unsent_bytes_max=1_000_000))
    links = Peers(ways, {NodeId(1): Member(NodeId(1), "n1", "h:1", "h:2", "x"), NodeId(2): member}, recorder)
    yield fake_peer, links, recorder
    links.stop()
    await links.stopped()
    await fake_peer.close()
    assert recorder.errors == []


def link_of(links: Peers) -> Link:
    return links._links[NodeId(2)]


async def test_a_link_is_dialled_again_when_it_was_lost(fake: tuple[FakePeer, Peers, Recorder]) -> None:
    """And consensus is told, both that messages were lost and that the other side may be gone."""
    fake_peer, links, recorder = fake
    links.start()
    await until(lambda: link_of(links)._connection, "the link")
    fake_peer.connections[0][1].close()
    await until(lambda: recorder.lost == [2] and recorder.unreachable_peers == [2], "the loss")
    await until(lambda: len(fake_peer.connections) == 2 and link_of(links)._connection, "the link again")


@pytest.mark.parametrize("address", ["", "nowhere", "h:70000", "h:x", "a\0b:1", f"{'h' * 64}:1", "a..b:1"])
async def test_an_address_that_is_none_does_not_stop_a_node(fake: tuple[FakePeer, Peers, Recorder], address: str) -> None:
    """It came from another node, by the log: whoever stopped for it would stop again at each start, and so would all the others."""
    _, links, recorder = fake
    links.start()
    links.follow({NodeId(3): Member(NodeId(3), "n3", address, "", "life of n3")})
    await until(lambda: links._links[NodeId(3)].trouble or recorder.errors, "the attempt")
    assert recorder.errors == []


async def test_a_peer_that_takes_no_messages_costs_a_bounded_amount(
    fake: tuple[FakePeer, Peers, Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    """What is beyond the bound is dropped, and said once."""
    fake_peer, links, recorder = fake
    links.start()
    await until(lambda: link_of(links)._connection, "the link")
    fake_peer.connections[0][1].transport.pause_reading()  # type: ignore[attr-defined]
    connection = link_of(links)._connection
    assert connection is not None
    for _ in range(100):
        links.send([append_of(1, 2, 500_000)])
        await asyncio.sleep(0)
    assert connection.transport.get_write_buffer_size() < 2_000_000
    assert recorder.unreachable_peers == [2]
    assert caplog.text.count("takes no messages") == 1


async def test_messages_for_a_link_that_is_down_or_for_nobody_are_dropped(fake: tuple[FakePeer, Peers, Recorder]) -> None:
    """Consensus says everything again until it is answered."""
    _, links, recorder = fake
    links.send([heartbeat(1, 2), heartbeat(1, 7)])
    assert recorder.unreachable_peers == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Welcome(1, "f" * 32, "n2", (), ""), "belongs to cluster ffff"),
        (Welcome(1, "", "n2", (), ""), "belongs to cluster (none yet)"),
        (Welcome(1, "c" * 32, "n3", (Member(NodeId(2), "n2", "", "", "life of n2"),), ""), "is node 'n3', not the 'n2'"),
        (
            Welcome(1, "c" * 32, "n2", (Member(NodeId(2), "n2", "", "", "another life"),), ""),
            "is node 'n2', not the 'n2' that this",
        ),
        (Refused("AuthenticationFailed", "the token was refused"), "AuthenticationFailed: the token was refused"),
    ],
)
async def test_the_node_that_answers_must_be_the_member_that_was_dialled(
    fake: tuple[FakePeer, Peers, Recorder], caplog: pytest.LogCaptureFixture, answer: Welcome | Refused, words: str
) -> None:
    """Addresses are given to other machines now and then.  It is said once, and tried again for ever."""
    caplog.set_level(logging.INFO, "coord.server")
    fake_peer, links, recorder = fake
    right, fake_peer.answer = fake_peer.answer, answer
    links.start()
    await until(lambda: len(fake_peer.connections) >= 3, "three tries")
    assert link_of(links)._connection is None
    assert caplog.text.count(words) == 1
    assert recorder.lost == []
    fake_peer.answer = right
    await until(lambda: link_of(links)._connection, "the right node")


def test_a_vote_travels_as_it_is() -> None:
    """Two booleans whose exchange would count a refusal as a vote."""
    reply = VoteReply(sender=NodeId(2), to=NodeId(1), term=Term(3), pre_vote=True, granted=True)
    assert decode_peer_message(encode_peer_messages([reply])[4:]) == reply


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a refusal takes must not tell how much was right."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    doorway = handshake.Doorway(frozenset(("client",)), "s3cret")
    assert handshake.admit(hello(token="s3cret"), doorway, cluster_id="", has_certificate=False) == 1
    assert compared == [(b"s3cret", b"s3cret")]
