"""Several writes under way at once (`pipeline.py`): what leaves when, what counts when, and what an acknowledgement says."""

from typing import Any

import pytest

from coord_core.raft import pipeline
from coord_core.raft.messages import (
    Append,
    AppendReply,
    Configuration,
    HardState,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    SnapshotMetadata,
    VoteReply,
    VoteRequest,
)
from coord_core.raft.outbox import Persist, PersistAck
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster
from tests.raft.test_random_schedules import Chaos
from tests.raft.test_replication import accepted, append
from tests.raft.threads import ThreadedCluster

PLAIN: dict[str, Any] = {"pre_vote": False, "check_quorum": False}


def asked(cluster: ThreadedCluster, node: int) -> list[Persist]:
    """What the node's append thread is asked for since the last call; it stays undone."""
    before = len(cluster.appending[node])
    cluster.pump(node)
    return list(cluster.appending[node])[before:]


def indexes(persist: Persist) -> list[int]:
    return [entry.index for entry in persist.entries]


def test_next_write_is_handed_out_before_the_one_before_it_is_durable():
    """Each has its own entries, and its own answers to be given when it is durable."""
    cluster = ThreadedCluster()
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    cluster[2].step(append(2, 1, (2, 1), (1,)))
    (first,) = asked(cluster, 2)
    cluster[2].step(append(2, 1, (3, 1), (1,)))
    (second,) = asked(cluster, 2)
    assert (indexes(first), first.replies) == ([2, 3], (accepted(2, 1, 2), accepted(2, 1, 3)))
    assert (indexes(second), second.replies) == ([4], (accepted(2, 1, 4),))
    assert (first.hard_state, second.hard_state) == (HardState(Term(1), NodeId(0), LogIndex(1)), None)


def test_without_the_option_nothing_is_handed_out_beside_an_outstanding_write():
    """Group commit: what gathers meanwhile goes into the next transaction, and answers leave through `ready`."""
    cluster = Cluster()
    cluster.slow_disks = {2}
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    (ready,) = cluster.pump(2)
    assert ready.persist is not None
    assert ready.persist.replies == ()
    cluster[2].step(append(2, 1, (2, 1), (1,)))
    assert cluster.pump(2) == []


def test_only_votes_and_acknowledgements_wait_for_the_disk():
    """A heartbeat's answer promises nothing, so it leaves in a term that is not durable; a candidate's questions do too."""
    cluster = ThreadedCluster(**PLAIN)
    cluster[2].step(Heartbeat(sender=NodeId(1), to=NodeId(2), term=Term(3), commit=LogIndex(1)))
    cluster[3].campaign()
    (written,) = asked(cluster, 2)
    (voted,) = asked(cluster, 3)
    assert [type(m) for m in cluster.network] == [HeartbeatReply, VoteRequest, VoteRequest]
    assert (written.hard_state, written.replies) == (HardState(Term(3), NodeId(0), LogIndex(1)), ())
    assert voted.hard_state == HardState(Term(1), NodeId(3), LogIndex(1))
    assert [(type(m), m.to) for m in voted.replies] == [(VoteReply, 3)]


