"""Changing who belongs (dissertation, 4.1 to 4.3, with etcd/raft's rule that a change takes effect when applied)."""

import pytest

from coord_core.raft import membership
from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.membership import MembershipChange, Transition
from coord_core.raft.messages import Append, AppendReply, Configuration, Entry, EntryKind, VoteReply, VoteRequest
from coord_core.raft.node import RaftNode
from coord_core.raft.refusals import MembershipRefused, NotLeaderError
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster, disk, founding


def test_node_is_added_catches_up_and_votes():
    """4.1: one server at a time; the new one receives the log and counts from then on."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.add(4)
    cluster.change(1, "v4")
    cluster.settle()
    cluster.tick(2)
    assert leader.configuration.voters == (1, 2, 3, 4)
    assert (cluster[4].commit_index, cluster[4].configuration) == (leader.commit_index, leader.configuration)
    cluster.crash(2)
    index = cluster.propose(1, b"b")
    cluster.settle()
    assert leader.commit_index == index
    cluster.crash(3)
    index = cluster.propose(1, b"c")
    cluster.settle()
    assert leader.commit_index < index


def test_learner_catches_up_before_it_is_promoted():
    """4.2.1: a new server that holds nothing yet must not hold up commitment."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.change(1, "l4")
    cluster.settle()
    assert leader.configuration.learners == (4,)
    cluster.add(4)
    cluster.tick(3)
    assert cluster[4].last_index == leader.last_index
    cluster.change(1, "v4")
    cluster.settle()
    assert leader.configuration == Configuration(voters=(NodeId(1), NodeId(2), NodeId(3), NodeId(4)))
    assert all(cluster[i].configuration == leader.configuration for i in (2, 3, 4))


def test_change_takes_effect_when_applied_not_when_appended():
    """etcd/raft's rule: an uncommitted change is in force nowhere, so none has to be rolled back (against 4.1)."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.cut([1])
    cluster.change(1, "r3")
    cluster.settle()
    assert leader.configuration.voters == (1, 2, 3)
    for node in (2, 3):
        cluster[node].forget_leader()
    cluster.heal()
    cluster.cut([2, 3])
    cluster[2].campaign()
    cluster.settle(2, 3)
    cluster.heal()
    cluster.tick(3)
    assert all(cluster[i].configuration.voters == (1, 2, 3) for i in (1, 2, 3))
    cluster.check_logs()


def test_second_change_is_refused_while_the_first_is_pending():
    """4.1: two changes in flight could have majorities that do not meet."""
    cluster = Cluster(3)
    cluster.elect(1)
    pending = cluster.change(1, "l4")
    with pytest.raises(MembershipRefused) as refused:
        cluster.change(1, "l5")
    assert refused.value.details["pending"] == pending
    cluster.settle()
    cluster.change(1, "l5")


def test_change_is_refused_until_an_entry_of_the_own_term_is_committed():
    """The 2015 bug of single-server changes: a new leader must commit an entry of its term first."""
    cluster = Cluster(3)
    cluster.losses.append(lambda m: isinstance(m, AppendReply))
    cluster[1].campaign()
    cluster.settle()
    assert cluster[1].role is Role.LEADER
    with pytest.raises(MembershipRefused):
        cluster.change(1, "l4")
    cluster.heal()
    cluster.tick(2)
    cluster.change(1, "l4")


@pytest.mark.parametrize(
    ("steps", "transition", "why"),
    [
        ("r1 r2 r3", Transition.AUTO, "removed all voters"),
        ("", Transition.AUTO, "no joint configuration"),
    ],
)
def test_change_that_does_not_fit_is_refused_and_not_appended(steps: str, transition: Transition, why: str):
    """What fits when proposed fits when applied, so nothing unfit may enter the log: there it would stop every node."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    last = leader.last_index
    with pytest.raises(MembershipRefused, match=why):
        cluster.change(1, steps, transition)
    assert leader.last_index == last


def test_only_the_leader_changes_the_membership():
    cluster = Cluster(3)
    cluster.elect(1)
    with pytest.raises(NotLeaderError):
        cluster.change(2, "l4")


def test_several_voters_change_jointly_and_the_joint_configuration_is_left_by_itself():
    """4.3: the cluster first switches to the joint configuration, and to the new one when that is committed."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    for node in (4, 5):
        cluster.add(node)
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    cluster.change(1, "v4 v5 r2 r3")
    for _ in range(50):
        for node in list(cluster.servers):
            cluster.pump(node)
            seen.add((leader.configuration.voters, leader.configuration.outgoing))
        cluster.deliver()
    assert ((1, 4, 5), (1, 2, 3)) in seen
    assert (leader.configuration.voters, leader.configuration.outgoing) == ((1, 4, 5), ())


def test_joint_configuration_needs_both_majorities_to_commit():
    """4.3: agreement "requires separate majorities from both the old and new configurations.\""""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.join_jointly(1, add=[4, 5], remove=[2, 3])
    assert leader.configuration.outgoing == (1, 2, 3)
    cluster.cut([1, 4, 5])
    index = cluster.propose(1, b"a")
    cluster.settle()
    assert leader.commit_index < index
    cluster.cut([1, 2])
    cluster.tick(2)
    assert leader.commit_index == index
    cluster.cut([1, 2, 3])
    index = cluster.propose(1, b"b")
    cluster.settle()
    assert leader.commit_index < index
    cluster.cut([1, 4])
    cluster.tick(2)
    assert leader.commit_index == index


