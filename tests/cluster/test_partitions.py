"""Partitions: whoever has a majority goes on; whoever has none promises nothing; and when they meet again they are one."""

from collections.abc import Callable

import pytest

from coord_core.errors import CoordError
from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S, Nodes
from tests.cluster.writing import Writer

pytestmark = pytest.mark.xdist_group("cluster")

Cut = Callable[[Nodes, str], list[tuple[str, str]]]


def cut_off(nodes: Nodes, name: str) -> list[tuple[str, str]]:
    return nodes.cut_off([name])


@pytest.mark.parametrize("network", ["auto", "proxy"])
@pytest.mark.parametrize("cut", [cut_off, Nodes.mute, Nodes.deafen], ids=["full", "not heard", "hears nobody"])
def test_a_leader_behind_a_partition_is_replaced_and_comes_back(cut: Cut, network: str):
    """Also where the loss is in one direction only: a leader that hears nobody cannot know that it still leads, and one that
    nobody hears is of no use.
    """
    with Nodes(3, network=network) as nodes:
        nodes.start_all()
        with nodes.connect() as client:
            with Writer(client) as writer:
                writer.wait_more()
                old = nodes.wait_leader()
                links = cut(nodes, old)
                new = nodes.wait_leader(nodes.rest(old))
                assert new != old
                writer.wait_more()
                nodes.network.unblock(links)
                writer.wait_more()
            nodes.wait_level()
            writer.check()


def test_a_leader_that_lost_its_majority_steps_down_and_acknowledges_nothing():
    """Its clients reach it, and nobody else does; what they are told must stay true when the others have gone on without it."""
    with Nodes(5) as nodes:
        nodes.start_all()
        with nodes.connect() as client:
            client.value("/x").set(b"before")
            old = nodes.wait_leader()
            links = nodes.cut_off([old])
            # Sent to the old leader, which is reached and leads for a moment still.
            client.value("/x").set(b"during")
            assert nodes.wait_leader(nodes.rest(old)) != old
            until(lambda: nodes.leader([old]) != old, PATIENCE_S, "the old leader stepping down")
            nodes.network.unblock(links)
            nodes.wait_level()
            found = client.value("/x").get()
            assert found is not None
            assert found.value == b"during"


def test_without_a_majority_nothing_is_acknowledged_and_with_one_everything_is_there():
    """Two of five cut off with three others cut from each other: nobody has three."""
    with Nodes(5) as nodes:
        nodes.start_all()
        with nodes.connect() as client, nodes.connect(timeout="1s") as hasty:
            client.value("/x").set(b"before")
            links = [*nodes.cut_off(["n1", "n2"]), *nodes.cut_off(["n3"])]
            until(lambda: nodes.leader() is None, PATIENCE_S, "nobody leading")
            with pytest.raises(CoordError):
                hasty.value("/x").set(b"during")
            nodes.network.unblock(links)
            nodes.wait_level()
            found = client.value("/x").get()
            assert found is not None
            # Its outcome was unknown: it may have been in a log of those who came to lead.
            assert found.value in (b"before", b"during")
            client.value("/x").set(b"after")
