"""What the manual says of elections, groups and watches, on three real nodes with real client processes that die and stop."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import coord_core
from coord_core.machine.bounds import RING_BYTES_MAX
from coord_core.protocol.base import VALUE_BYTES_MAX
from coord_core.protocol.messages import NodeStatus
from tests.cli.running import until
from tests.cluster.forking import CHILDREN
from tests.cluster.nodes import PATIENCE_S, Nodes
from tests.cluster.participants import TTL_S, Participant

pytestmark = pytest.mark.xdist_group("cluster")


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes(3, clients=("clients", "apart")) as nodes:
        nodes.start_all()
        yield nodes


# --- elections -------------------------------------------------------------------------------------------------------------------


def test_next_candidate_is_elected_when_the_leaders_process_is_killed(nodes: Nodes):
    """And the epoch of the dead is nobody's from then on."""
    first = Participant(nodes, "elect", "/e")
    old = first.wait("elected")["epoch"]
    second = Participant(nodes, "elect", "/e")
    third = Participant(nodes, "elect", "/e")
    with nodes.connect() as client:
        election = client.election("/e")
        assert election.is_leader(old)
        first.kill()
        new = second.wait("elected")["epoch"]
        assert new > old
        assert not election.is_leader(old)
        assert election.is_leader(new)
        assert third.told("elected") == []


def test_leader_behind_a_partition_is_deposed_in_its_own_eyes_before_the_next_is_elected(nodes: Nodes):
    """Two beliefs never overlap, though the first of the two hears of nothing."""
    first = Participant(nodes, "elect", "/e", host="apart")
    old = first.wait("elected")["epoch"]
    second = Participant(nodes, "elect", "/e")
    links = [(one, other) for name in nodes.names for one, other in (("apart", name), (name, "apart"))]
    nodes.network.block(links)
    elected = second.wait("elected")
    deposed = first.wait("deposed")
    assert deposed["epoch"] == old
    assert deposed["at"] < elected["at"]
    nodes.network.unblock(links)
    with nodes.connect() as client:
        until(lambda: len(client.election("/e").candidates()) == 1, PATIENCE_S, "the first having entered anew")
        assert client.election("/e").is_leader(elected["epoch"])


def test_leader_stays_while_raft_leaders_are_killed_one_after_the_other(nodes: Nodes):
    """Sessions outlive failovers: nobody is elected because of one."""
    first, second = (Participant(nodes, "elect", "/e", ttl_s=15) for _ in range(2))
    epoch = first.wait("elected")["epoch"]
    with nodes.connect() as client:
        for _ in range(3):
            leader = nodes.wait_leader()
            nodes.kill(leader)
            assert client.election("/e").is_leader(epoch)
            nodes.start(leader)
            nodes.wait_level()
    assert len(first.told("elected")) == 1
    assert first.told("deposed") == second.told("elected") == []


# --- groups ----------------------------------------------------------------------------------------------------------------------


def test_killed_member_is_removed_and_the_others_are_told(nodes: Nodes):
    """Each of them, once."""
    members = [Participant(nodes, "join", "/g") for _ in range(3)]
    dead = members[1].ready["member"]
    members[1].kill()
    for member in (members[0], members[2]):
        assert member.wait("left")["member"] == dead
    with nodes.connect() as client:
        assert [one.member for one in client.group("/g").members()] == [members[0].ready["member"], members[2].ready["member"]]
    for member in (members[0], members[2]):
        assert [line["member"] for line in member.told("left")] == [dead]


def test_members_that_were_there_are_told_before_a_join_completes(nodes: Nodes):
    """In every process, on the one clock that they share."""
    first, second = Participant(nodes, "join", "/g"), Participant(nodes, "join", "/g")
    third = Participant(nodes, "join", "/g")
    for member in (first, second):
        (told,) = [line for line in member.told("joined") if line["member"] == third.ready["member"]]
        assert told["at"] < third.ready["at"]


def test_stopped_member_holds_a_join_up_until_its_session_expires_and_is_named(nodes: Nodes):
    """A process that does nothing any more must not keep others out for longer than it lives."""
    stopped = Participant(nodes, "join", "/g")
    stopped.signal(signal.SIGSTOP)
    with nodes.connect() as client:
        joined = client.group("/g").join(timeout=60)
        # Its listeners' subscription and its own as a member.
        assert {missing.reason for missing in joined.unacknowledged} == {"gone"}
        assert {missing.owner.pid for missing in joined.unacknowledged if missing.owner} == {stopped.pid}
        assert [one.member for one in client.group("/g").members()] == [joined.member]
    stopped.signal(signal.SIGCONT)


def test_stopped_member_holds_a_join_up_until_the_deadline_and_is_named(nodes: Nodes):
    """Whoever joins says how long it is ready to wait."""
    stopped = Participant(nodes, "join", "/g", ttl_s=60)
    stopped.signal(signal.SIGSTOP)
    with nodes.connect() as client:
        joined = client.group("/g").join(timeout=0.5)
        assert {missing.reason for missing in joined.unacknowledged} == {"deadline"}
        assert {missing.owner.pid for missing in joined.unacknowledged if missing.owner} == {stopped.pid}
        assert len(client.group("/g").members()) == 2
    stopped.signal(signal.SIGCONT)


# --- topics ----------------------------------------------------------------------------------------------------------------------


def test_message_is_told_to_every_process_that_listens_once_and_in_order(nodes: Nodes):
    """Also over the death of a leader."""
    listeners = [Participant(nodes, "listen", "/t", ttl_s=15) for _ in range(3)]
    with nodes.connect() as client:
        topic = client.topic("/t")
        for number in range(200):
            if number == 100:
                leader = nodes.wait_leader()
                nodes.kill(leader)
                nodes.start(leader)
            topic.publish(b"%d" % number)
    for listener in listeners:
        listener.wait("message", 200)
        assert [line["offset"] for line in listener.told("message")] == list(range(200))


