"""Bugs that real implementations of Raft had, each provoked here.

Every test is a story in which an implementation with the bug would do harm, and says where it was seen.  The numbers are those
of the list the project keeps of them; number 16 (a node id used again, a wiped disk) concerns the driver, which checks
incarnations.
"""

from typing import Any

import msgspec
import pytest

from coord_core.raft.messages import Append, AppendReply, Entry, HardState, VoteReply, VoteRequest
from coord_core.raft.outbox import Persist
from coord_core.raft.refusals import MembershipRefused
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster, disk
from tests.raft.test_elections import heartbeat, request, vote
from tests.raft.test_replication import append, replies, terms

PLAIN: dict[str, Any] = {"pre_vote": False, "check_quorum": False}


def granted(cluster: Cluster, node: int) -> list[int]:
    cluster.pump(node)
    return [m.to for m in cluster.lose(lambda m: m.sender == node) if isinstance(m, VoteReply) and m.granted]


def persists(cluster: Cluster, node: int) -> list[Persist]:
    return [ready.persist for ready in cluster.pump(node) if ready.persist is not None]


def test_01_term_and_vote_are_written_together_and_before_the_vote_leaves():
    """hashicorp#661, PySyncObj#84: a crash between term and vote, or before either, lets a node vote twice in one term."""
    cluster = Cluster(3, **PLAIN)
    cluster.slow_disks = {3}
    cluster[3].step(request(1, 3, 5))
    (persist,) = persists(cluster, 3)
    assert persist.hard_state == HardState(Term(5), NodeId(1), LogIndex(1))
    cluster.restart(3)
    cluster.slow_disks = set()
    cluster[3].step(request(2, 3, 5))
    assert granted(cluster, 3) == [2]
    cluster.restart(3)
    cluster[3].step(request(1, 3, 5))
    assert granted(cluster, 3) == []