def test_own_vote_counts_when_it_comes_back():
    """A single voter leads only after its disk has its vote and it has heard so."""
    cluster = ThreadedCluster(1, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    assert cluster.sync(1)
    assert cluster[1].role is Role.CANDIDATE
    cluster.deliver(1)
    assert cluster.role(1) is Role.LEADER


def test_leader_counts_its_own_entries_when_their_acknowledgement_comes_back():
    """With a quorum of two of three, one follower's acknowledgement alone commits nothing."""
    cluster = ThreadedCluster()
    leader = cluster.elect(1)
    before = leader.commit_index
    index = cluster.propose(1, b"a")
    asked(cluster, 1)
    leader.step(accepted(2, 1, index))
    assert leader.commit_index == before
    cluster.lose()
    cluster.sync(1)
    assert leader.commit_index == before
    cluster.deliver(1)
    assert leader.commit_index == index


def test_leaders_own_acknowledgement_of_a_past_term_counts_no_more():
    """It says what the disk had then; another leader may have replaced it since."""
    cluster = ThreadedCluster(**PLAIN)
    leader = cluster.elect(1)
    index = cluster.propose(1, b"a")
    (write,) = asked(cluster, 1)
    assert [(m.to, m.index) for m in write.replies if isinstance(m, AppendReply)] == [(1, index)]
    leader.step(append(1, 5, (2, 1), (5,), sender=3))
    (replaced,) = asked(cluster, 1)
    leader.step(write.replies[0])
    assert leader.dropped_messages[0] == 0
    assert (leader.role, leader.commit_index) == (Role.FOLLOWER, 2)
    assert [(e.index, e.term) for e in replaced.entries] == [(3, 5)]


def test_risen_commit_index_is_written_though_nothing_else_is_new():
    """It is shown as etcd/raft shows it; without the option it rides along with the next write."""
    cluster = ThreadedCluster()
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    asked(cluster, 2)
    cluster[2].step(append(2, 1, (2, 1), (), commit=2))
    (write,) = asked(cluster, 2)
    assert (write.entries, write.hard_state) == ((), HardState(Term(1), NodeId(0), LogIndex(2)))


def test_what_is_committed_is_handed_out_when_it_is_on_this_nodes_disk():
    """Its apply thread may read it from there."""
    cluster = ThreadedCluster()
    cluster[2].step(append(2, 1, (1, 1), (1,), commit=2))
    cluster.pump(2)
    assert (cluster[2].commit_index, len(cluster.applying[2])) == (2, 0)
    cluster.sync(2)
    cluster.pump(2)
    assert [[entry.index for entry in portion] for portion in cluster.applying[2]] == [[2]]


@pytest.mark.parametrize(("bound", "expected"), [(1, [[2], [3], [4]]), (80, [[2, 3], [4]]), (10_000, [[2, 3, 4]])])
def test_no_more_is_unapplied_than_the_bound_allows(bound: int, expected: list[list[int]]):
    """The next portion waits for the apply thread, else its queue would have no bound."""
    cluster = ThreadedCluster(max_committed_bytes=bound)
    cluster[2].step(append(2, 1, (1, 1), (1, 1, 1), commit=4))
    cluster.pump(2)
    cluster.sync(2)
    for portion in expected:
        cluster.pump(2)
        assert [[entry.index for entry in held] for held in cluster.applying[2]] == [portion]
        cluster.apply(2)
    assert cluster[2].applied_index == 4


def test_acknowledgement_of_a_past_term_is_passed_over_and_the_next_speaks_for_its_entries():
    """The ABA hazard: the same index may be on its way to the disk a second time; only an acknowledgement of this term knows."""
    cluster = ThreadedCluster()
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    (first,) = asked(cluster, 2)
    cluster[2].step(Heartbeat(sender=NodeId(3), to=NodeId(2), term=Term(2), commit=LogIndex(1)))
    (second,) = asked(cluster, 2)
    assert (second.entries, second.ack.last_index, second.ack.last_term) == ((), 2, 1)
    cluster.sync(2)
    assert cluster[2].durable_index == 1
    cluster.sync(2)
    assert cluster[2].durable_index == 2
    assert first.ack.number < second.ack.number


def test_acknowledgement_says_nothing_of_an_entry_that_was_replaced_since():
    """Of this term, but of another entry: the replacement is still on its way."""
    cluster = ThreadedCluster()
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    asked(cluster, 2)
    cluster[2].step(Heartbeat(sender=NodeId(3), to=NodeId(2), term=Term(2), commit=LogIndex(1)))
    asked(cluster, 2)
    cluster[2].step(append(2, 2, (1, 1), (2,), sender=3))
    (third,) = asked(cluster, 2)
    cluster.sync(2)
    cluster.sync(2)
    assert cluster[2].durable_index == 1
    cluster.sync(2)
    assert cluster[2].durable_index == 2
    assert (indexes(third), cluster.servers[2].disk.entries[-1].term) == ([2], 2)


def test_acknowledgement_of_a_write_that_was_never_asked_for_is_ignored():
    """And one that comes twice says the same again."""
    cluster = ThreadedCluster()
    cluster[2].step(append(2, 1, (1, 1), (1,)))
    (write,) = asked(cluster, 2)
    cluster[2].persisted(PersistAck(Term(1), LogIndex(2), Term(1), 7))
    assert cluster[2].durable_index == 1
    cluster[2].persisted(write.ack)
    cluster[2].persisted(write.ack)
    assert cluster[2].durable_index == 2


def test_writes_under_way_are_bounded_and_what_gathers_goes_into_the_next(monkeypatch: pytest.MonkeyPatch):
    """A disk that hangs must not fill the memory with transactions."""
    monkeypatch.setattr(pipeline, "MAX_UNDER_WAY", 2)
    cluster = ThreadedCluster()
    for index in range(1, 5):
        cluster[2].step(append(2, 1, (index, 1), (1,)))
        cluster.pump(2)
    assert [indexes(persist) for persist in cluster.appending[2]] == [[2], [3]]
    cluster.sync(2)
    assert [indexes(persist) for persist in asked(cluster, 2)] == [[4, 5]]


def snapshot(index: int, term: int = 1) -> InstallSnapshot:
    metadata = SnapshotMetadata(LogIndex(index), Term(1), Configuration(voters=(NodeId(1), NodeId(2), NodeId(3))))
    return InstallSnapshot(sender=NodeId(1), to=NodeId(2), term=Term(term), metadata=metadata)


def test_snapshot_is_written_in_turn_and_stands_whatever_the_term():
    """It is committed: a term that ends meanwhile does not make it untrue."""
    cluster = ThreadedCluster()
    cluster[2].step(snapshot(9))
    cluster[2].step(append(2, 1, (9, 1), (1,), commit=10))
    (write,) = asked(cluster, 2)
    assert (write.snapshot, indexes(write)) == (snapshot(9).metadata, [10])
    assert [m.index for m in write.replies if isinstance(m, AppendReply)] == [9, 10]
    cluster[2].step(Heartbeat(sender=NodeId(3), to=NodeId(2), term=Term(2), commit=LogIndex(9)))
    (later,) = asked(cluster, 2)
    assert later.snapshot is None
    cluster.sync(2)
    assert (cluster[2].installing, cluster[2].applied_index, cluster[2].durable_index) == (None, 9, 9)
    cluster.sync(2)
    assert cluster[2].durable_index == 10


def test_later_snapshot_is_written_too():
    """The acknowledgement of the first does not stand for the second."""
    cluster = ThreadedCluster()
    cluster[2].step(snapshot(9))
    asked(cluster, 2)
    cluster[2].step(snapshot(20))
    (second,) = asked(cluster, 2)
    assert second.snapshot is not None
    assert second.snapshot.index == 20
    cluster.servers[2].node.persisted(cluster.appending[2].popleft().ack)
    assert cluster[2].installing is not None
    cluster.sync(2)
    assert cluster[2].installing is None


def test_pre_vote_for_oneself_is_a_write_of_nothing_but_its_answer():
    """It changes neither term nor vote, and still takes its turn."""
    cluster = ThreadedCluster()
    cluster.elect(1)
    cluster[2].campaign()
    (write,) = asked(cluster, 2)
    assert (write.entries, write.hard_state, write.ack.last_index) == ((), None, 0)
    assert [(type(m), m.to, m.term) for m in write.replies] == [(VoteReply, 2, 2)]


def test_message_from_oneself_is_dropped_where_none_can_be():
    """Without the option a node's own votes and entries never come in from outside."""
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].step(accepted(1, 1, 2))
    assert cluster[1].dropped_messages[0] == 1
    threaded = ThreadedCluster()
    threaded.elect(1)
    threaded[1].step(append(1, 1, (2, 1), (1,), sender=1))
    assert threaded[1].dropped_messages[0] == 1


