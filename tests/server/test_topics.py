"""Topics on real nodes: SQLite, sockets, threads.  What decides is tested in `tests/replica`; here it is carried out."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import coord_core
from coord_core.config import SnapshotsConfig
from coord_core.protocol.administration import TransferLeadership
from coord_core.server.server import Server
from coord_core.storage.sqlite import SqliteStorage
from coord_core.types import TopicNumber
from tests.server.support import Nodes, until
from tests.server.test_members import ask, id_of

NAMES = ("n1", "n2", "n3")
#: Everything before the last few entries is in a snapshot only, and records in the record store.
SHORT_LOG = SnapshotsConfig(entries=50, trailing_entries=1, trailing_bytes=1)


@pytest.fixture
async def nodes(tmp_path: object) -> AsyncIterator[Nodes]:
    running = Nodes(tmp_path)  # type: ignore[arg-type]
    yield running
    await running.stop_all()


@asynccontextmanager
async def topic_of(nodes: Nodes, path: str = "/t") -> AsyncIterator["coord_core.AsyncDistributedTopic"]:
    addresses = ",".join(server.client_address for server in nodes.running.values())
    async with await coord_core.connect_async(f"coord://{addresses}") as client:
        yield client.topic(path)


async def publish(topic: "coord_core.AsyncDistributedTopic", count: int, first: int = 0, size: int = 200) -> None:
    for begin in range(first, first + count, 200):
        numbers = range(begin, min(begin + 200, first + count))
        await asyncio.gather(*(topic.publish(b"%d" % number + b"." * size) for number in numbers))


async def read(topic: "coord_core.AsyncDistributedTopic", first: int = 0) -> list[int]:
    """Return the numbers of all messages; their offsets are theirs."""
    found = await topic.read(first, 1_000_000)
    assert [message.offset for message in found] == list(range(found[0].offset, found[0].offset + len(found)))
    return [int(message.payload.rstrip(b".")) for message in found]


async def leads(nodes: Nodes, name: str) -> None:
    while (leader := await nodes.leader()).config.name != name:
        # Refused while it has not caught up with what was published last.
        await ask(nodes, TransferLeadership(id_of(leader, name)))


def rows(server: Server) -> dict[TopicNumber, tuple[int, int]]:
    """What is on a node's disk of each topic."""
    storage = server._running._storage.storage  # type: ignore[union-attr]
    assert isinstance(storage, SqliteStorage)
    return {topic: (held.first, held.end) for topic, held in storage._formed().shelf.held.items()}


async def test_a_follower_with_a_fresh_disk_gets_all_records_and_serves_them(nodes: Nodes) -> None:
    """The log has long been cut; while it catches up, others publish."""
    await nodes.cluster(*NAMES, snapshots=SHORT_LOG)
    leader = await nodes.leader()
    name = next(name for name in NAMES if name != leader.config.name)
    async with topic_of(nodes) as topic:
        await publish(topic, 3_000)
        await nodes.stop(name)
        shutil.rmtree(nodes.config(name).data_dir or "")
        replacing = await nodes.start(name, join=(leader.peer_address,), replace=True, snapshots=SHORT_LOG)
        publishing = asyncio.ensure_future(publish(topic, 1_000, 3_000))
        await replacing.wait_formed()
        number = id_of(leader, name)
        await until(lambda: number in leader.status().voters, "the new one votes")
        await publishing
        await leads(nodes, name)
        assert sorted(await read(topic)) == list(range(4_000))


async def test_what_retention_has_passed_leaves_every_disk(nodes: Nodes) -> None:
    """Soon, without anybody asking."""
    await nodes.cluster(*NAMES, snapshots=SHORT_LOG)
    async with topic_of(nodes) as topic:
        await topic.create(max_records=300)
        await publish(topic, 3_000)
        info = await topic.info()
        assert info is not None
        assert 300 <= info.end - info.earliest <= 305
        assert sorted(await read(topic)) == list(range(info.earliest, 3_000))

        def are_trimmed() -> bool:
            # Whole rows: the one that the earliest record is in stays.
            return all(first > 2_500 for server in nodes.running.values() for first, _ in rows(server).values())

        await until(are_trimmed, "every disk has let go")


async def test_a_node_that_was_stopped_in_good_order_has_its_records(nodes: Nodes) -> None:
    """Also those that had waited for the next write."""
    (server,) = await nodes.cluster("n1", snapshots=SHORT_LOG)
    for life in range(3):
        async with topic_of(nodes) as topic:
            await publish(topic, 120, 120 * life)
        await nodes.stop("n1")
        server = await nodes.start("n1", snapshots=SHORT_LOG)
        await until(lambda server=server: server.status().role == "leader", "it leads")  # type: ignore[misc]
        async with topic_of(nodes) as topic:
            assert sorted(await read(topic)) == list(range(120 * (life + 1)))


async def test_reading_a_long_history_does_not_hold_up_who_publishes(nodes: Nodes) -> None:
    """It is read beside what is written; both go on."""
    await nodes.cluster("n1", snapshots=SHORT_LOG)
    async with topic_of(nodes) as topic, topic_of(nodes) as reader:
        await publish(topic, 10_000)
        done = asyncio.Event()

        async def go_on() -> int:
            times = 0
            while not done.is_set():
                assert len(await reader.read(0, 9_000)) == 9_000
                times += 1
            return times

        reading = asyncio.ensure_future(go_on())
        await publish(topic, 2_000, 10_000)
        done.set()
        assert await reading > 0
        assert sorted(await read(topic)) == list(range(12_000))
