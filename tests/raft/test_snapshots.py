"""Compaction, and followers that need what was compacted (Raft, 7; dissertation, 5)."""

import random

import pytest

from coord_core.raft.config import RaftConfig
from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.membership import MembershipChange, MembershipStep, StepKind, encode
from coord_core.raft.messages import AppendReply, Configuration, Entry, EntryKind, HardState, InstallSnapshot, SnapshotMetadata
from coord_core.raft.node import RaftNode
from coord_core.raft.progress import Sending
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster, disk
from tests.raft.test_replication import append, replies


def behind(cluster: Cluster, compact: int = 5) -> None:
    """Make node 3 miss entries that the leader, node 1, then compacts."""
    cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 3)
    cluster.propose(1, b"a", b"b", b"c")
    cluster.settle()
    cluster[1].compact(LogIndex(compact))


def install(
    to: int, term: int, index: int, snapshot_term: int, voters: tuple[int, ...] = (1, 2, 3), sender: int = 1
) -> InstallSnapshot:
    configuration = Configuration(voters=tuple(map(NodeId, voters)))
    metadata = SnapshotMetadata(LogIndex(index), Term(snapshot_term), configuration)
    return InstallSnapshot(sender=NodeId(sender), to=NodeId(to), term=Term(term), metadata=metadata)


def test_log_goes_on_after_compaction():
    """7: entries up to the snapshot are discarded; the rest stays where it was."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(1, b"a", b"b", b"c")
    cluster.settle()
    leader.compact(LogIndex(4))
    assert (leader.first_index, leader.last_index) == (5, 5)
    assert leader._state.log.term(LogIndex(4)) == 1
    assert leader._state.log.term(LogIndex(3)) is None
    cluster.propose(1, b"d")
    cluster.settle()
    assert [data for _, data in cluster.logs()[2]][-2:] == [b"c", b"d"]


def test_follower_that_needs_compacted_entries_is_offered_the_snapshot():
    """7: "the leader must occasionally send snapshots to followers that lag behind.\""""
    cluster = Cluster(3)
    behind(cluster)
    cluster.heal()
    cluster.losses.append(lambda m: isinstance(m, InstallSnapshot))
    cluster.tick(3)
    progress = cluster[1].progress()[2]
    assert (progress.state, progress.pending_snapshot, progress.is_paused) == (Sending.SNAPSHOT, 5, True)


def test_follower_takes_the_snapshot_and_goes_on_from_there():
    """7: it discards its log, takes the state and the configuration, and replication continues behind it."""
    cluster = Cluster(3)
    behind(cluster)
    cluster.heal()
    cluster.tick(3)
    assert (cluster[3].first_index, cluster[3].commit_index, cluster[3].applied_index) == (6, 5, 5)
    assert cluster.servers[3].disk.snapshot.index == 5
    assert cluster[1].progress()[2].state is Sending.REPLICATE
    cluster.propose(1, b"d")
    cluster.settle()
    assert cluster.logs()[3] == [(1, b"d")]


def test_snapshot_is_acknowledged_only_when_it_is_durable():
    """The leader goes on from there; a follower that forgot it would have a gap."""
    cluster = Cluster(3)
    cluster.slow_disks = {3}
    cluster[3].step(install(3, 2, 9, 2))
    cluster.pump(3)
    assert cluster.network == []
    assert not cluster[3]._state.is_promotable
    cluster.sync(3)
    assert [m.index for m in replies(cluster, 3)] == [9]


def test_crash_in_the_middle_of_an_installation_leaves_the_old_log():
    """LogCabin#174: nothing of the snapshot counts before its transaction is complete."""
    cluster = Cluster(3)
    cluster.add(3, disk(cluster.start, 1, 1, term=1))
    cluster.slow_disks = {3}
    cluster[3].step(install(3, 2, 9, 2))
    cluster.pump(3)
    cluster.restart(3)
    assert (cluster[3].first_index, cluster[3].last_index, cluster[3].term) == (2, 3, 1)


def test_crash_after_the_first_write_of_an_installation_leaves_the_whole_snapshot():
    """LogCabin#174: with term or commit index written apart from the snapshot, a node restarts with neither log."""
    cluster = Cluster(3)
    cluster.add(3, disk(cluster.start, 1, 1, term=1))
    cluster.slow_disks = {3}
    cluster[3].step(install(3, 2, 9, 2))
    cluster.pump(3)
    assert cluster.sync(3)
    cluster.restart(3)
    assert (cluster[3].first_index, cluster[3].commit_index, cluster[3].term) == (10, 9, 2)


