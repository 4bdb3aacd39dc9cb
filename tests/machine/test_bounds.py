"""A bound on everything: what goes over it is refused with `LimitExceeded` and changes nothing.

Bounds too high to reach in a test are lowered for it; that the real ones are in the package's table is tested last.
"""

import re
from collections.abc import Callable

import pytest

import coord_core.machine
from coord_core.machine import bounds
from coord_core.machine.bounds import DURATION_MS_MAX, HOST_BYTES_MAX, NUMBER_MAX, WAITERS_NAMED_MAX
from coord_core.protocol import commands, operations
from coord_core.protocol.commands import OpenAttachment, OpenSession
from coord_core.protocol.operations import LABEL_BYTES_MAX, PATH_BYTES_MAX, LockAcquire, Owner, ValueSet
from coord_core.protocol.queries import LockInfo, LockState, ValueGet
from coord_core.protocol.results import Failed, Granted, ValueWritten
from coord_core.types import FencingToken
from tests.machine.driver import OWNER, Log, Process, code


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def lower(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Lower a bound where it is used: `module.NAME`."""
    return lambda name, bound: monkeypatch.setattr(f"coord_core.machine.{name}", bound)


def test_refusal_over_a_bound_names_the_bound_and_the_value(log: Log) -> None:
    """People must be able to see what to change."""
    refused = log.open().set("/v", bytes(operations.VALUE_BYTES_MAX + 1))
    assert isinstance(refused, Failed)
    assert refused.details == {
        "what": "bytes of a value",
        "limit": operations.VALUE_BYTES_MAX,
        "value": operations.VALUE_BYTES_MAX + 1,
    }


def test_sessions_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """An ended session makes room."""
    lower("sessions.SESSIONS_MAX", 2)
    first, _ = log.open(), log.open()
    applied = log.apply(OpenSession(1_000, OWNER))
    assert code(applied.result) == "LimitExceeded"
    assert not applied.leased
    first.expire()
    log.open()


def test_attachments_of_a_session_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """A closed attachment makes room."""
    lower("sessions.ATTACHMENTS_PER_SESSION_MAX", 2)
    process = log.open()
    child = process.attach()
    assert code(log.apply(OpenAttachment(process.session, OWNER)).result) == "LimitExceeded"
    child.close_attachment()
    process.attach()


def test_attachments_of_all_sessions_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """A session that cannot have its first attachment is not opened."""
    lower("sessions.ATTACHMENTS_MAX", 2)
    log.open().attach()
    assert code(log.apply(OpenSession(1_000, OWNER)).result) == "LimitExceeded"
    assert log.machine.session_count() == 1


def test_waiters_of_a_lock_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """The refused one is not in the queue; the others wait on."""
    lower("claims.WAITERS_PER_LOCK_MAX", 2)
    process = log.open()
    process.hold()
    process.acquire()
    process.acquire()
    assert code(process.acquire()) == "LimitExceeded"
    assert log.lock("/l").waiters_total == 2
    process.cancel(2)
    assert process.acquire() is None


def test_waiters_of_all_locks_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """Also where the lock has no other waiter: it is released as if nobody had come."""
    lower("claims.WAITERS_MAX", 1)
    process = log.open()
    process.hold("/a")
    token = process.hold("/b")
    process.acquire("/a")
    assert code(process.acquire("/b")) == "LimitExceeded"
    assert process.release(token, "/b").replies == []


def test_names_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """Locks and values together; a name that is free again makes room."""
    lower("names.NAMES_MAX", 2)
    process = log.open()
    token = process.hold("/a")
    process.set("/b", b"x")
    assert code(process.acquire("/c")) == "LimitExceeded"
    assert code(process.set("/c", b"x")) == "LimitExceeded"
    assert isinstance(process.set("/b", b"y"), ValueWritten)
    process.release(token, "/a")
    assert isinstance(process.acquire("/c"), Granted)


def test_bytes_of_names_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """Two million of the longest names would be a gigabyte."""
    lower("names.NAMES_BYTES_MAX", 10)
    process = log.open()
    process.hold("/äöü")
    assert code(process.acquire("/abc")) == "LimitExceeded"
    assert isinstance(process.acquire("/ab"), Granted)
    process.release(FencingToken(log.lock("/äöü").holder.token), "/äöü")  # type: ignore[union-attr]
    assert isinstance(process.acquire("/abcdef"), Granted)
    assert code(process.acquire("/x")) == "LimitExceeded"


def test_values_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """What is there can still be written."""
    lower("values.VALUES_MAX", 1)
    process = log.open()
    process.set("/a", b"x")
    assert code(process.set("/b", b"x")) == "LimitExceeded"
    assert isinstance(process.set("/a", b"y"), ValueWritten)
    process.delete("/a")
    assert isinstance(process.set("/b", b"x"), ValueWritten)


def test_bytes_of_values_are_bounded(log: Log, lower: Callable[[str, int], None]) -> None:
    """What counts is what a write adds to what it replaces."""
    lower("values.VALUES_BYTES_MAX", 10)
    process = log.open()
    process.set("/a", b"12345678")
    assert code(process.set("/b", b"123")) == "LimitExceeded"
    assert isinstance(process.set("/b", b"12"), ValueWritten)
    assert code(process.set("/a", b"123456789")) == "LimitExceeded"
    assert isinstance(process.set("/a", b"1234567"), ValueWritten)
    assert log.value("/a").value == b"1234567"


BAD_PATHS = ["", "jobs", "é/", "\ud800", "/\ud800"]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_path_that_is_none_is_refused_everywhere(log: Log, path: str) -> None:
    """A path begins with a slash and can be written in UTF-8."""
    process = log.open()
    answers = [process.acquire(path), process.release(1, path).result, process.set(path, b"x"), process.delete(path)]
    answers += [log.machine.query(LockInfo(path)), log.machine.query(ValueGet(path))]  # type: ignore[list-item]
    assert [code(answer) for answer in answers] == ["InvalidRequest"] * 6


@pytest.mark.parametrize("letter", ["a", "é", "√"])
def test_path_may_have_512_bytes_and_no_more(log: Log, letter: str) -> None:
    """Bytes of UTF-8, not letters: what is stored is what is bounded."""
    process = log.open()
    count = (PATH_BYTES_MAX - 1) // len(letter.encode())
    assert isinstance(process.acquire("/" + letter * count), Granted)
    assert code(process.acquire("/" + letter * (count + 1))) == "LimitExceeded"


OWNERS_OVER_A_BOUND = [Owner("h", 1, "x" * (LABEL_BYTES_MAX + 1)), Owner("h" * (HOST_BYTES_MAX + 1), 1), Owner("h", 1, "é" * 257)]
OWNERS_THAT_ARE_NONE = [Owner("h", -1), Owner("h", NUMBER_MAX + 1), Owner("\ud800", 1), Owner("h", 1, "\ud800")]


@pytest.mark.parametrize("owner", OWNERS_OVER_A_BOUND + OWNERS_THAT_ARE_NONE)
def test_owner_over_its_bounds_is_refused_everywhere(log: Log, owner: Owner) -> None:
    """A label is for people: 512 bytes tell a task id, not a task."""
    process = log.open()
    expected = "LimitExceeded" if owner in OWNERS_OVER_A_BOUND else "InvalidRequest"
    assert code(process.acquire(owner=owner)) == expected
    assert code(log.apply(OpenSession(1_000, owner)).result) == expected
    assert code(log.apply(OpenAttachment(process.session, owner)).result) == expected
    assert log.lock("/l").holder is None


def test_owner_at_its_bounds_is_taken(log: Log) -> None:
    """The bound itself is allowed."""
    assert isinstance(log.open().acquire(owner=Owner("h" * HOST_BYTES_MAX, NUMBER_MAX, "x" * LABEL_BYTES_MAX)), Granted)


@pytest.mark.parametrize("wait_ms", [-1, DURATION_MS_MAX + 1])
def test_wait_out_of_range_is_refused_also_where_the_lock_is_free(log: Log, wait_ms: int) -> None:
    """An ill-formed request is refused for what it is, not for the luck of the moment."""
    assert code(log.open().acquire(wait_ms=wait_ms)) == "InvalidRequest"
    assert log.lock("/l").holder is None


def test_longest_wait_is_taken(log: Log) -> None:
    """The bound itself is allowed."""
    process = log.open()
    process.hold()
    assert process.acquire(wait_ms=DURATION_MS_MAX) is None


@pytest.mark.parametrize(("asked", "named"), [(-1, 0), (0, 0), (2, 2), (WAITERS_NAMED_MAX + 50, WAITERS_NAMED_MAX)])
def test_lock_info_names_a_bounded_number_of_waiters_and_counts_all(log: Log, asked: int, named: int) -> None:
    """The answer must fit into a frame; the first in the queue are the ones to know."""
    processes = [log.open(), log.open()]
    processes[0].hold()
    for number in range(1_010):
        call = processes[number % 2]
        call.last_request += 1
        # Straight into the machine: the invariants need not be checked a thousand times.
        _fast(log, call, LockAcquire("/l", None, OWNER))
    state = log.machine.query(LockInfo("/l", asked))
    assert isinstance(state, LockState)
    assert (len(state.waiters), state.waiters_total) == (named, 1_010)


def _fast(log: Log, process: Process, operation: LockAcquire | ValueSet) -> None:
    log.index += 1  # type: ignore[assignment]
    call = commands.Call(process.session, process.attachment, process.last_request, 0, (), operation)  # type: ignore[arg-type]
    log.machine.apply(log.index, log.time_ms, call)


def test_every_bound_is_in_the_packages_table() -> None:
    """Whoever runs into one finds it there, with its figure."""
    table = coord_core.machine.__doc__ or ""
    named = {name: getattr(bounds, name) for name in vars(bounds) if name.endswith("_MAX")}
    named.update(PATH_BYTES_MAX=PATH_BYTES_MAX, LABEL_BYTES_MAX=LABEL_BYTES_MAX, VALUE_BYTES_MAX=operations.VALUE_BYTES_MAX)
    named.pop("NUMBER_MAX")
    named.pop("DURATION_MS_MAX")
    for name, bound in named.items():
        (line,) = [line for line in table.splitlines() if re.search(rf"\b{name}\b", line)]
        shown = [f"{bound:,}", f"{bound // 1024} KiB", f"{bound // 1024 // 1024} MiB"]
        assert any(figure in line for figure in shown), f"{name} is {bound}, the table says: {line}"
