"""What keeps a working leader in place, and what ends one that does not work: pre-vote, lease, check quorum, and the news that
a connection closed (dissertation, 9.6, 6.2 and 4.2.3; spec: leader_lost)."""

import pytest

from coord_core.raft.messages import AppendReply, HardState, Heartbeat, VoteReply, VoteRequest
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster, disk
from tests.raft.test_elections import request
from tests.raft.test_replication import append


def test_pre_candidate_changes_neither_term_nor_vote():
    """9.6: a candidate increments its term only after a majority would vote for it."""
    cluster = Cluster(3)
    cluster[1].campaign()
    cluster.pump(1)
    assert (cluster[1].role, cluster[1].term, cluster[1].voted_for) == (Role.PRE_CANDIDATE, 0, 0)


def test_granting_a_pre_vote_changes_neither_term_nor_vote():
    """9.6: it says what a vote would be."""
    cluster = Cluster(3)
    cluster[2].step(request(1, 2, 1, pre_vote=True))
    cluster[2].step(request(3, 2, 1, pre_vote=True))
    cluster.pump(2)
    assert [(m.to, m.term, m.granted) for m in cluster.network if isinstance(m, VoteReply)] == [(1, 1, True), (3, 1, True)]
    assert (cluster[2].term, cluster[2].voted_for) == (0, 0)


def test_cut_off_node_does_not_raise_its_term_and_deposes_nobody_when_it_returns():
    """9.6: pre-vote solves "the issue of a partitioned server disrupting the cluster when it rejoins\"."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.cut([1, 2], [3])
    cluster.tick(50)
    assert (cluster[3].role, cluster[3].term) == (Role.PRE_CANDIDATE, 1)
    cluster.heal()
    cluster.tick(20)
    assert (leader.role, leader.term) == (Role.LEADER, 1)
    assert (cluster[3].role, cluster[3].leader_id) == (Role.FOLLOWER, 1)


def test_vote_request_is_ignored_within_the_lease():
    """4.2.3: "if a server receives a RequestVote request within the minimum election timeout of hearing from a current leader,
    it does not update its term or grant its vote.\""""
    cluster = Cluster(3)
    cluster.elect(1)
    for _ in range(5):
        cluster[2].tick()
    cluster[2].step(request(3, 2, 9, last_index=99, last_term=9))
    cluster.pump(2)
    assert cluster.network == []
    assert cluster[2].term == 1
    cluster[2].tick()
    cluster[2].step(request(3, 2, 9, last_index=99, last_term=8))
    assert cluster[2].term == 9


def test_leader_is_in_its_own_lease():
    """A leader does not vote itself out on the word of a node that does not hear it."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.step(request(3, 1, 9, last_index=99, last_term=8, pre_vote=True))
    leader.step(request(3, 1, 9, last_index=99, last_term=8))
    assert (leader.role, leader.term) == (Role.LEADER, 1)


def test_leader_that_hears_no_quorum_steps_down():
    """6.2: "a leader in Raft steps down if an election timeout elapses without a successful round of heartbeats to a majority\""""
    cluster = Cluster(5)
    leader = cluster.elect(1)
    cluster.cut([1, 2], [3, 4, 5])
    cluster.tick(12, 1, 2)
    assert leader.role is not Role.LEADER


def test_leader_that_hears_a_quorum_stays():
    """6.2, the other half."""
    cluster = Cluster(5)
    leader = cluster.elect(1)
    cluster.cut([1, 2, 3], [4, 5])
    cluster.tick(60)
    assert (leader.role, leader.term) == (Role.LEADER, 1)


def test_learners_do_not_keep_a_leader_in_place():
    """Check quorum counts voters."""
    cluster = Cluster(3, learners=[4, 5])
    leader = cluster.elect(1)
    cluster.cut([1, 4, 5], [2], [3])
    cluster.tick(12)
    assert leader.role is not Role.LEADER


def test_node_with_a_later_term_is_freed_by_answering_the_old_leader():
    """etcd#8501: a node that moved on to a later term ignores the leader, and the leader's lease ignores it.  Its answer to the
    leader's messages carries the later term; the leader steps down, and both take part in the next election."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.servers[3].disk.hard_state = HardState(Term(7))
    cluster.restart(3)
    cluster.tick(30)
    leader = cluster.leader()
    assert leader is not None
    assert leader.term > 7
    assert all(cluster[i].leader_id == leader.node_id for i in (1, 2, 3))


@pytest.mark.parametrize(
    "message", [append(1, 3, (1, 1), sender=2), Heartbeat(sender=NodeId(2), to=NodeId(1), term=Term(3), commit=LogIndex(1))]
)
def test_old_leader_is_told_the_newer_term(message: object):
    """etcd#8501: silence would leave it leading nobody."""
    cluster = Cluster(3)
    cluster.add(1, disk(cluster.start, 1, term=7))
    cluster[1].step(message)  # type: ignore[arg-type]
    cluster.pump(1)
    assert [(type(m), m.to, m.term) for m in cluster.network] == [(AppendReply, 2, 7)]


def test_old_pre_candidate_is_told_the_newer_term():
    """etcd#8243: a pre-candidate of an old term whose requests were dropped would ask for ever, and a newer one with the
    shorter log could not win either."""
    cluster = Cluster(3)
    cluster.add(1, disk(cluster.start, term=9))
    cluster.add(2, disk(cluster.start, 1, 1, term=1))
    cluster.add(3, disk(cluster.start, 1, 1, term=1))
    cluster.crash(3)
    for _ in range(60):
        cluster.tick()
    leader = cluster.leader()
    assert leader is not None
    assert leader.node_id == 2
    assert leader.term > 9