def test_02_term_survives_a_restart_of_all_nodes():
    """PySyncObj#202: with the term lost, an old term is used again, and two leaders have held it."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.elect(2)
    cluster.elect(3)
    before = cluster[1].term
    for node in (1, 2, 3):
        cluster.restart(node)
    assert {cluster[node].term for node in (1, 2, 3)} == {before}
    assert cluster.elect(1).term == before + 1


def test_02_term_that_nobody_won_survives_a_restart_too():
    """The log does not tell it: no entry is of that term."""
    cluster = Cluster(3, **PLAIN)
    for _ in range(2):
        cluster[1].campaign()
        cluster.pump(1)
    cluster.restart(1)
    assert (cluster[1].term, cluster.start.term) == (2, 1)


def test_03_vote_is_kept_when_a_candidate_follows_the_leader_of_its_term():
    """hazelcast#16643: the vote was cleared with every step down, and given again within the same term."""
    cluster = Cluster(3, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    assert cluster[1].voted_for == 1
    cluster[1].step(heartbeat(2, 1, 1))
    assert (cluster[1].role, cluster[1].voted_for) == (Role.FOLLOWER, 1)
    cluster[1].forget_leader()
    cluster[1].step(request(3, 1, 1, 9, 1))
    assert granted(cluster, 1) == []


def test_04_vote_of_a_later_term_is_not_counted_for_this_one():
    """openraft#1220: a reply with a higher vote was recorded as granted."""
    cluster = Cluster(3, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    cluster[1].step(vote(2, 1, 2))
    assert (cluster[1].role, cluster[1].term) == (Role.FOLLOWER, 2)


def test_05_logs_are_compared_by_last_term_first():
    """A longer log of an older term must not win over a shorter one of a newer: it lacks what is committed."""
    cluster = Cluster(3, **PLAIN)
    cluster.add(3, disk(cluster.start, 3, term=3))
    cluster[3].step(request(1, 3, 4, last_index=50, last_term=2))
    assert granted(cluster, 3) == []
    cluster[3].step(request(2, 3, 4, last_index=2, last_term=3))
    assert granted(cluster, 3) == [2]


def test_06_delayed_shorter_append_does_not_cut_off_a_suffix_that_matches():
    """Truncating without a conflict removes entries that were acknowledged, and perhaps committed on the strength of that."""
    cluster = Cluster(3)
    cluster[2].step(append(2, 1, (1, 1), (1, 1, 1)))
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    cluster[2].step(append(2, 1, (1, 1), ()))
    assert terms(cluster, 2) == [1, 1, 1]
    assert [m.index for m in replies(cluster, 2)] == [4, 2, 1]


def test_07_follower_commits_nothing_that_the_leader_has_not_verified():
    """etcd-io/raft#139: an empty Append with a high commit index committed a divergent tail of the follower's own."""
    cluster = Cluster(3)
    cluster.add(2, disk(cluster.start, 1, 2, 2, 2, term=2))
    cluster[2].step(append(2, 3, (2, 1), (), commit=5))
    cluster.pump(2)
    assert cluster[2].commit_index == 2
    assert [e.index for e in cluster.servers[2].applied] == [2]


def test_07_heartbeat_commits_nothing_that_the_follower_is_not_known_to_match():
    """The same by way of a heartbeat: it carries no entries to compare, so only what was acknowledged before is safe to name."""
    cluster = Cluster(3)
    for node, tail in {1: (), 2: (), 3: (1, 1, 1)}.items():
        cluster.add(node, disk(cluster.start, *tail, term=1))
    cluster.losses.append(lambda m: isinstance(m, Append) and m.to == 3)
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.tick(3)
    assert (cluster[1].commit_index, cluster[3].leader_id, cluster[3].commit_index) == (3, 1, 1)


def test_08_entry_of_an_earlier_term_is_not_committed_by_counting():
    """Raft, figure 8, as a story: (c) a majority has the old entry and it is not committed; (d) another leader replaces it."""
    cluster = Cluster(5, **PLAIN)
    start = cluster.start
    for node, log in {1: (1, 2), 2: (1, 2), 3: (1,), 4: (1,), 5: (1, 3)}.items():
        cluster.add(node, disk(start, *log, term=3))
    cluster.losses.append(lambda m: isinstance(m, Append) and any(entry.term == 4 for entry in m.entries) and m.prev_index > 2)
    cluster.cut([1, 2, 3])
    cluster[1].campaign()
    cluster.settle()
    assert cluster[1].role is Role.LEADER
    # The leader's own no-op (term 4) is lost on the way; the old entry reaches nodes 2 and 3, which say so.
    old = cluster[1].entries(LogIndex(3), LogIndex(4))
    for node in (2, 3):
        cluster[node].step(msgspec.structs.replace(append(node, 4, (2, 1), (), commit=1), entries=old))
        cluster.pump(node)
    cluster.deliver(1)
    cluster.settle()
    assert [peer.match for peer in cluster[1].progress()[:3]] == [4, 3, 3]
    assert [log[:2][-1][0] for log in (cluster.logs()[1], cluster.logs()[2], cluster.logs()[3])] == [2, 2, 2]
    assert cluster[1].commit_index < 3
    # (d) Node 5 can still be elected, and replaces it everywhere.
    cluster.heal()
    cluster.crash(1)
    cluster[5].step(heartbeat(9, 5, 4))
    cluster[5].forget_leader()
    cluster[5].campaign()
    cluster.settle()
    assert cluster[5].role is Role.LEADER
    assert {tuple(terms(cluster, node)) for node in (2, 3, 4, 5)} == {(1, 3, 5)}


def test_09_entries_split_by_size_leave_no_gap():
    """LogCabin#160, openraft#1795: what did not fit was skipped, or the next message began behind it."""
    cluster = Cluster(3, max_append_bytes=100)
    cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 3)
    for i in range(20):
        cluster.propose(1, b"%d" % i * 30, b"small enough")
    cluster.settle()
    cluster.heal()
    cluster.tick(10)
    assert cluster.logs()[1] == cluster.logs()[2] == cluster.logs()[3]


def test_10_truncation_and_what_replaces_it_are_one_write():
    """braft#119: a crash between removing a suffix and appending the new one left a log that ends in the middle."""
    cluster = Cluster(3)
    cluster.add(2, disk(cluster.start, 1, 1, 1, term=1))
    cluster.slow_disks = {2}
    cluster[2].step(append(2, 2, (2, 1), (2, 2)))
    (persist,) = persists(cluster, 2)
    assert [e.index for e in persist.entries] == [3, 4]
    assert persist.hard_state is not None
    assert persist.hard_state.term == 2
    cluster.restart(2)
    assert terms(cluster, 2) == [1, 1, 1]
    cluster.servers[2].disk.write(persist)
    cluster.restart(2)
    assert terms(cluster, 2) == [1, 2, 2]


def test_11_entry_is_acknowledged_after_the_disk_has_it():
    """etcd#14370: a leader counted an entry that a follower, and itself, could still lose."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.slow_disks = {1, 2, 3}
    index = cluster.propose(1, b"a")
    cluster.settle()
    assert leader.commit_index < index
    for node in (1, 2, 3):
        cluster.restart(node)
    assert {cluster[node].last_index for node in (1, 2, 3)} == {index - 1}


def test_12_acknowledgement_of_a_replaced_write_does_not_make_its_successor_durable():
    """Asynchronous writes, ABA: entry (2, term 1) is being written, is replaced by another leader's, and comes back the same.
    The first write's acknowledgement must not count for the third entry: by then the disk is about to have the second."""
    cluster = Cluster(3)
    cluster.slow_disks = {2}
    cluster[2].step(append(2, 1, (1, 1), (1,), sender=1))
    assert len(persists(cluster, 2)) == 1
    cluster[2].step(append(2, 2, (1, 1), (2,), sender=3))
    cluster[2].step(append(2, 3, (1, 1), (1,), sender=1))
    cluster.sync(2)
    assert cluster[2]._state.log.durable == 1
    (second,) = persists(cluster, 2)
    assert [(e.index, e.term) for e in second.entries] == [(2, 1)]
    acknowledged = [m for m in cluster.network if isinstance(m, AppendReply) and m.term == 3]
    assert acknowledged == []
    cluster.sync(2)
    assert [(m.term, m.index) for m in replies(cluster, 2)][-1] == (3, 2)


def test_13_new_leader_changes_no_membership_before_its_own_entry_is_committed():
    """The 2015 bug of single-server changes (copycat#23): two leaders, each with one change in its log, have majorities that do
    not meet.  Here neither is in force before it is applied, and none is proposed before the own term has committed."""
    cluster = Cluster(4)
    first = cluster.elect(1)
    cluster.cut([1])
    cluster.add(5)
    cluster.change(1, "v5")
    cluster.cut([1, 5])
    cluster.tick(3)
    assert first.configuration.voters == (1, 2, 3, 4)
    assert cluster[5].configuration.voters == ()
    cluster.cut([2, 3, 4])
    for node in (2, 3, 4):
        cluster[node].forget_leader()
    cluster.losses.append(lambda m: isinstance(m, AppendReply))
    cluster[2].campaign()
    cluster.settle()
    assert cluster[2].role is Role.LEADER
    with pytest.raises(MembershipRefused):
        cluster.change(2, "r1")
    cluster.losses.clear()
    cluster.tick(2, 2, 3, 4)
    cluster.change(2, "r1")
    cluster.settle()
    assert cluster[2].configuration.voters == (2, 3, 4)
    cluster.cut([1, 5])
    first.campaign()
    cluster.tick(30)
    index = first.commit_index
    cluster.heal()
    cluster.tick(20)
    assert index == 2
    cluster.check_logs()


def test_14_uncommitted_change_is_in_no_snapshot_and_in_force_nowhere():
    """canonical/raft#250: a snapshot carried a configuration that was rolled back later."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.cut([1])
    cluster.change(1, "r2")
    cluster.settle()
    assert leader.configuration.voters == (1, 2, 3)
    assert leader._state.log.snapshot.configuration.voters == (1, 2, 3)


def test_15_joint_configuration_counts_jointly_after_a_restart():
    """A restarted node that remembers only the new half elects and commits with half a quorum."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.join_jointly(1, add=[4, 5], remove=[2, 3])
    for node in (1, 2, 3, 4, 5):
        cluster.restart(node)
    cluster.tick(1)
    for node in (1, 2, 3, 4, 5):
        cluster[node].forget_leader()
    cluster.cut([1, 4, 5], [2, 3])
    cluster[1].campaign()
    cluster.tick(60, 1, 4, 5)
    assert cluster.leader() is None
    cluster.heal()
    cluster.tick(30)
    assert cluster.leader() is not None


def test_15_joint_configuration_of_a_snapshot_counts_jointly_after_a_restart():
    """As above, where the log begins with a snapshot taken in the joint configuration: nothing is left to apply it anew."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.join_jointly(1, add=[4, 5], remove=[2, 3])
    for node in (1, 2, 3, 4, 5):
        server = cluster.servers[node]
        server.disk.snapshot = server.node._state.log.snapshot
        server.disk.entries = [entry for entry in server.disk.entries if entry.index > server.disk.snapshot.index]
        cluster.restart(node)
    assert {cluster[node].configuration.outgoing for node in (1, 2, 3, 4, 5)} == {(1, 2, 3)}
    cluster.cut([1, 4, 5], [2, 3])
    cluster[1].campaign()
    cluster.tick(60, 1, 4, 5)
    assert cluster.leader() is None
    cluster.heal()
    cluster.tick(30)
    assert cluster.leader() is not None


def test_17_node_with_a_later_term_and_the_shorter_log_locks_nobody_out():
    """etcd#8501, #8243, openraft#1796: it cannot win, the others ignore it, and it ignores them, unless somebody answers."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 3)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.heal()
    cluster.servers[3].disk.hard_state = HardState(Term(9))
    cluster.restart(3)
    cluster.crash(2)
    cluster.tick(40)
    leader = cluster.leader()
    assert leader is not None
    assert (leader.node_id, cluster[3].leader_id) == (1, 1)
    assert cluster.logs()[3] == cluster.logs()[1]


def test_18_bridge_does_not_carry_the_leadership_to_and_fro():
    """Two nodes that do not hear each other but both hear a third deposed each other by turns, for ever (Omni-Paxos, 2023)."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut([1, 3], [2, 3])
    cluster.tick(200)
    assert cluster[1].role is Role.LEADER
    assert len(cluster.leaders) == 1
    index = cluster.propose(1, b"a")
    cluster.settle()
    assert cluster[1].commit_index == index


def test_19_new_leader_does_not_read_before_it_knows_what_is_committed():
    """A new leader has all that is committed but may not know it: read at its commit index it would answer with old state."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.losses.append(lambda m: isinstance(m, Append) and m.to == 2 and not m.entries)
    index = cluster.propose(1, b"a")
    cluster.settle()
    assert (cluster[1].commit_index, cluster[2].commit_index) == (index, index - 1)
    cluster.crash(1)
    cluster.losses = [lambda m: isinstance(m, AppendReply)]
    cluster[3].forget_leader()
    cluster[2].forget_leader()
    cluster[2].campaign()
    cluster.settle()
    assert cluster[2].role is Role.LEADER
    cluster[2].read_index(1)
    cluster.settle()
    assert cluster.servers[2].reads == []
    cluster.heal()
    cluster.tick(2)
    assert [state.index for state in cluster.servers[2].reads] == [index + 1]


def test_19_leader_that_has_handed_over_does_not_read_by_its_lease():
    """etcd#7331: who takes over does not wait for the old leader's lease to end, so the lease promises nothing."""
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 1)
    old.transfer(NodeId(2))
    cluster.settle()
    cluster.propose(2, b"new")
    cluster.settle()
    assert (old.role, cluster[2].role) == (Role.LEADER, Role.LEADER)
    assert cluster[2].commit_index > old.commit_index
    old.read_index(1)
    cluster.settle()
    assert cluster.servers[1].reads == []


