"""Two of five nodes stopped or killed are not missed; and a cluster that was killed whole is as it was."""

import signal

import pytest

from tests.cluster.nodes import Nodes
from tests.cluster.writing import Writer

pytestmark = pytest.mark.xdist_group("cluster")


def test_two_stopped_nodes_of_five_are_not_missed_and_catch_up():
    """The leader among them.  It wakes up believing that it leads."""
    with Nodes(5) as nodes:
        nodes.start_all()
        with nodes.connect() as client:
            with Writer(client) as writer:
                writer.wait_more()
                stopped = [leader := nodes.wait_leader(), nodes.rest(leader)[0]]
                for name in stopped:
                    nodes.signal(name, signal.SIGSTOP)
                writer.wait_more(100)
                assert nodes.wait_leader(nodes.rest(*stopped)) not in stopped
                for name in stopped:
                    nodes.signal(name, signal.SIGCONT)
                writer.wait_more()
            nodes.wait_level()
            writer.check()


def test_two_killed_nodes_of_five_are_not_missed_and_catch_up():
    """The leader among them; the next two are killed when those are back, so that every entry had to be on others' disks too."""
    with Nodes(5) as nodes:
        nodes.start_all()
        with nodes.connect() as client:
            with Writer(client) as writer:
                for _ in range(2):
                    writer.wait_more()
                    killed = [leader := nodes.wait_leader(), nodes.rest(leader)[-1]]
                    nodes.kill(*killed)
                    writer.wait_more(100)
                    for name in killed:
                        nodes.start(name)
            nodes.wait_level()
            writer.check()


def test_all_nodes_killed_at_once_have_everything_that_was_acknowledged():
    with Nodes(3) as nodes:
        nodes.start_all()
        with nodes.connect() as client:
            with Writer(client) as writer:
                for _ in range(3):
                    writer.wait_more()
                    nodes.kill(*nodes.names)
                    for name in nodes.names:
                        nodes.start(name)
                    writer.wait_more()
            nodes.wait_level()
            writer.check()