def test_term_does_not_come_from_a_snapshot():
    """jgroups-raft#23: the snapshot's term says when its last entry was made, not which term this node is in."""
    cluster = Cluster(3)
    cluster[3].step(install(3, 7, 9, 2))
    cluster.pump(3)
    assert cluster[3].term == 7
    cluster[2].step(install(2, 3, 9, 5))
    assert cluster[2].last_index == 1
    assert "position" in cluster[2].dropped_messages[1]


def test_entries_that_arrive_behind_a_snapshot_are_written_with_it():
    """One transaction: the snapshot and what follows it."""
    cluster = Cluster(3)
    cluster[3].step(install(3, 2, 9, 2))
    cluster[3].step(append(3, 2, (9, 2), (2, 2), commit=10))
    ready = cluster[3].ready()
    assert ready is not None
    assert ready.persist is not None
    assert ready.persist.snapshot is not None
    assert [e.index for e in ready.persist.entries] == [10, 11]
    assert ready.committed == []
    cluster[3].persisted(ready.persist.ack)
    cluster[3].applied(LogIndex(9))
    ready = cluster[3].ready()
    assert ready is not None
    assert [e.index for e in ready.committed] == [10]


def test_second_snapshot_during_the_first_ones_write_is_written_too():
    """The newer replaces the older; each is acknowledged with its own write."""
    cluster = Cluster(3)
    cluster.slow_disks = {3}
    cluster[3].step(install(3, 2, 9, 2))
    cluster.pump(3)
    cluster[3].step(install(3, 2, 20, 2))
    cluster.pump(3)
    cluster.sync(3)
    cluster.pump(3)
    assert not cluster[3]._state.is_promotable
    cluster.sync(3)
    assert [m.index for m in replies(cluster, 3)] == [9, 20]
    assert cluster.servers[3].disk.snapshot.index == 20


def test_old_snapshot_is_ignored_and_answered_with_the_commit_index():
    """7: what it covers is here; going back would undo what is committed (etcd#15247)."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    before = cluster.logs()[3]
    cluster[3].step(install(3, 1, 3, 1))
    assert [m.index for m in replies(cluster, 3)] == [4]
    assert cluster.logs()[3] == before


def test_snapshot_of_what_is_compacted_here_is_ignored():
    """The place where it ends is not in this log any more; that does not make it news."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a", b"b", b"c")
    cluster.settle()
    cluster[3].compact(LogIndex(4))
    cluster[3].step(install(3, 1, 2, 1))
    assert [m.index for m in replies(cluster, 3)] == [5]
    assert cluster[3].first_index == 5


def test_snapshot_that_the_log_matches_only_commits():
    """Figure 13: an entry of the snapshot's index and term is here, so "retain log entries following it\""""
    cluster = Cluster(3)
    cluster.add(3, disk(cluster.start, 1, 1, 1, term=1))
    cluster[3].step(install(3, 1, 3, 1))
    cluster.pump(3)
    assert (cluster[3].first_index, cluster[3].last_index, cluster[3].commit_index) == (2, 4, 3)
    assert [e.index for e in cluster.servers[3].applied] == [2, 3]


def test_snapshot_for_a_configuration_without_this_node_is_dropped():
    """It would leave a node that no leader counts and that counts itself."""
    cluster = Cluster(3)
    cluster[3].step(install(3, 1, 9, 1, voters=(1, 2)))
    assert cluster[3].last_index == 1
    assert "without this node" in cluster[3].dropped_messages[1]


def test_snapshot_from_before_a_node_joined_brings_it_nearer():
    """Its configuration is without the node, as the one with which the node began is: it is on its way to become a member."""
    cluster = Cluster(3)
    cluster.add(4)
    cluster[4].step(install(4, 1, 9, 1, voters=(1, 2)))
    cluster.pump(4)
    assert cluster[4].last_index == 9
    assert cluster[4].configuration == Configuration((NodeId(1), NodeId(2)))
    cluster.tick(100, 4)
    assert cluster.role(4) is Role.FOLLOWER, "who is no voter does not campaign"


def test_failed_transfer_is_tried_again_after_a_heartbeat():
    """The driver reports it; without a report nothing more would be sent."""
    cluster = Cluster(3)
    behind(cluster)
    cluster.heal()
    cluster.losses.append(lambda m: isinstance(m, InstallSnapshot))
    cluster.tick(2)
    leader = cluster[1]
    assert leader.progress()[2].state is Sending.SNAPSHOT
    leader.report_snapshot(NodeId(3), ok=False)
    progress = leader.progress()[2]
    assert (progress.state, progress.next, progress.is_paused) == (Sending.PROBE, 3, True)
    cluster.heal()
    cluster.tick(3)
    assert cluster[3].commit_index == 5


