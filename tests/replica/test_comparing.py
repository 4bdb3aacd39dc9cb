"""States that differ: the minority stops, whoever it is, and nobody else does."""

import msgspec
import pytest

from coord_core.errors import NodeSuspect
from coord_core.machine import Machine
from coord_core.raft.messages import Configuration
from coord_core.replica import StatesDiffer, Vitals
from coord_core.replica.comparing import MARKS_KEPT, Comparison
from coord_core.replica.vitals import REPEAT_TICKS
from coord_core.types import LogIndex, NodeId
from tests.replica.harness import TICK_MS
from tests.replica.nodes import SMALL, Nodes

EVERY = 8


class Wrong(Machine):
    """A machine in which a bit has flipped."""

    @property
    def rolling_hash(self) -> int:
        return super().rolling_hash ^ 1


class Other(Machine):
    """And another bit."""

    @property
    def rolling_hash(self) -> int:
        return super().rolling_hash ^ 2


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord_core.replica.replica.COMPARE_EVERY", EVERY)


def break_state(nodes: Nodes, node: int, kind: type[Machine] = Wrong) -> None:
    nodes.replicas[node].machine.__class__ = kind


def test_equal_states_stop_nobody_and_are_agreed_on():
    """Followers hear what a majority has, however often a report is lost."""
    nodes = Nodes(3)
    reports = iter(range(10_000))
    nodes.passes = lambda message: not isinstance(message, Vitals) or next(reports) % 3 == 0
    nodes.load(5 * EVERY)
    nodes.advance(10 * REPEAT_TICKS * TICK_MS)
    last = nodes.replicas[1].status().last_index // EVERY * EVERY
    for replica in nodes.replicas.values():
        assert dict(replica._comparison.agreed).get(LogIndex(last)) == dict(replica._comparison.own)[LogIndex(last)]
    assert not nodes.noted(StatesDiffer)


def test_a_follower_with_another_state_than_the_majority_stops():
    """It is told by the leader, says at which entry and what to do; the leader names it in its log."""
    nodes = Nodes(3)
    leader = nodes.elect()
    wrong = leader % 3 + 1
    nodes.load(1)
    break_state(nodes, wrong)
    with pytest.raises(NodeSuspect, match=r"state diverged: at entry 8 .*rejoin the cluster under a new node id") as error:
        nodes.load(2 * EVERY)
    assert error.value.details["index"] == EVERY
    # The first to report differ, and then it is decided.
    assert nodes.noted(StatesDiffer, leader)[-1] == StatesDiffer(LogIndex(EVERY), (NodeId(wrong),), decided=True)
    # The others go on without it.
    nodes.down.add(wrong)
    nodes.load(3 * EVERY)


def test_a_leader_with_another_state_than_the_majority_stops_at_once():
    """Its followers agree; not one more answer may come from it."""
    nodes = Nodes(3)
    leader = nodes.elect()
    nodes.load(1)
    break_state(nodes, leader)
    answered = len(nodes.answers)
    with pytest.raises(NodeSuspect, match="state diverged"):
        nodes.load(2 * EVERY)
    assert len(nodes.answers) <= answered + EVERY
    nodes.down.add(leader)
    nodes.wait(lambda: any(each.status().ready for node, each in nodes.replicas.items() if node != leader))
    nodes.load(2 * EVERY)


def test_without_a_majority_nobody_stops():
    """With one of three away two that differ cannot say who is right; when it is back, it decides."""
    nodes = Nodes(3)
    leader = nodes.elect()
    wrong, away = leader % 3 + 1, (leader + 1) % 3 + 1
    nodes.load(1)
    break_state(nodes, wrong)
    nodes.cut.add(away)
    nodes.load(EVERY)
    nodes.advance(1_000)
    assert nodes.noted(StatesDiffer) == [
        StatesDiffer(LogIndex(EVERY), tuple(sorted((NodeId(leader), NodeId(wrong)))), decided=False)
    ]
    nodes.cut.discard(away)
    with pytest.raises(NodeSuspect, match="at entry 8 "):
        nodes.advance(2_000)


def test_three_states_of_three_nodes_stop_nobody():
    """Nobody knows which is right; it is said once for each index, not with each report."""
    nodes = Nodes(3)
    leader = nodes.elect()
    nodes.load(1)
    break_state(nodes, leader % 3 + 1)
    break_state(nodes, (leader + 1) % 3 + 1, Other)
    nodes.load(EVERY)
    nodes.advance(5_000)
    (noted,) = nodes.noted(StatesDiffer)
    assert not noted.decided


