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

#: More than `storage.low_bytes`, so that commands are taken until it is filled.
SIZE = "160m"


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes(3) as nodes:
        yield nodes


@pytest.fixture
def disks(nodes: Nodes) -> Iterator[dict[str, SmallDisk]]:
    """A small disk for every node, by name."""
    disks: dict[str, SmallDisk] = {}
    try:
        for name in nodes.names:
            nodes.data(name).mkdir()
            disks[name] = SmallDisk(nodes.data(name), SIZE)
            nodes.commands[name] = disks[name].command([*COORD, "server"])
        yield disks
    except NotAllowed as reason:
        pytest.skip(str(reason))
    finally:
        nodes.close()
        for disk in disks.values():
            disk.close()


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_full_disk_is_told_costs_nothing_and_heals(nodes: Nodes, disks: dict[str, SmallDisk], role: str):
    """Whether its node goes on without writing or stops: the others acknowledge, nothing acknowledged is lost, the log says what
    is wrong, and with room (and a start, where it stopped) it is as good as before.
    """
    nodes.start_all()
    with nodes.connect() as client:
        with Writer(client, size=10_000) as writer:
            writer.wait_more()
            leader = nodes.wait_leader()
            name = leader if role == "leader" else nodes.rest(leader)[0]
            disks[name].fill()
            until(lambda: "disk is full" in nodes.log(name), PATIENCE_S, "the node saying that its disk is full")
            writer.wait_more(50)
            disks[name].free()
        until(lambda: is_whole(nodes, name), PATIENCE_S, "the node being as good as before")
        nodes.wait_level()
        # What is read and written now needs the disk that was full.
        nodes.kill(nodes.rest(name)[0])
        writer.check()
        client.value("/after").set(b"after")


def is_whole(nodes: Nodes, name: str) -> bool:
    """Whether the node has all that the others have.  Starts it where it has stopped."""
    if not nodes.is_up(name):
        nodes.start(name)
    found = list(nodes.status().values())
    return None not in found and len({one.applied_index for one in found if one is not None}) == 1
