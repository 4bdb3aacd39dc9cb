"""Nodes come, move, are replaced and go, in a cluster that works all the while: real servers, real disks."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import coord_core
from coord_core.config import SnapshotsConfig
from coord_core.errors import InvalidRequest, NodeRemoved, WrongCluster
from coord_core.protocol.administration import Administration, RemoveMember, TransferLeadership
from coord_core.protocol.messages import Administer, PeerIdentity, Redirect, Reply
from coord_core.protocol.operations import ValueSet
from coord_core.protocol.results import Done, Failed, Result, ValueWritten
from coord_core.server.server import Server
from coord_core.types import NodeId
from tests.server.support import Nodes, RawClient, call, until

NAMES = ("n1", "n2", "n3")
#: Everything before the last few entries is in a snapshot only.
SHORT_LOG = SnapshotsConfig(entries=10, trailing_entries=1, trailing_bytes=1)


def votes(server: Server) -> list[str]:
    status = server.status()
    names = {member.node_id: member.name for member in status.members}
    return sorted(names.get(node, "?") for node in status.voters)


def all_vote(nodes: Nodes, *names: str) -> Callable[[], bool]:
    """Whether every running node knows these, and no others, as voters."""
    return lambda: all(votes(server) == sorted(names) for server in nodes.running.values())


def id_of(server: Server, name: str) -> NodeId:
    return next(member.node_id for member in server.status().members if member.name == name)


def hears(server: Server, name: str) -> bool:
    """Whether a leader has heard the node lately."""
    membership = server._running._loop._replica._membership  # type: ignore[union-attr]
    return membership._is_active(id_of(server, name))


async def ask(nodes: Nodes, request: Administration) -> Result:
    """Ask whoever leads, as a client that follows redirects."""
    while True:
        server = await nodes.leader()
        client = await RawClient.greeted(server.client_address)
        client.say(Administer(1, request))
        answer = await client.heard()
        await client.close()
        if isinstance(answer, Reply):
            return answer.result
        assert isinstance(answer, Redirect | None)


async def write(nodes: Nodes, count: int) -> None:
    client = await RawClient.greeted((await nodes.leader()).client_address)
    session = await client.open_session()
    for number in range(1, count + 1):
        await client.do(call(session, number, ValueSet(f"/v/{number}", b"x")))
    await client.close()


def are_level(nodes: Nodes) -> bool:
    known = [server.status() for server in nodes.running.values()]
    return len({status.applied_index for status in known}) == 1 and len({status.sessions for status in known}) == 1


@pytest.mark.parametrize("snapshots", [SnapshotsConfig(), SHORT_LOG], ids=["from the log", "from a snapshot"])
async def test_a_node_joins_as_learner_and_becomes_a_voter_when_it_has_caught_up(nodes: Nodes, snapshots: SnapshotsConfig) -> None:
    """Its id is the index of its entry.  What it has missed comes out of the log, or out of a snapshot older than its joining."""
    first, *_ = await nodes.cluster(*NAMES, snapshots=snapshots)
    await write(nodes, 50)
    before = first.status().last_index
    fourth = await nodes.start("n4", join=(first.peer_address,), snapshots=snapshots)
    await fourth.wait_formed()
    await until(all_vote(nodes, "n1", "n2", "n3", "n4"), "four voters")
    assert before < id_of(first, "n4") <= first.status().last_index
    await until(lambda: are_level(nodes), "the same state everywhere")


async def test_a_node_that_joined_counts_when_others_are_gone(nodes: Nodes) -> None:
    """One node grows to three, and the first one is not needed any more."""
    first, *_ = await nodes.cluster("n1")
    await nodes.start("n2", join=(first.peer_address,))
    await until(all_vote(nodes, "n1", "n2"), "two voters")
    await nodes.start("n3", join=(first.peer_address,))
    await until(all_vote(nodes, *NAMES), "three voters")
    nodes.kill("n1")
    await write(nodes, 3)


async def test_a_node_that_joined_comes_back_from_its_own_disk(nodes: Nodes) -> None:
    """Also before it has come to the entry that added it: it remembers whom to turn to."""
    first, *_ = await nodes.cluster(*NAMES, snapshots=SHORT_LOG)
    await write(nodes, 30)
    await nodes.start("n4", join=(first.peer_address,), snapshots=SHORT_LOG)
    await until(all_vote(nodes, *NAMES, "n4"), "four voters")
    await nodes.stop("n4")
    await write(nodes, 30)
    await nodes.start("n4", snapshots=SHORT_LOG)
    await until(lambda: are_level(nodes), "the same state everywhere")


async def test_a_removed_node_stops_and_says_so_and_the_rest_go_on(nodes: Nodes) -> None:
    """Started again on its directory it says the same; on an empty one it is let in as somebody new."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    name = next(name for name in NAMES if name != leader.config.name)
    gone = nodes.running.pop(name)
    former_id = id_of(leader, name)
    assert await ask(nodes, RemoveMember(former_id)) == Done()
    with pytest.raises(NodeRemoved, match="was removed from cluster"):
        await gone.wait_stopped()
    await gone.stop()
    await until(all_vote(nodes, *(other for other in NAMES if other != name)), "two voters")
    assert await ask(nodes, RemoveMember(former_id)) == Done(), "asking again changes nothing"

    again = await nodes.start(name)
    with pytest.raises(NodeRemoved):
        await again.wait_stopped()
    nodes.running.pop(name)
    await again.stop()
    shutil.rmtree(nodes.config(name).data_dir or "")
    await nodes.start(name, join=(leader.peer_address,))
    await until(all_vote(nodes, *NAMES), "three voters")
    assert id_of(leader, name) > former_id