def test_joint_configuration_needs_both_majorities_to_elect():
    """4.3, elections: either half alone could elect a second leader."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.join_jointly(1, add=[4, 5], remove=[2, 3])
    for node in (2, 3, 4, 5):
        cluster[node].forget_leader()
    cluster.crash(1)
    cluster.cut([4, 5])
    cluster[4].campaign()
    cluster.settle()
    assert cluster.role(4) is Role.PRE_CANDIDATE
    cluster.heal()
    for node in (2, 3, 5):
        cluster[node].forget_leader()
    cluster[4].campaign()
    cluster.settle()
    assert cluster.role(4) is Role.LEADER


def test_new_leader_leaves_a_joint_configuration_that_asks_for_it():
    """The old leader may die between the two entries; who follows finishes what it began."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.add(4)
    cluster.change(1, "v4", Transition.JOINT_IMPLICIT)
    for _ in range(6):
        for node in (1, 2, 3):
            if not leader.configuration.outgoing:
                cluster.pump(node)
        cluster.deliver(1, 2, 3)
    cluster.crash(1)
    cluster.settle()
    for node in (2, 3):
        cluster[node].leader_lost()
    cluster.tick(10)
    new = cluster.leader()
    assert new is not None
    assert new.node_id != 1
    assert (new.configuration.voters, new.configuration.outgoing) == ((1, 2, 3, 4), ())


def test_removed_leader_steps_down_when_it_applies_its_removal():
    """4.2.2: it leads until then, without counting itself."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.change(1, "r1")
    cluster.settle()
    assert leader.role is Role.FOLLOWER
    cluster.tick(20)
    assert leader.role is Role.FOLLOWER
    new = cluster.leader()
    assert new is not None
    assert new.configuration.voters == (2, 3)


def test_removed_leader_does_not_count_itself():
    """4.2.2: "the leader ... manages the cluster while not counting itself in majorities.\""""
    cluster = Cluster(3, step_down_on_removal=False)
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 3)
    cluster.change(1, "r1")
    cluster.pump(1)
    cluster.deliver(2)
    cluster.pump(2)
    index = cluster.propose(1, b"appended before the removal is applied")
    cluster.settle()
    assert leader.configuration.voters == (2, 3)
    assert cluster[2].last_index == index
    assert leader.commit_index == index - 1
    with pytest.raises(NotLeaderError):
        leader.propose([b"b"])


def test_demoted_leader_steps_down():
    """A learner does not lead."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.change(1, "l1")
    cluster.settle()
    assert leader.role is Role.FOLLOWER
    assert leader.configuration.learners == (1,)


def test_removed_node_disturbs_nobody():
    """4.2.3: it hears no heartbeats any more and campaigns; the lease of those who do ignores it."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 3 and isinstance(m, Append) and m.commit > 2)
    cluster.change(1, "r3")
    cluster.settle()
    assert cluster[3].configuration.voters == (1, 2, 3)
    cluster.tick(60)
    assert (leader.role, leader.term) == (Role.LEADER, 1)


def test_node_with_a_committed_unapplied_change_does_not_campaign():
    """It would ask and count the voters of yesterday."""
    cluster = Cluster(3)
    cluster.elect(1)
    entry = Entry(LogIndex(3), Term(1), EntryKind.CONFIGURATION, membership.encode(MembershipChange()))
    cluster[2].step(
        Append(
            sender=NodeId(1),
            to=NodeId(2),
            term=Term(1),
            prev_index=LogIndex(2),
            prev_term=Term(1),
            commit=LogIndex(3),
            entries=(entry,),
        )
    )
    cluster[2].forget_leader()
    cluster[2].campaign()
    assert cluster[2].role is Role.FOLLOWER


def test_replies_of_a_node_outside_the_configuration_are_dropped():
    """A removed node's late acknowledgement must not find a progress that is gone."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.change(1, "r3")
    cluster.settle(1, 2)
    leader.step(AppendReply(sender=NodeId(3), to=NodeId(1), term=Term(1), index=LogIndex(3)))
    assert "not in the configuration" in leader.dropped_messages[1]


def test_pending_change_dies_with_its_suffix():
    """etcd/raft: the next leader may propose another as soon as its log is applied."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut([1])
    cluster.change(1, "r3")
    cluster.settle()
    for node in (2, 3):
        cluster[node].forget_leader()
    cluster.heal()
    cluster.cut([2, 3])
    cluster.elect(2)
    cluster.change(2, "l7")
    cluster.settle(2, 3)
    cluster.heal()
    cluster.tick(3)
    assert cluster[1].configuration.learners == (7,)
    assert cluster[1].configuration.voters == (1, 2, 3)


