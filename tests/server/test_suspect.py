"""A node that finds out that it must not go on ends with a word to whoever runs it, and does not come back."""

import logging
import shutil
from pathlib import Path

import pytest

from coord_core.config import RaftTimes
from coord_core.errors import NodeSuspect
from tests.server.support import Nodes, RawClient, until

NAMES = ("n1", "n2", "n3")
#: The leader stays, however slow this machine is: the next one would know nothing of what its predecessor heard.
PATIENT = RaftTimes(tick_ms=50, election_timeout_ms=2_000, heartbeat_ms=50)


async def test_a_node_on_an_old_copy_of_its_directory_ends_and_stays_ended(
    nodes: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator restored a backup, mark and all: nothing on the disk can tell, and its leader can."""
    await nodes.cluster(*NAMES, raft=PATIENT)
    leader = await nodes.leader()
    name = next(name for name in NAMES if name != leader.config.name)
    client = await RawClient.greeted(leader.client_address)
    session = await client.open_session()
    stopped = nodes.running[name]
    await until(lambda: stopped.status().last_index == leader.status().last_index, "the follower has the session")
    await nodes.stop(name)
    shutil.copytree(tmp_path / name, tmp_path / "backup")
    await nodes.start(name, raft=PATIENT)
    for number in range(1, 10):
        await client.lock(session, number, f"/lock{number}")
    number = next(member.node_id for member in leader.status().members if member.name == name)
    await until(lambda: leader.status().matched[number] == leader.status().last_index, "the follower acknowledged the locks")
    await nodes.stop(name)
    shutil.rmtree(tmp_path / name)
    shutil.copytree(tmp_path / "backup", tmp_path / name)
    with caplog.at_level(logging.CRITICAL, "coord.server"):
        old = await nodes.start(name, raft=PATIENT)
        with pytest.raises(NodeSuspect, match=r"acknowledged entry .* rejoin the cluster under a new node id"):
            await old.wait_stopped()
    assert any("NodeSuspect" in record.message for record in caplog.records)
    await nodes.stop(name)
    with pytest.raises(NodeSuspect, match="must not go on: this node acknowledged entry"):
        await nodes.start(name)
    await client.lock(session, 10, "/the-others-go-on")