async def test_a_leader_that_is_removed_hands_over_first(nodes: Nodes) -> None:
    """The cluster is never led by a node that does not belong to it, and nobody waits for an election timeout."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    name = leader.config.name
    client = await RawClient.greeted(leader.client_address)
    client.say(Administer(1, RemoveMember(id_of(leader, name))))
    redirect = await client.heard()
    assert isinstance(redirect, Redirect)
    await client.close()
    successor = await nodes.leader()
    assert successor is not leader
    gone = nodes.running.pop(name)
    assert await ask(nodes, RemoveMember(id_of(successor, name))) == Done()
    with pytest.raises(NodeRemoved):
        await gone.wait_stopped()
    await gone.stop()
    await write(nodes, 3)


async def test_a_removal_that_would_leave_no_majority_is_refused_unless_forced(nodes: Nodes) -> None:
    """With a node down, removing a live one would stop everything; removing the dead one is what is wanted."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    dead, alive = (name for name in NAMES if name != leader.config.name)
    nodes.kill(dead)
    await until(lambda: not hears(leader, dead), "the leader to miss it")
    refusal = await ask(nodes, RemoveMember(id_of(leader, alive)))
    assert isinstance(refusal, Failed)
    assert refusal.code == "Unsafe"
    assert dead in refusal.message
    assert "force" in refusal.message
    assert await ask(nodes, RemoveMember(id_of(leader, dead))) == Done()
    await until(all_vote(nodes, leader.config.name, alive), "two voters")
    await write(nodes, 3)


async def test_the_only_voter_cannot_be_removed(nodes: Nodes) -> None:
    """Not even by force."""
    first, *_ = await nodes.cluster("n1")
    result = await ask(nodes, RemoveMember(id_of(first, "n1"), force=True))
    assert isinstance(result, Failed)
    assert result.code == "InvalidRequest"