class ThreadedChaos(Chaos):
    """The same lives with append and apply threads."""

    def __init__(self, seed: int, size: int) -> None:
        super().__init__(seed, size)
        self.threads = ThreadedCluster(size, seed=seed, max_append_bytes=200, max_inflight_appends=4, max_committed_bytes=150)
        self.cluster = self.threads
        self.actions.append((self.apply, 25))

    def apply(self) -> None:
        for node in self.cluster.servers:
            if self.rng.random() < 0.5:
                self.threads.apply(node)

    def lose(self) -> None:
        message = self.take()
        if message is not None and message.sender == message.to:
            self.cluster.network.insert(0, message)

    def restart(self) -> None:
        self.threads.crash_in_mid_write(self.node(), self.rng)

    def heal(self) -> None:
        self.cluster.settle()
        super().heal()


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_no_schedule_with_storage_threads_breaks_what_raft_promises(seed: int, size: int):
    """Figure 3, and liveness once the network and the threads work."""
    chaos = ThreadedChaos(seed, size)
    chaos.run()
    chaos.heal()


def test_schedules_with_storage_threads_reach_the_interesting_places():
    """Writes that queue up, entries that are replaced, snapshots that are installed."""
    elections = installed = replaced = 0
    for seed in range(5):
        chaos = ThreadedChaos(seed, 3)
        chaos.run()
        elections += len(chaos.cluster.leaders)
        for server in chaos.cluster.servers.values():
            installed += server.disk.snapshot.index > chaos.cluster.start.index
            replaced += server.disk.replaced
    assert elections > 12
    assert replaced > 3
    assert installed > 1


def test_append_leaves_before_the_leaders_own_write():
    """The leader's disk runs beside the network (dissertation, 10.2.1), with or without the option."""
    cluster = ThreadedCluster()
    cluster.elect(1)
    cluster.propose(1, b"a")
    asked(cluster, 1)
    assert [m.to for m in cluster.network if isinstance(m, Append)] == [2, 3]
