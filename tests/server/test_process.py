"""Nodes as processes: what signals do to them, from a polite end to a stopped clock."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coord_core.protocol.messages import NodeStatus, Welcome
from tests.server.support import PATIENCE_S, RawClient, hello

SCRIPT = """
import logging, sys
from pathlib import Path
from coord_core.config import ServerConfig
from coord_core.server.node import serve
logging.basicConfig(level=logging.INFO)
name, data_dir, listen, first, founders = sys.argv[1:]
founders = tuple(founders.split(","))
way = {"init": True, "founders": founders} if name == founders[0] else {"join": (first,)}
serve(ServerConfig(name=name, data_dir=Path(data_dir), listen=listen, **way))
"""


class Processes:
    """Servers as processes of their own, on ports that were free when the test began."""

    def __init__(self, root: Path, names: tuple[str, ...], addresses: list[str]) -> None:
        self._root = root
        self._names = names
        self.addresses = dict(zip(names, addresses, strict=True))
        self.running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, *names: str) -> None:
        for name in names or self._names:
            arguments = [name, str(self._root / name), self.addresses[name], self.addresses[self._names[0]], ",".join(self._names)]
            log = (self._root / f"{name}.log").open("ab")
            self.running[name] = await asyncio.create_subprocess_exec(sys.executable, "-c", SCRIPT, *arguments, stderr=log)
            log.close()

    def signal(self, name: str, number: int) -> None:
        self.running[name].send_signal(number)

    async def end(self, name: str) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.running.pop(name).wait()

    def log(self, name: str) -> str:
        return (self._root / f"{name}.log").read_text()

    async def status(self, name: str) -> NodeStatus | None:
        """Return what the node says of itself; None where it does not answer at once."""
        try:
            async with asyncio.timeout(0.5):
                client = await RawClient.dial(self.addresses[name])
                try:
                    return await client.status() if isinstance(await client.greet(hello()), Welcome) else None
                finally:
                    await client.close()
        except (OSError, TimeoutError, AssertionError):
            return None

    async def leader(self, *among: str) -> str:
        """Wait until the nodes agree on a leader among them that takes commands, and return its name."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                known = [await self.status(name) for name in among or self._names]
                leaders = {status.leader for status in known if status is not None}
                for name in among or self._names:
                    if None not in known and leaders == {self.addresses[name]}:
                        return name
                await asyncio.sleep(0.02)


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    names = ("n1", "n2", "n3")
    found = Processes(tmp_path, names, await _free_addresses(len(names)))
    yield found
    for process in found.running.values():
        process.kill()
        await process.wait()


async def _free_addresses(count: int) -> list[str]:
    servers = [await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) for _ in range(count)]
    addresses = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
        await server.wait_closed()
    return addresses


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_node_ends_politely_when_asked(processes: Processes, number: int) -> None:
    """Exit code 0, within about a second, the rest goes on without it."""
    await processes.start()
    leader = await processes.leader()
    processes.signal(leader, number)
    async with asyncio.timeout(5):
        assert await processes.end(leader) == 0
    assert f"node {leader} has stopped" in processes.log(leader)
    assert "Traceback" not in processes.log(leader)
    assert await processes.leader(*processes.running) != leader


async def test_a_killed_leader_comes_back_as_a_follower(processes: Processes) -> None:
    """kill -9 loses nothing that was answered."""
    await processes.start()
    first = await processes.leader()
    client = await RawClient.greeted(processes.addresses[first])
    session = await client.open_session()
    granted = await client.lock(session, 1, "/lock")
    processes.signal(first, signal.SIGKILL)
    assert await processes.end(first) == -signal.SIGKILL
    second = await processes.leader(*processes.running)
    await processes.start(first)
    await processes.leader()
    client = await RawClient.greeted(processes.addresses[second])
    assert await client.lock(session, 1, "/lock") == granted


async def test_a_leader_that_stood_still_finds_out_and_follows(processes: Processes) -> None:
    """SIGSTOP closes no socket, and its own clock does not run.  It must not believe that it still leads, nor expire anybody."""
    await processes.start()
    first = await processes.leader()
    client = await RawClient.greeted(processes.addresses[first])
    session = await client.open_session(ttl_ms=60_000)
    processes.signal(first, signal.SIGSTOP)
    others = [name for name in processes.running if name != first]
    second = await processes.leader(*others)
    processes.signal(first, signal.SIGCONT)
    assert await processes.leader() == second
    client = await RawClient.greeted(processes.addresses[second])
    await client.lock(session, 1, "/lock")


async def test_the_whole_cluster_survives_standing_still(processes: Processes) -> None:
    """A suspended machine: all clocks stop, all go on.  Sessions whose clients stood still as well are alive."""
    await processes.start()
    first = await processes.leader()
    client = await RawClient.greeted(processes.addresses[first])
    session = await client.open_session(ttl_ms=1_000)
    for name in processes.running:
        processes.signal(name, signal.SIGSTOP)
    # Longer than the session's TTL: by the wall clock it would be over.
    await asyncio.sleep(1.5)
    for name in processes.running:
        processes.signal(name, signal.SIGCONT)
    leader = await processes.leader()
    client = await RawClient.greeted(processes.addresses[leader])
    await client.lock(session, 1, "/lock")


async def test_a_node_with_a_fault_ends_with_an_exit_code_and_one_line(processes: Processes) -> None:
    """A name that no founder has; what serves it restarts it or calls somebody."""
    processes._names = ("n1", "n2")
    await processes.start("n1")
    processes.addresses["n9"] = "127.0.0.1:0"
    await processes.start("n9")
    assert await processes.end("n9") == 1
    assert "node n9 stops: InvalidRequest: 'n9' is not among the founders" in processes.log("n9")
