"""Two of three directories are gone for good: what the third has goes on as a cluster of its own."""

import shutil
from pathlib import Path

import pytest

import coord_core
from coord_core.errors import DataDirInUse, InvalidRequest, NodeSuspect, StorageCorrupt
from coord_core.protocol.administration import RemoveMember, TransferLeadership
from coord_core.protocol.members import Member
from coord_core.protocol.results import Done
from coord_core.raft.messages import Configuration, SnapshotMetadata
from coord_core.server.recovery import GAP, recover
from coord_core.storage.api import Bootstrap, Identity
from coord_core.storage.sqlite import SqliteStorage
from coord_core.storage.suspect import condemn
from coord_core.types import LogIndex, NodeId, Term
from tests.server.removing import a_removed_nodes_directory, with_snapshot_of_its_own
from tests.server.support import Nodes, until
from tests.server.test_members import all_vote, ask, id_of

NAMES = ("n1", "n2", "n3")


async def test_everything_that_one_node_has_goes_on_in_a_new_cluster(nodes: Nodes, tmp_path: Path) -> None:
    """Values, sessions and tokens; others join it; the old cluster's nodes and clients are strangers to it."""
    first, *_ = await nodes.cluster(*NAMES)
    former = first.status().cluster_id
    client = await coord_core.connect_async(f"coord://{first.client_address}")
    await client.value("/kept").set(b"kept")
    for number in range(50):
        await client.topic("/messages").publish(b"%d" % number)
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
        assert [int(message.payload) for message in await fresh.topic("/messages").read()] == list(range(50))
        assert (await fresh.topic("/messages").publish(b"50")).offset == 50
        lock = fresh.lock("/held")
        assert (await lock.holder()) is not None, "the session lives until its TTL has passed in the new cluster"
        later = await fresh.lock("/other").acquire(timeout=30)
        assert later is not None
        assert later.token > grant.token + GAP - 1_000, "above whatever the lost nodes may have given out"
    await client.close()


async def test_the_nodes_that_must_not_be_started_again_are_those_at_the_end_of_the_log(nodes: Nodes, tmp_path: Path) -> None:
    """Not those of the last snapshot or of the founding: n4 came later, n3 is gone."""
    first, *_ = await nodes.cluster(*NAMES)
    await nodes.start("n4", join=(first.peer_address,))
    await until(all_vote(nodes, *NAMES, "n4"), "four voters")
    if first.status().role != "leader":
        assert await ask(nodes, TransferLeadership(id_of(first, "n1"))) == Done()
        await until(lambda: first.status().role == "leader", "n1 to lead")
    assert await ask(nodes, RemoveMember(id_of(first, "n3"))) == Done()
    directory = first.config.data_dir
    assert directory is not None
    await nodes.stop_all()
    found = recover(directory, tmp_path / "new")
    assert found.lost == ("n2", "n4")
    assert not found.doubt


async def test_that_a_node_had_been_removed_is_said_when_it_is_taken(nodes: Nodes, tmp_path: Path) -> None:
    """The cluster went on without it; where nothing else is left, it is still better than nothing."""
    directory = await a_removed_nodes_directory(nodes)
    assert "had been removed" in recover(directory, tmp_path / "one").doubt
    with_snapshot_of_its_own(directory)
    assert "had been removed" in recover(directory, tmp_path / "two").doubt


def test_that_a_node_had_only_begun_to_join_is_said_when_it_is_taken(tmp_path: Path) -> None:
    """It was told who belongs and has nothing else: what comes out is an empty cluster."""
    founders = [Member(NodeId(n), f"n{n}", f"n{n}:1", f"n{n}:2", f"life {n}") for n in (1, 2, 3)]
    own = Member(NodeId(70), "n4", "n4:1", "n4:2", "life 4")
    identity = Identity("c" * 32, own.node_id, own.name, own.incarnation)
    founding = SnapshotMetadata(LogIndex(3), Term(1), Configuration(tuple(member.node_id for member in founders)))
    storage = SqliteStorage(tmp_path / "n4")
    storage.form(Bootstrap(identity, (*founders, own), founding))
    storage.close()
    found = recover(tmp_path / "n4", tmp_path / "new")
    assert "not even come to the entry 70" in found.doubt
    assert found.lost == ("n1", "n2", "n3")


async def test_what_was_cut_off_is_no_node(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be an empty cluster under the old name, which gives out fencing tokens that were given out before."""
    first, *_ = await nodes.cluster("n1")
    directory = first.config.data_dir
    assert directory is not None
    await nodes.stop_all()

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SqliteStorage, "write", cut_off)
        with pytest.raises(KeyboardInterrupt):
            recover(directory, tmp_path / "new")
    with pytest.raises(NodeSuspect, match="coord recover was cut off"):
        await nodes.start("n1", data_dir=tmp_path / "new")
    shutil.rmtree(tmp_path / "new")
    recover(directory, tmp_path / "new")
    await nodes.start("n1", data_dir=tmp_path / "new")


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


async def test_a_directory_on_which_no_node_may_run_is_none_to_recover_from(nodes: Nodes, tmp_path: Path) -> None:
    """Damaged, or known to have lost something.  What its node would be told (rejoin) is no help where there is no cluster."""
    first, *_ = await nodes.cluster("n1")
    directory = first.config.data_dir
    assert directory is not None
    await nodes.stop_all()
    damaged = shutil.copytree(directory, tmp_path / "damaged")
    (damaged / "mark").unlink()
    condemn(directory, "its state diverged. This node must not answer from these files: rejoin")
    for source, error, what in (
        (damaged, StorageCorrupt, "the mark of the last acknowledged transaction is missing"),
        (directory, NodeSuspect, "its state diverged"),
    ):
        with pytest.raises(error, match=f"nothing is made of {source}: .*{what}.  Take the directory of another node") as caught:
            recover(source, tmp_path / "new")
        assert "rejoin" not in caught.value.message
    assert not (tmp_path / "new").exists()
