"""`coord lock` against a real cluster: exit codes, environment, signals, and the end of the command before the end of the lease."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import coord_core
from coord_core.cli.exits import Exit
from tests.cli.running import COORD, Dev, coord, is_running, until

StartDev = Callable[..., Dev]

#: Says its own and its child's pid, ignores SIGTERM, and goes on for a minute.
STUBBORN = "trap '' TERM; sleep 60 & echo $$ $!; while :; do wait; done"


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextmanager
def locking(
    cluster: Dev, name: str, *command: str, ttl: str = "15s", more: tuple[str, ...] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """`coord lock` beside the test; killed with it."""
    words = [*COORD, "--url", cluster.url, "lock", name, "--ttl", ttl, *more, "--", *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def first_words(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    return line.split()


def run_lock(cluster: Dev, name: str, *command: str, more: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return coord("--url", cluster.url, "lock", name, *more, "--", *command)


def test_command_knows_its_lock_and_rising_tokens(cluster: Dev) -> None:
    tokens = []
    for _ in range(2):
        found = run_lock(cluster, "/env", "sh", "-c", "echo $COORD_LOCK_NAME $COORD_FENCING_TOKEN $COORD_URL")
        name, token, url = found.stdout.split()
        assert name == "/env"
        assert url.startswith(cluster.url)
        tokens.append(int(token))
    assert tokens[0] < tokens[1]


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 5", 5), ("kill -KILL $$", 137), ("kill -TERM $$", 143)])
def test_exit_code_is_the_commands_own(cluster: Dev, script: str, code: int) -> None:
    assert run_lock(cluster, "/codes", "sh", "-c", script).returncode == code


def test_command_that_cannot_start_is_126_or_127_and_the_lock_is_free_again(cluster: Dev, tmp_path: Path) -> None:
    assert run_lock(cluster, "/start", "no-such-command-here").returncode == Exit.COMMAND_NOT_FOUND
    (tmp_path / "data").write_text("")
    assert run_lock(cluster, "/start", str(tmp_path / "data")).returncode == Exit.CANNOT_EXECUTE
    assert run_lock(cluster, "/start", "true", more=("--no-wait",)).returncode == 0


def test_busy_lock_is_75_and_one_line_names_the_holder(cluster: Dev) -> None:
    with locking(cluster, "/busy", "sh", "-c", "echo up; exec sleep 60") as holder:
        first_words(holder)
        for more in (("--no-wait",), ("--wait", "100ms")):
            found = run_lock(cluster, "/busy", "touch", "/nonexistent/x", more=more)
            assert found.returncode == Exit.NOT_ACQUIRED
            assert len(found.stderr.splitlines()) == 1
            assert f"held by {os.uname().nodename}:{holder.pid} sh, token " in found.stderr
            assert "0 wait ahead" in found.stderr


def test_lock_is_free_at_once_when_the_command_ends(cluster: Dev) -> None:
    """Not after the TTL of fifteen seconds."""
    with locking(cluster, "/handover", "sh", "-c", "echo up; exec sleep 60") as holder:
        first_words(holder)
        with locking(cluster, "/handover", "echo", "mine") as waiter:
            holder.terminate()
            assert first_words(waiter) == ["mine"]
            assert waiter.wait(timeout=5) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_reach_the_command(cluster: Dev, signum: signal.Signals) -> None:
    name = signum.name.removeprefix("SIG")
    with locking(
        cluster, f"/signals/{name}", "sh", "-c", f"trap 'exit 9' {name}; echo up; while :; do sleep 0.01; done"
    ) as process:
        first_words(process)
        process.send_signal(signum)
        assert process.wait(timeout=5) == 9


def test_signal_while_waiting_ends_it_and_the_command_never_runs(cluster: Dev, tmp_path: Path) -> None:
    with locking(cluster, "/wait", "sh", "-c", "echo up; exec sleep 60") as holder:
        first_words(holder)
        with locking(cluster, "/wait", "touch", str(tmp_path / "ran")) as waiter, coord_core.connect(cluster.url) as client:
            lock = client.lock("/wait")
            until(lambda: len(lock.waiters()) == 1, what="the second in the queue")
            waiter.terminate()
            assert waiter.wait(timeout=5) == 128 + signal.SIGTERM
            until(lambda: len(lock.waiters()) == 0, what="an empty queue")
    assert not (tmp_path / "ran").exists()


def test_killed_lock_takes_its_command_and_grandchildren_along(cluster: Dev) -> None:
    with locking(cluster, "/killed", "sh", "-c", STUBBORN) as process:
        group = [int(word) for word in first_words(process)]
        assert all(map(is_running, group))
        process.kill()
        until(lambda: not any(map(is_running, group)), seconds=5, what="the end of the group")


def test_stopped_lock_has_its_command_killed_before_another_can_have_the_lock(cluster: Dev) -> None:
    """SIGSTOP: it can neither renew nor kill; the guard does."""
    with locking(cluster, "/stopped", "sh", "-c", STUBBORN, ttl="1500ms") as process:
        group = [int(word) for word in first_words(process)]
        process.send_signal(signal.SIGSTOP)
        with coord_core.connect(cluster.url) as client:
            assert client.lock("/stopped").acquire(timeout=10) is not None
            assert not any(map(is_running, group)), "the lock was granted while the old command ran"
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=5) == Exit.LEASE_LOST


def test_command_is_killed_before_the_lease_ends_when_the_cluster_stands_still(start_dev: StartDev) -> None:
    dev = start_dev("--nodes", "3")
    with locking(dev, "/frozen", "sh", "-c", STUBBORN, ttl="1500ms") as process:
        group = [int(word) for word in first_words(process)]
        frozen = now()
        dev.signal_nodes(signal.SIGSTOP)
        until(lambda: not any(map(is_running, group)), seconds=5, what="the end of the group")
        assert now() - frozen < 1.5, "it outlived the lease that was renewed before the freeze"
        assert process.wait(timeout=10) == Exit.LEASE_LOST
        assert process.stderr is not None
        said = process.stderr.read()
        assert "could not be renewed" in said
        assert "Traceback" not in said


def test_command_outlives_the_death_of_the_leader(start_dev: StartDev) -> None:
    dev = start_dev("--nodes", "3")
    with locking(dev, "/failover", "sh", "-c", "echo up; exec sleep 60", ttl="3s") as process:
        first_words(process)
        os.kill(dev.leader(), signal.SIGKILL)
        until(lambda: dev.status()["leader"], what="a new leader")
        lease_of_old_leader = now() + 3.5
        until(lambda: now() > lease_of_old_leader or process.poll() is not None, seconds=10)
        assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=5) == 128 + signal.SIGTERM


def test_without_a_quorum_waiting_counts_for_the_whole_call(start_dev: StartDev) -> None:
    """Whether for the cluster or for the lock: who says how long he waits wants to go on then, and hears which nodes were tried.

    Without a bound it is waited for the cluster too, as for a lock that is held.
    """
    dev = start_dev("--nodes", "3")
    addresses = {node["name"]: node["listen"] for node in dev.first["nodes"]}
    for name in ("n1", "n2"):
        dev.kill_node(name)
    for more, seconds in ((("--no-wait",), 2.5), (("--wait", "2s"), 2.0)):
        began = now()
        found = run_lock(dev, "/quorum", "true", more=more)
        # The rest is for starting the interpreter, on a busy machine.
        assert seconds <= now() - began < seconds + 6
        assert found.returncode == Exit.UNAVAILABLE
        last = found.stderr.splitlines()[-1]
        assert "/quorum not acquired: no leader, or no quorum for one: n3 answers, and none leads; not reached: " in last
        assert addresses["n1"] in last
        assert addresses["n2"] in last
        assert "coord dev" not in last
    with locking(dev, "/quorum", "true") as waiter:
        assert waiter.stderr is not None
        assert waiter.stderr.readline().startswith("coord: waiting for /quorum: no leader, or no quorum for one: n3 answers")
        assert waiter.poll() is None


def test_token_of_the_url_option_does_not_reach_the_command(cluster: Dev) -> None:
    """Clusters of `coord dev` have no token and ignore one."""
    url = cluster.url.replace("coord://", "coord://s3cret@")
    environment = {key: value for key, value in os.environ.items() if key != "COORD_URL"}
    found = coord("--url", url, "lock", "/token", "--", sys.executable, "-c", "import os; print(os.environ)", env=environment)
    assert found.returncode == 0, found.stderr
    assert "s3cret" not in found.stdout
