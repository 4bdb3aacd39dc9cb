"""What a node's directory looks like that was removed from its cluster."""

from pathlib import Path

import pytest

from coord_core.errors import NodeRemoved
from coord_core.machine import Machine
from coord_core.protocol.administration import RemoveMember
from coord_core.protocol.results import Done
from coord_core.raft.messages import Configuration, SnapshotMetadata
from coord_core.replica import SnapshotConfig
from coord_core.replica.taking import Taking
from coord_core.storage.api import Batch
from coord_core.storage.snapshots import Publish
from coord_core.storage.sqlite import SqliteStorage
from tests.server.support import Nodes
from tests.server.test_members import NAMES, ask, id_of


async def a_removed_nodes_directory(nodes: Nodes) -> Path:
    """Remove one of three nodes, let it stop by itself, and return its directory."""
    await nodes.cluster(*NAMES)
    leader = await nodes.leader()
    name = next(name for name in NAMES if name != leader.config.name)
    gone = nodes.running.pop(name)
    assert await ask(nodes, RemoveMember(id_of(leader, name))) == Done()
    with pytest.raises(NodeRemoved):
        await gone.wait_stopped()
    await gone.stop()
    assert gone.config.data_dir is not None
    return gone.config.data_dir


def with_snapshot_of_its_own(directory: Path) -> None:
    """As where entries behind the removal came in one message with it: the node applied it and took a snapshot, due just then."""
    storage = SqliteStorage(directory)
    try:
        found = storage.load()
        assert found is not None
        own, last = found.bootstrap.identity.node_id, found.entries[-1]
        members = tuple(member for member in found.members if member.node_id != own)
        metadata = SnapshotMetadata(last.index, last.term, Configuration(tuple(member.node_id for member in members)))
        taking = Taking(SnapshotConfig(), found.next_staging, metadata, members, Machine())
        while not taking.is_encoded:
            taking.step(1_000)
            if taking.has_chunks:
                storage.write(Batch(stage=taking.take()))
        storage.write(Batch(publish=Publish(taking.staging, taking.info(), last.index, last.term)))
    finally:
        storage.close()
