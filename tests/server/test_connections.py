"""Bad bytes harm the connection they came on and no other: a clear refusal, a line in the log, and a good client goes on."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from coord_core.config import LimitsConfig
from coord_core.protocol.messages import (
    CLIENT_FRAME_BYTES_MAX,
    MAGIC,
    Ask,
    GetStatus,
    Hello,
    KeepAlive,
    KeptAlive,
    NodeStatus,
    PeerIdentity,
    Redirect,
    Refused,
    Reply,
    Submit,
    Told,
    Welcome,
)
from coord_core.protocol.operations import LockAcquire, ValueSet
from coord_core.protocol.queries import ValueGet, ValueState
from coord_core.protocol.results import Failed, Granted, ValueWritten
from coord_core.server import connections
from coord_core.server.clients import Client
from coord_core.server.server import Server
from coord_core.wire import codec
from coord_core.wire.frames import encode_frame
from tests.server.support import OWNER, Nodes, RawClient, call, hello, until


@pytest.fixture
async def node(nodes: Nodes) -> Server:
    """A cluster of one."""
    return (await nodes.cluster("n1"))[0]


@pytest.fixture
async def good(node: Server) -> AsyncIterator[RawClient]:
    """A client that was there before the trouble, and must be able to work after it."""
    client = await RawClient.greeted(node.client_address)
    session = await client.open_session()
    yield client
    client.seq += 10
    await client.lock(session, 1, "/after/the/trouble")
    await client.close()


HELLO = encode_frame(codec.encode(hello()))
BAD_OPENINGS = {
    "a magic of another version": (b"coord\x00\x00\x09", "ProtocolError", "does not begin as coord's protocol"),
    "garbage": (b"\x00\x01garbage", "ProtocolError", "does not begin as coord's protocol"),
    "TLS to a plain port": (b"\x16\x03\x01\x00\xa5\x01", "ProtocolError", "a TLS handshake came to a port that speaks without TLS"),
    "a frame over the limit": (
        MAGIC + b"\x7f\xff\xff\xff",
        "ProtocolError",
        f"2147483647 bytes is over the limit of {CLIENT_FRAME_BYTES_MAX}",
    ),
    "more than a Hello before Hello": (
        MAGIC + struct.pack(">I", CLIENT_FRAME_BYTES_MAX) + b"x" * 70_000,
        "ProtocolError",
        "begins with a Hello of at most 65536 bytes",
    ),
    "a frame that is no message": (MAGIC + encode_frame(b"\xc1"), "ProtocolError", "expected a client's message"),
    "a request before Hello": (
        MAGIC + encode_frame(codec.encode(GetStatus(1))),
        "ProtocolError",
        "begins with Hello, not with GetStatus",
    ),
    "a second Hello": (MAGIC + HELLO + HELLO, "ProtocolError", "a second Hello"),
    "garbage after Hello": (MAGIC + HELLO + encode_frame(b"garbage"), "ProtocolError", "expected a client's message"),
    "a frame over the limit after Hello": (
        MAGIC + HELLO + struct.pack(">I", CLIENT_FRAME_BYTES_MAX + 1),
        "ProtocolError",
        "over the limit",
    ),
}


@pytest.mark.parametrize("opening", BAD_OPENINGS)
async def test_bad_bytes_are_refused_by_name(opening: str, node: Server, good: RawClient, caplog: pytest.LogCaptureFixture) -> None:
    """The refusal is the last frame of the connection, and the log has the same words."""
    data, code, words = BAD_OPENINGS[opening]
    client = await RawClient.dial(node.client_address)
    client.writer.write(data)
    heard = await client.heard()
    if isinstance(heard, Welcome):
        heard = await client.heard()
    assert isinstance(heard, Refused)
    assert heard.code == code
    assert words in heard.message
    assert await client.heard() is None
    assert words in caplog.text


BAD_HELLOS = {
    "a version of the future": (
        hello(version_min=7, version_max=9),
        "UnsupportedVersion",
        "speaks protocol versions 1 to 1, the other side 7 to 9",
    ),
    "a foreign cluster": (hello(cluster_id="f" * 32), "WrongCluster", "not to ffff"),
    "an unknown role": (hello(role="king"), "ProtocolError", "there is no role 'king'"),
    "a peer that does not say who it is": (hello(role="peer"), "ProtocolError", "must say who it is"),
    "a peer that is no member": (
        hello(role="peer", cluster_id="", peer=PeerIdentity("n9", "x", "h:1", "h:2", 9)),
        "ProtocolError",
        "must say who it is and of which cluster",
    ),
    "a joiner that does not say who it is": (hello(role="join"), "ProtocolError", "must say who it is"),
}


@pytest.mark.parametrize("what", BAD_HELLOS)
async def test_bad_hellos_are_refused_by_name(what: str, node: Server, good: RawClient, caplog: pytest.LogCaptureFixture) -> None:
    """Each message says what would be right."""
    first, code, words = BAD_HELLOS[what]
    client = await RawClient.dial(node.client_address)
    heard = await client.greet(first)
    assert isinstance(heard, Refused)
    assert heard.code == code
    assert words in heard.message
    assert await client.heard() is None
    assert words in caplog.text


async def test_a_wrong_or_missing_token_is_refused_and_never_logged(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    """For clients and nodes alike."""
    (node,) = await nodes.cluster("n1", token="s3cret")
    for role in ("client", "peer", "join"):
        for token, words in (("gu3ss", "the token was refused"), ("", "this cluster needs a token")):
            client = await RawClient.dial(node.client_address)
            heard = await client.greet(hello(role=role, token=token))
            assert isinstance(heard, Refused)
            assert (heard.code, words in heard.message) == ("AuthenticationFailed", True)
    good = await RawClient.greeted(node.client_address, token="s3cret")
    await good.open_session()
    assert "gu3ss" not in caplog.text
    assert "s3cret" not in caplog.text


async def test_an_http_request_is_closed_and_named_in_the_log(
    node: Server, good: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A health check that points at the wrong port is found by that line; bytes of ours would only confuse its sender."""
    client = await RawClient.dial(node.client_address)
    client.writer.write(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
    assert await client.heard() is None
    assert "an HTTP request came to a port that speaks coord's own protocol" in caplog.text


async def test_a_connection_that_ends_in_the_midst_of_a_frame_is_noted(
    node: Server, good: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A truncated frame is dropped with its connection."""
    caplog.set_level(logging.INFO, "coord.server")
    client = await RawClient.greeted(node.client_address)
    client.writer.write(b"\x00\x00\x00\x09abc")
    await client.close()
    await until(lambda: "ended in the midst of a frame" in caplog.text, "the line in the log")


async def test_who_does_not_shake_hands_in_time_is_refused(nodes: Nodes) -> None:
    """Silent connections must not add up."""
    (node,) = await nodes.cluster("n1", limits=LimitsConfig(handshake_timeout_ms=50))
    client = await RawClient.dial(node.client_address)
    heard = await client.heard()
    assert isinstance(heard, Refused)
    assert (heard.code, heard.message) == ("Unavailable", "no handshake within 0.05 s")
    assert await client.heard() is None


async def test_one_client_more_than_allowed_is_refused_and_nodes_are_not(nodes: Nodes) -> None:
    """Busy says which bound it was; when one leaves there is room again."""
    (node,) = await nodes.cluster("n1", limits=LimitsConfig(client_connections_max=2))
    clients = [await RawClient.greeted(node.client_address) for _ in range(2)]
    third = await RawClient.dial(node.client_address)
    heard = await third.greet(hello())
    assert isinstance(heard, Refused)
    assert (heard.code, heard.message) == ("Busy", "this node has 2 client connections, as many as it takes")
    await clients[0].close()
    await until(lambda: node.status().connections == 1, "the place of the one that left")
    await RawClient.greeted(node.client_address)


async def test_strangers_beyond_the_bound_are_refused(node: Server, good: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds connections open without a word cannot keep all of them."""
    monkeypatch.setattr(connections, "STRANGERS_MAX", 2)
    silent = [await RawClient.dial(node.client_address) for _ in range(2)]
    third = await RawClient.dial(node.client_address)
    heard = await third.heard()
    assert isinstance(heard, Refused)
    assert heard.code == "Busy"
    assert isinstance(await silent[0].greet(hello()), Welcome)
    await silent[1].close()


async def test_two_requests_split_at_every_position_are_both_answered(node: Server) -> None:
    """The network may cut anywhere: in the magic, in a length, in a message."""
    stream = MAGIC + HELLO + codec.encode_messages([GetStatus(1), GetStatus(2)])
    for at in range(1, len(stream)):
        client = await RawClient.dial(node.client_address)
        client.writer.write(stream[:at])
        await client.writer.drain()
        await asyncio.sleep(0)
        client.writer.write(stream[at:])
        assert isinstance(await client.heard(), Welcome)
        for seq in (1, 2):
            status = await client.heard()
            assert isinstance(status, NodeStatus)
            assert status.seq == seq
        client.writer.close()


async def test_clients_and_joiners_are_not_told_by_what_nodes_know_each_other(node: Server) -> None:
    """Clients have the nodes' token: with a member's incarnation too, any of them could speak for it in an election."""
    (member,) = node.status().members
    assert member.incarnation
    client = await RawClient.dial(node.client_address)
    welcome = await client.greet(hello())
    client.say(GetStatus(1))
    status = await client.heard()
    joiner = await RawClient.dial(node.peer_address)
    as_founder = await joiner.greet(hello(role="join", peer=PeerIdentity("n1", "x", "h:1", "h:2")))
    assert isinstance(welcome, Welcome)
    assert isinstance(status, NodeStatus)
    assert isinstance(as_founder, Refused)
    assert [one.incarnation for one in (*welcome.members, *status.members)] == ["", ""]
    assert member.incarnation not in as_founder.message


async def test_requests_sent_in_one_piece_with_the_hello_are_answered(node: Server) -> None:
    """A client need not wait for Welcome."""
    client = await RawClient.dial(node.client_address)
    client.writer.write(MAGIC + HELLO + encode_frame(codec.encode(Ask(5, ValueGet("/none")))))
    assert isinstance(await client.heard(), Welcome)
    assert await client.heard() == Told(5, ValueState(0, b""))


async def test_a_command_that_does_not_decode_is_answered_and_not_logged_into_the_log(node: Server, good: RawClient) -> None:
    """Were it replicated, every node would stumble over it, for ever.  The connection is healthy and stays."""
    before = node.status().last_index
    good.say(Submit(1, msgspec.Raw(b"\x93\x01\x02\x03")), Submit(2, msgspec.Raw(codec.encode("no command"))))  # type: ignore[arg-type]
    for seq in (1, 2):
        reply = await good.heard()
        assert isinstance(reply, Reply)
        assert isinstance(reply.result, Failed)
        assert (reply.seq, reply.result.code) == (seq, "ProtocolError")
    assert node.status().last_index == before


async def test_all_kinds_of_requests_are_answered_on_one_connection(node: Server) -> None:
    """A session, a lock, a value, a keep-alive, a read, a status, all on the way at once."""
    client = await RawClient.greeted(node.client_address)
    session = await client.open_session()
    client.say(
        Submit(11, msgspec.Raw(codec.encode_command(call(session, 1, LockAcquire("/lock", 0, OWNER))))),
        Submit(12, msgspec.Raw(codec.encode_command(call(session, 2, ValueSet("/value", b"v"))))),
        KeepAlive(13, session.session, session.generation),
        GetStatus(14),
    )
    heard: dict[int, Reply | KeptAlive | NodeStatus] = {}
    while len(heard) < 4:
        message = await client.heard()
        assert isinstance(message, Reply | KeptAlive | NodeStatus)
        heard[message.seq] = message
    assert isinstance(heard[11].result, Granted)  # type: ignore[union-attr]
    assert isinstance(heard[12].result, ValueWritten)  # type: ignore[union-attr]
    assert isinstance(heard[13], KeptAlive)
    assert isinstance(heard[14], NodeStatus)
    assert heard[14].version
    client.say(Ask(15, ValueGet("/value")))
    told = await client.heard()
    assert isinstance(told, Told)
    assert isinstance(told.answer, ValueState)
    assert told.answer.value == b"v"


async def test_a_follower_says_who_leads(nodes: Nodes) -> None:
    """In Welcome, in its status, and to every command."""
    await nodes.cluster("n1", "n2", "n3")
    leader = await nodes.leader()
    follower = next(server for server in nodes.running.values() if server is not leader)
    client = await RawClient.dial(follower.client_address)
    welcome = await client.greet(hello())
    assert isinstance(welcome, Welcome)
    assert welcome.leader == leader.client_address
    assert [member.name for member in welcome.members] == ["n1", "n2", "n3"]
    status = await client.status()
    assert (status.role, status.leader) == ("follower", leader.client_address)
    client.say(Ask(1, ValueGet("/x")))
    assert await client.heard() == Redirect(1, leader.client_address)


async def test_the_status_is_made_once_for_all_who_ask_in_one_read(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of nothing but such requests would otherwise hold up the loop for longer than an election timeout."""
    assert node._running is not None
    clients, made = node._running._clients, 0
    status = clients.status

    def counted(seq: int) -> NodeStatus:
        nonlocal made
        made += 1
        return status(seq)

    monkeypatch.setattr(clients, "status", counted)
    client = await RawClient.greeted(node.client_address)
    client.say(*(GetStatus(seq) for seq in range(1, 2_001)))
    for seq in range(1, 2_001):
        heard = await client.heard()
        assert isinstance(heard, NodeStatus)
        assert heard.seq == seq
    assert made < 100


async def test_a_client_that_does_not_read_is_dropped_and_others_go_on(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    """Its answers would fill the node's memory."""
    (node,) = await nodes.cluster("n1", limits=LimitsConfig(client_unread_bytes_max=1_000_000))
    good = await RawClient.greeted(node.client_address)
    session = await good.open_session()
    await good.do(call(session, 1, ValueSet("/big", bytes(200_000))))
    host, _, port = node.client_address.rpartition(":")
    lazy = RawClient(*await asyncio.open_connection(host, int(port), limit=1))
    assert isinstance(await lazy.greet(hello()), Welcome)
    lazy.writer.transport.pause_reading()  # type: ignore[attr-defined]
    lazy.say(*(Ask(seq, ValueGet("/big")) for seq in range(1, 201)))
    await until(lambda: "has not read" in caplog.text, "the line in the log")
    await until(lambda: node.status().connections == 1, "the lazy client gone")
    await good.lock(session, 2, "/lock")


async def test_a_client_with_too_many_requests_on_the_way_waits_and_all_are_answered(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the bound the node stops reading from it, and goes on when half is answered."""
    stopped_reading_at: list[int] = []
    steer = Client._steer

    def watched(client: Client) -> None:
        was = client._read_paused
        steer(client)
        if client._read_paused and not was:
            stopped_reading_at.append(client._in_flight)

    monkeypatch.setattr(Client, "_steer", watched)
    (node,) = await nodes.cluster("n1", limits=LimitsConfig(requests_in_flight_max=4096))
    client = await RawClient.greeted(node.client_address)
    count = 40_000
    client.say(*(Ask(seq, ValueGet("/none")) for seq in range(1, count + 1)))
    seen = [await client.heard() for _ in range(count)]
    assert [message.seq for message in seen if isinstance(message, Told)] == list(range(1, count + 1))
    assert stopped_reading_at
    assert all(4096 <= in_flight < 40_000 for in_flight in stopped_reading_at), "the bound, and one read from the socket"


async def test_separate_ports_let_in_only_their_own(nodes: Nodes) -> None:
    """So that a firewall can keep clients off the nodes' port."""
    (node,) = await nodes.cluster("n1", peer_listen="127.0.0.1:0", listen="127.0.0.1:0")
    assert node.client_address != node.peer_address
    for address, role in ((node.client_address, "peer"), (node.peer_address, "client")):
        client = await RawClient.dial(address)
        heard = await client.greet(hello(role=role))
        assert isinstance(heard, Refused)
        assert "this port is not for role" in heard.message
    await RawClient.greeted(node.client_address)


async def test_clients_are_told_when_the_node_shuts_down(nodes: Nodes) -> None:
    """They turn to another node at once instead of finding out."""
    (node,) = await nodes.cluster("n1")
    client = await RawClient.greeted(node.client_address)
    await nodes.stop("n1")
    assert await client.heard() == Refused("Unavailable", "the node is shutting down")
    assert await client.heard() is None


def test_the_hello_of_these_tests_is_what_clients_send() -> None:
    """Or the refusals above could be refusals of something else."""
    assert hello() == Hello(1, 1, "client", "", "", None)


@pytest.mark.parametrize("role", ["join", "peer"])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "must be 1 to 64 letters"),
        ({"name": "n4\nCRITICAL all is lost"}, "must be 1 to 64 letters"),
        ({"name": "x" * 60_000}, "must be 1 to 64 letters"),
        ({"peer_address": "nowhere"}, "expected host:port"),
        ({"client_address": "h:0"}, "none that others can dial"),
        ({"client_address": "h" * 50_000 + ":1"}, "h"),
        ({"incarnation": ""}, "the incarnation is none"),
        ({"incarnation": "x\n"}, "the incarnation is none"),
        ({"node_id": -1}, "node id -1"),
        ({"node_id": 2**60}, "node id"),
        ({"machine_version": 0}, "machine version 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_node_that_says_odd_things_of_itself_is_refused(
    nodes: Nodes, role: str, fields: dict[str, Any], words: str
) -> None:
    """What it says goes into every node's log.  The refusal is short, and nobody else is harmed."""
    [server] = await nodes.cluster("n1")
    peer = msgspec.structs.replace(PeerIdentity("n4", "life", "h:1", "h:2", 9), **fields)
    client = await RawClient.dial(server.peer_address)
    refused = await client.greet(hello(role=role, cluster_id=server.status().cluster_id, peer=peer))
    assert isinstance(refused, Refused)
    assert words in refused.message
    assert len(refused.message) < 700
    assert [member.name for member in server.status().members] == ["n1"]
