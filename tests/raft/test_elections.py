"""Leader election as the paper tells it (Raft, 5.1, 5.2 and 5.4.1), about one test a sentence."""

from typing import Any

import pytest

from coord_core.raft.messages import Append, AppendReply, Heartbeat, VoteReply, VoteRequest
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster, disk

PLAIN: dict[str, Any] = {"pre_vote": False, "check_quorum": False}


def request(sender: int, to: int, term: int, last_index: int = 1, last_term: int = 1, **flags: bool) -> VoteRequest:
    return VoteRequest(
        sender=NodeId(sender),
        to=NodeId(to),
        term=Term(term),
        last_index=LogIndex(last_index),
        last_term=Term(last_term),
        pre_vote=flags.get("pre_vote", False),
        transfer=flags.get("transfer", False),
    )


def vote(sender: int, to: int, term: int, granted: bool = True) -> VoteReply:
    return VoteReply(sender=NodeId(sender), to=NodeId(to), term=Term(term), pre_vote=False, granted=granted)


def heartbeat(sender: int, to: int, term: int) -> Heartbeat:
    return Heartbeat(sender=NodeId(sender), to=NodeId(to), term=Term(term), commit=LogIndex(1))


def replies(cluster: Cluster, sender: int) -> list[VoteReply]:
    cluster.pump(sender)
    return [m for m in cluster.lose(lambda m: m.sender == sender) if isinstance(m, VoteReply)]


def test_servers_start_as_followers():
    """5.2: "When servers start up, they begin as followers.\""""
    cluster = Cluster(3)
    assert [server.node.role for server in cluster.servers.values()] == [Role.FOLLOWER] * 3


def test_follower_that_hears_nothing_campaigns_within_twice_the_election_timeout():
    """5.2: a follower that receives no communication over the election timeout begins an election."""
    cluster = Cluster(3, **PLAIN)
    ticks = 0
    while cluster[1].role is Role.FOLLOWER:
        cluster[1].tick()
        ticks += 1
    assert 6 <= ticks < 12


def test_follower_remains_follower_while_it_hears_the_leader():
    """5.2: "A server remains in follower state as long as it receives valid RPCs from a leader or candidate.\""""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.tick(100)
    assert leader.role is Role.LEADER
    assert leader.term == 1


def test_election_timeouts_are_drawn_anew_from_an_interval():
    """5.2: timeouts are chosen randomly from a fixed interval, for each election."""
    cluster = Cluster(1, seed=3)
    state = cluster[1]._state
    drawn = set()
    for term in range(2, 200):
        cluster[1].step(heartbeat(7, 1, term))
        drawn.add(state.timeout_drawn)
    assert drawn == set(range(6, 12))


def test_candidate_enters_a_new_term_votes_for_itself_and_asks_all_others():
    """5.2: "It then votes for itself and issues RequestVote RPCs in parallel to each of the other servers in the cluster.\""""
    cluster = Cluster(3, **PLAIN)
    cluster[2].campaign()
    cluster.pump(2)
    assert (cluster[2].role, cluster[2].term, cluster[2].voted_for) == (Role.CANDIDATE, 1, 2)
    assert cluster.network == [request(2, 1, 1), request(2, 3, 1)]


