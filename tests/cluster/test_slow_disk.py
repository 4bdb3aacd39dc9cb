"""A disk that stands still for longer than an election timeout deposes nobody: heartbeats do not wait for it."""

import functools
from pathlib import Path

import pytest

from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S, Nodes
from tests.cluster.pausing_node import COMMAND, pause
from tests.cluster.writing import Writer

pytestmark = pytest.mark.xdist_group("cluster")

#: Five times those of production, and so is the pause: what a busy machine does to a process must not look like an election.
FLAGS = ("--raft.tick", "250ms", "--raft.heartbeat", "250ms", "--raft.election-timeout", "1500ms")
PAUSE_S = 2.5
PAUSES = 2


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_paused_disk_deposes_nobody_and_stops_nobody(role: str):
    """The leader's disk: the followers' disks make a majority without it.  A follower's: it goes on answering heartbeats."""
    with Nodes(3, flags=FLAGS) as nodes:
        nodes.commands = dict.fromkeys(nodes.names, COMMAND)
        nodes.start_all()
        with nodes.connect() as client:
            with Writer(client) as writer:
                writer.wait_more()
                leader = nodes.wait_leader()
                before = nodes.status()[leader]
                assert before is not None
                name = leader if role == "leader" else nodes.rest(leader)[0]
                for _ in range(PAUSES):
                    order = pause(nodes.data(name), PAUSE_S)
                    writer.wait_more(30)
                    assert order.exists(), "the others waited for the disk"
                    until(functools.partial(is_gone, order), PATIENCE_S, "the end of the pause")
                    writer.wait_more(5)
                after = nodes.status()[leader]
                assert after is not None
                assert (after.role, after.term) == ("leader", before.term)
            nodes.wait_level()
            writer.check()


def is_gone(path: Path) -> bool:
    return not path.exists()
