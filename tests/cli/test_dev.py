"""`coord dev` and `coord status` as processes: the first line, what survives, what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import coord_core
from coord_core.cli.exits import Exit
from tests.cli.running import COORD, Dev, coord, is_running, until

StartDev = Callable[..., Dev]


def test_first_line_says_where_the_cluster_is_and_it_takes_commands_then(start_dev: StartDev) -> None:
    dev = start_dev("--nodes", "3")
    listening = [node["listen"] for node in dev.first["nodes"]]
    assert dev.url == "coord://" + ",".join(listening)
    assert all(is_running(pid) for pid in dev.pids.values())
    found = coord("--url", dev.url, "--timeout", "2s", "lock", "/a", "--no-wait", "--", "true")
    assert (found.returncode, found.stderr) == (0, "")


def test_temporary_directory_goes_with_it(start_dev: StartDev) -> None:
    dev = start_dev("--nodes", "1")
    assert Path(dev.first["data"]).is_dir()
    assert dev.stop() == Exit.OK
    assert not Path(dev.first["data"]).exists()
    assert not any(map(is_running, dev.pids.values()))


def test_restart_on_the_same_directory_keeps_the_url_and_what_was_stored(start_dev: StartDev, tmp_path: Path) -> None:
    dev = start_dev("--data", str(tmp_path))
    with coord_core.connect(dev.url) as client:
        client.value("/a").set(b"kept")
    assert dev.stop() == Exit.OK
    again = start_dev("--data", str(tmp_path))
    assert again.url == dev.url
    with coord_core.connect(again.url) as client:
        versioned = client.value("/a").get()
        assert versioned is not None
        assert versioned.value == b"kept"


def test_second_dev_on_the_same_directory_is_refused_in_one_line(start_dev: StartDev, tmp_path: Path) -> None:
    start_dev("--nodes", "1", "--data", str(tmp_path))
    second = coord("dev", "--data", str(tmp_path))
    assert second.returncode == Exit.CONFLICT
    assert "is taken" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_killed_dev_leaves_no_process(start_dev: StartDev) -> None:
    """SIGKILL leaves it no chance to clean up: the kernel ends its nodes."""
    dev = start_dev("--nodes", "3")
    dev.process.kill()
    until(lambda: not any(map(is_running, dev.pids.values())), seconds=5, what="the end of the nodes")


def test_node_that_dies_is_reported_and_the_others_go_on(start_dev: StartDev) -> None:
    dev = start_dev("--nodes", "3")
    leader = dev.leader()
    os.kill(leader, signal.SIGKILL)
    assert dev.process.stderr is not None
    said = dev.process.stderr.readline()
    assert "SIGKILL" in said
    assert str(leader) in said
    assert coord("--url", dev.url, "lock", "/a", "--", "true").returncode == 0


def test_lock_can_be_taken_soon_after_the_leader_was_killed(start_dev: StartDev) -> None:
    dev = start_dev("--nodes", "3")
    with coord_core.connect(dev.url) as client:
        client.wait_connected(5)
        leader = dev.leader()
        os.kill(leader, signal.SIGKILL)
        killed = time.monotonic()
        assert client.lock("/a").acquire(timeout=5) is not None
        assert time.monotonic() - killed < 2


def test_command_runs_with_the_url_and_its_exit_code_is_returned() -> None:
    check = "import os, sys; sys.exit(7 if os.environ['COORD_URL'].startswith('coord://127.0.0.1:') else 1)"
    found = coord("-q", "dev", "--nodes", "1", "--", sys.executable, "-c", check)
    assert (found.returncode, found.stdout, found.stderr) == (7, "", "")


def test_port_option_gives_consecutive_ports(start_dev: StartDev, tmp_path: Path) -> None:
    free = start_dev("--nodes", "1")
    port = int(free.url.rpartition(":")[2])
    free.stop()
    assert start_dev("--nodes", "1", "--port", str(port)).url == f"coord://127.0.0.1:{port}"


def test_a_node_that_is_killed_is_reported_without_blaming_what_it_said_last(start_dev: StartDev) -> None:
    """The last line of its log is about something else."""
    dev = start_dev("--nodes", "1")
    dev.kill_node("n1")
    assert dev.process.stderr is not None
    log = Path(dev.first["data"]) / "n1.log"
    assert dev.process.stderr.readline() == f"coord: node n1 (pid {dev.pids['n1']}) was ended by SIGKILL; its log is {log}\n"


def test_status_names_the_leader_and_every_node(cluster: Dev) -> None:
    report = cluster.status()
    assert report["leader"] in cluster.pids
    assert report["quorum"] is True
    assert report["tolerates"] == 1
    assert [node["name"] for node in report["nodes"]] == ["n1", "n2", "n3"]
    assert {node["role"] for node in report["nodes"]} == {"leader", "follower"}
    assert all(node["reachable"] and node["term"] == report["term"] for node in report["nodes"])


def test_status_asks_nodes_that_the_url_does_not_name(cluster: Dev) -> None:
    first = cluster.first["nodes"][0]["listen"]
    found = coord("--url", f"coord://{first}", "status", "-o", "json")
    assert len(json.loads(found.stdout)["nodes"]) == 3


def test_status_without_quorum_is_exit_code_3_and_still_shows_the_rest(start_dev: StartDev) -> None:
    dev = start_dev("--nodes", "3")
    for name in ("n1", "n2"):
        os.kill(dev.pids[name], signal.SIGKILL)
    found = coord("--url", dev.url, "--timeout", "2s", "-o", "json", "status")
    assert found.returncode == Exit.UNAVAILABLE
    report = json.loads(found.stdout)
    assert (report["quorum"], report["tolerates"]) == (False, 0)
    assert [node["reachable"] for node in report["nodes"]] == [False, False, True]
    assert "start n1 or n2 again" in found.stderr


def test_status_as_table_and_plain_lines(cluster: Dev) -> None:
    table = coord("--url", cluster.url, "status")
    assert "tolerates 1 more failure" in table.stdout
    plain = coord("--url", cluster.url, "status", "-o", "plain")
    assert len(plain.stdout.splitlines()) == 3
    assert plain.stdout.startswith("n1\t")


def test_session_outlives_the_death_of_all_nodes(start_dev: StartDev, tmp_path: Path) -> None:
    """SIGKILL of all three and a restart: the holder keeps its lock, and the next token is higher."""
    dev = start_dev("--data", str(tmp_path))
    with coord_core.connect(dev.url + "?ttl=20s") as client:
        lock = client.lock("/a")
        grant = lock.acquire(timeout=5)
        assert grant is not None
        dev.kill_nodes()
        dev.stop()
        again = start_dev("--data", str(tmp_path))
        grant.check()
        assert coord("--url", again.url, "lock", "/a", "--no-wait", "--", "true").returncode == Exit.NOT_ACQUIRED
        lock.release()
        later = lock.acquire(timeout=5)
        assert later is not None
        assert later.token > grant.token


def test_watch_goes_on_until_it_is_interrupted(cluster: Dev) -> None:
    words = [*COORD, "--url", cluster.url, "-o", "jsonl", "status", "--watch"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        for _ in range(2):
            assert json.loads(watch.stdout.readline())["quorum"] is True
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=5) == Exit.INTERRUPTED
        assert watch.stderr.read().strip() == ""


def test_server_runs_in_the_foreground_until_sigterm(tmp_path: Path) -> None:
    """One line a record on stderr, nothing on stdout, exit code 0."""
    words = [
        *COORD,
        "server",
        "--name",
        "n1",
        "--data-dir",
        str(tmp_path / "n1"),
        "--listen",
        "127.0.0.1:0",
        "--init",
        "--founders",
        "n1",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        assert node.stderr is not None
        while "takes commands" not in (line := node.stderr.readline()):
            assert line, "it ended before it led"
        node.terminate()
        rest = node.stderr.read()
        assert node.stdout.read() == ""
        assert node.wait(timeout=10) == 0
        assert all(line[:4].isdigit() for line in rest.splitlines()), rest


def test_a_node_asked_to_stop_before_it_founds_a_cluster_founds_none(tmp_path: Path) -> None:
    """`--init` without founders listens for a moment first; SIGTERM counts in that moment too, and nothing is left of it."""
    words = [*COORD, "server", "--name", "n1", "--data-dir", str(tmp_path / "n1"), "--listen", "127.0.0.1:0", "--init"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as node:
        assert node.stderr is not None
        assert "before it founds a cluster" in node.stderr.readline()
        node.terminate()
        assert node.wait(timeout=10) == 0
        assert node.stderr.read().endswith("node n1 has stopped\n")
    assert not (tmp_path / "n1").exists()


def test_a_start_that_is_refused_says_so(tmp_path: Path) -> None:
    """Another process has the directory: nothing has stopped, least of all that one."""
    words = [*COORD, "server", "--name", "n1", "--data-dir", str(tmp_path / "n1"), "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*words, "--init", "--founders", "n1"], stderr=subprocess.PIPE, text=True) as node:
        assert node.stderr is not None
        while "listens for clients" not in node.stderr.readline():
            pass
        second = coord(*words[len(COORD) :])
        node.terminate()
        node.communicate()
    assert second.returncode == Exit.CONFLICT
    assert "has stopped" not in second.stderr
    assert "node n1: this start was refused" in second.stderr