@pytest.mark.parametrize(("ttl_s", "timeout", "reason"), [(TTL_S, 60, "gone"), (60, 0.5, "deadline")])
def test_stopped_listener_holds_an_atomic_publish_up_until_its_end_or_the_deadline_and_is_named(
    nodes: Nodes, ttl_s: float, timeout: float, reason: str
):
    """It completes when that session expires or the deadline passes; the others have been told by then."""
    stopped, other = (Participant(nodes, "listen", "/t", ttl_s=each) for each in (ttl_s, 60))
    stopped.signal(signal.SIGSTOP)
    with nodes.connect() as client:
        published = client.topic("/t").with_consistency(coord_core.Consistency.ATOMIC).publish(b"", timeout=timeout)
        (missing,) = published.unacknowledged
        assert missing.reason == reason
        assert missing.owner is not None
        assert missing.owner.pid == stopped.pid
        assert [line["offset"] for line in other.told("message")] == [0]
    stopped.signal(signal.SIGCONT)


# --- watches ---------------------------------------------------------------------------------------------------------------------


def test_watcher_sees_every_revision_once_and_in_order_while_five_leaders_are_killed(nodes: Nodes):
    """Over ten thousand changes."""
    watcher = Participant(nodes, "watch", "/v", ttl_s=15)
    versions = nodes.watch(lambda: asyncio.run(_write_through_kills(nodes, 10_000, 5)))
    watcher.wait("value", 10_001)
    assert [line["version"] for line in watcher.told("value")] == [0, *versions]


async def _write_through_kills(nodes: Nodes, count: int, kills: int) -> list[int]:
    """Write so often, twenty at a time, and kill the leader now and then; return the versions in order."""
    versions: list[int] = []
    async with coord_core.AsyncClient(nodes.url(ttl="15s")) as client:
        handles = [client.value("/v") for _ in range(20)]
        while len(versions) < count:
            if len(versions) * (kills + 1) % count < len(handles) * (kills + 1) and versions:
                leader = (await _leader_status(client)).node
                nodes.kill(leader)
                nodes.start(leader)
            versions += await asyncio.gather(*(handle.set(b"%d" % len(versions)) for handle in handles))
    return sorted(versions)


def test_watcher_that_fell_behind_ends_in_the_right_state(nodes: Nodes):
    """What was pushed out of the ring is passed over, and nothing else; the last is what is there."""
    watcher = Participant(nodes, "watch", "/v", ttl_s=60)
    watcher.wait("value")
    watcher.signal(signal.SIGSTOP)
    with nodes.connect() as client:
        value, content = client.value("/v"), bytes(VALUE_BYTES_MAX)
        versions = [value.set(content) for _ in range(2 * RING_BYTES_MAX // VALUE_BYTES_MAX)]
        watcher.signal(signal.SIGCONT)
        until(lambda: watcher.told("value")[-1]["version"] == versions[-1], PATIENCE_S, "the last version being told")
        seen = [line["version"] for line in watcher.told("value")]
        assert seen == sorted(set(seen))
        assert len(seen) < len(versions), "it never fell behind"
        assert set(seen) <= {0, *versions}


# --- sessions --------------------------------------------------------------------------------------------------------------------


def test_idle_cluster_with_a_thousand_sessions_writes_nothing(nodes: Nodes):
    """Keep-alives are no entries, watches that see nothing push nothing, and no timer ticks where none is due."""
    before, after, sessions = nodes.watch(lambda: asyncio.run(_idle(nodes.url(ttl="3s"), 1_000)))
    assert sessions == 1_000
    assert after == before


async def _idle(url: str, count: int) -> tuple[int, int, int]:
    """Return the end of the log before and after every session was renewed for twice its TTL, and how many there are."""
    clients = [coord_core.AsyncClient(url) for _ in range(count)]
    try:
        for client in clients:
            await client.wait_connected(PATIENCE_S)
        watch = clients[0].election("/e").observe()
        assert await anext(watch) is None
        before = await _leader_status(clients[0])
        beginning = max(_lease(client) for client in clients)
        await asyncio.to_thread(
            lambda: until(lambda: min(map(_lease, clients)) > beginning + 2 * clients[0].session.ttl, PATIENCE_S, "two TTLs")
        )
        after = await _leader_status(clients[0])
        return before.last_index, after.last_index, after.sessions
    finally:
        await asyncio.gather(*(client.close(0) for client in clients))


def _lease(client: coord_core.AsyncClient) -> float:
    deadline = client.session.lease_deadline
    assert deadline is not None, "a session was lost"
    return deadline


async def _leader_status(client: coord_core.AsyncClient) -> NodeStatus:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            leaders = [one.status for one in (await client.status()).nodes if one.status and one.status.role == "leader"]
            if leaders:
                return max(leaders, key=lambda status: status.term)


def test_children_of_a_process_with_a_live_client_use_their_own_and_inherit_no_grant(nodes: Nodes):
    """Forked while the client's threads run and a lock is held: the lock stays the parent's."""
    script = str(Path(__file__).with_name("forking.py"))
    parent = nodes.run_client(nodes.clients[0], [sys.executable, script, nodes.url()], stdout=subprocess.PIPE)
    out, _ = parent.communicate(timeout=PATIENCE_S)
    told = json.loads(out)
    assert told["exits"] == [0] * CHILDREN
    assert [refused for refused, _, _ in told["answers"]] == [["UsedAfterFork"] * 4] * CHILDREN
    assert len({token for _, token, _ in told["answers"]}) == CHILDREN, "each has a lock of its own"
    assert all(is_parents for _, _, is_parents in told["answers"])
