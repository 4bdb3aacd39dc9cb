"""The machine's version: part of the state, risen by an entry, and never to one that this code does not know."""

import pytest

from coord_core.errors import ReleaseTooOld
from coord_core.machine import Machine, versions
from coord_core.machine.rolling import UNKNOWN
from coord_core.protocol.commands import SetMachineVersion
from tests.machine.driver import Log
from tests.machine.frozen import path_of
from tests.machine.test_snapshot import restored, written


@pytest.fixture
def knows_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this were a later release."""
    monkeypatch.setattr(versions, "VERSION_MAX", 3)


def risen(log: Log, version: int) -> int:
    # Not by `Log.apply`: the invariants know only what this release knows.
    log.index += 1  # type: ignore[assignment]
    applied = log.machine.apply(log.index, log.time_ms, SetMachineVersion(version))
    assert (applied.result, applied.replies, applied.closed) == (None, [], [])
    return log.machine.version


def test_a_machine_begins_at_the_first_version() -> None:
    """Also where this release knows a newer one: a log of an older release is applied as it was meant."""
    assert Machine().version == 1


def test_an_entry_that_asks_for_an_unknown_version_stops_the_node() -> None:
    """To go on would be to become another machine than those that know it."""
    log = Log()
    with pytest.raises(
        ReleaseTooOld, match="entry 11 needs version 2 of the machine, this release knows up to 1: start a newer release"
    ):
        log.apply(SetMachineVersion(2))
    assert log.machine.version == 1


@pytest.mark.usefixtures("knows_three")
def test_the_version_rises_and_never_falls() -> None:
    """A deposed leader's proposal may come behind its successor's."""
    log = Log()
    assert [risen(log, version) for version in (1, 3, 2, 0, -5, 3)] == [1, 3, 3, 3, 3, 3]


@pytest.mark.usefixtures("knows_three")
def test_the_version_is_part_of_the_state() -> None:
    """Two machines that will behave differently are not equal, and a snapshot has it."""
    one, other = Log(), Log()
    risen(one, 2)
    risen(other, 3)
    assert one.machine.digest() != other.machine.digest()
    again = Machine.restore(written(one.machine))
    assert again.version == 2
    assert again.digest() == one.machine.digest()
    assert again.rolling_hash == one.machine.rolling_hash


@pytest.mark.usefixtures("knows_three")
def test_a_risen_version_makes_an_unknown_rolling_hash_known() -> None:
    """A cluster whose nodes came out of snapshots without one is compared again from there."""
    one, other = Log(), Log()
    one.machine = restored([path_of(1).read_bytes()])
    one.index = one.machine.index
    other.machine = restored(written(one.machine))
    other.index = one.index
    assert risen(one, 1) == 1
    assert one.machine.rolling_hash == UNKNOWN
    assert risen(other, 1) == 1
    risen(one, 2)
    risen(other, 2)
    assert one.machine.rolling_hash == other.machine.rolling_hash != UNKNOWN
