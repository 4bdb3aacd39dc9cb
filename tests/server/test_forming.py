"""A cluster forms once, whenever its nodes are started, killed and started again; and a node that must not be in it is told why."""

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coord_core.errors import CoordError, InvalidConfig, InvalidRequest, StorageFailed, Unavailable, WrongCluster
from coord_core.protocol.messages import PeerIdentity, Refused, Welcome
from coord_core.server.server import Server
from coord_core.storage.sqlite import SqliteStorage
from tests.server.support import PATIENCE_S, FailingStorage, Nodes, RawClient, hello, until

NAMES = ("n1", "n2", "n3")


def cluster_of(server: Server) -> tuple[str, list[tuple[int, str]]]:
    status = server.status()
    return status.cluster_id, [(member.node_id, member.name) for member in status.members]


async def failure_of(server: Server) -> CoordError:
    with pytest.raises(CoordError) as caught:
        await server.wait_formed()
    return caught.value


async def test_three_nodes_form_one_cluster_and_elect_a_leader(nodes: Nodes) -> None:
    """The plain case."""
    servers = await nodes.cluster(*NAMES)
    assert len({repr(cluster_of(server)) for server in servers}) == 1
    cluster_id, members = cluster_of(servers[0])
    assert len(cluster_id) == 32
    assert members == [(1, "n1"), (2, "n2"), (3, "n3")]


async def test_joiners_may_start_long_before_the_node_that_forms(nodes: Nodes) -> None:
    """Orchestrators start nodes in any order: who asks keeps asking."""
    first = await nodes.start("n1", init=True)
    address = first.peer_address
    await nodes.stop("n1")
    shutil.rmtree(nodes.config("n1").data_dir or "")
    others = [await nodes.start(name, join=(address,)) for name in NAMES[1:]]
    with pytest.raises(Unavailable, match="not formed"):
        others[0].status()
    await nodes.start("n1", init=True, founders=NAMES)
    for server in others:
        await server.wait_formed()
    await nodes.leader()


async def test_one_node_alone_is_a_cluster(nodes: Nodes) -> None:
    """`--init` without founders."""
    await nodes.cluster("n1")


async def test_flags_of_forming_mean_nothing_to_a_formed_node(nodes: Nodes) -> None:
    """Service files keep --init and --join for ever."""
    servers = await nodes.cluster(*NAMES)
    formed = cluster_of(servers[0])
    await nodes.stop_all()
    restarted = [
        await nodes.start("n1", init=True, founders=NAMES),
        await nodes.start("n2", join=("127.0.0.1:1",)),
        await nodes.start("n3"),
    ]
    await nodes.leader()
    assert [cluster_of(server) for server in restarted] == [formed] * 3


@pytest.mark.parametrize("victim", ["n1", "n2"])
@pytest.mark.parametrize("moment", ["before form", "after form"])
async def test_a_node_killed_around_storing_the_founding_converges_when_restarted(nodes: Nodes, victim: str, moment: str) -> None:
    """The two sides of the only durable step, at the node that forms and at one that joins."""
    failing = {moment}
    address = (await nodes.start("n1", init=True, founders=NAMES, open_storage=_failing_for("n1", victim, failing))).peer_address
    for name in NAMES[1:]:
        await nodes.start(name, join=(address,), open_storage=_failing_for(name, victim, failing))
    with pytest.raises(StorageFailed, match=f"{moment.split()[0]} the founding"):
        await nodes.running[victim].wait_stopped()
    await nodes.stop(victim)
    if victim == "n1":
        await nodes.start("n1", init=True, founders=NAMES)
    else:
        await nodes.start(victim, join=(address,))
    await nodes.leader_of_formed()
    assert len({repr(cluster_of(server)) for server in nodes.running.values()}) == 1


def _failing_for(name: str, victim: str, failing: set[str]) -> Callable[[Path], FailingStorage]:
    return lambda path: FailingStorage(path, failing if name == victim else set())


