"""Whatever can come out of the log is answered: an exception out of `apply` would stop every node at the same entry, for good."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coord_core.machine import Machine
from coord_core.machine.invariants import check
from coord_core.protocol.commands import (
    Call,
    CloseAttachment,
    CloseSession,
    Command,
    ExpireSession,
    OpenAttachment,
    OpenSession,
    SetMachineVersion,
    Tick,
)
from coord_core.protocol.operations import Cancel, LockAcquire, LockRelease, Owner, ValueDelete, ValueSet
from coord_core.protocol.queries import LockInfo, SessionInfo, ValueGet
from coord_core.types import LogIndex
from tests.machine.driver import OWNER

# What the codec lets through: any integer of 64 bits, any text, any bytes.
edges = [-(2**63), -1, 0, 1, 2, 3, 500, 2**53 - 1, 2**53, 2**64 - 1]
integers: Any = st.sampled_from(edges) | st.integers(-(2**63), 2**64 - 1) | st.integers(1, 6)
optional_integers: Any = st.none() | integers
texts: Any = st.sampled_from(["", "/", "/a", "a", "/" + "x" * 511, "/" + "x" * 512, "/é", "\x00", "/\x00"]) | st.text(max_size=5)
owners = st.builds(Owner, texts, integers, texts) | st.just(OWNER)
contents = st.binary(max_size=3)

operations = st.one_of(
    st.builds(LockAcquire, texts, optional_integers, owners),
    st.builds(LockRelease, texts, integers),
    st.builds(Cancel, integers),
    st.builds(ValueSet, texts, contents, optional_integers, optional_integers),
    st.builds(ValueDelete, texts, optional_integers),
)
# Session 1 is alive, and its attachment 1: half of the calls find them.
ids: Any = st.just(1) | integers
answered = st.lists(st.tuples(integers, integers), max_size=3).map(tuple)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(OpenSession, integers, owners),
    st.builds(CloseSession, integers),
    st.builds(ExpireSession, integers, integers),
    st.builds(OpenAttachment, ids, owners),
    st.builds(CloseAttachment, integers, integers),
    st.just(Tick()),
    st.builds(SetMachineVersion, integers.filter(lambda version: version <= Machine.VERSION_MAX)),
    st.builds(Call, st.just(1), st.just(1), st.integers(1, 6), st.just(0), st.just(()), operations),
    st.builds(Call, ids, ids, integers, integers, answered, operations),
)


@given(st.lists(st.tuples(integers, commands), max_size=20))
def test_no_command_makes_the_machine_raise(entries: list[tuple[int, Command]]) -> None:
    """Nor breaks an invariant, nor makes a state that cannot be digested; and each of them is applied alike by a second machine."""
    one, other = Machine(), Machine()
    for machine in (one, other):
        machine.apply(LogIndex(1), 0, OpenSession(10_000, OWNER))
    for index, (stamp, command) in enumerate(entries, 2):
        time_ms = min(max(stamp, 0), 2**53)
        assert one.apply(LogIndex(index), time_ms, command) == other.apply(LogIndex(index), time_ms, command)
        check(one)
    assert one.digest() == other.digest()


@given(st.one_of(st.builds(LockInfo, texts, integers), st.builds(ValueGet, texts), st.builds(SessionInfo, ids)))
def test_no_query_makes_the_machine_raise(query: LockInfo | ValueGet | SessionInfo) -> None:
    """A reader must not stop the leader either."""
    machine = Machine()
    machine.apply(LogIndex(1), 0, OpenSession(10_000, OWNER))
    before = machine.digest()
    machine.query(query)
    assert machine.digest() == before
