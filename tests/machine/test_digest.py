"""The digest: equal for equal states, different for any two that could answer differently one day."""

import pytest

from coord_core.machine import Machine
from coord_core.protocol.commands import Call, Command, OpenAttachment, OpenSession, Tick
from coord_core.protocol.operations import LockAcquire, Operation, Owner, ValueDelete, ValueSet
from coord_core.types import AttachmentId, LogIndex, RequestNumber, SessionId
from tests.machine.driver import OWNER


def _machine(*commands: Command) -> Machine:
    """Return a machine that has applied these commands after the opening of session 1."""
    machine = Machine()
    for index, command in enumerate((OpenSession(5_000, OWNER), *commands), 1):
        machine.apply(LogIndex(index), 0, command)
    return machine


def _call(request: int, operation: Operation, low_water: int = 0, answered: tuple[tuple[int, int], ...] = ()) -> Call:
    return Call(SessionId(1), AttachmentId(1), RequestNumber(request), RequestNumber(low_water), answered, operation)


def test_digest_does_not_tell_how_a_state_came_about() -> None:
    """One machine wrote over some values, the other deleted them in between: their dicts are in another order."""
    written = [_call(number, ValueSet(f"/{number}", b"0")) for number in range(1, 301)]
    again = [_call(number, ValueSet(f"/{number % 100}", b"1")) for number in range(401, 501)]
    overwritten = _machine(*written, *[_call(number, ValueDelete("/none")) for number in range(301, 401)], *again)
    deleted = _machine(*written, *[_call(number, ValueDelete(f"/{number % 100}")) for number in range(301, 401)], *again)
    assert [list(shard) for shard in overwritten._names.shards()] != [list(shard) for shard in deleted._names.shards()]
    assert overwritten.digest() == deleted.digest()


def test_digest_does_not_tell_in_which_order_requests_arrived() -> None:
    """What an attachment was answered is a table by number."""
    rising = _machine(_call(1, ValueDelete("/a")), _call(2, ValueDelete("/b")))
    falling = _machine(_call(2, ValueDelete("/a")), _call(1, ValueDelete("/b")))
    assert rising.digest() == falling.digest()


VARIANTS: list[tuple[Command, Command]] = [
    (Tick(), OpenSession(5_000, OWNER)),
    (OpenSession(5_000, OWNER), OpenSession(6_000, OWNER)),
    (OpenSession(5_000, OWNER), OpenAttachment(SessionId(1), OWNER)),
    (OpenAttachment(SessionId(1), OWNER), OpenAttachment(SessionId(1), Owner("other", 1))),
    (_call(1, LockAcquire("/a", None, OWNER)), _call(1, LockAcquire("/b", None, OWNER))),
    (_call(1, LockAcquire("/a", None, OWNER)), _call(2, LockAcquire("/a", None, OWNER))),
    (_call(1, LockAcquire("/a", None, OWNER)), _call(1, LockAcquire("/a", None, Owner("other", 1)))),
    (_call(1, LockAcquire("/held", None, OWNER)), _call(1, LockAcquire("/held", 5, OWNER))),
    (_call(1, LockAcquire("/held", 5, OWNER)), _call(1, LockAcquire("/held", 6, OWNER))),
    (_call(1, ValueSet("/a", b"0")), _call(1, ValueSet("/a", b"1"))),
    (_call(1, ValueSet("/a", b"0")), _call(1, ValueSet("/a", b"0", ttl_ms=5))),
    (_call(5, ValueDelete("/a")), _call(5, ValueDelete("/a"), low_water=1)),
    (_call(5, ValueDelete("/a")), _call(5, ValueDelete("/a"), answered=((2, 3),))),
]


@pytest.mark.parametrize(("one", "other"), VARIANTS)
def test_digest_tells_states_apart(one: Command, other: Command) -> None:
    """A replica that differs in any of these will give a wrong answer later."""
    before = _call(10, LockAcquire("/held", None, OWNER))
    assert _machine(before, one).digest() != _machine(before, other).digest()


def test_digest_tells_time_and_index() -> None:
    """Two replicas are compared at the same entry; a clock that ran differently is a difference."""
    assert len({_after(1, 1).digest(), _after(2, 1).digest(), _after(1, 2).digest()}) == 3


def _after(index: int, time_ms: int) -> Machine:
    machine = Machine()
    machine.apply(LogIndex(index), time_ms, Tick())
    return machine
