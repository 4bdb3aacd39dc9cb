"""What leaves when: the contract between consensus, the disk and the network (Raft, figure 2: persistent state)."""

from typing import Any

import pytest

from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.messages import Append, AppendReply, HardState, Heartbeat, HeartbeatReply, VoteReply, VoteRequest
from coord_core.raft.outbox import PersistAck
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster, disk
from tests.raft.test_replication import append

PLAIN: dict[str, Any] = {"pre_vote": False, "check_quorum": False}


def slow(node: int, size: int = 3, **config: Any) -> Cluster:
    cluster = Cluster(size, **config)
    cluster.slow_disks = {node}
    return cluster


def test_vote_leaves_only_when_it_is_durable():
    """Figure 2: currentTerm and votedFor are "updated on stable storage before responding to RPCs\"."""
    cluster = slow(2, **PLAIN)
    cluster[1].campaign()
    cluster.settle()
    assert cluster.lose() == []
    cluster.sync(2)
    cluster.pump(2)
    assert [(m.term, m.granted) for m in cluster.network if isinstance(m, VoteReply)] == [(1, True)]


def test_vote_in_a_term_that_is_durable_already_waits_for_the_vote():
    """The term alone on the disk does not keep a node from voting twice in it."""
    cluster = Cluster(3, **PLAIN)
    cluster[2].step(Heartbeat(sender=NodeId(1), to=NodeId(2), term=Term(5), commit=LogIndex(1)))
    cluster.pump(2)
    cluster.lose()
    cluster.slow_disks = {2}
    cluster[2].forget_leader()
    request = VoteRequest(sender=NodeId(3), to=NodeId(2), term=Term(5), last_index=LogIndex(1), last_term=Term(1), pre_vote=False)
    cluster[2].step(request)
    (ready,) = cluster.pump(2)
    assert ready.persist is not None
    assert ready.persist.hard_state == HardState(Term(5), NodeId(3), LogIndex(1))
    assert cluster.network == []
    cluster.sync(2)
    cluster.pump(2)
    assert [m.granted for m in cluster.network if isinstance(m, VoteReply)] == [True]