@pytest.mark.parametrize(
    ("size", "granted", "denied", "role"),
    [
        (1, 0, 0, Role.LEADER),
        (3, 1, 0, Role.LEADER),
        (3, 1, 1, Role.LEADER),
        (3, 0, 1, Role.CANDIDATE),
        (3, 0, 2, Role.FOLLOWER),
        (4, 1, 0, Role.CANDIDATE),
        (4, 2, 0, Role.LEADER),
        (4, 0, 2, Role.FOLLOWER),
        (5, 1, 2, Role.CANDIDATE),
        (5, 2, 0, Role.LEADER),
        (5, 1, 3, Role.FOLLOWER),
    ],
)
def test_candidate_wins_with_a_majority_of_the_full_cluster(size: int, granted: int, denied: int, role: Role):
    """5.2: a candidate wins "if it receives votes from a majority of the servers in the full cluster for the same term.\""""
    cluster = Cluster(size, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    for voter in range(2, 2 + granted):
        cluster[1].step(vote(voter, 1, 1))
    for voter in range(2 + granted, 2 + granted + denied):
        cluster[1].step(vote(voter, 1, 1, granted=False))
    assert cluster[1].role is role


def test_same_vote_counts_once():
    """5.2: a majority of servers, not of messages: a duplicated reply is one vote."""
    cluster = Cluster(5, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    for _ in range(3):
        cluster[1].step(vote(2, 1, 1))
    assert cluster[1].role is Role.CANDIDATE


def test_voter_that_contradicts_itself_is_taken_at_its_first_word():
    """5.2: one vote a term; a grant behind a refusal is a forgery or a bug."""
    cluster = Cluster(3, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    cluster[1].step(vote(2, 1, 1, granted=False))
    cluster[1].step(vote(2, 1, 1))
    assert cluster[1].role is Role.CANDIDATE


def test_vote_of_a_node_outside_the_configuration_does_not_count():
    """5.2: the majority is one of the cluster's servers."""
    cluster = Cluster(3, learners=[4], **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    cluster[1].step(vote(4, 1, 1))
    cluster[1].step(vote(9, 1, 1))
    assert cluster[1].role is Role.CANDIDATE
    assert "not in the configuration" in cluster[1].dropped_messages[1]


@pytest.mark.parametrize("first", [1, 2])
def test_server_votes_once_a_term_first_come_first_served(first: int):
    """5.2: "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis.\""""
    cluster = Cluster(3, **PLAIN)
    second = 3 - first
    cluster[3].step(request(first, 3, 1))
    cluster[3].step(request(second, 3, 1))
    cluster[3].step(request(first, 3, 1))
    assert [(m.to, m.granted) for m in replies(cluster, 3)] == [(first, True), (second, False), (first, True)]


def test_vote_of_a_new_term_is_free_again():
    """Figure 2: votedFor is the "candidateId that received vote in current term\"."""
    cluster = Cluster(3, **PLAIN)
    cluster[3].step(request(1, 3, 1))
    cluster[3].step(request(2, 3, 2))
    assert [(m.term, m.to, m.granted) for m in replies(cluster, 3)] == [(1, 1, True), (2, 2, True)]
    assert cluster[3].voted_for == 2


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(3, 2, True), (9, 2, True), (1, 3, True), (2, 2, False), (9, 1, False)],
)
def test_voter_denies_a_candidate_with_an_older_log(last_index: int, last_term: int, granted: bool):
    """5.4.1: the later last term is more up to date; with equal terms the longer log is."""
    cluster = Cluster(3, **PLAIN)
    cluster.add(3, disk(cluster.start, 1, 2, term=2))
    assert (cluster[3].last_index, cluster[3]._state.log.last_term) == (3, 2)
    cluster[3].step(request(1, 3, 3, last_index, last_term))
    assert [m.granted for m in replies(cluster, 3)] == [granted]


def test_heartbeats_go_to_all_followers_every_interval():
    """5.2: "Leaders send periodic heartbeats ... to all followers in order to maintain their authority.\""""
    cluster = Cluster(3, heartbeat_ticks=2)
    leader = cluster.elect(1)
    leader.tick()
    cluster.pump(1)
    assert cluster.network == []
    leader.tick()
    cluster.pump(1)
    assert [(type(m), m.to) for m in cluster.network] == [(Heartbeat, 2), (Heartbeat, 3)]


def test_leader_sends_at_once_when_elected():
    """5.2: "it then sends heartbeat messages to all of the other servers to establish its authority\": here the no-op's Appends."""
    cluster = Cluster(3, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    cluster.deliver(2, 3)
    cluster.pump(2)
    cluster.deliver(1)
    cluster.pump(1)
    assert [(m.to, len(m.entries)) for m in cluster.network if isinstance(m, Append)] == [(2, 1), (3, 1)]


@pytest.mark.parametrize("term", [1, 2])
def test_candidate_follows_a_leader_of_its_term_or_a_later(term: int):
    """5.2: "If the leader's term is at least as large as the candidate's current term, the candidate recognizes the leader\""""
    cluster = Cluster(3, **PLAIN)
    cluster[1].campaign()
    cluster.pump(1)
    cluster[1].step(heartbeat(2, 1, term))
    assert (cluster[1].role, cluster[1].leader_id, cluster[1].term) == (Role.FOLLOWER, 2, term)


def test_candidate_rejects_a_leader_of_an_earlier_term():
    """5.2: "If the term in the RPC is smaller ... the candidate rejects the RPC and continues in candidate state.\""""
    cluster = Cluster(3, **PLAIN)
    cluster[1].step(heartbeat(3, 1, 4))
    cluster[1].campaign()
    cluster.pump(1)
    cluster[1].step(heartbeat(2, 1, 4))
    assert (cluster[1].role, cluster[1].term) == (Role.CANDIDATE, 5)


def test_candidate_starts_a_new_election_when_nobody_wins():
    """5.2: "each candidate will time out and start a new election by incrementing its term\""""
    cluster = Cluster(3, **PLAIN)
    cluster[1].campaign()
    for _ in range(12):
        cluster[1].tick()
    assert (cluster[1].role, cluster[1].term) == (Role.CANDIDATE, 2)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_any_server_adopts_a_later_term_and_follows(role: Role):
    """5.1: "if one server's current term is smaller than the other's, then it updates its current term to the larger value\""""
    cluster = Cluster(3, **PLAIN)
    if role is Role.LEADER:
        cluster.elect(1)
    elif role is Role.CANDIDATE:
        cluster[1].campaign()
    reply = AppendReply(sender=NodeId(2), to=NodeId(1), term=Term(9), index=LogIndex(0))
    cluster[1].step(reply)
    assert (cluster[1].role, cluster[1].term, cluster[1].voted_for) == (Role.FOLLOWER, 9, 0)


def test_request_of_an_earlier_term_is_ignored():
    """5.1: "If a server receives a request with a stale term number, it rejects the request.\""""
    cluster = Cluster(3, **PLAIN)
    cluster[1].step(heartbeat(2, 1, 5))
    cluster.pump(1)
    cluster.lose()
    cluster[1].step(request(3, 1, 4, last_index=99, last_term=4))
    cluster.pump(1)
    assert cluster.network == []
    assert (cluster[1].term, cluster[1].voted_for) == (5, 0)


def test_learner_does_not_campaign():
    """Dissertation 4.2.1: a server that only learns is no part of any majority and starts no election."""
    cluster = Cluster(3, learners=[4], **PLAIN)
    for _ in range(50):
        cluster[4].tick()
    cluster[4].campaign()
    assert cluster[4].role is Role.FOLLOWER


def test_learner_votes_when_asked():
    """etcd/raft: who asks may have learned of the promotion before the one promoted has."""
    cluster = Cluster(3, learners=[4], **PLAIN)
    cluster[4].step(request(1, 4, 1))
    assert [m.granted for m in replies(cluster, 4)] == [True]


def test_single_voter_elects_itself():
    """5.2: a majority of one is one."""
    cluster = Cluster(1)
    cluster.tick(12)
    assert cluster[1].role is Role.LEADER
    assert cluster[1].own_term_committed


@pytest.mark.parametrize(("told", "commit"), [(True, 4), (False, 2)])
def test_refusal_tells_what_is_committed_unless_it_is_to_say_no_and_nothing_else(told: bool, commit: int):
    """A candidate that has the entries learns that they are committed; with the option off, as with etcd/raft, it does not."""
    cluster = Cluster(3, refusals_tell_commit=told, **PLAIN)
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.pump(1)
    cluster.deliver(2, 3)
    cluster.settle(1, 3)
    cluster.lose()
    cluster.propose(1, b"c")
    cluster.pump(1)
    cluster.deliver(3)
    assert (cluster[2].commit_index, cluster[3].commit_index, cluster[3].last_index) == (2, 4, 5)
    cluster[2].campaign()
    cluster.settle(2, 3)
    assert cluster[2].commit_index == commit