async def test_leadership_goes_to_the_voter_that_was_named(nodes: Nodes) -> None:
    """And the lease of the old one stands in nobody's way."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    name = next(name for name in NAMES if name != leader.config.name)
    target = id_of(leader, name)
    assert await ask(nodes, TransferLeadership(target)) == Done()
    assert (await nodes.leader()).config.name == name
    unknown = await ask(nodes, TransferLeadership(NodeId(99)))
    assert isinstance(unknown, Failed)
    assert unknown.code == "InvalidRequest"


async def test_a_lost_disk_is_replaced_under_a_new_id(nodes: Nodes, tmp_path: Path) -> None:
    """One flag, no operator: the old id goes and the new one comes in a single entry; who is alive is not replaced."""
    first, *_ = await nodes.cluster(*NAMES)
    former_id = id_of(first, "n3")
    other = {"listen": "127.0.0.1:0", "data_dir": tmp_path / "other"}
    double = await Server(nodes.config("n3", join=(first.peer_address,), replace=True, **other)).start()
    with pytest.raises(InvalidRequest, match="this node is named 'n3' too"):
        await double.wait_formed()
    await double.stop()
    assert id_of(first, "n3") == former_id

    await nodes.stop("n3")
    shutil.rmtree(nodes.config("n3").data_dir or "")
    plain = await nodes.start("n3", join=(first.peer_address,))
    with pytest.raises(WrongCluster, match="--replace"):
        await plain.wait_formed()
    nodes.running.pop("n3")
    await plain.stop()
    replacing = await nodes.start("n3", join=(first.peer_address,), replace=True)
    await replacing.wait_formed()
    await until(all_vote(nodes, *NAMES), "three voters")
    assert id_of(first, "n3") > former_id
    nodes.kill("n2")
    await write(nodes, 3)


async def test_a_node_that_moved_is_found_where_it_is_now(nodes: Nodes) -> None:
    """It tells the cluster; clients and nodes that come later are told the new address."""
    first, *_ = await nodes.cluster(*NAMES)
    await nodes.stop("n3")
    nodes.forget_address("n3")
    moved = await nodes.start("n3")
    await until(
        lambda: all(
            next(member for member in server.status().members if member.name == "n3").client_address == moved.client_address
            for server in nodes.running.values()
        ),
        "the new address everywhere",
    )
    await nodes.stop("n1" if first.status().role != "leader" else "n2")
    await write(nodes, 3)


async def test_a_node_that_moved_is_stopped_by_no_stranger_at_an_old_address(
    nodes: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What its service file names for joining may be another cluster's by now; the others take it back all the same."""
    await nodes.cluster(*NAMES)
    elsewhere = nodes.config("x1", init=True, founders=("x1",), listen="127.0.0.1:0", data_dir=tmp_path / "other")
    stranger = await Server(elsewhere).start()
    await stranger.wait_formed()
    await nodes.stop("n3")
    nodes.forget_address("n3")
    for name in ("n1", "n2"):
        # Nobody but the stranger can answer at first.
        await nodes.stop(name)
    moved = await nodes.start("n3", join=(stranger.peer_address,))
    await until(lambda: "refused: WrongCluster" in caplog.text, "the stranger's refusal")
    for name in ("n1", "n2"):
        await nodes.start(name)
    await until(
        lambda: all(
            next(member for member in server.status().members if member.name == "n3").client_address == moved.client_address
            for server in nodes.running.values()
        ),
        "the new address everywhere",
    )
    await write(nodes, 3)
    await stranger.stop()


