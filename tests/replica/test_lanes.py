"""The command lane is bounded in number and in bytes, keeps order, and never starves a large command."""

import pytest

from coord_core.protocol.commands import Call, CloseAttachment, CloseSession, OpenSession
from coord_core.protocol.operations import Cancel, LockAcquire, LockRelease, Owner
from coord_core.replica.lanes import CommandLane, Proposal, is_control
from coord_core.types import AttachmentId, FencingToken, RequestNumber, SessionId

OWNER = Owner("host", 1)


def call(operation):
    return Call(SessionId(1), AttachmentId(1), RequestNumber(1), RequestNumber(0), (), operation)


def proposal(size: int, seq: int = 1) -> Proposal:
    return Proposal((1, seq), OpenSession(1_000, OWNER), b"x" * size)


def test_a_full_lane_refuses_by_number():
    lane = CommandLane(most=2, bytes_max=1_000)
    assert [lane.put(proposal(1)) for _ in range(3)] == [True, True, False]


def test_a_full_lane_refuses_by_bytes_and_takes_again_once_drained():
    lane = CommandLane(most=10, bytes_max=100)
    assert lane.put(proposal(60))
    assert not lane.put(proposal(60))
    lane.take(10, 1_000)
    assert lane.put(proposal(60))


def test_take_returns_one_command_even_where_it_is_larger_than_a_turn():
    """Else it would block the lane for ever."""
    lane = CommandLane(most=10, bytes_max=1_000)
    lane.put(proposal(500, seq=1))
    lane.put(proposal(10, seq=2))
    assert [p.origin[1] for p in lane.take(10, 100)] == [1]
    assert [p.origin[1] for p in lane.take(10, 100)] == [2]


@pytest.mark.parametrize(
    ("command", "control"),
    [
        (call(LockRelease("/a", FencingToken(1))), True),
        (call(Cancel(RequestNumber(1))), True),
        (CloseSession(SessionId(1)), True),
        (CloseAttachment(SessionId(1), AttachmentId(1)), True),
        (call(LockAcquire("/a", None, OWNER)), False),
        (OpenSession(1_000, OWNER), False),
    ],
)
def test_what_gives_back_goes_first(command, control):
    assert is_control(command) is control
