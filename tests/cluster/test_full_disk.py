"""A disk that is really full: the node that has it says so, and nobody else suffers."""

import os
from collections.abc import Iterator

import pytest

from tests.cli.running import COORD, until
from tests.cluster.namespaces import NotAllowed
from tests.cluster.nodes import PATIENCE_S, Nodes
from tests.cluster.small_disk import SmallDisk
from tests.cluster.writing import Writer

pytestmark = [
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system"),
]

NAME = "n2"


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes(3) as nodes:
        yield nodes


@pytest.fixture
def disk(nodes: Nodes) -> Iterator[SmallDisk]:
    """The disk of one node: room for what is written before it is filled, and for little more."""
    nodes.data(NAME).mkdir()
    try:
        disk = SmallDisk(nodes.data(NAME), "24m")
    except NotAllowed as reason:
        pytest.skip(str(reason))
    nodes.commands[NAME] = disk.command([*COORD, "server"])
    yield disk
    nodes.close()
    disk.close()


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_full_disk_is_told_costs_nothing_and_heals(nodes: Nodes, disk: SmallDisk, role: str):
    """Whether its node goes on without writing or stops: the others acknowledge, nothing acknowledged is lost, the log says what
    is wrong, and with room (and a start, where it stopped) it is as good as before.
    """
    nodes.start_all()
    for _ in range(20):
        if (nodes.wait_leader() == NAME) == (role == "leader"):
            break
        depose(nodes)
    else:
        pytest.fail(f"{NAME} did not become {role}")
    with nodes.connect() as client:
        with Writer(client, size=10_000) as writer:
            writer.wait_more()
            disk.fill()
            until(lambda: "disk is full" in nodes.log(NAME), PATIENCE_S, "the node saying that its disk is full")
            writer.wait_more(50)
            disk.free()
            if not nodes.is_up(NAME):
                nodes.start(NAME)
            writer.wait_more()
        nodes.wait_level()
        # What is read and written now needs the disk that was full.
        nodes.kill(next(name for name in nodes.names if name != NAME))
        writer.check()
        client.value("/after").set(b"after")


def depose(nodes: Nodes) -> None:
    """Have somebody else elected."""
    leader = nodes.wait_leader()
    nodes.kill(leader)
    nodes.wait_leader(nodes.rest(leader))
    nodes.start(leader)
    nodes.wait_level()
