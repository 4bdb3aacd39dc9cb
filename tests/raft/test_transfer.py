"""Handing over leadership (dissertation, 3.10)."""

import pytest

from coord_core.raft.messages import Append, TimeoutNow
from coord_core.raft.refusals import NotLeaderError, TransferRefused, Transferring
from coord_core.raft.state import Role
from coord_core.types import NodeId, Term
from tests.raft.cluster import Cluster


def test_leadership_goes_to_a_follower_that_has_everything():
    """3.10: the leader sends TimeoutNow; the target starts an election at once, without waiting and without asking first."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.transfer(NodeId(3))
    cluster.pump(1)
    assert [m.to for m in cluster.network if isinstance(m, TimeoutNow)] == [3]
    cluster.settle()
    assert (cluster[3].role, cluster[3].term, leader.role) == (Role.LEADER, 2, Role.FOLLOWER)


def test_lagging_target_catches_up_first():
    """3.10, step 2: "The prior leader fully updates the target server's log to match its own\""""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 2 and isinstance(m, Append))
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.heal()
    leader.transfer(NodeId(2))
    cluster.pump(1)
    assert not [m for m in cluster.network if isinstance(m, TimeoutNow)]
    cluster.tick(1)
    assert cluster[2].role is Role.LEADER
    assert cluster[2].last_index == 4


def test_nothing_is_proposed_while_leadership_is_handed_over():
    """3.10, step 1: "The prior leader stops accepting new client requests.\""""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.transfer(NodeId(2))
    with pytest.raises(Transferring) as refused:
        leader.propose([b"a"])
    assert refused.value.details["to"] == 2
    with pytest.raises(Transferring):
        cluster.change(1, "l4")


def test_transfer_that_takes_longer_than_an_election_timeout_is_given_up():
    """3.10: "If leadership transfer does not complete after about an election timeout, the prior leader aborts the transfer\""""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: isinstance(m, TimeoutNow))
    leader.transfer(NodeId(2))
    cluster.tick(5)
    assert leader.transferee == 2
    cluster.tick(1)
    assert leader.transferee == 0
    leader.propose([b"a"])


def test_lease_does_not_hinder_a_transfer():
    """4.2.3: requests that the leader itself caused carry a flag, and are answered within the lease."""
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.tick(1)
    cluster[1].transfer(NodeId(4))
    cluster.settle()
    assert cluster[4].role is Role.LEADER


@pytest.mark.parametrize("to", [9, 4])
def test_leadership_does_not_go_to_a_stranger_or_a_learner(to: int):
    """Neither could be elected."""
    cluster = Cluster(3, learners=[4])
    leader = cluster.elect(1)
    with pytest.raises(TransferRefused):
        leader.transfer(NodeId(to))
    leader.propose([b"a"])


def test_transfer_to_itself_changes_nothing():
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.transfer(NodeId(1))
    assert leader.transferee == 0


def test_second_transfer_replaces_the_first():
    """The latest wish counts; the clock begins anew."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: isinstance(m, TimeoutNow) and m.to == 2)
    leader.transfer(NodeId(2))
    leader.transfer(NodeId(3))
    cluster.settle()
    assert cluster[3].role is Role.LEADER


def test_transfer_ends_when_its_target_is_removed():
    """It will not take over any more."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.change(1, "r3")
    cluster.losses.append(lambda m: isinstance(m, TimeoutNow))
    leader.transfer(NodeId(3))
    cluster.settle()
    assert leader.transferee == 0


def test_only_the_leader_hands_over():
    cluster = Cluster(3)
    cluster.elect(1)
    with pytest.raises(NotLeaderError):
        cluster[2].transfer(NodeId(3))


def test_only_the_leader_may_ask_for_an_election():
    """A TimeoutNow of anybody else would depose the leader past every lease."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[2].step(TimeoutNow(sender=NodeId(3), to=NodeId(2), term=Term(1)))
    assert cluster[2].role is Role.FOLLOWER


def test_old_leader_answers_no_reads_after_the_transfer():
    """etcd#7331: a read by lease was answered while another led already; here each read asks a quorum."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.transfer(NodeId(2))
    cluster.settle(1, 2)
    cluster.cut([1], [2, 3])
    cluster.settle()
    cluster.propose(2, b"new")
    cluster.settle()
    if leader.role is Role.LEADER:
        leader.read_index(1)
    cluster.settle()
    assert cluster.servers[1].reads == []


def test_transfer_to_the_leader_itself_calls_off_the_one_under_way():
    """With etcd/raft: it leads on, and takes proposals again at once."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: isinstance(m, TimeoutNow))
    leader.transfer(NodeId(2))
    cluster.settle()
    leader.transfer(NodeId(1))
    assert leader.transferee == 0
    leader.propose([b"a"])
