"""Log replication as the paper tells it (Raft, 5.3, 5.4.2 and figure 2), about one test a sentence."""

from typing import Any

import pytest

from coord_core.raft.messages import Append, AppendReply, Entry, Heartbeat, Message
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster, disk

PLAIN: dict[str, Any] = {"pre_vote": False, "check_quorum": False}


def append(to: int, term: int, prev: tuple[int, int], terms: tuple[int, ...] = (), commit: int = 1, sender: int = 1) -> Append:
    """An Append of entries with `terms` behind `prev` (index, term)."""
    index = prev[0]
    entries = tuple(Entry(LogIndex(index + n), Term(t), 0, b"%d/%d" % (t, index + n)) for n, t in enumerate(terms, 1))
    return Append(
        sender=NodeId(sender),
        to=NodeId(to),
        term=Term(term),
        prev_index=LogIndex(index),
        prev_term=Term(prev[1]),
        commit=LogIndex(commit),
        entries=entries,
    )


def accepted(sender: int, term: int, index: int, to: int = 1) -> AppendReply:
    return AppendReply(sender=NodeId(sender), to=NodeId(to), term=Term(term), index=LogIndex(index))


def replies(cluster: Cluster, node: int) -> list[AppendReply]:
    cluster.pump(node)
    return [m for m in cluster.lose(lambda m: m.sender == node) if isinstance(m, AppendReply)]


def terms(cluster: Cluster, node: int) -> list[int]:
    return [term for term, _ in cluster.logs()[node]]


def test_leader_appends_and_sends_to_all_in_parallel():
    """5.3: "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel\""""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    index, term = leader.propose([b"a", b"b"])
    cluster.pump(1)
    assert (index, term) == (3, 1)
    sent = [m for m in cluster.network if isinstance(m, Append)]
    assert [(m.to, m.prev_index, m.prev_term, [e.data for e in m.entries]) for m in sent] == [
        (2, 2, 1, [b"a", b"b"]),
        (3, 2, 1, [b"a", b"b"]),
    ]


def test_entry_is_committed_when_a_majority_has_it():
    """5.3: "A log entry is committed once the leader that created the entry has replicated it on a majority of the servers\""""
    cluster = Cluster(5)
    leader = cluster.elect(1)
    index = cluster.propose(1, b"a")
    cluster.pump(1)
    cluster.lose()
    leader.step(accepted(2, 1, index))
    assert leader.commit_index == index - 1
    leader.step(accepted(3, 1, index))
    assert leader.commit_index == index


def test_commit_covers_all_earlier_entries():
    """5.3: "This also commits all preceding entries in the leader's log, including entries created by previous leaders.\""""
    cluster = Cluster(3, **PLAIN)
    cluster.add(1, disk(cluster.start, 1, 2, 2, term=2))
    leader = cluster.elect(1)
    assert terms(cluster, 1) == [1, 2, 2, 3]
    assert leader.commit_index == 5
    assert [entry.term for entry in cluster.servers[1].applied] == [1, 2, 2, 3]


def test_followers_learn_the_commit_index_and_apply_in_log_order():
    """5.3: a follower that learns that an entry is committed "applies the entry to its local state machine (in log order).\""""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.propose(1, b"c")
    cluster.settle()
    for server in cluster.servers.values():
        assert [entry.data for entry in server.applied] == [b"", b"a", b"b", b"c"]


def test_commit_index_rides_along_where_it_is_not_announced():
    """A risen commit index costs no message of its own; the next Append carries it, and where none comes, the heartbeat."""
    cluster = Cluster(3, announce_commits=False)
    cluster.elect(1)
    cluster.tick(1)
    sent: list[Message] = []
    cluster.watchers.append(sent.append)
    cluster.propose(1, b"a")
    cluster.settle()
    assert sorted(type(message).__name__ for message in sent) == ["Append", "Append", "AppendReply", "AppendReply"]
    assert [entry.data for entry in cluster.servers[1].applied] == [b"", b"a"]
    assert [entry.data for entry in cluster.servers[2].applied] == [b""]
    cluster.propose(1, b"b")
    cluster.settle()
    assert [entry.data for entry in cluster.servers[2].applied] == [b"", b"a"]
    cluster.tick(1)
    cluster.settle()
    assert [entry.data for entry in cluster.servers[2].applied] == [b"", b"a", b"b"]


def test_leader_retries_until_a_follower_has_everything():
    """5.3: "the leader retries AppendEntries RPCs indefinitely ... until all followers eventually store all log entries.\""""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.losses.append(lambda m: isinstance(m, Append) and m.to == 3)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.tick(5)
    assert cluster[3].last_index == 2
    cluster.heal()
    cluster.tick(2)
    assert cluster.logs()[3] == cluster.logs()[1]


def test_follower_refuses_entries_that_do_not_continue_its_log():
    """5.3: "If the follower does not find an entry in its log with the same index and term, then it refuses the new entries.\""""
    cluster = Cluster(3)
    cluster.add(2, disk(cluster.start, 1, 1, term=1))
    cluster[2].step(append(2, 3, (9, 2), (3,)))
    cluster[2].step(append(2, 3, (3, 2), (3,)))
    assert [(m.index, m.rejected) for m in replies(cluster, 2)] == [(9, True), (3, True)]
    assert terms(cluster, 2) == [1, 1]