def test_the_next_leader_finds_what_its_predecessor_did_not():
    """Nodes tell whoever leads now what they have noted."""
    nodes = Nodes(3)
    leader = nodes.elect()
    wrong = leader % 3 + 1
    nodes.load(1)
    break_state(nodes, wrong)
    nodes.passes = lambda message: not isinstance(message, Vitals)
    nodes.load(EVERY)
    nodes.passes = lambda message: True
    # The majority is the one that is away and the one that is right: one of the two others leads now.
    nodes.cut.add(leader)
    nodes.advance(2_000)
    nodes.cut.discard(leader)
    with pytest.raises(NodeSuspect):
        nodes.advance(5_000)


def test_a_node_that_lags_is_compared_when_it_gets_there():
    """It knows by then what it should find."""
    nodes = Nodes(3)
    leader = nodes.elect()
    wrong = leader % 3 + 1
    nodes.load(1)
    nodes.cut.add(wrong)
    nodes.load(EVERY)
    break_state(nodes, wrong)
    nodes.cut.discard(wrong)
    with pytest.raises(NodeSuspect, match="at entry 8 "):
        nodes.advance(3_000)


def test_states_stay_equal_over_snapshots_and_restarts():
    """A machine that came out of a snapshot, the leader's or its own, has the hash of all that went into it."""
    nodes = Nodes(3, SMALL)
    leader = nodes.elect()
    follower = leader % 3 + 1
    nodes.cut.add(follower)
    nodes.load(100)
    nodes.cut.discard(follower)
    nodes.wait(lambda: nodes.are_level())
    for node in nodes.replicas:
        nodes.crash(node)
        nodes.start(node)
        nodes.elect()
        nodes.load(3 * EVERY)
    nodes.advance(2_000)
    assert not nodes.noted(StatesDiffer)
    last = max(index for index, _ in nodes.replicas[nodes.elect()]._comparison.agreed)
    assert last > nodes.replicas[leader].status().last_index - 2 * EVERY


def test_another_version_of_the_machine_is_not_compared():
    """While nodes are replaced by those of the next release, hashes may be of other things."""
    nodes = Nodes(3)
    leader = nodes.elect()
    wrong = leader % 3 + 1
    nodes.load(1)
    break_state(nodes, wrong)
    deliver = nodes.replicas[leader].receive

    def of_the_next_release(message: object) -> None:
        if isinstance(message, Vitals):
            message = msgspec.structs.replace(message, version=Machine().version + 1)
        deliver(message)  # type: ignore[arg-type]

    nodes.replicas[leader].receive = of_the_next_release  # type: ignore[method-assign]
    nodes.load(2 * EVERY)
    nodes.advance(2_000)
    assert not nodes.noted(StatesDiffer)


# --- one comparison


def marks(*pairs: tuple[int, int]) -> tuple[tuple[LogIndex, int], ...]:
    return tuple((LogIndex(index), state_hash) for index, state_hash in pairs)


def configuration(*voters: int, outgoing: tuple[int, ...] = (), learners: tuple[int, ...] = ()) -> Configuration:
    return Configuration(tuple(map(NodeId, voters)), tuple(map(NodeId, outgoing)), tuple(map(NodeId, learners)))


def test_a_joint_configuration_needs_both_majorities():
    """As for everything that is decided while it lasts (dissertation, 4.3)."""
    comparison = Comparison(NodeId(1))
    joint = configuration(1, 2, 3, outgoing=(1, 4, 5))
    comparison.note(LogIndex(8), 7)
    comparison.heard(NodeId(2), marks((8, 7)))
    assert not comparison.judge(joint)
    comparison.heard(NodeId(5), marks((8, 7)))
    assert comparison.judge(joint)
    assert comparison.agreed == marks((8, 7))


def test_learners_decide_nothing_and_are_told():
    """They have no vote in this either; but one with another state must stop like anyone."""
    comparison = Comparison(NodeId(1))
    comparison.note(LogIndex(8), 7)
    for learner in (4, 5, 6):
        comparison.heard(NodeId(learner), marks((8, 9)))
    assert not comparison.judge(configuration(1, 2, 3, learners=(4, 5, 6)))
    comparison.heard(NodeId(2), marks((8, 7)))
    assert comparison.judge(configuration(1, 2, 3, learners=(4, 5, 6)))
    wrong = Comparison(NodeId(4))
    wrong.note(LogIndex(8), 9)
    with pytest.raises(NodeSuspect):
        wrong.learn(comparison.agreed)


def test_memory_is_bounded_whatever_is_reported():
    """By the number of indexes, on all three sides."""
    comparison = Comparison(NodeId(1))
    many = marks(*((index, index) for index in range(8, 8_000, 8)))
    for index, state_hash in many:
        comparison.note(index, state_hash)
    comparison.heard(NodeId(2), many)
    comparison.judge(configuration(1, 2, 3))
    comparison.learn(many)
    assert len(comparison.own) == len(comparison.agreed) == len(comparison._others[NodeId(2)]) == MARKS_KEPT
