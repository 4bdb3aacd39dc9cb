"""A topic with a long history: it lies on the disks, not in memory; a lost disk gets it back; groups go on where they were."""

import asyncio
from collections.abc import Iterator

import pytest

import coord_core
from bench.processes import resident_mb
from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S, Nodes

pytestmark = pytest.mark.xdist_group("cluster")

SIZE = 200
AT_A_TIME = 256
GROUP = "readers"
#: Their ids, which nobody has again.
FOUNDERS = {1, 2, 3}


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes(3) as nodes:
        nodes.start_all()
        yield nodes


async def publish(url: str, first: int, count: int) -> None:
    """Publish numbered messages, many at a time, and say how many were."""
    numbers = iter(range(first, first + count))
    async with coord_core.AsyncClient(url) as client:
        topic = client.topic("/t")

        async def go() -> None:
            for number in numbers:
                await topic.publish(number.to_bytes(8, "big") + bytes(SIZE - 8))

        await asyncio.gather(*(go() for _ in range(AT_A_TIME)))


async def consume(url: str, count: int) -> list[int]:
    """Read so many messages as the group's consumer, each exactly once; commit them and end."""
    async with coord_core.AsyncClient(url) as client:
        consumer = client.topic("/t").subscribe("earliest", group=GROUP)
        offsets = []
        async for message in consumer:
            offsets.append(message.offset)
            if len(offsets) == count:
                break
        consumer.worked_off()
        await consumer.aclose()
        return offsets


@pytest.mark.parametrize(
    "count", [10_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])], ids=["some", "a million"]
)
def test_many_messages_cost_disk_and_not_memory_and_survive_a_lost_disk(nodes: Nodes, count: int):
    """Bounded memory, a wiped follower with all of them again, and a group that resumes exactly behind what it committed."""
    url = nodes.url()
    nodes.watch(lambda: asyncio.run(publish(url, 0, min(count, 100_000))))  # what every log costs is there from here on
    before = {name: resident_mb(nodes.pid(name)) for name in nodes.names}
    nodes.watch(lambda: asyncio.run(publish(url, 100_000, max(0, count - 100_000))))
    grown = {name: resident_mb(nodes.pid(name)) - before[name] for name in nodes.names}
    assert max(grown.values()) < 50, grown

    part = count // 10
    first = nodes.watch(lambda: asyncio.run(consume(url, part)))
    leader = nodes.wait_leader()
    wiped = nodes.rest(leader)[0]
    nodes.kill(wiped)
    nodes.replace(wiped, by=leader)
    second = nodes.watch(lambda: asyncio.run(consume(url, part)))
    assert [*first, *second] == list(range(2 * part))

    until(lambda: _is_replaced(nodes, leader), PATIENCE_S * 20, "the node voting in the place of the lost one")
    nodes.wait_level()
    # Only with the replaced node's own disk is there a majority now, and it may lead.
    gone = next(name for name in nodes.rest(wiped) if name != leader)
    nodes.kill(gone)
    nodes.kill(leader)
    nodes.start(gone)
    nodes.wait_leader([wiped, gone])
    with nodes.connect() as client:
        info = client.topic("/t").info()
        assert info is not None
        assert (info.earliest, info.end) == (0, count)
        assert client.topic("/t").committed(GROUP) == 2 * part
    assert nodes.watch(lambda: asyncio.run(consume(url, 10))) == list(range(2 * part, 2 * part + 10))


def _is_replaced(nodes: Nodes, leader: str) -> bool:
    """Whether the leader says so: all of three members vote, and the lost one is none of them."""
    status = nodes.status([leader])[leader]
    if status is None:
        return False
    names = [member.name for member in status.members]
    ids = {member.node_id for member in status.members}
    return sorted(names) == sorted(nodes.names) and ids == set(status.voters) and ids != FOUNDERS