def test_20_entries_around_a_snapshot_are_handed_out_once():
    """etcd#13766, #15247, copycat#14: after a snapshot, entries that it covers came again, or entries behind it were left out."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 3)
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    cluster[1].compact(LogIndex(4))
    cluster.heal()
    cluster.propose(1, b"c")
    cluster.tick(4)
    # Late Appends about what the snapshot covers, and the snapshot once more.
    cluster[3].step(append(3, 1, (2, 1), (1, 1), commit=4))
    cluster.tick(2)
    cluster.propose(1, b"d")
    cluster.settle()
    assert [(e.index, e.data) for e in cluster.servers[3].applied if e.index > 4] == [(5, b"c"), (6, b"d")]
    assert len({e.index for e in cluster.servers[3].applied}) == len(cluster.servers[3].applied)


def test_leader_that_removed_itself_does_not_lock_out_its_successor():
    """raft-rs: the demoted leader alone knows that the change is committed, has the longer log, and does not campaign.  Who
    should follow it counts by the old configuration and is refused.  The refusal tells it what is committed."""
    cluster = Cluster([1, 3], learners=[2])
    cluster.elect(3)
    cluster.change(3, "l3")
    cluster.pump(3)
    cluster.deliver(1)
    cluster.pump(1)
    cluster.propose(3, b"makes its log the longer one")
    cluster.pump(3)
    cluster.lose(lambda m: m.sender == 3)
    cluster.losses.append(lambda m: m.sender == 3)
    cluster.settle()
    cluster.heal()
    assert [cluster[node].configuration.voters for node in (3, 1)] == [(1,), (1, 3)]
    cluster.tick(30)
    assert cluster[1].role is Role.LEADER
    assert cluster[1].configuration.voters == (1,)


def test_candidate_that_restarts_does_not_vote_for_another_in_its_term():
    """The request of a candidate leaves after its vote for itself is durable; else it restarts and votes again."""
    cluster = Cluster(3, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    assert [m.term for m in cluster.network if isinstance(m, VoteRequest)] == [1, 1]
    cluster.restart(1)
    cluster[1].step(request(2, 1, 1, last_index=9))
    assert granted(cluster, 1) == []


def test_entry_kinds_do_not_change_the_rules():
    """A membership entry that conflicts is replaced like any other."""
    cluster = Cluster(3)
    change = Entry(LogIndex(2), Term(1), 1, b"")
    message = append(2, 1, (1, 1))
    cluster[2].step(
        Append(
            sender=NodeId(1),
            to=NodeId(2),
            term=Term(1),
            prev_index=LogIndex(1),
            prev_term=message.prev_term,
            commit=LogIndex(1),
            entries=(change,),
        )
    )
    cluster[2].step(append(2, 2, (1, 1), (2,), commit=2, sender=3))
    cluster.pump(2)
    assert terms(cluster, 2) == [2]
    assert not cluster[2]._state.log.has_unapplied_configuration()
