"""What kills workers, and what must be true afterwards: one run at a time, nothing stuck, nothing left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest
from celery import states
from coord_celery.board import Board, process_started

from tests.coord_celery.conftest import assert_no_overlap
from tests.coord_celery.processes import children_of, is_running, session_of
from tests.coord_celery.waiting import until

pytestmark = pytest.mark.xdist_group("celery")

PUBLISHER = """
import sys
from tests.coord_celery.shop import app
guarded_at_run = app.tasks["tests.coord_celery.shop.guarded_at_run"]
for number in range(int(sys.argv[1])):
    guarded_at_run.delay(f"k{number % 4}")
"""


def publish_from_processes(shop, processes, each):
    command = [sys.executable, "-c", PUBLISHER, str(each)]
    publishers = [subprocess.Popen(command, env=shop.environment) for _ in range(processes)]
    for publisher in publishers:
        assert publisher.wait(60) == 0


def board_of(shop):
    (path,) = shop.directory.glob("coord-celery-*/board")
    return Board(path)


def test_two_hundred_duplicates_never_overlap_whatever_is_killed(make_shop):
    """Four publishers, two workers; a pool process and then a whole worker are killed in the middle of a run."""
    shop = make_shop(ttl="4", margin="1")
    victim, survivor = shop.start_worker("-c", "3", ready=False), shop.start_worker("-c", "3", ready=False)
    for worker in (victim, survivor):
        worker.wait_ready()
    gate = shop.gate()
    blocked = shop.task("guarded_at_run").delay("k0", gate)
    run = shop.run_of(blocked.id)
    publish_from_processes(shop, 4, 50)

    killed = [(run.pid, time.monotonic_ns())]
    os.kill(run.pid, signal.SIGKILL)

    family = victim.family()
    until(lambda: any(open_run(shop, pid) for pid, _ in family) or len(shop.runs()) > 100, "the victim runs something")
    now = time.monotonic_ns()
    killed += [(pid, now) for pid, _ in family]
    victim.kill()

    def runs_again():
        publish_from_processes(shop, 1, 4)
        return {run.key for run in shop.runs() if run.start > now} == {f'name="k{number}"' for number in range(4)}

    until(runs_again, "every key is free again")
    until(lambda: all(shop.lock("guarded_at_run", f'name="k{number}"').holder() is None for number in range(4)), "all is released")
    survivor.stop()
    assert_no_overlap(shop.runs(), killed=killed)
    assert len(shop.runs()) >= 8


def open_run(shop, pid):
    return [run for run in shop.runs() if run.pid == pid and run.end is None]


def test_killed_worker_frees_its_locks_within_the_ttl_and_leaves_nothing_behind(make_shop):
    """No process, no directory; and the lock goes with the session."""
    shop = make_shop(ttl="3", margin="1")
    worker = shop.start_worker("-c", "2")
    result = shop.task("guarded").delay("k", shop.gate())
    run = shop.run_of(result.id)
    assert list(shop.directory.glob("coord-celery-*"))
    killed = time.monotonic()
    worker.kill()
    grant = shop.lock("guarded", 'name="k"').acquire(timeout=20)
    assert time.monotonic() - killed < 3 + 1.5
    assert grant.token > run.token
    assert not list(shop.directory.glob("coord-celery-*"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_worker_that_is_shut_down_closes_its_session(shop, signum):
    """Warm: the running task ends first.  Cold: it is cut off.  Either way the lock is free when the worker is gone."""
    worker = shop.start_worker("-c", "2")
    gate = shop.gate()
    result = shop.task("guarded").delay("k", gate)
    run = shop.run_of(result.id)
    family = worker.family()
    worker.process.send_signal(signum)
    shop.open_gate(gate)
    worker.process.wait(30)
    assert shop.lock("guarded", 'name="k"').try_lock().token > run.token
    assert not any(is_running(*member) for member in family)
    assert not list(shop.directory.glob("coord-celery-*"))


def test_child_of_a_stopped_worker_is_dead_before_its_lock_is_granted_again(make_shop):
    """SIGSTOP of the main process past the TTL: it can neither renew nor fence; the watchdog does."""
    shop = make_shop(ttl="3", margin="1")
    worker = shop.start_worker("-c", "2")
    result = shop.task("guarded").delay("k", shop.gate())
    run = shop.run_of(result.id)
    started = process_started(run.pid)
    worker.process.send_signal(signal.SIGSTOP)
    grant = shop.lock("guarded", 'name="k"').acquire(timeout=20)
    assert not is_running(run.pid, started)
    assert grant.token > run.token


def test_worker_that_was_stopped_for_too_long_works_again(make_shop):
    """After SIGCONT it opens a session anew, and its pool runs on under that one."""
    shop = make_shop(ttl="2", margin="0.5")
    worker = shop.start_worker("-c", "1")
    first = shop.task("guarded").delay("k", shop.gate())
    run = shop.run_of(first.id)
    worker.process.send_signal(signal.SIGSTOP)
    held = shop.lock("guarded", 'name="k"')
    held.acquire(timeout=20)
    worker.process.send_signal(signal.SIGCONT)
    held.release()
    second = shop.app.send_task("tests.coord_celery.shop.guarded", ("k",))
    assert second.get(timeout=30) > run.token


def test_task_that_asks_for_it_is_told_that_its_lock_is_lost(make_shop):
    """on_lost="raise": no kill, but LockLost in the task, before anybody else can have the lock."""
    shop = make_shop(ttl="3", margin="1")
    worker = shop.start_worker("-c", "1")
    result = shop.task("guarded_by_exception").delay("k", shop.gate())
    run = shop.run_of(result.id)
    worker.process.send_signal(signal.SIGSTOP)
    shop.lock("guarded_by_exception", 'name="k"').acquire(timeout=20)
    worker.process.send_signal(signal.SIGCONT)
    until(lambda: result.state == states.FAILURE, "the task has failed")
    assert type(result.result).__name__ == "LockLost"
    assert is_running(run.pid, process_started(run.pid))


def test_child_killed_between_its_acquire_and_the_answer_leaves_nothing_held(shop, cluster):
    """The leader has the acquire in its log and cannot commit it; the child dies; then it is committed, and granted to the dead."""
    worker = shop.start_worker("-c", "1")
    assert shop.task("guarded").delay("k").get(timeout=20)  # the child has its attachment now
    until(lambda: kill_with_acquire_in_the_log(shop, cluster), "the acquire of a dead child is committed", timeout=60)
    again = lambda: shop.app.send_task("tests.coord_celery.shop.guarded", ("k",)).get(timeout=30)  # noqa: E731
    assert until(again, "the lock is free again")
    assert worker.process.poll() is None


def kill_with_acquire_in_the_log(shop, cluster):
    """Kill the child at that moment; return whether the leader remained the leader, and so committed the acquire."""
    gate = shop.gate()
    slot = until(lambda: [slot for slot in board_of(shop).occupied() if is_running(slot.pid, slot.started)], "there is a child")[0]
    before = until(lambda: shop.client.status().leader, "there is a leader")
    cluster.signal(signal.SIGSTOP, but=before.node)
    try:
        shop.app.send_task("tests.coord_celery.shop.guarded", ("k", gate))  # asks nobody at publish
        until(lambda: has_more_or_has_resigned(shop, before), "the leader has the acquire in its log")
        os.kill(slot.pid, signal.SIGKILL)
        until(lambda: not is_running(slot.pid, slot.started), "the child is dead")
    finally:
        cluster.signal(signal.SIGCONT)
        shop.open_gate(gate)
    after = until(lambda: shop.client.status().leader, "there is a leader")
    return (after.node, after.term) == (before.node, before.term)


def has_more_or_has_resigned(shop, before):
    """Ask the one node that is not stopped."""
    statuses = [node.status for node in shop.client.status(timeout=0.05).nodes if node.status is not None]
    return any(status.role != "leader" or status.last_index > before.last_index for status in statuses)


def test_task_is_put_back_while_the_service_is_away_and_runs_when_it_is_there(make_shop, cluster):
    """Never executed unguarded, never lost, and no retry used up."""
    shop = make_shop(url=f"{cluster.url}?timeout=500ms")
    shop.start_worker("-c", "1")
    cluster.signal(signal.SIGSTOP)
    try:
        result = shop.app.send_task("tests.coord_celery.shop.guarded", ("k",))
        until(lambda: result.state == states.RETRY, "the task is put back")
        assert type(result.result).__name__ == "CoordUnavailable"
        assert shop.runs() == []
    finally:
        cluster.signal(signal.SIGCONT)
    assert result.get(timeout=30)
    assert len(shop.runs()) == 1


def test_task_that_asks_for_it_goes_on_without_its_lock(make_shop):
    """on_lost="ignore": nobody stops it; `check` tells it."""
    shop = make_shop(ttl="2", margin="0.5")
    worker = shop.start_worker("-c", "1")
    gate = shop.gate()
    result = shop.task("guarded_regardless").delay("k", gate)
    run = shop.run_of(result.id)
    worker.process.send_signal(signal.SIGSTOP)
    shop.lock("guarded_regardless", 'name="k"').acquire(timeout=20)
    shop.open_gate(gate)
    assert shop.run_of(result.id, ended=True).token == run.token
    worker.process.send_signal(signal.SIGCONT)
    until(lambda: result.state == states.FAILURE, "the task has failed")
    assert type(result.result).__name__ == "LockLost"


def test_watchdog_that_dies_is_replaced(shop):
    worker = shop.start_worker("-c", "1")
    (watchdog,) = until(lambda: watchdogs_of(worker), "there is a watchdog")
    os.kill(watchdog, signal.SIGKILL)
    until(lambda: [pid for pid in watchdogs_of(worker) if pid != watchdog], "there is another watchdog")


def watchdogs_of(worker):
    """Of all that lives under a worker, only the watchdog has a session of its own."""
    return [pid for pid in children_of(worker.pid) if session_of(pid) == pid]


@pytest.mark.parametrize("pool", ["solo", "threads", "spawn"])
def test_other_pools_run_one_at_a_time(shop, pool):
    options = {"solo": ["-P", "solo"], "threads": ["-P", "threads", "-c", "3"], "spawn": ["-c", "2"]}[pool]
    if pool == "spawn":
        shop.environment["SHOP_START_METHOD"] = "spawn"
    shop.start_worker(*options)
    guarded = shop.task("guarded_at_run")
    results = [guarded.delay(f"k{number % 2}") for number in range(12)]
    for result in results:
        result.get(timeout=60)
    assert_no_overlap(shop.runs())
    assert {run.key for run in shop.runs()} == {'name="k0"', 'name="k1"'}
    until(lambda: shop.lock("guarded_at_run", 'name="k0"').holder() is None, "the lock is given back")
