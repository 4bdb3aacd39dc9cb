"""Both clients on three real nodes: the leader goes, TLS, and pipelines under failover."""

import asyncio
import time
from pathlib import Path

import pytest

from coord_core import AuthenticationFailed, SessionState, Unavailable
from tests.client.fake import until
from tests.client.shells import Shell
from tests.server.support import Nodes
from tests.server.test_tls import Authority


def addresses(nodes: Nodes) -> list[str]:
    return [server.client_address for server in nodes.running.values()]


async def test_holder_and_waiter_survive_the_death_of_the_leader(shell: Shell, nodes: Nodes) -> None:
    """Sessions outlive a failover: no lock changes hands because of it, and the waiter keeps its place."""
    await nodes.cluster("n1", "n2", "n3")
    holder, waiter = shell.connect(addresses(nodes)), shell.connect(addresses(nodes))
    lock = holder.lock("/a")
    grant = await shell.go(lock.acquire)
    wait = shell.start(waiter.lock("/a").acquire)
    async with asyncio.timeout(5):
        while not await shell.go(lock.waiters):
            pass
    leader = await nodes.leader()
    began = time.monotonic()
    nodes.kill(leader.config.name)
    await shell.go(lock.check)
    assert time.monotonic() - began < 5
    assert grant.is_held_locally()
    assert holder.session.session_id == grant.session_id
    await shell.go(lock.release)
    second = await wait
    assert second.token > grant.token


async def test_every_write_through_a_failover_is_applied_once(shell: Shell, nodes: Nodes) -> None:
    """A counter counted by compare-and-set ends at the number of successes."""
    await nodes.cluster("n1", "n2", "n3")
    client = shell.connect(addresses(nodes))

    async def count(path: str, times: int) -> None:
        value = client.value(path)
        version = 0
        for number in range(times):
            version = await shell.go(value.compare_and_set, version, str(number).encode())
            assert version is not None, "somebody else wrote, or this write was applied twice"

    counting = [asyncio.ensure_future(count(f"/v{number}", 60)) for number in range(8)]
    async with asyncio.timeout(20):
        while await shell.go(client.value("/v0").get) is None:
            pass
    leader = await nodes.leader()
    nodes.kill(leader.config.name)
    await asyncio.gather(*counting)
    assert (await shell.go(client.value("/v7").get)).value == b"59"


async def test_client_finds_the_leader_from_any_one_seed(shell: Shell, nodes: Nodes) -> None:
    """Followers name it."""
    await nodes.cluster("n1", "n2", "n3")
    for address in addresses(nodes):
        client = shell.connect([address])
        await shell.go(client.wait_connected, 5)
        report = await shell.go(client.status)
        assert {node.status.node for node in report.nodes} == {"n1", "n2", "n3"}
        assert report.leader.node in {"n1", "n2", "n3"}


async def test_session_is_lost_and_found_to_be_gone_when_all_nodes_stop(shell: Shell, nodes: Nodes) -> None:
    """LOST comes at the deadline, from the client itself."""
    await nodes.cluster("n1")
    client = shell.connect(addresses(nodes), "/ns?ttl=500ms&timeout=200ms")
    grant = await shell.go(client.lock("/a").acquire)
    nodes.kill("n1")
    await until(lambda: client.session.state is SessionState.LOST)
    assert not grant.is_held_locally()
    with pytest.raises(Unavailable):
        await shell.go(client.lock("/a").holder)


async def test_client_works_over_tls_and_trusts_only_its_authority(shell: Shell, nodes: Nodes, tmp_path: Path) -> None:
    """Encrypted, the node's certificate checked against `ca`, and a wrong token told as such."""
    ours, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "foreign")
    server = await nodes.start("n1", init=True, tls=ours.issue("n1"), token="s3cret")
    await nodes.leader_of_formed()

    def url(token: str, authority: Authority) -> str:
        return f"coords://{token}@{server.client_address}/ns?ca={authority.file}&timeout=1s"

    client = shell.make(url("s3cret", ours))
    assert await shell.go(client.lock("/a").try_lock) is not None
    assert (await shell.go(client.status)).leader is not None
    await shell.go(client.close)
    stranger = shell.make(url("s3cret", foreign))
    with pytest.raises(Unavailable, match=r"the node's certificate does not hold: .*\?ca=FILE"):
        await shell.go(stranger.wait_connected, 0.5)
    await shell.go(stranger.close)
    guesser = shell.make(url("guess", ours))
    with pytest.raises(AuthenticationFailed) as caught:
        await shell.go(guesser.wait_connected, 5)
    assert "guess" not in str(caught.value)
    await shell.go(guesser.close)
