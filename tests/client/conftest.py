from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.fake import FakeCluster
from tests.client.shells import AsyncShell, Shell, SyncShell
from tests.server.support import Nodes


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    """Three nodes, of which the first leads."""
    cluster = await FakeCluster(3).start()
    yield cluster
    await cluster.stop()


@pytest.fixture(params=["fake", "real"])
async def addresses(request: pytest.FixtureRequest, shell: Shell, tmp_path: Path) -> AsyncIterator[list[str]]:
    """Where a cluster is: the fake one, and a node of the real one.  The clients are closed before it goes."""
    if request.param == "fake":
        cluster = await FakeCluster().start()
        yield cluster.addresses
        await shell.close_all()
        await cluster.stop()
    else:
        nodes = Nodes(tmp_path)
        (server,) = await nodes.cluster("n1")
        yield [server.client_address]
        await shell.close_all()
        await nodes.stop_all()


@pytest.fixture(params=[AsyncShell, SyncShell], ids=["async", "sync"])
async def shell(request: pytest.FixtureRequest) -> AsyncIterator[Shell]:
    """Both clients, used in the same words."""
    shell: Shell = request.param()
    yield shell
    await shell.close_all()


@pytest.fixture
async def nodes(tmp_path: Path, shell: Shell) -> AsyncIterator[Nodes]:
    """Servers in this loop; the clients are closed before they go."""
    nodes = Nodes(tmp_path)
    yield nodes
    await shell.close_all()
    await nodes.stop_all()


@pytest.fixture
async def node(nodes: Nodes) -> list[str]:
    """Where one real node is."""
    (server,) = await nodes.cluster("n1")
    return [server.client_address]


@pytest.fixture
async def three(nodes: Nodes) -> list[str]:
    """Where three real nodes are."""
    return [server.client_address for server in await nodes.cluster("n1", "n2", "n3")]
