"""Fixtures for the tests of programs that use coord; pytest finds them once the package is installed.

    def test_only_one_runs(coord):
        with coord.client.lock("/job"):
            assert my_program.try_job(coord.url) is None

    def test_outlives_a_node(coord_cluster):
        cluster = coord_cluster(3)
        cluster.kill(cluster.leader())
        ...

The rule: each test has a node or cluster of its own, with nothing in it; nothing is imported before a test asks for it.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coord_core.client.sync import Client
    from coord_core.testing.real_cluster import RealCluster


class CoordNode:
    """An embedded node: starts with the first use, in a fraction of a second."""

    def __init__(self, url: str) -> None:
        #: For `coord_core.connect`, `connect_async`, and for other processes of the test.
        self.url = url
        self._clients: list[Client] = []
        self.client = self.connect()

    def connect(self, *, label: str = "") -> "Client":
        """Return a client of its own session; it is closed at the end of the test."""
        import coord_core

        client = coord_core.connect(self.url, label=label)
        self._clients.append(client)
        return client

    def close(self) -> None:
        # The first one last: with it the node stops.
        for client in reversed(self._clients):
            client.close(timeout=0.5)


@pytest.fixture
def coord() -> Iterator[CoordNode]:
    """A node of this test's own inside this process: `coord.url`, `coord.client`, `coord.connect()`."""
    # Not below pytest's own directory, which is kept for three runs.
    directory = tempfile.mkdtemp(prefix="coord-test-")
    node = CoordNode(f"coord+embedded://{directory}?ttl=2s")
    try:
        yield node
    finally:
        node.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def coord_cluster() -> "Iterator[Callable[..., RealCluster]]":
    """Make clusters of real processes: `cluster = coord_cluster(3)`; see `coord_core.testing.real_cluster.RealCluster`.

    `cluster.url`, `.client`, `.connect()`, `.leader()`, `.kill(i)`, `.pause(i)`, `.resume(i)`, `.restart(i)`.
    """
    with ExitStack() as ending:

        def start(nodes: int = 3, *, options: str = "ttl=2s") -> "RealCluster":
            from coord_core.testing.real_cluster import RealCluster

            return ending.enter_context(RealCluster(nodes, options=options))

        yield start
