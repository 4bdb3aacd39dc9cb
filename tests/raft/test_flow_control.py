"""How much the leader sends ahead, and what it refuses: everything has a bound."""

import pytest

from coord_core.errors import InvalidConfig
from coord_core.raft.config import RaftConfig
from coord_core.raft.log import ENTRY_OVERHEAD_BYTES
from coord_core.raft.messages import Append, Heartbeat
from coord_core.raft.progress import Sending
from coord_core.raft.refusals import NotLeaderError, ProposalBusy
from coord_core.types import NodeId
from tests.raft.cluster import Cluster


def sent(cluster: Cluster, to: int) -> list[Append]:
    return [m for m in cluster.network if isinstance(m, Append) and m.to == to]


def test_append_is_limited_in_size_and_still_carries_at_least_one_entry():
    """An entry larger than the bound travels alone; without that rule it would never travel."""
    cluster = Cluster(3, max_append_bytes=100)
    cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 3)
    cluster.propose(1, b"a" * 20, b"b" * 20, b"c" * 500, b"d")
    cluster.pump(1)
    appends = sent(cluster, 2)
    cluster.watchers.append(lambda m: appends.append(m) if isinstance(m, Append) and m.to == 2 else None)
    cluster.settle()
    assert [[len(e.data) for e in m.entries] for m in appends if m.entries] == [[20], [20], [500], [1]]
    assert cluster[2].last_index == 6


def test_large_proposal_is_split_without_a_gap():
    """LogCabin#160, openraft#1795: what is cut off one Append begins the next."""
    cluster = Cluster(3, max_append_bytes=200)
    cluster.elect(1)
    appends: list[Append] = []
    cluster.watchers.append(lambda m: appends.append(m) if isinstance(m, Append) and m.to == 2 else None)
    cluster.propose(1, *[b"%d" % i * 40 for i in range(40)])
    cluster.settle()
    full = [m for m in appends if m.entries]
    assert len(full) > 5
    indexes = [entry.index for m in full for entry in m.entries]
    assert indexes == list(range(3, 43))
    assert all(sum(len(e.data) + ENTRY_OVERHEAD_BYTES for e in m.entries) <= 200 or len(m.entries) == 1 for m in full)
    assert cluster.logs()[2] == cluster.logs()[1]


def test_leader_sends_ahead_within_the_window_and_stops_when_it_is_full():
    """Pipelining: appends go out without waiting for answers (dissertation, 10.2.1), up to a count."""
    cluster = Cluster(3, max_inflight_appends=3)
    cluster.elect(1)
    for i in range(6):
        cluster.propose(1, b"%d" % i)
    cluster.pump(1)
    assert len(sent(cluster, 2)) == 3
    progress = cluster[1].progress()[1]
    assert (progress.inflight, progress.inflight_is_full, progress.is_paused) == (3, True, True)
    cluster.settle()
    assert cluster.logs()[2] == cluster.logs()[1]
    assert cluster[1].progress()[1].inflight == 0


def test_window_is_bounded_by_bytes_too():
    """Few large entries fill a follower's memory as well as many small ones."""
    cluster = Cluster(3, max_inflight_bytes=1000, max_append_bytes=1000)
    cluster.elect(1)
    for _ in range(5):
        cluster.propose(1, b"x" * 600)
    cluster.pump(1)
    assert len(sent(cluster, 2)) == 2
    cluster.settle()
    assert cluster.logs()[2] == cluster.logs()[1]


def test_full_window_whose_appends_were_lost_recovers_after_a_heartbeat():
    """etcd#14633: without an answer nothing would ever leave again; a heartbeat's answer lets one empty Append through."""
    cluster = Cluster(3, max_inflight_appends=2)
    cluster.elect(1)
    cluster.losses.append(lambda m: isinstance(m, Append) and m.to == 3)
    for i in range(5):
        cluster.propose(1, b"%d" % i)
    cluster.settle()
    cluster.heal()
    cluster.tick(3)
    assert cluster.logs()[3] == cluster.logs()[1]


def test_unreachable_follower_is_probed_again():
    """What was sent ahead is taken as lost: begin again behind the last entry known to have arrived."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.pump(1)
    cluster.lose(lambda m: m.to == 2)
    leader.unreachable(NodeId(2))
    progress = leader.progress()[1]
    assert (progress.state, progress.next) == (Sending.PROBE, progress.match + 1)
    cluster.tick(2)
    assert leader.progress()[1].state is Sending.REPLICATE
    assert cluster.logs()[2] == cluster.logs()[1]


def test_probing_leader_sends_one_append_a_heartbeat():
    """A follower whose log is unknown is asked one question at a time."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.unreachable(NodeId(2))
    for i in range(4):
        cluster.propose(1, b"%d" % i)
    cluster.pump(1)
    assert len(sent(cluster, 2)) == 1
    cluster.lose()
    for _ in range(3):
        cluster[1].tick()
        cluster.pump(1)
        cluster.deliver(2, only=lambda m: isinstance(m, Heartbeat))
        cluster.pump(2)
        cluster.deliver(1)
        cluster.pump(1)
        assert len(sent(cluster, 2)) == 1
        cluster.lose()


def test_proposals_are_refused_when_too_much_waits_to_be_committed():
    """A cluster without a quorum must not fill its leader's memory."""
    cluster = Cluster(3, max_uncommitted_bytes=1000)
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: True)
    cluster.propose(1, b"x" * 800)
    last = leader.last_index
    with pytest.raises(ProposalBusy) as refused:
        leader.propose([b"y" * 100, b"z" * 100])
    assert refused.value.details["uncommitted_bytes"] == 800 + ENTRY_OVERHEAD_BYTES
    assert leader.last_index == last
    cluster.heal()
    cluster.tick(3)
    leader.propose([b"y" * 100])


def test_proposal_larger_than_the_bound_passes_when_nothing_waits():
    """Otherwise it would be refused for ever, with an error that says "try again\"."""
    cluster = Cluster(3, max_uncommitted_bytes=100)
    cluster.elect(1)
    cluster.propose(1, b"x" * 5000)
    cluster.settle()
    assert cluster[3].last_index == 3


def test_committed_entries_come_in_bounded_portions():
    """One turn of the driver applies no more than the bound, and nothing is left out or repeated."""
    cluster = Cluster(1, max_committed_bytes=200)
    cluster.tick(12)
    cluster.propose(1, *[b"x" * 50] * 20)
    portions = [ready.committed for ready in cluster.pump(1) if ready.committed]
    assert len(portions) > 5
    assert [entry.index for portion in portions for entry in portion] == list(range(3, 23))


def test_only_the_leader_takes_proposals():
    """A follower says who leads, as far as it knows."""
    cluster = Cluster(3)
    with pytest.raises(NotLeaderError) as unknown:
        cluster[2].propose([b"x"])
    assert unknown.value.details["leader_id"] == 0
    cluster.elect(1)
    with pytest.raises(NotLeaderError) as known:
        cluster[2].propose([b"x"])
    assert known.value.details["leader_id"] == 1


def test_configuration_reports_all_its_faults_at_once():
    """Whoever sets five things wrong should not have to start five times."""
    config = RaftConfig(NodeId(0), election_timeout_ticks=2, max_append_bytes=0, max_inflight_bytes=-1)
    with pytest.raises(InvalidConfig) as invalid:
        config.validate()
    assert len(invalid.value.details["faults"]) == 5
    with pytest.raises(InvalidConfig, match="lease_relied_on"):
        RaftConfig(NodeId(1), lease_relied_on=True, check_quorum=False).validate()
    RaftConfig(NodeId(1)).validate()
