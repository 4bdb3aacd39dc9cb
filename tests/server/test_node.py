"""A node at work: it answers what a quorum has, notices a dead leader at once, and stops when it cannot trust its disk."""

import asyncio
import logging
import re
import threading
from pathlib import Path

import msgspec
import pytest

from coord_core.config import RaftTimes
from coord_core.errors import DataDirInUse, InvalidConfig, NodeError, StorageFailed, Unavailable
from coord_core.protocol.messages import Ask, Redirect, Submit, Told
from coord_core.protocol.operations import ValueSet
from coord_core.protocol.queries import ValueGet, ValueState
from coord_core.server.server import Server
from coord_core.wire import codec
from tests.server.support import FailingStorage, Nodes, RawClient, SlowStorage, call, cut, hello, until

NAMES = ("n1", "n2", "n3")
#: Would not seek an election by itself within any test.
PATIENT = RaftTimes(tick_ms=50, election_timeout_ms=600_000, heartbeat_ms=50)


async def test_a_session_survives_its_leader_and_tokens_rise(nodes: Nodes) -> None:
    """The whole way: open, lock, kill the leader, read and lock at the next one."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    client = await RawClient.greeted(leader.client_address)
    session = await client.open_session()
    first = await client.lock(session, 1, "/first")
    nodes.kill(leader.config.name)
    assert await client.heard() is None
    client = await RawClient.greeted((await nodes.leader()).client_address)
    second = await client.lock(session, 2, "/second")
    assert second.token > first.token
    again = await client.lock(session, 1, "/first")
    assert again == first, "sent again under its number it is applied once"


async def test_followers_notice_at_once_that_the_leader_died(nodes: Nodes) -> None:
    """Its sockets closed: they need not wait for its silence, which here would take ten minutes."""
    first = await nodes.start("n1", init=True, founders=NAMES)
    for name in NAMES[1:]:
        await nodes.start(name, join=(first.peer_address,), raft=PATIENT)
    assert await nodes.leader_of_formed() is first
    nodes.kill("n1")
    assert (await nodes.leader()).config.name in NAMES[1:]


async def test_one_broken_link_deposes_nobody(nodes: Nodes) -> None:
    """The other follower hears the leader, and does not vote (dissertation, 4.2.3)."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    follower = next(server for server in nodes.running.values() if server is not leader)
    before = leader.status()
    cut(leader, follower)
    # Later than any election that the cut could have started, and over a link that had to be dialled anew.
    client = await RawClient.greeted(leader.client_address)
    session = await client.open_session()
    await until(lambda: follower.status().applied_index >= session.session, "the follower caught up")
    assert (leader.status().role, leader.status().term) == ("leader", before.term)