def test_vote_request_of_a_new_term_waits_for_the_candidates_own_disk():
    """A candidate that asks and then forgets its vote could vote for another in the same term."""
    cluster = slow(1, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    assert cluster.network == []
    cluster.sync(1)
    cluster.pump(1)
    assert [type(m) for m in cluster.network] == [VoteRequest, VoteRequest]


def test_pre_vote_asks_at_once():
    """It changes nothing, so there is nothing to make durable (dissertation, 9.6)."""
    cluster = slow(1)
    cluster[1].campaign()
    ready = cluster.pump(1)
    assert all(r.persist is None for r in ready)
    assert [(m.pre_vote, m.term) for m in cluster.network if isinstance(m, VoteRequest)] == [(True, 1), (True, 1)]


def test_append_is_acknowledged_only_when_it_is_durable():
    """Dissertation 3.8: each server persists new entries before they are counted towards their commitment (etcd#14370)."""
    cluster = slow(2)
    cluster.elect(1)
    cluster.sync(2)
    cluster.settle()
    cluster.sync(2)
    cluster.settle()
    cluster.propose(1, b"a")
    cluster.settle(1, 2)
    assert not [m for m in cluster.network if isinstance(m, AppendReply) and m.index == 3]
    cluster.losses.append(lambda m: m.sender == 3)
    assert cluster[1].commit_index == 2
    cluster.sync(2)
    cluster.settle(1, 2)
    assert cluster[1].commit_index == 3


def test_leader_sends_its_entries_before_they_are_on_its_own_disk():
    """Dissertation 10.2.1: the leader writes in parallel with the followers' replicating."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.slow_disks = {1}
    cluster.propose(1, b"a")
    cluster.pump(1)
    assert [len(m.entries) for m in cluster.network if isinstance(m, Append)] == [1, 1]
    assert cluster.servers[1].unsynced is not None


def test_leader_counts_itself_only_when_its_own_disk_has_the_entry():
    """The leader is one vote of the quorum like any other; the followers alone may be a quorum without it."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.slow_disks = {1}
    cluster.losses.append(lambda m: m.to == 3)
    cluster.propose(1, b"a")
    cluster.settle()
    assert leader.commit_index == 2
    cluster.sync(1)
    assert leader.commit_index == 3
    cluster.losses = []
    cluster.propose(1, b"b")
    cluster.settle()
    cluster.tick(2)
    assert leader.commit_index == 4
    assert leader.progress()[0].match == 3


def test_committed_entries_may_be_applied_before_the_own_disk_has_them():
    """A quorum of others has them; what is applied is rebuilt from the log."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.slow_disks = {1}
    cluster.propose(1, b"a")
    cluster.settle()
    assert [e.data for e in cluster.servers[1].applied] == [b"", b"a"]
    assert cluster.servers[1].disk.entries[-1].data == b""


def test_at_most_one_persist_is_outstanding_and_the_next_takes_all_that_gathered():
    """Group commit: one write at a time, so none overtakes another."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.slow_disks = {1}
    cluster.propose(1, b"a")
    cluster.pump(1)
    for data in (b"b", b"c", b"d"):
        cluster.propose(1, data)
        assert all(ready.persist is None for ready in cluster.pump(1))
    cluster.sync(1)
    ready = leader.ready()
    assert ready is not None
    assert ready.persist is not None
    assert [e.data for e in ready.persist.entries] == [b"b", b"c", b"d"]


def test_acknowledgement_that_depends_on_the_outstanding_write_only_leaves_with_it():
    """It must not wait for a next write that nothing may ever cause."""
    cluster = slow(2)
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    cluster.pump(2)
    cluster[2].step(append(2, 1, (2, 1), (), commit=2))
    cluster.pump(2)
    assert cluster.network == []
    cluster.sync(2)
    cluster.pump(2)
    assert [m.index for m in cluster.network if isinstance(m, AppendReply)] == [2, 2]


def test_risen_commit_index_alone_is_not_worth_a_write():
    """It is no part of figure 2's persistent state; it rides along with the next write."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.settle()
    stored = cluster.servers[2].disk.hard_state.commit
    assert stored < cluster[2].commit_index
    cluster.propose(1, b"a")
    cluster.settle()
    assert cluster.servers[2].disk.hard_state.commit > stored


def test_nothing_is_said_in_a_term_that_the_disk_does_not_have():
    """Even a heartbeat's answer says which term this node is in."""
    cluster = slow(2)
    cluster[2].step(Heartbeat(sender=NodeId(1), to=NodeId(2), term=Term(5), commit=LogIndex(1)))
    cluster.pump(2)
    assert cluster.network == []
    cluster.sync(2)
    cluster.pump(2)
    assert [type(m) for m in cluster.network] == [HeartbeatReply]


def test_candidate_counts_its_own_vote_when_it_is_durable():
    """With one voter the own vote decides: it must not lead on a vote that a crash would undo."""
    cluster = slow(1, size=1, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    assert cluster.role(1) is Role.CANDIDATE
    cluster.sync(1)
    assert cluster.role(1) is Role.LEADER


@pytest.mark.parametrize("fact", [{"term": Term(9)}, {"last_index": LogIndex(9)}, {"last_term": Term(9)}, {"number": 9}])
def test_foreign_acknowledgement_is_ignored(fact: dict[str, int]):
    """An acknowledgement counts only for the write it was given out with."""
    cluster = slow(2)
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    cluster.pump(2)
    persist = cluster.servers[2].unsynced
    assert persist is not None
    facts = {name: getattr(persist.ack, name) for name in PersistAck.__slots__}
    cluster[2].persisted(PersistAck(**{**facts, **fact}))
    cluster.pump(2)
    assert cluster.network == []


def test_acknowledgement_that_comes_twice_counts_once():
    """Two writes in one term at one index differ in their number."""
    cluster = slow(2, **PLAIN)
    cluster[2].step(Heartbeat(sender=NodeId(1), to=NodeId(2), term=Term(1), commit=LogIndex(1)))
    cluster.pump(2)
    first = cluster.servers[2].unsynced
    assert first is not None
    cluster.sync(2)
    cluster[2].forget_leader()
    request = VoteRequest(sender=NodeId(3), to=NodeId(2), term=Term(1), last_index=LogIndex(1), last_term=Term(1), pre_vote=False)
    cluster[2].step(request)
    cluster.pump(2)
    cluster.lose()
    cluster[2].persisted(first.ack)
    cluster.pump(2)
    assert cluster.network == []


def test_restart_continues_with_what_the_disk_has():
    """Figure 2: term, vote and log survive; the commit index is found again."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    for node in (1, 2, 3):
        cluster.restart(node)
        cluster.servers[node].applied.clear()
    assert {cluster[i].term for i in (1, 2, 3)} == {1}
    cluster.elect(2)
    assert [e.data for e in cluster.servers[3].applied] == [b"", b"a", b""]
    cluster.check_logs()


def test_node_does_not_start_on_a_disk_that_lost_its_term():
    """Entries of a term that the hard state does not know: who votes with that votes twice."""
    broken = disk(Cluster(3).start, 1, 4, term=3)
    with pytest.raises(InvariantViolation):
        Cluster(3).add(2, broken)


def test_node_does_not_start_with_a_commit_index_beyond_its_log():
    """The stored log lost what the stored commit index covers."""
    with pytest.raises(InvariantViolation):
        Cluster(3).add(2, disk(Cluster(3).start, 1, term=1, commit=5))


def test_a_commit_index_is_written_by_itself_only_where_it_must_be_kept():
    """Whoever was removed stops one day: who is left must know of it after a crash without asking."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.settle()
    node = cluster[1]
    assert node.durable_commit < node.commit_index
    node.keep_commit(node.applied_index)
    ready = node.ready()
    assert ready is not None
    assert ready.persist is not None
    assert ready.persist.entries == ()
    node.persisted(ready.persist.ack)
    assert node.durable_commit == node.applied_index
    assert node.ready() is None
    with pytest.raises(InvariantViolation, match="is not committed"):
        node.keep_commit(LogIndex(node.commit_index + 1))