def test_reported_success_whose_acknowledgement_was_lost_is_probed_behind_the_snapshot():
    """etcd/raft: otherwise the follower would stay in SNAPSHOT for ever."""
    cluster = Cluster(3)
    behind(cluster)
    cluster.heal()
    cluster.losses.append(lambda m: isinstance(m, AppendReply) and m.sender == 3 and not m.rejected)
    cluster.tick(3)
    leader = cluster[1]
    assert leader.progress()[2].state is Sending.SNAPSHOT
    leader.report_snapshot(NodeId(3), ok=True)
    assert leader.progress()[2].next == 6
    cluster.heal()
    cluster.tick(2)
    assert leader.progress()[2].state is Sending.REPLICATE


def test_silent_follower_is_offered_no_snapshot():
    """Who does not answer would not take it either; preparing one for nobody costs the leader dear."""
    cluster = Cluster(3)
    behind(cluster)
    cluster.tick(20)
    assert cluster[1].progress()[2].state is not Sending.SNAPSHOT


def test_log_is_never_compacted_beyond_the_snapshot_or_what_is_applied():
    """What no snapshot covers exists nowhere else."""
    cluster = Cluster(3)
    cluster.snapshots = False
    leader = cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    with pytest.raises(InvariantViolation):
        leader.compact(LogIndex(3))
    with pytest.raises(InvariantViolation):
        leader.snapshot_taken(SnapshotMetadata(LogIndex(9), Term(1), leader.configuration))
    leader.snapshot_taken(SnapshotMetadata(LogIndex(3), Term(1), leader.configuration))
    leader.compact(LogIndex(3))
    leader.compact(LogIndex(2))
    assert leader.first_index == 4


def test_joining_node_without_anything_takes_a_snapshot_with_its_configuration():
    """It knows nobody, not even itself; the snapshot tells it who belongs."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    for node in (1, 2, 3):
        cluster[node].compact(LogIndex(4))
    cluster.add(4)
    cluster.change(1, "l4")
    cluster.settle()
    cluster.tick(2)
    assert cluster[4].configuration == cluster[1].configuration
    assert cluster[4].commit_index == cluster[1].commit_index


def test_installed_node_can_lead():
    """The snapshot's index and term stand in for the entries it replaced (figure 13)."""
    cluster = Cluster(3)
    behind(cluster)
    cluster.heal()
    cluster.tick(3)
    cluster.crash(1)
    cluster[2].forget_leader()
    cluster[3].forget_leader()
    cluster[3].campaign()
    cluster.settle()
    assert cluster[3].role is Role.LEADER
    cluster.propose(3, b"e")
    cluster.settle()
    assert cluster.logs()[2][-1] == (2, b"e")


def test_compacted_node_restarts_from_its_snapshot():
    """What was compacted is not on the disk either."""
    cluster = Cluster(3)
    behind(cluster)
    cluster.heal()
    cluster.tick(3)
    cluster.propose(1, b"d")
    cluster.settle()
    cluster.restart(3)
    assert (cluster[3].first_index, cluster[3].last_index, cluster[3].applied_index) == (6, 6, 5)
    cluster.tick(2)
    assert [e.data for e in cluster.servers[3].applied] == [b"d"]


def test_node_that_kept_entries_before_its_snapshot_serves_them_after_a_restart():
    """A change of the configuration that the snapshot has already is not made twice."""
    voters = Configuration(voters=(NodeId(1),))
    change = encode(MembershipChange((MembershipStep(StepKind.ADD_LEARNER, NodeId(9)),)))
    after = Configuration(voters=(NodeId(1),), learners=(NodeId(9),))
    entries = [
        Entry(LogIndex(2), Term(1), EntryKind.CONFIGURATION, change),
        Entry(LogIndex(3), Term(1), EntryKind.COMMAND, b"a"),
        Entry(LogIndex(4), Term(1), EntryKind.COMMAND, b"b"),
    ]
    node = RaftNode(
        RaftConfig(NodeId(1)),
        hard_state=HardState(Term(1), NodeId(0), LogIndex(4)),
        snapshot=SnapshotMetadata(LogIndex(3), Term(1), after),
        entries=entries,
        rng=random.Random(1),
        begin=(LogIndex(1), Term(1)),
    )
    assert voters != node.configuration == after
    assert (node.first_index, node.applied_index, node.last_index) == (2, 3, 4)
    assert (node.term_at(LogIndex(1)), node.bytes_since(LogIndex(3)), node.durable_index) == (1, 0, 4)
    ready = node.ready()
    assert ready is not None
    assert [entry.data for entry in ready.committed] == [b"b"]
    node.applied(LogIndex(4))
    assert node.bytes_since(LogIndex(3)) == 33
    assert node.trailing_index(1, 1_000) == 3