@pytest.mark.parametrize(
    ("held", "prev", "sent", "after"),
    [
        ((1,), (2, 1), (2, 2), [1, 2, 2]),
        ((1, 2), (2, 1), (2, 2), [1, 2, 2]),
        ((1, 2, 2, 2), (2, 1), (3,), [1, 3]),
        ((1, 2, 2), (1, 1), (1, 2, 3), [1, 2, 3]),
        ((1, 1, 1), (1, 1), (2,), [2]),
    ],
)
def test_follower_replaces_what_conflicts_and_all_that_follows(
    held: tuple[int, ...], prev: tuple[int, int], sent: tuple[int, ...], after: list[int]
):
    """Figure 2: "If an existing entry conflicts with a new one (same index but different terms), delete the existing entry and
    all that follow it. Append any new entries not already in the log.\""""
    cluster = Cluster(3)
    cluster.add(2, disk(cluster.start, *held, term=2))
    cluster[2].step(append(2, 4, prev, sent))
    assert not replies(cluster, 2)[0].rejected
    assert terms(cluster, 2) == after


def test_repeated_append_changes_nothing():
    """5.5: "Raft RPCs are idempotent\"."""
    cluster = Cluster(3)
    message = append(2, 2, (1, 1), (1, 2, 2))
    for _ in range(3):
        cluster[2].step(message)
    assert [m.index for m in replies(cluster, 2)] == [4, 4, 4]
    assert terms(cluster, 2) == [1, 2, 2]


def test_leader_finds_the_last_agreement_and_overwrites_the_rest():
    """5.3, figure 7: "the leader must find the latest log entry where the two logs agree, delete any entries in the follower's
    log after that point, and send the follower all of the leader's entries after that point.\""""
    leader = (1, 1, 4, 4, 5, 5, 6, 6, 6)
    followers = [
        (1, 1, 4, 4, 5, 5, 6, 6),
        (1, 1, 4),
        (1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        (1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
        (1, 1, 4, 4, 4, 4),
        (1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    ]
    for log in followers:
        cluster = Cluster(3, **PLAIN)
        cluster.add(1, disk(cluster.start, *leader, term=8))
        cluster.add(2, disk(cluster.start, *log, term=8))
        cluster.add(3, disk(cluster.start, *leader, term=8))
        cluster[1].campaign()
        cluster.settle(1, 3)
        assert cluster[1].role is Role.LEADER
        cluster.tick(3)
        assert cluster.logs()[2] == cluster.logs()[1] == cluster.logs()[3]


def test_divergent_tail_costs_one_probe_a_term():
    """5.3: "the follower can include the term of the conflicting entry\": a long divergent tail is passed over term by term."""
    cluster = Cluster(3, **PLAIN)
    cluster.add(1, disk(cluster.start, *[1] * 3, *[5] * 200, term=5))
    cluster.add(2, disk(cluster.start, *[1] * 3, *[2] * 100, *[3] * 100, *[4] * 50, term=5))
    cluster.add(3, disk(cluster.start, *[1] * 3, *[5] * 200, term=5))
    probes: list[Append] = []
    cluster.watchers.append(lambda m: probes.append(m) if isinstance(m, Append) and m.to == 2 else None)
    cluster[1].campaign()
    cluster.settle()
    assert cluster.logs()[2] == cluster.logs()[1]
    assert len([m for m in probes if m.entries]) <= 4


def test_leader_never_changes_its_own_log():
    """5.3: "a leader never overwrites or deletes entries in its log; it only appends new entries.\""""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    before = cluster.logs()[1]
    leader.step(append(1, 1, (1, 1), (1, 1, 1), sender=2))
    assert cluster.logs()[1] == before
    assert "leads term 1 already" in leader.dropped_messages[1]


def test_leader_commits_only_entries_of_its_own_term_by_counting():
    """5.4.2: "Only log entries from the leader's current term are committed by counting replicas\"; earlier ones follow."""
    cluster = Cluster(3, **PLAIN)
    for node in (1, 2, 3):
        cluster.add(node, disk(cluster.start, 2, 3, term=4))
    leader = cluster[1]
    leader.campaign()
    cluster.pump(1)
    cluster.deliver(2)
    cluster.pump(2)
    cluster.deliver(1)
    cluster.pump(1)
    leader.step(accepted(2, 5, 3))
    leader.step(accepted(3, 5, 3))
    assert leader.commit_index == 1
    leader.step(accepted(2, 5, 4))
    assert leader.commit_index == 4


def test_follower_commits_no_further_than_what_the_append_verified():
    """Figure 2: "set commitIndex = min(leaderCommit, index of last new entry)\"."""
    cluster = Cluster(3)
    cluster.add(2, disk(cluster.start, 1, 1, 1, 1, term=1))
    cluster[2].step(append(2, 2, (2, 1), (), commit=9))
    assert cluster[2].commit_index == 2
    cluster[2].step(append(2, 2, (2, 1), (1,), commit=9))
    assert cluster[2].commit_index == 3


def test_heartbeat_carries_no_more_than_the_follower_is_known_to_match():
    """A heartbeat verifies nothing: its commit index may not exceed the follower's match (etcd/raft, sendHeartbeat)."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 3)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.heal()
    leader.tick()
    cluster.pump(1)
    beats = {m.to: m.commit for m in cluster.network if isinstance(m, Heartbeat)}
    assert beats == {2: 3, 3: 2}


def test_delayed_append_below_the_commit_index_is_acknowledged_and_changes_nothing():
    """What is committed matches the leader's log, whatever an old message says."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    cluster[2].step(append(2, 1, (1, 1), (1,), commit=1))
    assert [(m.index, m.rejected) for m in replies(cluster, 2)] == [(4, False)]
    assert cluster[2].last_index == 4


def test_learner_receives_everything_and_counts_for_nothing():
    """Dissertation 4.2.1: learners are not counted in majorities."""
    cluster = Cluster(2, learners=[3])
    leader = cluster.elect(1)
    cluster.losses.append(lambda m: m.to == 2)
    index = cluster.propose(1, b"a")
    cluster.settle()
    assert cluster[3].last_index == index
    assert leader.commit_index == index - 1
