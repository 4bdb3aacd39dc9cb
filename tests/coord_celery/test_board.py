"""The board between main process, pool children and watchdog."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from coord_celery.board import SLOTS_MAX, Board, Fence, boottime_ns, process_started
from coord_celery.fence import enforce, next_fence_ns, open_process

from tests.coord_celery.processes import is_running, with_our_path
from tests.coord_celery.waiting import until

S = 1_000_000_000


@pytest.fixture
def board(tmp_path):
    return Board.create(tmp_path, margin_ns=2 * S)


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def take_slot(board, pid, *, session=5, attachment=6, fence=Fence.ABORT):
    """Write the slot that `pid` would have written."""
    slot = board.claim()
    slot.occupy(pid)
    slot.attach(session, attachment)
    slot.set_fence(fence)
    return slot


def test_what_one_process_writes_another_reads(board):
    board.publish_lease(5, 7 * S)
    other = Board(board.path)
    assert (other.lease().session, other.lease().end_ns, other.lease().fence_at_ns) == (5, 7 * S, 5 * S)
    assert other.owner_pid == os.getpid()


def test_a_claimed_slot_names_its_process_and_holds_nothing(board):
    slot = board.claim()
    (seen,) = Board(board.path).occupied()
    assert (seen.pid, seen.started, seen.attachment, seen.fence) == (os.getpid(), process_started(os.getpid()), 0, Fence.NONE)
    assert slot.index == seen.index


def test_a_freed_slot_is_taken_again(board):
    first = board.claim()
    second = board.claim()
    first.attach(5, 6)
    first.free()
    assert board.claim().index == first.index != second.index
    assert next(board.occupied()).attachment == 0


def test_a_full_board_is_refused_with_its_bound(board):
    for _ in range(SLOTS_MAX):
        board.claim()
    with pytest.raises(RuntimeError, match=str(SLOTS_MAX)):
        board.claim()


def claim_and_hold(path, ready, leave):
    board = Board(Path(path))
    slot = board.claim()
    slot.attach(1, os.getpid())
    ready.release()
    leave.wait()


def test_processes_that_claim_at_once_get_different_slots(board):
    context = multiprocessing.get_context("fork")
    ready, leave = context.Semaphore(0), context.Event()
    children = [context.Process(target=claim_and_hold, args=(str(board.path), ready, leave)) for _ in range(12)]
    for child in children:
        child.start()
    for _ in children:
        assert ready.acquire(timeout=20)
    assert sorted(slot.pid for slot in board.occupied()) == sorted(child.pid or 0 for child in children)
    assert all(slot.attachment == slot.pid for slot in board.occupied())
    leave.set()
    for child in children:
        child.join()


def test_a_file_that_is_no_board_is_refused(tmp_path):
    path = tmp_path / "board"
    path.write_bytes(bytes(4096))
    with pytest.raises(ValueError, match="not a board"):
        Board(path)


def test_child_is_fenced_the_margin_before_the_lease_ends(board, sleeper):
    board.publish_lease(5, 10 * S)
    take_slot(board, sleeper.pid)
    assert enforce(board, 8 * S - 1) == []
    assert next_fence_ns(board, 5 * S, 60 * S) == 3 * S
    assert sleeper.poll() is None
    assert [slot.pid for slot in enforce(board, 8 * S)] == [sleeper.pid]
    assert sleeper.wait(20) == -signal.SIGKILL


def test_child_of_a_session_that_is_gone_is_fenced_at_once(board, sleeper):
    """The present lease says nothing about what was granted under another session."""
    take_slot(board, sleeper.pid, session=5)
    board.publish_lease(6, 1000 * S)
    enforce(board, 1)
    assert sleeper.wait(20) == -signal.SIGKILL


def test_child_that_holds_nothing_lives_on(board, sleeper):
    take_slot(board, sleeper.pid, fence=Fence.NONE)
    assert enforce(board, 1000 * S) == []
    assert sleeper.poll() is None


def test_on_lost_raise_sends_the_milder_signal(board, sleeper):
    take_slot(board, sleeper.pid, fence=Fence.RAISE)
    enforce(board, 1000 * S)
    assert sleeper.wait(20) == -signal.SIGUSR2  # nobody has a handler in this one


def test_another_process_with_the_same_pid_is_left_alone(board, sleeper):
    """Pids come again; start times do not."""
    slot = take_slot(board, sleeper.pid)
    slot._words[1] -= 1  # as if it had been started by an earlier process
    assert enforce(board, 1000 * S) == []
    assert open_process(sleeper.pid, slot.started) is None
    assert sleeper.poll() is None


MAIN_WITH_CHILD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from coord_celery import watchdog
from coord_celery.board import Board, Fence, boottime_ns
board = Board(Path(sys.argv[1]))
board._words[1] = os.getpid()
dog = watchdog.start(board)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
slot = board.claim(); slot.occupy(child.pid); slot.attach(5, 6); slot.set_fence(Fence.ABORT)
board.publish_lease(5, boottime_ns() + int(float(sys.argv[2]) * 1e9))
print(dog, child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def main_with_child(board):
    started = []

    def start(lease_s, *, first=""):
        process = subprocess.Popen(
            [sys.executable, "-c", first + MAIN_WITH_CHILD, str(board.path), str(lease_s)],
            stdout=subprocess.PIPE,
            text=True,
            env=with_our_path(),
        )
        started.append(process)
        assert process.stdout is not None
        dog, child = map(int, process.stdout.readline().split())
        return process, dog, child

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_watchdog_kills_the_child_of_a_stopped_main_process_before_the_lease_ends(board, main_with_child):
    """The main process cannot renew nor fence while it is stopped; nobody else may be granted the lock before its child is dead."""
    main, _, child = main_with_child(3)
    os.kill(main.pid, signal.SIGSTOP)
    started = process_started(child)
    assert open_process(child, started) is not None
    until(lambda: not is_running(child, started), "the watchdog kills the child")
    assert board.lease().fence_at_ns <= boottime_ns() < board.lease().end_ns
    os.kill(main.pid, signal.SIGCONT)


def test_watchdog_ends_with_the_main_process_and_takes_the_board_along(board, main_with_child):
    """Also the children that are left: nobody keeps their session any more."""
    main, dog, child = main_with_child(1000)
    dog_started, child_started = process_started(dog), process_started(child)
    main.kill()
    until(lambda: not is_running(dog, dog_started), "the watchdog ends")
    until(lambda: not is_running(child, child_started), "the child is killed")
    assert not board.path.exists()


SIGNALLED_BEFORE_ITS_FIRST_STEP = """
import os, signal
def before_the_first_step():
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        os.kill(os.getpid(), signum)
os.setsid = before_the_first_step
"""


@pytest.mark.parametrize("when", ["before its first step", "later"])
def test_watchdog_guards_on_during_a_warm_shutdown(main_with_child, when):
    """What asks a worker to wind down may reach the watchdog too; tasks go on running, and so must their guard."""
    main, dog, child = main_with_child(3, first=SIGNALLED_BEFORE_ITS_FIRST_STEP if when != "later" else "")
    child_started = process_started(child)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        os.kill(dog, signum)
    os.kill(main.pid, signal.SIGSTOP)
    until(lambda: not is_running(child, child_started), "the watchdog kills the child")
    assert is_running(dog, process_started(dog))
