"""Linearizable reads without a log entry (dissertation, 6.4)."""

import pytest

from coord_core.raft.messages import Heartbeat, HeartbeatReply
from coord_core.raft.refusals import NotLeaderError, ReadsBusy
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster


def reads(cluster: Cluster, node: int = 1) -> list[tuple[int, int]]:
    return [(state.context, state.index) for state in cluster.servers[node].reads]


def beats(cluster: Cluster) -> list[tuple[int, int]]:
    return [(m.to, m.context) for m in cluster.network if isinstance(m, Heartbeat)]


def test_read_is_answered_when_a_quorum_has_confirmed_the_leader():
    """6.4, step 3: "It issues a new round of heartbeats and waits for their acknowledgments from a majority of the cluster.\""""
    cluster = Cluster(5)
    leader = cluster.elect(1)
    leader.read_index(7)
    cluster.pump(1)
    assert beats(cluster) == [(2, 1), (3, 1), (4, 1), (5, 1)]
    cluster.deliver(2)
    cluster.settle(1, 2)
    assert reads(cluster) == []
    cluster.deliver(3)
    cluster.settle(1, 3)
    assert reads(cluster) == [(7, leader.commit_index)]


def test_reads_asked_for_before_the_turn_ends_share_one_round():
    """Batching: a thousand reads cost one round of heartbeats."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    for context in range(1000):
        leader.read_index(context)
    cluster.pump(1)
    assert beats(cluster) == [(2, 1), (3, 1)]
    cluster.settle()
    assert reads(cluster) == [(context, leader.commit_index) for context in range(1000)]


def test_read_is_not_confirmed_by_a_round_that_began_before_it():
    """6.4: an answer to an older heartbeat says nothing about the time after the read was asked for."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.read_index(1)
    cluster.pump(1)
    cluster.deliver(2, 3)
    cluster.pump(2)
    cluster.pump(3)
    leader.read_index(2)
    cluster.pump(1)
    cluster.deliver(1)
    cluster.pump(1)
    assert reads(cluster) == [(1, leader.commit_index)]


def test_lost_round_is_made_good_by_the_next_heartbeat():
    """The pending round's number rides on every heartbeat until it is confirmed."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.read_index(1)
    leader_index = leader.commit_index
    cluster.pump(1)
    cluster.lose()
    cluster.tick()
    assert reads(cluster) == [(1, leader_index)]


def test_answer_to_a_later_round_confirms_the_earlier_ones():
    """Whoever follows this leader later did not follow another in between: terms only rise."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.read_index(1)
    cluster.pump(1)
    cluster.lose()
    leader.read_index(2)
    cluster.settle()
    assert [context for context, _ in reads(cluster)] == [1, 2]


def test_no_read_before_an_entry_of_the_own_term_is_committed():
    """6.4, step 1: until then a leader may not know the latest commit index; the read waits."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.losses.append(lambda m: m.sender == 2 and m.to != 2 and not isinstance(m, Heartbeat) and hasattr(m, "entries"))
    for node in (1, 3):
        cluster[node].forget_leader()
    cluster[2].forget_leader()
    cluster.cut([2, 3])
    cluster[2].campaign()
    cluster.settle(2, 3)
    leader = cluster[2]
    assert leader.role is Role.LEADER
    assert leader.commit_index < leader.last_index
    leader.read_index(5)
    cluster.settle(2, 3)
    leader.tick()
    cluster.settle(2, 3)
    assert reads(cluster, 2) == []
    cluster.heal()
    cluster.tick(2)
    assert reads(cluster, 2) == [(5, leader.commit_index)]


def test_deposed_leader_confirms_nothing():
    """6.4: a leader that another has replaced without its knowledge must not answer."""
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.cut([1], [2, 3])
    for node in (2, 3):
        cluster[node].forget_leader()
    cluster[2].campaign()
    cluster.settle(2, 3)
    cluster.propose(2, b"new")
    cluster.settle(2, 3)
    old.read_index(1)
    cluster.settle(1)
    cluster.heal()
    cluster.tick(3)
    assert reads(cluster) == []
    assert old.role is Role.FOLLOWER


def test_single_voter_answers_at_once():
    """It is a quorum by itself; learners are not asked."""
    cluster = Cluster(1, learners=[2])
    cluster.tick(12, 1)
    cluster.cut([1])
    leader = cluster[1]
    assert leader.role is Role.LEADER
    leader.read_index(1)
    cluster.pump(1)
    assert reads(cluster) == [(1, leader.commit_index)]


def test_learners_answers_do_not_confirm():
    """Only voters make a quorum."""
    cluster = Cluster(3, learners=[4, 5])
    leader = cluster.elect(1)
    cluster.cut([1, 4, 5])
    leader.read_index(1)
    cluster.settle()
    assert reads(cluster) == []


def test_reads_wait_within_a_bound():
    """Without a quorum they would gather for ever."""
    cluster = Cluster(3, max_waiting_reads=10)
    leader = cluster.elect(1)
    cluster.cut([1])
    for context in range(10):
        leader.read_index(context)
        cluster.pump(1)
    with pytest.raises(ReadsBusy):
        leader.read_index(10)
    cluster.heal()
    cluster.tick(1)
    leader.read_index(11)


def test_only_the_leader_reads():
    cluster = Cluster(3)
    cluster.elect(1)
    with pytest.raises(NotLeaderError):
        cluster[2].read_index(1)


def test_answer_to_a_round_that_never_began_is_dropped():
    """Else one forged number would confirm every read to come."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.step(HeartbeatReply(sender=NodeId(2), to=NodeId(1), term=Term(1), context=99))
    leader.read_index(1)
    cluster.pump(1)
    assert reads(cluster) == []
    assert "has not begun" in leader.dropped_messages[1]


def test_reads_in_a_joint_configuration_need_both_majorities():
    """4.3 with 6.4: either half could elect another leader alone once the joint configuration is left."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.join_jointly(1, add=[4, 5], remove=[2, 3])
    assert leader.configuration.outgoing == (1, 2, 3)
    leader.read_index(1)
    cluster.settle(1, 4, 5)
    assert reads(cluster) == []
    cluster.settle(1, 2)
    assert [context for context, _ in reads(cluster)] == [1]


def test_waiting_read_is_released_when_the_quorum_shrinks_to_those_who_answered():
    """Else it would wait for an answer that nobody will give."""
    cluster = Cluster(2)
    leader = cluster.elect(1)
    index = cluster.change(1, "r2")
    cluster.losses.append(lambda m: isinstance(m, HeartbeatReply))
    leader.read_index(1)
    cluster.settle()
    assert leader.commit_index >= index
    assert leader.configuration.voters == (1,)
    assert [context for context, _ in reads(cluster)] == [1]
    assert LogIndex(reads(cluster)[0][1]) <= leader.commit_index
