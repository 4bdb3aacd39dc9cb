"""`coord elect`, `coord elections` and `coord group` against a real cluster."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import coord_core
from coord_core.cli.exits import Exit
from tests.cli.running import COORD, Dev, coord, is_running, until

#: Says who it is, ignores SIGTERM, and goes on for a minute.
STUBBORN = "trap '' TERM; echo $COORD_EPOCH $$; while :; do sleep 0.05; done"
PATIENT = "echo $COORD_EPOCH $$; exec sleep 60"


@contextmanager
def running(cluster: Dev, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """`coord` beside the test; killed with it."""
    command = [*COORD, "--url", cluster.url, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def electing(cluster: Dev, name: str, script: str, ttl: str = "15s") -> Any:
    return running(cluster, "elect", name, "--ttl", ttl, "--", "sh", "-c", script)


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    return line.strip()


def numbers_of(process: "subprocess.Popen[str]") -> list[int]:
    return [int(word) for word in line_of(process).split()]


def elect(cluster: Dev, name: str, *command: str, more: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return coord("--url", cluster.url, "elect", name, *more, "--", *command)


def show(cluster: Dev, name: str) -> dict[str, Any]:
    found = coord("--url", cluster.url, "elections", "show", name, "-o", "json")
    assert found.returncode == 0, found.stderr
    document: dict[str, Any] = json.loads(found.stdout)
    return document


def test_command_knows_its_election_and_rising_epochs(cluster: Dev) -> None:
    epochs = []
    for _ in range(2):
        found = elect(cluster, "/elect/env", "sh", "-c", "echo $COORD_ELECTION_NAME $COORD_EPOCH $COORD_URL; exit 5")
        assert found.returncode == 5
        name, epoch, url = found.stdout.split()
        assert name == "/elect/env"
        assert url.startswith(cluster.url)
        epochs.append(int(epoch))
    assert epochs[0] < epochs[1]


def test_who_is_not_elected_in_time_exits_with_75_and_names_the_leader(cluster: Dev) -> None:
    with electing(cluster, "/elect/busy", PATIENT) as leader:
        numbers_of(leader)
        found = elect(cluster, "/elect/busy", "true", more=("--wait", "100ms"))
        assert found.returncode == Exit.NOT_ACQUIRED
        assert f":{leader.pid} sh" in found.stderr
        assert show(cluster, "/elect/busy")["candidates"] == [], "who gave up stands no more"


def test_next_leads_at_once_when_the_command_ends(cluster: Dev) -> None:
    """Not after the TTL of fifteen seconds."""
    with electing(cluster, "/elect/next", PATIENT) as leader:
        first, _ = numbers_of(leader)
        with electing(cluster, "/elect/next", PATIENT) as second:
            until(lambda: len(show(cluster, "/elect/next")["candidates"]) == 1, what="the second waiting")
            leader.terminate()
            assert numbers_of(second)[0] > first


def test_killed_or_stopped_leader_takes_its_command_along_before_another_leads(cluster: Dev) -> None:
    """Also a command that ignores SIGTERM."""
    with electing(cluster, "/elect/stopped", STUBBORN, ttl="2s") as leader:
        _, command = numbers_of(leader)
        with electing(cluster, "/elect/stopped", "date +%s.%N; exec sleep 60", ttl="2s") as second:
            until(lambda: len(show(cluster, "/elect/stopped")["candidates"]) == 1, what="the second waiting")
            leader.send_signal(signal.SIGSTOP)
            until(lambda: not is_running(command), what="the command's end")
            ended = time.time()
            assert float(line_of(second)) > ended - 0.05


def test_leadership_that_is_handed_on_ends_the_command_with_76(cluster: Dev) -> None:
    with electing(cluster, "/elect/transfer", PATIENT) as leader:
        first, _ = numbers_of(leader)
        with electing(cluster, "/elect/transfer", PATIENT) as second:
            until(lambda: len(show(cluster, "/elect/transfer")["candidates"]) == 1, what="the second waiting")
            found = coord("--url", cluster.url, "elections", "transfer", "/elect/transfer")
            assert found.returncode == 0, found.stderr
            assert numbers_of(second)[0] > first
            assert leader.wait(20) == Exit.LEASE_LOST


def test_watch_tells_every_leader_beginning_with_the_present_one(cluster: Dev) -> None:
    with running(cluster, "elect", "/elect/watch", "--watch", "-o", "jsonl") as watch:
        assert json.loads(line_of(watch))["leader"] is None
        elect(cluster, "/elect/watch", "true")
        told = [json.loads(line_of(watch))["leader"] for _ in range(2)]
        assert told[0]["label"] == "true"
        assert told[1] is None
        watch.terminate()
        assert watch.wait(10) == 128 + signal.SIGTERM


def test_hooks_run_when_it_comes_to_lead_and_when_it_leads_no_more(cluster: Dev, tmp_path: Path) -> None:
    said = tmp_path / "said"
    say = f"sh -c 'echo {{}} $COORD_EPOCH >> {said}'"
    hooks = ("--on-elected", say.format("up"), "--on-lost", say.format("down"))
    with running(cluster, "elect", "/elect/hooks", *hooks), coord_core.connect(cluster.url) as client:
        election = client.election("/elect/hooks")
        until(lambda: said.exists() and said.read_text().count("\n") == 1, what="the hook of election")
        election.enter()
        election.transfer()
        until(lambda: said.read_text().count("\n") == 2, what="the hook of loss")
        words = [line.split() for line in said.read_text().splitlines()]
        assert [word for word, _ in words] == ["up", "down"]
        assert words[0][1] == words[1][1]


def test_hook_of_loss_has_ended_before_another_leads_where_it_is_asked_to_end(cluster: Dev, tmp_path: Path) -> None:
    """What the first hook started is stopped by then."""
    said = tmp_path / "said"
    hooks = ("--on-elected", f"sh -c 'echo up >> {said}'", "--on-lost", f"sh -c 'sleep 0.3; echo down >> {said}'")
    with running(cluster, "elect", "/elect/ended", *hooks) as leader, coord_core.connect(cluster.url) as client:
        until(said.exists, what="the hook of election")
        next_one = client.election("/elect/ended").enter()
        leader.terminate()
        assert next_one.wait_elected(10) is not None
        assert said.read_text() == "up\ndown\n"
        assert leader.wait(10) == 128 + signal.SIGTERM
        assert said.read_text() == "up\ndown\n"


def test_leadership_that_nobody_else_would_take_is_not_handed_on(cluster: Dev) -> None:
    """Nothing is wrong with the command line."""
    with coord_core.connect(cluster.url) as client:
        client.election("/elect/alone").enter()
        found = coord("--url", cluster.url, "elections", "transfer", "/elect/alone")
        assert (found.returncode, "nobody else" in found.stderr) == (Exit.NOT_FOUND, True)


@pytest.mark.parametrize(
    "words",
    [
        ("elect", "/e"),
        ("elect", "/e", "--watch", "--", "true"),
        ("elect", "/e", "--watch", "--on-lost", "true"),
        ("elect", "/e", "--on-lost", "true", "--wait", "1s"),
        ("elect", "/e", "--on-elected", "true", "--", "true"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: tuple[str, ...]) -> None:
    assert coord(*words).returncode == Exit.USAGE


def test_election_in_which_nobody_stands_is_not_found(cluster: Dev) -> None:
    for words in (("show", "/elect/nobody"), ("transfer", "/elect/nobody")):
        assert coord("--url", cluster.url, "elections", *words).returncode == Exit.NOT_FOUND


def test_member_joins_is_listed_watched_and_leaves_with_its_process(cluster: Dev) -> None:
    with running(cluster, "group", "watch", "/group/g", "-o", "jsonl") as watch:
        assert watch.stderr is not None
        assert "watching" in watch.stderr.readline()
        with running(cluster, "group", "join", "/group/g", "--metadata", "queue=mail", "--id", "me") as member:
            assert json.loads(line_of(watch))["change"] == "joined"
            rows = json.loads(coord("--url", cluster.url, "group", "ls", "/group/g", "-o", "json").stdout)["members"]
            assert [(row["metadata"], row["label"], row["pid"]) for row in rows] == [("queue=mail", "me", member.pid)]
            member.terminate()
            assert member.wait(10) == 128 + signal.SIGTERM
        left = json.loads(line_of(watch))
        assert (left["change"], left["label"], left["reason"]) == ("left", "me", "closed")
    assert coord("--url", cluster.url, "group", "ls", "/group/g", "-o", "plain").stdout == ""


def test_elections_and_groups_are_listed(cluster: Dev) -> None:
    with electing(cluster, "/elect/listed/one", PATIENT) as leader, running(cluster, "group", "join", "/group/listed") as member:
        epoch, _ = numbers_of(leader)
        rows = json.loads(coord("--url", cluster.url, "elections", "ls", "/elect/listed/", "-o", "json").stdout)["elections"]
        found = [(row["name"], row["epoch"], row["pid"], row["candidates"]) for row in rows]
        assert found == [("/elect/listed/one", epoch, leader.pid, 0)]
        assert member.stderr is not None
        assert "member" in member.stderr.readline()
        groups = json.loads(coord("--url", cluster.url, "group", "ls", "-o", "json").stdout)["groups"]
        assert {"name": "/group/listed", "members": 1} in groups