def test_restart_restores_the_configuration_from_the_log():
    """The driver applies the log anew, and with it the changes."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.change(1, "l4")
    cluster.settle()
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.restart(2)
    cluster.tick(2)
    assert cluster[2].configuration.learners == (4,)


def test_restart_with_an_applied_index_replays_the_changes_before_it():
    """A driver whose machine is durable by itself hands in how far it is."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.change(1, "l4")
    cluster.settle()
    stored = cluster.servers[1].disk
    node = RaftNode(
        cluster.config,
        hard_state=stored.hard_state,
        snapshot=stored.snapshot,
        entries=stored.entries,
        rng=cluster.rng,
        applied=stored.hard_state.commit,
    )
    assert node.applied_index == stored.hard_state.commit
    assert bool(node.configuration.learners) == (stored.hard_state.commit >= 3)


def test_applying_past_a_change_without_putting_it_in_force_is_an_error():
    """The driver's duty 2; forgetting it would leave this node counting the wrong majority."""
    cluster = Cluster(1)
    cluster.tick(12)
    leader = cluster[1]
    cluster.change(1, "l4")
    ready = leader.ready()
    assert ready is not None
    assert ready.persist is not None
    leader.persisted(ready.persist.ack)
    ready = leader.ready()
    assert ready is not None
    with pytest.raises(InvariantViolation, match="apply_membership"):
        leader.applied(ready.committed[-1].index)


def test_change_survives_encoding_and_an_empty_one_is_empty():
    """The entry's bytes are all that other nodes see of it."""
    change = MembershipChange((membership.MembershipStep(membership.StepKind.ADD_LEARNER, NodeId(4)),), context=b"address")
    assert membership.decode(membership.encode(change)) == change
    assert membership.encode(MembershipChange()) == b""
    with pytest.raises(InvariantViolation):
        membership.decode(b"\xc1")


def test_candidate_asks_both_halves_once():
    """A voter of both halves of a joint configuration gets one request."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.join_jointly(1, add=[4], remove=[3])
    cluster[2].forget_leader()
    cluster[2].campaign()
    cluster.pump(2)
    assert [m.to for m in cluster.network if isinstance(m, VoteRequest)] == [1, 3, 4]


def test_start_refuses_nothing_a_learner_may_hold():
    """A learner that restarts is a learner still."""
    cluster = Cluster(2, learners=[3])
    cluster.add(3, disk(cluster.start, 1, term=1))
    assert cluster[3].configuration.learners == (3,)


def test_node_that_is_removed_and_added_by_one_change_begins_anew():
    """With etcd/raft: what the leader knew of it is forgotten, and it is asked where its log stands; so not for one that still
    votes in the outgoing half."""
    cluster = Cluster(3, [4])
    leader = cluster.elect(1)
    index = cluster.change(1, "r4 l4 r3 v3")
    cluster.losses.append(lambda m: m.to in (3, 4) and m.sender == 1 and isinstance(m, Append) and m.commit >= index)
    cluster.settle()
    match = {progress.node_id: progress.match for progress in leader.progress()}
    assert leader.configuration.learners == (4,)
    assert (match[NodeId(3)] >= index - 1, match[NodeId(4)]) == (True, 0)
    cluster.heal()
    cluster.tick(4)
    assert {progress.match for progress in leader.progress()} == {leader.last_index}


@pytest.mark.parametrize("asked_for_real", [False, True], ids=["before it asks for votes", "after"])
def test_candidate_that_learns_of_its_removal_leads_nobody(asked_for_real: bool):
    """A refusal tells it what is committed; grants that come later are for a node that does not belong any more."""
    removal = membership.encode(MembershipChange((membership.MembershipStep(membership.StepKind.REMOVE, NodeId(5)),)))
    stored = disk(founding(range(1, 6)), term=1)
    stored.entries.append(Entry(LogIndex(2), Term(1), EntryKind.CONFIGURATION, removal))
    cluster = Cluster(5)
    node = cluster.add(5, stored)

    def grant(*, pre_vote: bool) -> None:
        for voter in (2, 3, 4):
            node.step(VoteReply(sender=NodeId(voter), to=NodeId(5), term=Term(2), pre_vote=pre_vote, granted=True))
            cluster.pump(5)

    node.campaign()
    cluster.pump(5)
    if asked_for_real:
        grant(pre_vote=True)
    node.step(
        VoteReply(
            sender=NodeId(1),
            to=NodeId(5),
            term=node.term,
            pre_vote=not asked_for_real,
            granted=False,
            commit=LogIndex(2),
            commit_term=Term(1),
        )
    )
    cluster.pump(5)
    assert node.configuration.voters == (1, 2, 3, 4)
    grant(pre_vote=not asked_for_real)
    grant(pre_vote=False)
    assert node.role is Role.FOLLOWER
