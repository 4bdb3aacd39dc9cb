"""The value: set, compare-and-set by version, delete, TTL in cluster time (spec: resources, DistributedValue)."""

import pytest

from coord_core.machine.bounds import DURATION_MS_MAX, NUMBER_MAX
from coord_core.protocol.operations import VALUE_BYTES_MAX
from coord_core.protocol.queries import ValueState
from coord_core.protocol.results import Done, ValueConflict, ValueWritten
from coord_core.types import FencingToken
from tests.machine.driver import Log, Process, code


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def process(log: Log) -> Process:
    return log.open()


def test_version_is_the_index_of_the_write(log: Log, process: Process) -> None:
    """Versions are log indexes: deleted and written anew, a value never has an old one again."""
    assert process.set("/v", b"one") == ValueWritten(log.index)
    assert log.value("/v") == ValueState(log.index, b"one")


def test_name_without_a_value_has_version_0(log: Log) -> None:
    """So that `expected=0` means: only where there is none."""
    assert log.value("/v") == ValueState(0, b"")


def test_compare_and_set_writes_where_the_version_matches(log: Log, process: Process) -> None:
    """The winner of a race is whoever's version is still the present one."""
    process.set("/v", b"one")
    assert process.set("/v", b"two", expected=log.index) == ValueWritten(log.index)
    assert log.value("/v").value == b"two"


def test_compare_and_set_tells_the_loser_what_is_there(log: Log, process: Process) -> None:
    """The loser can decide anew without another read."""
    process.set("/v", b"one")
    first = log.index
    process.set("/v", b"two")
    second = log.index
    assert process.set("/v", b"three", expected=first) == ValueConflict(second, b"two")
    assert log.value("/v") == ValueState(second, b"two")


def test_expected_0_writes_only_where_there_is_no_value(log: Log, process: Process) -> None:
    """Create, but do not overwrite; an empty value is a value."""
    assert process.set("/v", b"", expected=0) == ValueWritten(log.index)
    version = log.index
    assert process.set("/v", b"x", expected=0) == ValueConflict(version, b"")


def test_expected_version_of_a_value_that_is_gone_conflicts_with_nothing(process: Process) -> None:
    """Version 0 in the conflict says: there is none."""
    assert process.set("/v", b"x", expected=5) == ValueConflict(0, b"")


def test_delete_is_done_also_where_there_was_nothing(log: Log, process: Process) -> None:
    """The wish is that there be none."""
    process.set("/v", b"x")
    assert process.delete("/v") == Done()
    assert process.delete("/v") == Done()
    assert process.delete("/v", expected=0) == Done()
    assert log.value("/v").version == 0


def test_delete_with_another_version_expected_conflicts(log: Log, process: Process) -> None:
    """Delete only what one has seen."""
    process.set("/v", b"x")
    version = log.index
    assert process.delete("/v", expected=version - 1) == ValueConflict(version, b"x")
    assert process.delete("/v", expected=0) == ValueConflict(version, b"x")
    assert process.delete("/other", expected=version) == ValueConflict(0, b"")
    assert process.delete("/v", expected=version) == Done()


def test_value_with_a_ttl_is_gone_at_its_deadline_in_cluster_time(log: Log, process: Process) -> None:
    """Time is that of the entries: no reader sees it a moment longer than another."""
    process.set("/v", b"x", ttl_ms=100)
    log.wait(99)
    assert log.value("/v").value == b"x"
    log.wait(1)
    assert log.value("/v").version == 0
    assert len(log.machine._names) == 0


def test_write_sets_the_ttl_anew_or_takes_it_away(log: Log, process: Process) -> None:
    """Gone after this long *without another write*."""
    process.set("/renewed", b"x", ttl_ms=100)
    process.set("/kept", b"x", ttl_ms=100)
    log.wait(60)
    process.set("/renewed", b"y", ttl_ms=100)
    process.set("/kept", b"y")
    log.wait(60)
    assert log.value("/renewed").value == b"y"
    log.wait(40)
    assert log.value("/renewed").version == 0
    log.wait(DURATION_MS_MAX)
    assert log.value("/kept").value == b"y"


def test_conflict_leaves_the_ttl_alone(log: Log, process: Process) -> None:
    """A write that did not happen renews nothing."""
    process.set("/v", b"x", ttl_ms=100)
    log.wait(60)
    process.set("/v", b"y", ttl_ms=100, expected=1)
    log.wait(40)
    assert log.value("/v").version == 0


def test_deleted_value_leaves_no_timer(log: Log, process: Process) -> None:
    """An old deadline must not take a new value with it."""
    process.set("/v", b"x", ttl_ms=100)
    process.delete("/v")
    assert log.machine.next_deadline_ms() is None
    process.set("/v", b"new")
    log.wait(100)
    assert log.value("/v").value == b"new"


def test_value_outlives_its_writer(log: Log, process: Process) -> None:
    """A value is nobody's."""
    process.set("/v", b"x")
    process.expire()
    assert log.value("/v").value == b"x"


def test_value_of_the_greatest_size_is_taken_and_one_byte_more_refused(log: Log, process: Process) -> None:
    """Bigger things belong elsewhere, with a value that says where."""
    assert process.set("/v", bytes(VALUE_BYTES_MAX)) == ValueWritten(log.index)
    assert code(process.set("/v", bytes(VALUE_BYTES_MAX + 1))) == "LimitExceeded"
    assert len(log.value("/v").value) == VALUE_BYTES_MAX


@pytest.mark.parametrize("ttl_ms", [0, -1, DURATION_MS_MAX + 1])
def test_ttl_out_of_range_is_refused(log: Log, process: Process, ttl_ms: int) -> None:
    """Zero would be gone before it can be read."""
    assert code(process.set("/v", b"x", ttl_ms=ttl_ms)) == "InvalidRequest"
    assert log.value("/v").version == 0


@pytest.mark.parametrize("expected", [-1, NUMBER_MAX + 1])
def test_version_that_is_none_is_refused(process: Process, expected: int) -> None:
    """No value can ever have it: a mistake, not a conflict."""
    assert code(process.set("/v", b"x", expected=expected)) == "InvalidRequest"
    assert code(process.delete("/v", expected=expected)) == "InvalidRequest"


def test_name_of_a_lock_is_no_value(process: Process) -> None:
    """A name is bound to its type for as long as it is in use."""
    process.hold("/l")
    assert code(process.set("/l", b"x")) == "WrongType"
    assert code(process.delete("/l")) == "WrongType"


def test_name_is_free_for_another_type_once_nothing_is_under_it(log: Log, process: Process) -> None:
    """Bound while in use, not for ever."""
    token = process.hold("/n")
    process.release(token, "/n")
    assert process.set("/n", b"x") == ValueWritten(log.index)
    process.delete("/n")
    assert process.hold("/n") == FencingToken(log.index)
