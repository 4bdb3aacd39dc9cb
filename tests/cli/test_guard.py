"""The guard and the child it watches, without a cluster: deadlines are given by hand."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coord_core.cli.child import Child
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.guard import Act, Guard
from coord_core.cli.processes import exit_code_of

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """A zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def guarded(words: list[str]) -> Iterator[tuple[Child, Guard]]:
    child = Child(words)
    guard = Guard(child.pid)
    try:
        yield child, guard
    finally:
        child.end()
        guard.stand_down()


def test_command_gets_its_environment_and_its_exit_code_is_returned() -> None:
    with guarded(["sh", "-c", 'test "$COORD_FENCING_TOKEN" = 7 && exit 5']) as (child, _guard):
        child.start({"COORD_FENCING_TOKEN": "7"})
        assert exit_code_of(child.reap()) == 5


def test_command_that_a_signal_ended_gives_128_and_its_number() -> None:
    with guarded(SLEEP) as (child, _guard):
        child.start({"A": "b"})
        child.send(signal.SIGTERM)
        assert exit_code_of(child.reap()) == 128 + signal.SIGTERM


def test_command_that_does_not_exist_is_127_and_one_that_cannot_run_is_126(tmp_path: Path) -> None:
    with guarded(["no-such-command-here"]) as (child, _guard), pytest.raises(CommandFailed) as missing:
        child.start({"A": "b"})
    assert missing.value.code == Exit.COMMAND_NOT_FOUND
    (tmp_path / "data").write_text("not a program")
    with guarded([str(tmp_path / "data")]) as (child, _guard), pytest.raises(CommandFailed) as forbidden:
        child.start({"A": "b"})
    assert forbidden.value.code == Exit.CANNOT_EXECUTE


def test_abandoned_command_never_runs(tmp_path: Path) -> None:
    """Without the lock not one instruction of the command may run."""
    with guarded(["touch", str(tmp_path / "ran")]) as (child, _guard):
        child.end()
    assert not (tmp_path / "ran").exists()


def test_whatever_the_command_leaves_in_its_group_dies_with_it() -> None:
    """The lock is given back when the command ends, so nothing of it may go on."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    with guarded(["sh", "-c", "sleep 60 & exit 0"]) as (child, _guard):
        child.start({"A": "b"})
        os.close(write)
        assert child.reap() == 0
        with open(read, "rb") as pipe:
            assert pipe.read() == b""  # end of file: the last process that had the pipe has gone


def test_guard_asks_before_the_deadline_and_kills_at_it() -> None:
    with guarded(STUBBORN) as (child, guard):
        deadline = now() + 0.4
        guard.hold_until(deadline, grace=0.2)
        child.start({"A": "b"})
        until(lambda: guard.act == Act.TERMINATED)
        assert now() < deadline
        until(child.poll)
        assert now() < deadline + 0.2
        assert exit_code_of(child.reap()) == 128 + signal.SIGKILL
        assert guard.act == Act.KILLED


def test_guard_lets_the_command_live_while_the_deadline_moves_on() -> None:
    with guarded(SLEEP) as (child, guard):
        child.start({"A": "b"})
        end = now() + 0.5
        while now() < end:
            guard.hold_until(now() + 0.2, grace=0.05)
            time.sleep(0.02)
        assert guard.act == Act.NOTHING
        assert not child.poll()


def test_guard_acts_at_once_when_the_lease_is_lost_early() -> None:
    """A deadline that moves towards now wakes the guard: it does not sleep until the old one."""
    with guarded(SLEEP) as (child, guard):
        guard.hold_until(now() + 60, grace=1)
        child.start({"A": "b"})
        guard.hold_until(0.0, grace=1)
        until(child.poll, seconds=2)
        assert exit_code_of(child.reap()) == 128 + signal.SIGKILL


def test_stopped_command_is_killed_too() -> None:
    with guarded(SLEEP) as (child, guard):
        guard.hold_until(now() + 60, grace=1)
        child.start({"A": "b"})
        child.send(signal.SIGSTOP)
        guard.hold_until(now() + 0.1, grace=0.05)
        until(child.poll, seconds=5)


KEEPER = """
import os, signal, sys, time
from coord_core.cli.child import Child
from coord_core.cli.guard import Guard
child = Child(["sh", "-c", "sleep 61 & echo $$ $!; trap '' TERM; wait; sleep 62"])
guard = Guard(child.pid)
guard.hold_until(time.clock_gettime(time.CLOCK_BOOTTIME) + float(sys.argv[1]), grace=0.1)
child.start({"A": "b"})
child.reap()
"""


@pytest.mark.parametrize(("end_of_keeper", "lease"), [(signal.SIGKILL, 60.0), (signal.SIGSTOP, 1.5)])
def test_group_dies_when_its_keeper_is_killed_or_stopped_past_the_lease(end_of_keeper: int, lease: float) -> None:
    """Nobody is left to renew the lease, so nobody may go on believing in it; grandchildren of the command included."""
    with subprocess.Popen([sys.executable, "-c", KEEPER, str(lease)], stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        try:
            group = [int(word) for word in keeper.stdout.readline().split()]
            assert all(map(is_running, group))
            keeper.send_signal(end_of_keeper)
            until(lambda: not any(map(is_running, group)), seconds=5)
        finally:
            keeper.kill()
