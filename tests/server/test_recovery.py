"""Two of three directories are gone for good: what the third has goes on as a cluster of its own."""

import shutil
from pathlib import Path

import pytest

import coord_core
from coord_core.errors import DataDirInUse, InvalidRequest
from coord_core.server.recovery import recover
from tests.server.support import Nodes, until

NAMES = ("n1", "n2", "n3")


async def test_everything_that_one_node_has_goes_on_in_a_new_cluster(nodes: Nodes, tmp_path: Path) -> None:
    """Values, sessions and tokens; others join it; the old cluster's nodes and clients are strangers to it."""
    first, *_ = await nodes.cluster(*NAMES)
    former = first.status().cluster_id
    client = await coord_core.connect_async(f"coord://{first.client_address}")
    await client.value("/kept").set(b"kept")
    grant = await client.lock("/held").acquire(timeout=30)
    assert grant is not None
    leader = await nodes.leader()
    left = leader.config.name
    directory = leader.config.data_dir
    assert directory is not None
    await nodes.stop_all()

    found = recover(directory, tmp_path / "new")
    assert (found.name, found.former_cluster) == (left, former)
    assert sorted(found.lost) == sorted(set(NAMES) - {left})
    alone = await nodes.start(left, data_dir=tmp_path / "new")
    await until(lambda: alone.status().role == "leader", "the one node to lead")
    assert alone.status().cluster_id == found.cluster != former
    for name in set(NAMES) - {left}:
        shutil.rmtree(nodes.config(name).data_dir or "")
        await nodes.start(name, join=(alone.peer_address,))
        await nodes.running[name].wait_formed()
    await until(lambda: len(alone.status().voters) == 3, "three voters")

    async with await coord_core.connect_async(f"coord://{alone.client_address}") as fresh:
        versioned = await fresh.value("/kept").get()
        assert versioned is not None
        assert versioned.value == b"kept"
        lock = fresh.lock("/held")
        assert (await lock.holder()) is not None, "the session lives until its TTL has passed in the new cluster"
        later = await fresh.lock("/other").acquire(timeout=30)
        assert later is not None
        assert later.token > grant.token
    await client.close()


async def test_what_cannot_be_recovered_is_refused_and_nothing_is_touched(nodes: Nodes, tmp_path: Path) -> None:
    """A directory without a node, one in use, and a target that has something in it."""
    first, *_ = await nodes.cluster("n1")
    directory = first.config.data_dir
    assert directory is not None
    with pytest.raises(InvalidRequest, match="holds no node"):
        recover(tmp_path / "nothing", tmp_path / "new")
    with pytest.raises(DataDirInUse):
        recover(directory, tmp_path / "new")
    await nodes.stop_all()
    with pytest.raises(InvalidRequest, match="is not empty"):
        recover(directory, directory)
    assert not (tmp_path / "new").exists()
