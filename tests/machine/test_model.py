"""Random traffic against the naive model, and against another machine.

Set COORD_MACHINE_SEEDS=7,8 to run other seeds; a failure names its seed and step.
"""

import os
from collections import Counter
from typing import Any

import pytest

from coord_core.machine import Applied, Machine
from coord_core.machine.invariants import check
from coord_core.protocol.commands import Call, CloseSession, Tick
from coord_core.protocol.operations import LockAcquire
from coord_core.protocol.results import Failed, Granted, NotGranted
from coord_core.types import LogIndex
from tests.machine.model import Model
from tests.machine.traffic import Traffic

STEPS = 1_200
SEEDS = [int(seed) for seed in os.environ.get("COORD_MACHINE_SEEDS", "1,2,3,4,5,6,7,8,9,10,11,12").split(",")]

# Small enough that random clients run into it.
WINDOW = 6


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord_core.machine.machine.WINDOW_REQUESTS_MAX", WINDOW)
    monkeypatch.setattr("coord_core.machine.machine.WINDOW_CONTROL_MAX", 2 * WINDOW)


def _plain(answer: Any) -> Any:
    """Return a refusal's code, so that the model need not know its words."""
    return answer.code if isinstance(answer, Failed) else answer


def _run(machine: Machine, seed: int, steps: int = STEPS) -> list[Applied]:
    traffic = Traffic(seed)
    history = []
    for step in range(1, steps + 1):
        stamp, command = traffic.next()
        applied = machine.apply(LogIndex(step), stamp, command)
        traffic.hear(command, applied)
        history.append(applied)
    return history


@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("seed", SEEDS)
def test_machine_answers_as_the_naive_model_does(seed: int) -> None:
    """Exactly once, FIFO, timeouts, cancels, the dead: every answer to every request, in the same order, is the model's."""
    machine, model, traffic = Machine(), Model(WINDOW, 2 * WINDOW), Traffic(seed)
    for step in range(1, STEPS + 1):
        stamp, command = traffic.next()
        applied = machine.apply(LogIndex(step), stamp, command)
        where = f"seed {seed}, step {step}: {command}"
        assert _plain(applied.result) == model.apply(step, stamp, command), where
        assert [(*reply[:2], _plain(reply[2])) for reply in applied.replies] == model.replies, where
        assert {path: [claim.token for claim in claims] for path, claims in model.locks.items()} == {
            path: [lock.holder and lock.holder.token, *(0 for _ in lock.waiters or ())] for path, lock in machine._locks.all()
        }, where
        assert {path: value.content for path, value in model.values.items()} == {
            path: value.content for path, value in machine._values.all()
        }, where
        check(machine)
        traffic.hear(command, applied)


@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_is_granted_at_most_once_and_tokens_of_a_lock_only_rise(seed: int) -> None:
    """The two promises that a fencing guard stands on, checked without the model."""
    machine, traffic = Machine(), Traffic(seed)
    paths: dict[tuple[int, int], str] = {}
    granted: dict[tuple[int, int], int] = {}
    highest: dict[str, int] = {}
    for step in range(1, STEPS + 1):
        stamp, command = traffic.next()
        applied = machine.apply(LogIndex(step), stamp, command)
        answers = list(applied.replies)
        if isinstance(command, Call):
            if isinstance(command.operation, LockAcquire):
                paths.setdefault((command.attachment, command.request), command.operation.path)
            if applied.result is not None:
                answers.append((command.attachment, command.request, applied.result))
        for attachment, request, answer in answers:
            if not isinstance(answer, Granted):
                continue
            token = granted.setdefault((attachment, request), answer.token)
            assert token == answer.token, f"seed {seed}, step {step}: request {request} of {attachment} was granted twice"
            if token == step:
                path = paths[attachment, request]
                assert token > highest.get(path, 0), f"seed {seed}, step {step}: {path} was granted under an old token"
                highest[path] = token
        traffic.hear(command, applied)


@pytest.mark.usefixtures("small_window")
def test_traffic_reaches_what_it_is_meant_to_reach() -> None:
    """A random test that never waits, expires or repeats would pass for any machine."""
    seen: Counter[str] = Counter()
    for seed in range(1, 13):
        for applied in _run(Machine(), seed):
            for answer in (applied.result, *(answer for _, _, answer in applied.replies)):
                match answer:
                    case Failed(code=code):
                        seen[code] += 1
                    case NotGranted(reason=reason):
                        seen[reason] += 1
                    case _:
                        seen[type(answer).__name__] += 1
    expected = [
        "Granted",
        "Done",
        "ValueWritten",
        "ValueConflict",
        "busy",
        "timeout",
        "cancelled",
        "SessionExpired",
        "SessionClosed",
    ]
    expected += ["AttachmentClosed", "StaleRequest", "NotHolder", "LimitExceeded", "WrongType", "InvalidRequest"]
    assert [name for name in expected if seen[name] < 10] == [], seen


@pytest.mark.parametrize("seed", SEEDS)
def test_two_machines_with_the_same_entries_answer_the_same_and_have_the_same_digest(seed: int) -> None:
    """Replicas differ in nothing but the moment at which they apply."""
    one, other = Machine(), Machine()
    first, second = _run(one, seed), _run(other, seed)
    assert first == second
    assert one.digest() == other.digest()


def test_all_sessions_ended_and_all_values_deleted_leave_nothing_behind() -> None:
    """Whatever happened before: nothing is held by, kept for, or remembered of the dead."""
    machine = Machine()
    _run(machine, 99)
    index = STEPS
    for view in list(machine.sessions()):
        index += 1
        machine.apply(LogIndex(index), 0, CloseSession(view.session))
    assert machine._locks.all() == []
    assert len(machine._names) == len(machine._values.all())
    assert (machine._locks._held, machine._locks._waiting, machine.session_count()) == ({}, {}, 0)
    machine.apply(LogIndex(index + 1), machine.time_ms + 10_000, Tick())
    assert machine.next_deadline_ms() is None
    check(machine)
