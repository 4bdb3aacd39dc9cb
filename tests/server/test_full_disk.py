"""Three nodes on small disks that others fill up: what a client sees, what goes on, and that nobody has to be started again."""

import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coord_core import AsyncClient, DiskFull, connect_async
from coord_core.config import StorageConfig
from coord_core.server.server import Server
from tests.server.support import Nodes, until
from tests.storage.small_disk import MIB, SmallDisk, small_disk

NAMES = ("n1", "n2", "n3")
SIZE = 24 * MIB


class Crowded:
    """Nodes, each on a disk of its own."""

    def __init__(self, nodes: Nodes, disks: dict[str, SmallDisk]) -> None:
        self.nodes = nodes
        self.disks = disks

    async def form(self) -> None:
        quota = next(iter(self.disks.values())).quota_bytes
        storage = StorageConfig(reserve_bytes=2 * MIB, low_bytes=4 * MIB, quota_bytes=quota)
        await self.nodes.cluster(*NAMES, storage=storage, open_storage=None)

    async def client(self) -> AsyncClient:
        addresses = ",".join(server.client_address for server in self.nodes.running.values())
        return await connect_async(f"coord://{addresses}")

    async def reach(self, level: str, *names: str) -> None:
        """Let others fill disks until their nodes say that room has come to that level."""
        leave = {"low": 3 * MIB, "full": 0}[level]
        for name in names:
            server, disk = self.nodes.running[name], self.disks[name]

            def there(server: Server = server, disk: SmallDisk = disk) -> bool:
                disk.fill(leave)  # again: a reserve that was given up is free
                return server.status().disk == level

            await until(there, f"a {level} disk of {name}")

    async def clear(self) -> None:
        for name, server in self.nodes.running.items():
            self.disks[name].clear()
            await until(lambda server=server: server.status().disk == "ample", f"room for {name}")  # type: ignore[misc]


@pytest.fixture
async def crowded(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Crowded]:
    with ExitStack() as disks:
        yield Crowded(nodes, {name: disks.enter_context(small_disk(tmp_path / name, SIZE)) for name in NAMES})
        await nodes.stop_all()


async def refused(client: AsyncClient) -> str:
    """Write until the cluster refuses; return what it says.

    What was on its way when the disks filled up is still taken.  Before, the client finds out who leads: what is sent twice is not
    refused at once, for the first time it may have been applied.
    """
    await client.value("/v").get()
    said: list[str] = []

    async def write() -> None:
        try:
            await client.value("/v").set(b"x")
        except DiskFull as error:
            said.append(str(error))

    for _ in range(200):
        await write()
        if said:
            return said[0]
    raise AssertionError("nothing is refused")


async def test_a_cluster_on_full_disks_refuses_releases_votes_and_goes_on_when_there_is_room(
    crowded: Crowded, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole way of a night on which something else fills the disks, without a restart."""
    await crowded.form()
    leader = (await crowded.nodes.leader()).config.name
    async with await crowded.client() as client:
        await client.value("/v").set(b"before")
        held, queued = client.lock("/held"), client.lock("/queued")
        await held.acquire()
        await queued.acquire()

        with caplog.at_level(logging.INFO, "coord.server"):
            await crowded.reach("low", *NAMES)
            said = await refused(client)
        assert "no room on disk for new commands: node n1 has" in said
        assert "Free space there" in said
        assert {server.status().refuses != "" for server in crowded.nodes.running.values()} == {True, False}, (
            "the leader's status too"
        )
        assert any("takes no new commands" in record.message for record in caplog.records)
        assert sum("room on its disk is low" in record.message for record in caplog.records) == len(NAMES), "each says it once"
        await held.release()
        assert await client.value("/v").get() is not None

        # Not even the reserve is left, and the leader goes.
        await crowded.reach("full", *NAMES)
        crowded.nodes.kill(leader)
        await crowded.nodes.leader()
        assert await client.value("/v").get() is not None
        await queued.check()
        await refused(client)

        await crowded.clear()
        await queued.release()
        await client.value("/v").set(b"after")
        await held.acquire()


async def test_one_full_disk_of_three_is_nobodys_trouble_but_its_nodes(crowded: Crowded) -> None:
    """If that node leads, it hands over; the others go on, and it catches up when there is room."""
    await crowded.form()
    leader = (await crowded.nodes.leader()).config.name
    async with await crowded.client() as client:
        await client.value("/v").set(b"before")
        await crowded.reach("full", leader)
        await until(lambda: crowded.nodes.running[leader].status().role == "follower", "the full leader has handed over")
        full = crowded.nodes.running[leader]
        before = full.status().last_index
        for number in range(20):
            await client.value(f"/v{number}").set(b"x")
        assert full.status().last_index < before + 20
        await crowded.clear()
        last = (await crowded.nodes.leader()).status().last_index
        await until(lambda: full.status().applied_index >= last, "the full node has caught up")
