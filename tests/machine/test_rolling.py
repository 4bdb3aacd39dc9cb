"""The rolling hash: the same on every node and in every process, and another from the first entry that did something else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coord_core import errors
from coord_core.machine import Machine, refusals
from coord_core.protocol.commands import Call
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.types import LogIndex, RequestNumber
from tests.machine.driver import OWNER, Log, Process
from tests.machine.frozen import story
from tests.machine.test_snapshot import restored, written
from tests.machine.traffic import Traffic

ROOT = Path(__file__).resolve().parents[2]


def hash_of(seed: int, entries: int = 300) -> int:
    traffic, machine = Traffic(seed), Machine()
    for index in range(1, entries):
        time_ms, command = traffic.next()
        traffic.hear(command, machine.apply(LogIndex(index), time_ms, command))
    return machine.rolling_hash


@pytest.mark.parametrize("seed", range(5))
def test_machines_that_applied_the_same_agree_after_every_entry(seed: int) -> None:
    """Also one that goes on from the other's snapshot, taken at any entry."""
    traffic, one, other = Traffic(seed), Machine(), Machine()
    seen = {one.rolling_hash}
    for index in range(1, 300):
        time_ms, command = traffic.next()
        traffic.hear(command, one.apply(LogIndex(index), time_ms, command))
        other.apply(LogIndex(index), time_ms, command)
        assert one.rolling_hash == other.rolling_hash
        assert 0 < one.rolling_hash < 2**64
        seen.add(one.rolling_hash)
        if index % 50 == 0:
            other = restored(written(one))
            assert one.rolling_hash == other.rolling_hash
    assert len(seen) == 300, "an entry left no trace"


def test_every_process_comes_to_the_same_number() -> None:
    """Whatever its seed for hashing text: nodes are compared with each other."""
    code = "from tests.machine.test_rolling import hash_of; print(hash_of(7))"
    numbers = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert numbers == {f"{hash_of(7)}\n"}


def test_the_number_is_the_one_that_the_last_release_came_to() -> None:
    """Members of two releases are compared: this changes only with the machine's version, or with `frozen.story`."""
    assert f"{story().machine.rolling_hash:016x}" == "51bff88895aba6ba"


def with_a_holder() -> tuple[Log, Process, Process]:
    log = Log()
    return log, log.open(), log.open(owner=Owner("host-2", 7))


@pytest.mark.parametrize("meets", ["refused", "released"])
def test_another_holder_shows_with_the_next_entry_that_meets_it(meets: str) -> None:
    """By a fault a lock belongs to somebody else on one node: its answers are the first to tell."""
    hashes = []
    for faulty in (False, True):
        log, first, second = with_a_holder()
        token = first.hold()
        if faulty:
            claim = log.machine._locks.all()[0][1].holder
            assert claim is not None
            claim.attachment = log.machine._sessions.attachment(second.attachment)
            claim.owner = claim.attachment.owner
        before = log.machine.rolling_hash
        operation = LockAcquire("/l", 0, OWNER) if meets == "refused" else LockRelease("/l", token)
        call = Call(first.session, first.attachment, RequestNumber(2), RequestNumber(0), (), operation)
        log.machine.apply(LogIndex(log.index + 1), log.time_ms, call)
        hashes.append((before, log.machine.rolling_hash))
    assert hashes[0][0] == hashes[1][0]
    assert hashes[0][1] != hashes[1][1]


def test_a_difference_does_not_go_away() -> None:
    """The leader compares now and then: whatever comes in between, equal entries keep unequal numbers apart."""
    one, other = Log(), Log()
    one.open(ttl_ms=5_000)
    other.open(ttl_ms=6_000)
    for _ in range(1_000):
        one.wait(7)
        other.wait(7)
        assert one.machine.rolling_hash != other.machine.rolling_hash


def refused() -> int:
    """Return the number after a refusal at once and a late one."""
    log, first, second = with_a_holder()
    first.set("no path", b"")
    first.hold()
    second.acquire("/l")
    second.close()
    return log.machine.rolling_hash


def test_a_refusal_counts_by_its_code_and_not_by_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release may say it better; its nodes still agree with those of the last one."""
    expected = refused()
    with monkeypatch.context() as patched:
        patched.setattr(refusals, "invalid", lambda field, message: refusals.refuse(errors.InvalidRequest, "better words"))
        patched.setattr(refusals, "session_closed", lambda session: refusals.refuse(errors.SessionClosed, "better words"))
        assert refused() == expected
    with monkeypatch.context() as patched:
        patched.setattr(refusals, "session_closed", refusals.session_expired)
        assert refused() != expected