async def test_a_joiner_killed_before_it_heard_the_answer_asks_again_as_the_same(nodes: Nodes) -> None:
    """Its incarnation was on its disk before it was told to anybody; a fresh one would be refused as a wiped disk."""
    first = await nodes.start("n1", init=True, founders=("n1", "n2"))
    second = await nodes.start("n2", join=("127.0.0.1:1",))
    path = second.config.data_dir
    assert path is not None
    incarnation = (path / "incarnation").read_text()
    await nodes.stop("n2")
    # What its call left behind: the founding with this incarnation, and nobody there to hear it.
    caller = PeerIdentity("n2", incarnation.strip(), second.peer_address, second.client_address)
    client = await RawClient.dial(first.peer_address)
    assert isinstance(await client.greet(hello(role="join", peer=caller)), Welcome)
    assert await client.payload() is not None
    await client.close()
    await nodes.start("n2", join=(first.peer_address,))
    await nodes.running["n2"].wait_formed()
    await nodes.leader()
    assert not (path / "incarnation").exists(), "from now on the storage says who this is"


async def test_a_founder_with_a_wiped_disk_is_refused_and_stops(nodes: Nodes) -> None:
    """Under its old name it could vote twice in a term (Raft, 5.2)."""
    first, *_ = await nodes.cluster(*NAMES)
    await nodes.stop("n3")
    shutil.rmtree(nodes.config("n3").data_dir or "")
    wiped = await nodes.start("n3", join=(first.peer_address,))
    error = await failure_of(wiped)
    assert isinstance(error, WrongCluster)
    assert "'n3'" in error.message
    assert "data directory of this one was lost" in error.message
    assert "--replace" in error.message
    nodes.running.pop("n3")
    await wiped.stop()
    await nodes.leader()


async def test_the_forming_node_with_a_wiped_disk_does_not_form_a_second_cluster(nodes: Nodes) -> None:
    """Its service file still says --init.  The other founders know it from its former life and say so."""
    await nodes.cluster(*NAMES)
    await nodes.stop("n1")
    shutil.rmtree(nodes.config("n1").data_dir or "")
    wiped = await nodes.start("n1", init=True, founders=NAMES)
    error = await failure_of(wiped)
    assert isinstance(error, WrongCluster)
    assert "is formed already" in error.message
    assert "comes back with an empty directory and --join ADDRESS --replace, without --init" in error.message
    nodes.running.pop("n1")
    await wiped.stop()
    await nodes.leader()


async def test_a_founder_alone_whose_disk_is_wiped_does_not_found_a_second_cluster(nodes: Nodes, tmp_path: Path) -> None:
    """`--init` without founders waits for nobody: two nodes would lead, and two holders have one lock.

    So it listens first, and the others of its former life dial it.  Nothing of the attempt is left where the node is to come back.
    """
    first = await nodes.start("n1", init=True)
    await nodes.start("n2", join=(first.peer_address,))
    await nodes.leader_of_formed()
    config = nodes.config("n1", init=True)
    await nodes.stop("n1")
    shutil.rmtree(tmp_path / "n1")
    with pytest.raises(
        WrongCluster, match=r"node 'n2' .*comes back with an empty directory and --join .* --replace, without --init"
    ):
        await Server(config, listen_first_s=PATIENCE_S).start()
    assert not (tmp_path / "n1").exists()


async def test_a_founder_alone_that_nobody_dials_founds_its_cluster(nodes: Nodes, tmp_path: Path) -> None:
    """A moment later than asked; an attempt before, that was cut off, changes nothing."""
    (tmp_path / "n1").mkdir()
    SqliteStorage(tmp_path / "n1").close()
    server = await Server(nodes.config("n1", init=True), listen_first_s=0.05).start()
    nodes.running["n1"] = server
    await nodes.leader_of_formed()
    assert [member.name for member in server.status().members] == ["n1"]


