"""The states of what is watched, and what changes make of them: what clients are told must lead from one to the next.

In these states times are moments of cluster time, not "since": so a state is the same until something happens.
"""

from collections.abc import Sequence
from typing import TypeAlias

from msgspec.structs import replace

from coord_core.machine import Machine
from coord_core.machine.streams import StreamName
from coord_core.protocol.elections import Candidate, ElectionInfo, ElectionState, LeaderElected, LeaderGone
from coord_core.protocol.groups import GroupInfo, GroupMember, GroupState, MemberJoined, MemberLeft, MemberUpdated
from coord_core.protocol.queries import ValueGet, ValueState
from coord_core.protocol.streams import Change
from coord_core.protocol.values import ValueChanged
from coord_core.testing.simulator import Violation

State: TypeAlias = ElectionState | GroupState | ValueState

#: By kind: the state of what there is not.
NOTHING: dict[str, State] = {
    "election": ElectionState(None, (), 0),
    "group": GroupState(()),
    "value": ValueState(0, b""),
}


def look(machine: Machine, name: StreamName) -> tuple[State, tuple[Candidate, ...]]:
    """Return the state of a resource, and of an election those who wait."""
    kind, path = name
    if kind == "value":
        state = machine.query(ValueGet(path))
    elif kind == "group":
        state = machine.query(GroupInfo(path))
    else:
        state = machine.query(ElectionInfo(path))
    if isinstance(state, ElectionState):
        return since(replace(state, candidates=()), machine.time_ms), state.candidates
    return since(state, machine.time_ms), ()


def since(state: object, time_ms: int) -> State:
    """Return a state in which times are moments."""
    match state:
        case ElectionState(leader=leader) if leader is not None:
            return replace(state, leader=replace(leader, since_ms=time_ms - leader.since_ms))
        case GroupState(members=members) if members:
            return GroupState(tuple(replace(member, since_ms=time_ms - member.since_ms) for member in members))
        case ElectionState() | GroupState() | ValueState():
            return state
    raise Violation(f"{state} is no state")


def told_of(state: State) -> object:
    """Return the part of a state that is told of."""
    return state.leader if isinstance(state, ElectionState) else state


def after(state: State, changes: Sequence[Change], time_ms: int) -> State:
    """Return the state that changes make of another."""
    for change in changes:
        match state, change:
            case ElectionState(), LeaderElected(leader=leader):
                state = replace(state, leader=replace(leader, since_ms=time_ms - leader.since_ms))
            case ElectionState(leader=leader), LeaderGone(epoch=epoch) if leader is not None and leader.epoch == epoch:
                state = replace(state, leader=None)
            case GroupState(members=members), MemberJoined() | MemberLeft() | MemberUpdated():
                state = GroupState(_members_after(members, change, time_ms))
            case ValueState(), ValueChanged(version=version, value=value):
                state = ValueState(version, value)
            case _:
                raise Violation(f"{change} cannot happen to {state}")
    return state


def _members_after(
    members: tuple[GroupMember, ...], change: MemberJoined | MemberLeft | MemberUpdated, time_ms: int
) -> tuple[GroupMember, ...]:
    match change:
        case MemberJoined(member=member):
            return (*members, replace(member, since_ms=time_ms - member.since_ms))
        case MemberLeft(member=number):
            return tuple(member for member in members if member.member != number)
        case MemberUpdated(member=number, metadata=metadata):
            return tuple(replace(member, metadata=metadata) if member.member == number else member for member in members)