async def test_links_to_a_node_come_back_after_its_restart(nodes: Nodes) -> None:
    """And what it missed reaches it."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    absent = next(name for name, server in nodes.running.items() if server is not leader)
    await nodes.stop(absent)
    client = await RawClient.greeted(leader.client_address)
    session = await client.open_session()
    for number in range(1, 21):
        await client.lock(session, number, f"/lock/{number}")
    back = await nodes.start(absent)
    await until(lambda: back.status().applied_index >= leader.status().applied_index, "the restarted node caught up")
    assert back.status().sessions == 1


async def test_everything_survives_a_restart_of_all_nodes(nodes: Nodes) -> None:
    """What was answered is on the disks."""
    await nodes.cluster(*NAMES)
    client = await RawClient.greeted((await nodes.leader()).client_address)
    session = await client.open_session()
    await client.do(call(session, 1, ValueSet("/value", b"kept")))
    for name in NAMES:
        await nodes.kill(name).stop()
    for name in NAMES:
        await nodes.start(name)
    client = await RawClient.greeted((await nodes.leader()).client_address)
    answer = await _read(client, "/value")
    assert answer.value == b"kept"


async def _read(client: RawClient, path: str) -> ValueState:
    """Read; the leader may not be ready yet."""
    while True:
        client.say(Ask(1, ValueGet(path)))
        heard = await client.heard()
        if isinstance(heard, Told) and isinstance(heard.answer, ValueState):
            return heard.answer
        assert isinstance(heard, Redirect), heard


async def test_a_node_whose_disk_fails_stops_and_says_why(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    """It answers nothing that rests on that write, and nothing afterwards."""
    failing: set[str] = set()
    (node,) = await nodes.cluster("n1", open_storage=lambda path: FailingStorage(path, failing))
    client = await RawClient.greeted(node.client_address)
    session = await client.open_session()
    failing.add("write")
    with pytest.raises(AssertionError, match="None"):
        await client.do(call(session, 1, ValueSet("/value", b"lost")))
    with pytest.raises(StorageFailed, match="the disk is gone"):
        await node.wait_stopped()
    assert "node n1 stops: StorageFailed: the disk is gone" in caplog.text
    with pytest.raises(ConnectionError):
        await RawClient.dial((await _stopped(nodes, "n1")).client_address)


async def _stopped(nodes: Nodes, name: str) -> Server:
    server = nodes.running[name]
    await nodes.stop(name)
    return server


async def test_an_error_that_nobody_foresaw_stops_the_node_with_a_traceback(
    nodes: Nodes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica whose effects were carried out by half must not go on."""
    (node,) = await nodes.cluster("n1")

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("coord_core.server.clients.Clients.deliver", broken)
    client = await RawClient.greeted(node.client_address)
    client.say(Ask(1, ValueGet("/x")))
    assert await client.heard() is None
    with pytest.raises(ZeroDivisionError):
        await node.wait_stopped()
    assert "node n1 stops: ZeroDivisionError: a bug" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_bug_that_shows_in_a_connection_stops_the_node_too(
    nodes: Nodes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio would note it and close the connection, and the node would go on with a fault that nobody looks at."""
    (node,) = await nodes.cluster("n1")

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("coord_core.server.clients.Clients.add", broken)
    client = await RawClient.dial(node.client_address)
    assert await client.greet(hello()) is None
    with pytest.raises(ZeroDivisionError):
        await node.wait_stopped()


@pytest.mark.parametrize("event", ["tick", "persisted"])
async def test_a_bug_that_shows_in_a_timer_or_after_a_write_stops_the_node_too(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """The event loop calls these itself; it would note the error and go on."""

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(f"coord_core.replica.Replica.{event}", broken)
    node = await nodes.start("n1", init=True)
    with pytest.raises(ZeroDivisionError):
        await node.wait_stopped()


async def test_a_stalled_disk_holds_up_no_heartbeat(nodes: Nodes) -> None:
    """A write that takes longer than an election timeout deposes nobody: the loop does not wait for it."""
    gate = threading.Event()
    gate.set()
    await nodes.begin(*NAMES, open_storage=lambda path: SlowStorage(path, gate))
    leader = await nodes.leader_of_formed()
    term = leader.status().term
    client = await RawClient.greeted(leader.client_address)
    session = await client.open_session()
    gate.clear()
    client.say(Submit(99, msgspec.Raw(codec.encode_command(call(session, 1, ValueSet("/value", b"slow"))))))
    # Twice the longest election timeout, in heartbeats that pass meanwhile.
    await asyncio.sleep(1.2)
    assert (leader.status().role, leader.status().term) == ("leader", term)
    gate.set()
    assert await client.heard() is not None
    assert leader.status().term == term


async def test_a_directory_is_used_by_one_node_at_a_time(nodes: Nodes) -> None:
    """The second one is told, and does not disturb the first."""
    (node,) = await nodes.cluster("n1")
    with pytest.raises(DataDirInUse):
        await Server(nodes.config("n1", listen="127.0.0.1:0")).start()
    await RawClient.greeted(node.client_address)


async def test_an_address_that_is_taken_is_named(nodes: Nodes, tmp_path: Path) -> None:
    """And the directory is free again for the next try."""
    (node,) = await nodes.cluster("n1")
    config = nodes.config("other", data_dir=tmp_path / "other", init=True, listen=node.client_address)
    for _ in range(2):
        with pytest.raises(NodeError, match=f"cannot listen on {node.client_address}") as caught:
            await Server(config).start()
        assert not isinstance(caught.value, DataDirInUse)


async def test_both_addresses_are_logged_where_others_are_told_another(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    """Behind a forwarded port the one is what listens here, the other what clients and nodes dial."""
    caplog.set_level(logging.INFO, "coord.server")
    await nodes.start("n1", init=True, founders=("n1", "n2"), advertise="h1.example:7400")
    (line,) = (record.getMessage() for record in caplog.records if "listens for clients" in record.message)
    assert re.search(r"for clients on 127\.0\.0\.1:\d+ \(others are told h1\.example:7400\) and for nodes on 127.0.0.1:\d+", line)


async def test_a_configuration_with_faults_never_gets_to_the_disk(nodes: Nodes, tmp_path: Path) -> None:
    """All faults come at once."""
    with pytest.raises(InvalidConfig) as caught:
        await Server(nodes.config("", data_dir=tmp_path / "x", listen="nowhere")).start()
    assert len(caught.value.details["faults"]) == 2
    assert not (tmp_path / "x").exists()


async def test_role_changes_are_one_line_each(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    """With node, term and index, so that the logs of several nodes can be laid side by side."""
    caplog.set_level(logging.INFO, "coord.server")
    await nodes.cluster("n1")
    # Not always term 2: on a slow disk the lone voter's first election may run out.
    for line in (
        r"node n1 term (\d+) index 1: leader in term \1, leader n1",
        r"node n1 term (\d+) index \d+: leads term \1 and takes commands; 0 sessions",
    ):
        await until(lambda line=line: re.search(line, caplog.text), line)  # type: ignore[misc]


async def test_stopping_twice_and_asking_a_stopped_node_are_harmless(nodes: Nodes) -> None:
    """Clean-up code calls stop wherever it is."""
    (node,) = await nodes.cluster("n1")
    await node.stop()
    await node.stop()
    await node.wait_stopped()
    unstarted = await nodes.start("n2", init=True, founders=("n2", "n3"))
    waiting = asyncio.ensure_future(unstarted.wait_formed())
    await asyncio.sleep(0)
    await nodes.stop("n2")
    with pytest.raises(Unavailable, match="stopped before it was formed"):
        await waiting