async def test_a_node_that_is_back_where_it_was_is_dialled_there(nodes: Nodes) -> None:
    """It was started with a wrong address once, and not every node heard of it by the log."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    name, other = (name for name in NAMES if name != leader.config.name)
    hearer = nodes.running[other]._running
    assert hearer is not None
    known = hearer._roster.members[id_of(leader, name)]
    hearer.join(PeerIdentity(name, known.incarnation, "127.0.0.1:1", known.client_address, known.node_id))
    assert hearer._peers._links[known.node_id].member != known
    await nodes.stop(name)
    await nodes.start(name)
    await until(lambda: hearer._peers._links[known.node_id].member == known, "the node to be dialled where it is")


async def test_nodes_that_all_moved_find_each_other_by_the_addresses_given_to_join(nodes: Nodes) -> None:
    """Containers that get new addresses at every start: one place to turn to is enough."""
    await nodes.cluster(*NAMES)
    await write(nodes, 3)
    await nodes.stop_all()
    for name in NAMES:
        nodes.forget_address(name)
    first = await nodes.start("n1", init=True, founders=NAMES)
    for name in NAMES[1:]:
        await nodes.start(name, join=(first.peer_address,))
    await write(nodes, 3)
    await until(
        lambda: all(
            {member.client_address for member in server.status().members}
            == {each.client_address for each in nodes.running.values()}
            for server in nodes.running.values()
        ),
        "the new addresses everywhere",
    )


async def test_a_node_that_was_away_while_the_leader_was_replaced_finds_back(nodes: Nodes) -> None:
    """Everyone it knew is gone: whoever calls with a later id is heard, and answered where it says it is."""
    first, *_ = await nodes.cluster(*NAMES)
    await nodes.stop("n3")
    for name in ("n4", "n5"):
        await nodes.start(name, join=(first.peer_address,))
        await until(lambda name=name: name in votes(first), f"{name} as voter")  # type: ignore[misc]
    for name in ("n1", "n2"):
        gone = nodes.running[name]
        assert await ask_elsewhere(nodes, gone) == Done()
        nodes.running.pop(name)
        with pytest.raises(NodeRemoved):
            await gone.wait_stopped()
        await gone.stop()
    third = await nodes.start("n3")
    await until(all_vote(nodes, "n3", "n4", "n5"), "the three that are left")
    await until(lambda: third.status().leader, "a leader")
    await write(nodes, 3)


async def ask_elsewhere(nodes: Nodes, gone: Server) -> Result:
    """Remove a node, with force: in this test another one is down already."""
    return await ask(nodes, RemoveMember(id_of(gone, gone.config.name), force=True))


async def test_two_nodes_that_join_at_once_are_both_let_in(nodes: Nodes) -> None:
    """One change at a time; the other waits for its turn."""
    first, *_ = await nodes.cluster(*NAMES)
    await asyncio.gather(*(nodes.start(name, join=(first.peer_address,)) for name in ("n4", "n5")))
    await until(all_vote(nodes, *NAMES, "n4", "n5"), "five voters")


async def test_a_client_outlives_all_nodes_that_it_began_with(nodes: Nodes) -> None:
    """It is told of the members as they change: a rolling replacement of every machine costs nobody his lock."""
    first, *_ = await nodes.cluster(*NAMES)
    async with await coord_core.connect_async(f"coord://{first.client_address}") as client:
        lock = client.lock("/kept")
        grant = await lock.acquire(timeout=30)
        assert grant is not None
        for name in ("n4", "n5", "n6"):
            joined = await nodes.start(name, join=(first.peer_address,))
            await joined.wait_formed()
            await until(lambda joined=joined, name=name: name in votes(joined), f"{name} as voter")  # type: ignore[misc]
        for name in NAMES:
            gone = nodes.running[name]
            assert await ask_elsewhere(nodes, gone) == Done()
            nodes.running.pop(name)
            with pytest.raises(NodeRemoved):
                await gone.wait_stopped()
            await gone.stop()
        await until(all_vote(nodes, "n4", "n5", "n6"), "the new ones alone")
        await grant.check()
        assert {member.name for member in await client.members()} == {"n4", "n5", "n6"}


async def test_a_wiped_follower_catches_up_while_commands_go_on(nodes: Nodes) -> None:
    """From a snapshot and the log behind it, under a new id; writers neither stop nor fail meanwhile."""
    await nodes.cluster(*NAMES, snapshots=SHORT_LOG)
    leader = await nodes.leader()
    name = next(name for name in NAMES if name != leader.config.name)
    await write(nodes, 200)
    await nodes.stop(name)
    shutil.rmtree(nodes.config(name).data_dir or "")
    caught_up = asyncio.Event()

    async def go_on() -> int:
        client = await RawClient.greeted(leader.client_address)
        session = await client.open_session()
        number = 0
        while not caught_up.is_set():
            number += 1
            written = await client.do(call(session, number, ValueSet(f"/v/{number % 50}", b"x" * 100)))
            assert isinstance(written, ValueWritten)
        await client.close()
        return number

    writing = asyncio.ensure_future(go_on())
    replacing = await nodes.start(name, join=(leader.peer_address,), replace=True, snapshots=SHORT_LOG)
    await replacing.wait_formed()
    number = id_of(leader, name)
    await until(lambda: number in leader.status().voters, "the new one votes")
    caught_up.set()
    assert await writing > 0
    await until(lambda: are_level(nodes), "the same state everywhere")
