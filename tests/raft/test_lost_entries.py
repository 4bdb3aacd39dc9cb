"""A node whose disk lost what it had acknowledged finds out from its leader, and stops; nobody else ever does.

That there is no false alarm is also held by every random schedule and every seed of the simulator: there it would be an error.
"""

import pytest

from coord_core.errors import NodeSuspect
from coord_core.raft.messages import AppendReply, HardState, Heartbeat, HeartbeatReply
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster
from tests.raft.test_durability import slow


def is_heartbeat(message: object) -> bool:
    return isinstance(message, Heartbeat)


def lose_the_last_entry(cluster: Cluster, node: int) -> None:
    """Restart a node on a disk that has forgotten its last transaction, as a damaged write-ahead log leaves it."""
    disk = cluster.servers[node].disk
    del disk.entries[-1]
    state = disk.hard_state
    disk.hard_state = HardState(state.term, state.voted_for, LogIndex(min(state.commit, disk.entries[-1].index)))
    cluster.restart(node)


def test_follower_that_lost_an_acknowledged_entry_stops_when_its_leader_lives():
    """The leader counted that entry on this node's word; a vote from here could undo it (FAST 2018, Protocol-Aware Recovery)."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    index = cluster.propose(1, b"a")
    cluster.settle()
    lose_the_last_entry(cluster, 2)
    leader.tick()
    cluster.pump(1)
    with pytest.raises(NodeSuspect, match=f"acknowledged entry {index} .* ends at {index - 1}.*under a new node id") as error:
        cluster.deliver(2, only=is_heartbeat)
    assert error.value.details == {"acknowledged": index, "last_index": index - 1, "leader": 1, "term": 1}


def test_follower_that_never_acknowledged_what_it_lost_goes_on():
    """A crash before the write is durable is nothing but a crash."""
    cluster = slow(2)
    leader = cluster.elect(1)
    cluster.sync(2)
    cluster.settle()
    index = cluster.propose(1, b"a")
    cluster.settle()
    assert leader.commit_index == index
    cluster.restart(2)
    assert cluster[2].last_index < index
    leader.tick()
    cluster.pump(1)
    cluster.deliver(2, only=is_heartbeat)
    cluster.slow_disks = set()
    cluster.tick(3)
    assert cluster[2].last_index == index


def test_heartbeats_and_acknowledgements_that_come_late_or_twice_accuse_nobody():
    """What a leader says in one term stays true in it, and in the next one nobody listens to it."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    leader.tick()
    cluster.pump(1)
    late = [message for message in cluster.network if is_heartbeat(message)]
    assert {message.commit for message in late if isinstance(message, Heartbeat)} == {3}
    cluster.settle()
    cluster.cut({1}, {2, 3})
    cluster[2].forget_leader()
    cluster[3].forget_leader()
    cluster.elect(2)
    # In its own term the deposed leader has more than it could pass on; it gives that up.
    cluster.propose(1, b"only here")
    cluster.pump(1)
    cluster.heal()
    cluster.tick(3)
    for message in late * 2:
        cluster[message.to].step(message)
    leader.step(Heartbeat(sender=NodeId(2), to=NodeId(1), term=cluster[2].term, commit=LogIndex(4)))
    assert cluster.logs()[1] == cluster.logs()[2] == cluster.logs()[3]


def test_follower_is_not_accused_while_a_snapshot_takes_the_place_of_its_log():
    """Until the install is durable a crash takes it back to a log that has all it ever acknowledged."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.cut({1, 2}, {3})
    for number in range(5):
        cluster.propose(1, b"%d" % number)
        cluster.settle()
    leader.compact(leader.applied_index)
    cluster.heal()
    cluster.slow_disks = {3}
    cluster.tick(3)
    assert cluster[3].installing is not None
    leader.tick()
    cluster.pump(1)
    beats = [message for message in cluster.network if is_heartbeat(message) and message.to == 3]
    for message in beats:
        cluster[3].step(message)
    cluster.restart(3)
    for message in beats:
        cluster[3].step(message)
    cluster.slow_disks = set()
    leader.report_snapshot(NodeId(3), ok=False)
    cluster.tick(5)
    assert cluster[3].last_index == leader.last_index


def test_leader_sends_no_follower_a_commit_index_that_it_has_not_acknowledged():
    """The other half of the proof: the accusation rests on the follower's own word, given in this term."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.losses.append(lambda message: isinstance(message, AppendReply) and message.sender == 3)
    cluster.propose(1, b"a")
    cluster.settle()
    leader.tick()
    cluster.pump(1)
    commits = {message.to: message.commit for message in cluster.network if isinstance(message, Heartbeat)}
    assert commits == {2: 3, 3: 2}


def test_node_that_finds_its_loss_has_said_nothing_in_between():
    """It answers no heartbeat by which it would be counted among the living."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    lose_the_last_entry(cluster, 2)
    leader.tick()
    cluster.pump(1)
    with pytest.raises(NodeSuspect):
        cluster.deliver(2)
    assert not any(isinstance(message, HeartbeatReply) and message.sender == 2 for message in cluster.network)
    assert cluster[2].term == Term(1)