async def test_who_asks_while_a_founder_listens_joins_what_it_founds(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    """All nodes are started at once, as orchestrators do."""
    caplog.set_level(logging.INFO, "coord.server")
    early = await nodes.start("n1", init=True, founders=("n1", "n2"))  # takes an address, to be found there again
    address = early.peer_address
    await nodes.stop("n1")
    shutil.rmtree(nodes.config("n1").data_dir or "")
    await nodes.start("n2", join=(address,))
    founding = asyncio.ensure_future(Server(nodes.config("n1", init=True), listen_first_s=1.0).start())
    await until(lambda: "founds its cluster just now" in caplog.text, "a refusal that passes")
    nodes.running["n1"] = await founding
    await nodes.leader_of_formed()


async def test_a_node_with_named_founders_does_not_listen_first(nodes: Nodes) -> None:
    """It waits for them anyway; and who names itself alone has said what it wants."""
    nodes.running["n1"] = await Server(nodes.config("n1", init=True, founders=("n1",)), listen_first_s=PATIENCE_S * 2).start()
    await nodes.leader_of_formed()


async def test_a_second_cluster_is_told_of_by_both_sides_and_not_all_the_time(
    nodes: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever names itself as the only founder has its way.  The logs say what happened and both ways out of it."""
    caplog.set_level(logging.DEBUG, "coord.server")
    first = await nodes.start("n1", init=True)
    second = await nodes.start("n2", join=(first.peer_address,))
    await nodes.leader_of_formed()
    former = second.status().cluster_id
    await nodes.stop("n1")
    shutil.rmtree(tmp_path / "n1")
    caplog.clear()
    foreign = await nodes.start("n1", init=True, founders=("n1",))
    await foreign.wait_formed()

    def refusals(level: int) -> list[str]:
        return [record.getMessage() for record in caplog.records if "refused:" in record.message and record.levelno == level]

    await until(lambda: len(refusals(logging.DEBUG)) >= 2, "more dialling")
    (warning,) = refusals(logging.WARNING)
    assert f"this node belongs to cluster {foreign.status().cluster_id}, not to {former}, of which node 'n2'" in warning
    assert "was founded anew" in warning
    assert "--join ADDRESS --replace, without --init" in warning
    complaints = [record for record in caplog.records if "no connection to node n1" in record.message]
    assert [record.levelno for record in complaints if "belongs to cluster" in record.message] == [logging.ERROR]


async def test_a_node_that_is_no_founder_stops_with_the_list_of_them(nodes: Nodes) -> None:
    """As long as the cluster is not formed; afterwards it may join."""
    first = await nodes.start("n1", init=True, founders=("n1", "n2"))
    early = await nodes.start("n9", join=(first.peer_address,))
    error = await failure_of(early)
    assert isinstance(error, InvalidRequest)
    assert "'n9' is not among the founders of this cluster (n1, n2)" in error.message
    await nodes.stop("n9")


async def test_the_second_node_of_one_name_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    """The first one keeps its place."""
    first = await nodes.start("n1", init=True, founders=NAMES)
    await nodes.start("n2", join=(first.peer_address,))
    await until(lambda: "n2" not in first.missing_founders(), "n2 on the line")
    double = await Server(
        nodes.config("n2", listen="127.0.0.1:0", data_dir=tmp_path / "double", join=(first.peer_address,))
    ).start()
    error = await failure_of(double)
    assert "another node named 'n2'" in error.message
    await double.stop()
    await nodes.start("n3", join=(first.peer_address,))
    await nodes.leader_of_formed()


async def test_a_directory_belongs_to_one_name(nodes: Nodes, tmp_path: Path) -> None:
    """Started under another it would confuse the cluster about who is who."""
    await nodes.cluster("n1")
    await nodes.stop("n1")
    with pytest.raises(InvalidConfig, match="belongs to node 'n1', not to 'other'"):
        await Server(nodes.config("other", data_dir=tmp_path / "n1", init=True)).start()


async def test_an_empty_directory_without_a_way_in_is_an_error(nodes: Nodes) -> None:
    """A node that silently formed a cluster of its own would be worse."""
    with pytest.raises(InvalidConfig, match="holds no node yet: start one node with --init"):
        await nodes.start("n1")


async def test_a_node_that_is_not_formed_tells_clients_to_wait(nodes: Nodes) -> None:
    """They try again elsewhere or later."""
    first = await nodes.start("n1", init=True, founders=NAMES)
    client = await RawClient.dial(first.client_address)
    refused = await client.greet(hello())
    assert isinstance(refused, Refused)
    assert (refused.code, refused.message) == ("Unavailable", "this node is not formed yet: it waits for the other founders")
    assert await client.heard() is None


async def test_a_node_can_be_stopped_while_it_waits_for_the_others(nodes: Nodes) -> None:
    """Both kinds, at once."""
    first = await nodes.start("n1", init=True, founders=NAMES)
    await nodes.start("n2", join=(first.peer_address,))
    async with asyncio.timeout(2):
        await nodes.stop_all()
