"""Counting: what a majority has, and what it has decided.  Pure arithmetic over voters; no idea of roles or messages.

A joint configuration needs the majorities of both its halves (dissertation, 4.3).  The empty half agrees with everything, so
that a plain configuration is a joint one with an empty second half.
"""

from collections.abc import Iterable, Mapping
from enum import Enum

from coord_core.types import NodeId

#: What an empty majority has committed: everything.
EVERYTHING = 2**63 - 1


class Outcome(Enum):
    """Of a vote."""

    PENDING = "pending"
    LOST = "lost"
    WON = "won"


def majority_index(voters: tuple[NodeId, ...], indexes: Mapping[NodeId, int]) -> int:
    """Return the highest index that a majority of `voters` has reached; a voter without one counts as 0 (Raft, 5.3)."""
    if not voters:
        return EVERYTHING
    reached = sorted([indexes.get(voter, 0) for voter in voters])
    # Of n sorted ascending, everything from (n - 1) // 2 upwards is a majority.
    return reached[(len(reached) - 1) >> 1]


def joint_index(voters: tuple[NodeId, ...], outgoing: tuple[NodeId, ...], indexes: Mapping[NodeId, int]) -> int:
    """Return the highest index that both majorities have reached."""
    if not outgoing:
        return majority_index(voters, indexes)
    return min(majority_index(voters, indexes), majority_index(outgoing, indexes))


def majority_outcome(voters: tuple[NodeId, ...], votes: Mapping[NodeId, bool]) -> Outcome:
    """Return what `votes` decide among `voters`; votes of others do not count (Raft, 5.2)."""
    if not voters:
        return Outcome.WON
    needed = len(voters) // 2 + 1
    granted = missing = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is None:
            missing += 1
        elif vote:
            granted += 1
    if granted >= needed:
        return Outcome.WON
    return Outcome.PENDING if granted + missing >= needed else Outcome.LOST


def joint_outcome(voters: tuple[NodeId, ...], outgoing: tuple[NodeId, ...], votes: Mapping[NodeId, bool]) -> Outcome:
    """Return what both halves decide together: won when both are, lost as soon as one is."""
    halves = (majority_outcome(voters, votes), majority_outcome(outgoing, votes))
    if Outcome.LOST in halves:
        return Outcome.LOST
    return Outcome.PENDING if Outcome.PENDING in halves else Outcome.WON


def active(voters: tuple[NodeId, ...], outgoing: tuple[NodeId, ...], heard: Iterable[NodeId]) -> bool:
    """Tell whether the nodes in `heard` make a quorum."""
    return joint_outcome(voters, outgoing, dict.fromkeys(heard, True)) is Outcome.WON
