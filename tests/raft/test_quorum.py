"""Majorities, against counting by hand (Raft, 5.2 and 5.3; dissertation, 4.3)."""

from hypothesis import given
from hypothesis import strategies as st

from coord_core.raft.quorum import EVERYTHING, Outcome, active, joint_index, joint_outcome, majority_index, majority_outcome
from coord_core.types import NodeId

voters = st.lists(st.integers(1, 9).map(NodeId), unique=True, max_size=7).map(tuple)
indexes = st.dictionaries(st.integers(1, 9).map(NodeId), st.integers(0, 6))
votes = st.dictionaries(st.integers(1, 9).map(NodeId), st.booleans())


@given(voters, indexes)
def test_majority_index_is_the_highest_that_more_than_half_have_reached(nodes: tuple[NodeId, ...], reached: dict[NodeId, int]):
    """5.3: a majority of the servers has replicated it."""
    found = majority_index(nodes, reached)
    if not nodes:
        assert found == EVERYTHING
        return
    have = [index for index in range(7) if 2 * sum(reached.get(node, 0) >= index for node in nodes) > len(nodes)]
    assert found == max(have)


@given(voters, voters, indexes)
def test_joint_index_is_what_both_majorities_have(old: tuple[NodeId, ...], new: tuple[NodeId, ...], reached: dict[NodeId, int]):
    """4.3: separate majorities from both configurations; the order of the halves does not matter."""
    assert joint_index(old, new, reached) == min(majority_index(old, reached), majority_index(new, reached))
    assert joint_index(old, new, reached) == joint_index(new, old, reached)


@given(voters, votes)
def test_vote_is_decided_when_the_missing_answers_cannot_change_it(nodes: tuple[NodeId, ...], given_votes: dict[NodeId, bool]):
    """5.2: won with a majority of all, lost when no majority is left."""
    yes = sum(given_votes.get(node, False) for node in nodes)
    no = sum(not given_votes.get(node, True) for node in nodes)
    outcome = majority_outcome(nodes, given_votes)
    if not nodes or 2 * yes > len(nodes):
        assert outcome is Outcome.WON
    elif 2 * (len(nodes) - no) <= len(nodes):
        assert outcome is Outcome.LOST
    else:
        assert outcome is Outcome.PENDING


@given(voters, voters, votes)
def test_joint_vote_is_won_with_both_and_lost_with_either(
    old: tuple[NodeId, ...], new: tuple[NodeId, ...], cast: dict[NodeId, bool]
):
    """4.3: elections need both majorities."""
    halves = {majority_outcome(old, cast), majority_outcome(new, cast)}
    expected = Outcome.LOST if Outcome.LOST in halves else Outcome.PENDING if Outcome.PENDING in halves else Outcome.WON
    assert joint_outcome(old, new, cast) is expected


def test_active_needs_a_majority_of_both_halves():
    """6.2: check quorum counts as commitment does."""
    old, new = (NodeId(1), NodeId(2), NodeId(3)), (NodeId(3), NodeId(4), NodeId(5))
    assert active(old, (), [NodeId(1), NodeId(2)])
    assert not active(old, new, [NodeId(1), NodeId(2), NodeId(3)])
    assert active(old, new, [NodeId(2), NodeId(3), NodeId(4)])