def test_pre_vote_that_comes_late_counts_for_nothing():
    """A grant of an earlier rehearsal says nothing about this one's term."""
    cluster = Cluster(3)
    cluster[1].campaign()
    cluster.pump(1)
    late = VoteReply(sender=NodeId(2), to=NodeId(1), term=Term(1), pre_vote=True, granted=True)
    cluster[1].step(Heartbeat(sender=NodeId(3), to=NodeId(1), term=Term(1), commit=LogIndex(1)))
    cluster[1].forget_leader()
    cluster[1].campaign()
    cluster.pump(1)
    cluster[1].step(late)
    assert (cluster[1].role, cluster[1].term) == (Role.PRE_CANDIDATE, 1)


def test_even_a_lasting_bridge_leaves_one_leader_that_makes_progress():
    """A node that both sides hear does not carry the leadership to and fro: its lease ignores the far side's pre-votes."""
    cluster = Cluster(5)
    leader = cluster.elect(1)
    cluster.cut([1, 2, 3], [3, 4, 5])
    cluster.tick(100)
    assert (leader.role, leader.term) == (Role.LEADER, 1)
    index = cluster.propose(1, b"a")
    cluster.settle()
    assert leader.commit_index == index


# -- leader_lost


def test_followers_of_a_dead_leader_elect_another_without_waiting_for_a_timeout():
    """A closed connection is better news than silence."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.crash(1)
    cluster[2].leader_lost()
    cluster[3].leader_lost()
    cluster.settle()
    leader = cluster.leader()
    assert leader is not None
    assert (leader.node_id, leader.term) == (2, 2)


def test_second_in_line_campaigns_soon_when_the_first_does_not():
    """The first may be dead too, or behind: the turn passes on after a third of an election timeout."""
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.crash(1)
    cluster.crash(2)
    for node in (3, 4, 5):
        cluster[node].leader_lost()
    cluster.tick(2)
    assert cluster[3].role is Role.LEADER


def test_first_in_line_asks_again_soon_where_the_others_had_not_noticed_yet():
    """Whoever still hears the dead leader drops the question without a word; silence must not cost an election timeout."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.crash(1)
    cluster[2].leader_lost()
    cluster.settle()
    assert cluster.leader() is None
    cluster.tick(1)
    assert cluster.leader() is None
    cluster[3].forget_leader()
    cluster.tick(2)
    assert cluster[2].role is Role.LEADER


def test_first_in_line_with_the_shorter_log_gives_way_at_once():
    """Who refuses it for its log is a better candidate and need not wait its turn."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 2)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.heal()
    cluster.crash(1)
    cluster[3].leader_lost()
    cluster[2].leader_lost()
    cluster.settle()
    cluster.tick(1)
    assert cluster[3].role is Role.LEADER


def test_one_broken_link_deposes_nobody():
    """Spec: the others still hear the leader and ignore the pre-vote."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster[2].leader_lost()
    cluster.settle()
    assert (leader.role, leader.term) == (Role.LEADER, 1)
    cluster.tick(20)
    assert (leader.role, leader.term, cluster[2].leader_id) == (Role.LEADER, 1, 1)


def test_node_that_lost_its_leader_grants_within_the_old_lease():
    """Spec: it forgets the leader's lease, campaigns, and grants."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[3].step(request(2, 3, 2, 2, 1, pre_vote=True))
    cluster.pump(3)
    assert cluster.lose() == []
    cluster[3].leader_lost()
    cluster[3].step(request(2, 3, 2, 2, 1, pre_vote=True))
    cluster.pump(3)
    assert [m.granted for m in cluster.network if isinstance(m, VoteReply)] == [True]


def test_leader_lost_means_nothing_to_a_leader_or_a_candidate():
    """The news is about the connection to the leader, which they have none to."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[1].leader_lost()
    assert cluster[1].role is Role.LEADER
    cluster[2].forget_leader()
    cluster[2].campaign()
    cluster[2].leader_lost()
    assert [m for m in cluster.network if isinstance(m, VoteRequest)] == []
    assert cluster[2].role is Role.PRE_CANDIDATE


def test_hearing_the_leader_again_ends_the_wait_for_a_turn():
    """The link came back: no campaign follows."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[3].leader_lost()
    cluster[3].step(Heartbeat(sender=NodeId(1), to=NodeId(3), term=Term(1), commit=LogIndex(1)))
    for _ in range(5):
        cluster[3].tick()
    assert cluster[3].role is Role.FOLLOWER


def test_lease_that_is_relied_on_is_given_up_for_no_news():
    """Whoever answers by the leader's lease (etcd/raft: lease-based reads) needs all to keep it: neither a wish to forget the
    leader nor a closed connection ends it before its time."""
    cluster = Cluster(3, lease_relied_on=True)
    cluster.elect(1)
    for node in (2, 3):
        cluster[node].forget_leader()
        cluster[node].leader_lost()
        assert cluster[node].leader_id == 1
    cluster[2].campaign()
    cluster.settle()
    assert cluster[1].role is Role.LEADER
    cluster.cut([1], [2, 3])
    cluster.tick(20, 2, 3)
    assert cluster.leader() in (cluster[2], cluster[3])
