"""`coord locks`, `coord sessions` and `coord lock -N` as processes, against real nodes."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

import coord_core
from coord_core.cli.exits import Exit
from coord_core.protocol.locks import LockClosure, LockParty
from coord_core.protocol.operations import Owner
from coord_core.protocol.queries import LockState
from coord_core.types import AttachmentId, FencingToken, SessionId
from tests.cli.running import COORD, Dev, coord, until


@pytest.fixture
def client(cluster: Dev) -> Iterator[coord_core.Client]:
    with coord_core.connect(cluster.url, label="holder") as client:
        yield client


def ask(cluster: Dev, *words: str) -> Any:
    found = coord("--url", cluster.url, "-o", "json", *words)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def waiting(client: coord_core.Client, path: str, count: int) -> None:
    until(lambda: len(client.lock(path).waiters()) == count, what=f"{count} waiters")


def test_locks_and_semaphores_are_listed_in_every_format(cluster: Dev, client: coord_core.Client) -> None:
    """One contract for programs, a table for people; by prefix, in parts."""
    grant = client.lock("/ls/b", label="me").acquire()
    assert grant is not None
    client.semaphore("/ls/a", 3, permits=2).acquire()
    rows = ask(cluster, "locks", "ls", "/ls/")["locks"]
    assert [(row["name"], row["kind"], row["taken"], row["limit"]) for row in rows] == [
        ("/ls/a", "semaphore", 2, 3),
        ("/ls/b", "lock", 1, 1),
    ]
    assert (rows[1]["holder"]["label"], rows[1]["holder"]["token"], rows[1]["closed"]) == ("me", grant.token, None)
    plain = coord("--url", cluster.url, "-o", "plain", "locks", "ls", "ls/b").stdout.rstrip("\n").split("\t")
    assert plain[:3] == ["/ls/b", "lock", "1/1"]
    lines = coord("--url", cluster.url, "locks", "ls", "/ls/", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["/ls/a", "/ls/b"]
    assert "/ls/a" in coord("--url", cluster.url, "locks", "ls").stdout
    found: list[str] = []
    following: str | None = "0"
    while following is not None:
        part = ask(cluster, "locks", "ls", "/ls/", "--limit", "1", "--after", following)
        found += [row["name"] for row in part["locks"]]
        following = part["next"]
    assert sorted(found) == ["/ls/a", "/ls/b"]
    assert coord("--url", cluster.url, "locks", "ls", "--after", "x").returncode == Exit.USAGE


def test_show_and_why_say_who_holds_it_and_who_waits(cluster: Dev, client: coord_core.Client) -> None:
    """One plain sentence, of locks and semaphores; the same facts for programs."""
    grant = client.lock("/why/l", label="nightly backup").acquire()
    assert grant is not None
    words = [*COORD, "--url", cluster.url, "lock", "/why/l", "--", "true"]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        waiting(client, "/why/l", 1)
        sentence = coord("--url", cluster.url, "locks", "why", "why/l").stdout
        shown = ask(cluster, "locks", "show", "/why/l")
        table = coord("--url", cluster.url, "locks", "show", "/why/l").stdout
        process.kill()
        process.communicate()
    assert sentence.startswith("/why/l is held by ")
    for part in ("nightly backup", f"token {grant.token}", "since ", "its lease has ", "1 waits, the first is ", " true since "):
        assert part in sentence
    assert sentence.count("\n") == 1
    assert [party["label"] for party in (*shown["holders"], *shown["waiters"])] == ["nightly backup", "true"]
    assert "holder" in table
    assert "waiter" in table
    client.semaphore("/why/s", 1).acquire()
    assert "1 of 1 permits taken, for longest by " in coord("--url", cluster.url, "locks", "why", "/why/s").stdout
    assert ask(cluster, "locks", "show", "/why/s")["kind"] == "semaphore"


def test_a_lock_that_nobody_has_is_said_to_be_free(cluster: Dev, client: coord_core.Client) -> None:
    """And what is no lock is no lock."""
    assert coord("--url", cluster.url, "locks", "show", "/free").returncode == Exit.NOT_FOUND
    assert coord("--url", cluster.url, "locks", "why", "/free").stdout == "/free is free: nobody holds it.\n"
    client.value("/number").set(b"1")
    assert coord("--url", cluster.url, "locks", "why", "/number").returncode == Exit.CONFLICT


def test_a_lock_that_is_closed_is_said_to_be_and_why(cluster: Dev, client: coord_core.Client) -> None:
    """Nobody holds it and nobody gets it: until when, after whom."""
    lock = client.lock("/closed", label="writer")
    lock.acquire()
    lock.release(quarantine=600)
    sentence = coord("--url", cluster.url, "locks", "why", "/closed").stdout
    assert "/closed is closed until " in sentence
    assert "writer" in sentence
    assert "gave it back with this quarantine; nobody waits." in sentence
    (row,) = ask(cluster, "locks", "ls", "/closed")["locks"]
    assert 500 < row["closed"]["seconds_left"] <= 600
    busy = coord("--url", cluster.url, "lock", "/closed", "--no-wait", "--", "true")
    assert (busy.returncode, "closed (quarantine)" in busy.stderr) == (Exit.NOT_ACQUIRED, True)


def test_a_lock_is_broken_under_the_token_that_was_seen(cluster: Dev, client: coord_core.Client) -> None:
    """5: nobody holds it; 6: somebody else does by now; and both token and reason must be given."""
    lock = client.lock("/broken")
    grant = lock.acquire()
    assert grant is not None
    words = ("--url", cluster.url, "locks", "break", "/broken", "--reason", "it hangs", "--token")
    other = coord(*words, str(grant.token + 1))
    assert (other.returncode, f"held under token {grant.token} by now" in other.stderr) == (Exit.CONFLICT, True)
    done = coord(*words, str(grant.token))
    assert (done.returncode, done.stderr.startswith("took /broken from ")) == (0, True)
    assert coord(*words, str(grant.token)).returncode == Exit.NOT_FOUND
    assert coord("--url", cluster.url, "locks", "break", "/broken", "--token", "1").returncode == Exit.USAGE
    assert coord(*words[:5], "--reason", "", "--token", "1").returncode == Exit.USAGE
    with pytest.raises(coord_core.LockLost):
        lock.release()


def test_sessions_are_listed_and_ended(cluster: Dev, client: coord_core.Client) -> None:
    """What it held is free; 5 where there is none."""
    client.lock("/of/session").acquire()
    session = client.session.session_id
    rows = {row["session"]: row for row in ask(cluster, "sessions", "ls")["sessions"]}
    assert rows[session]["who"].endswith("holder")
    assert (rows[session]["holdings"], rows[session]["processes"]) == (1, 1)
    assert 0 < rows[session]["lease_left_seconds"] <= rows[session]["ttl_seconds"]
    assert str(session) in coord("--url", cluster.url, "sessions", "ls").stdout
    assert coord("--url", cluster.url, "sessions", "kill", str(session)).returncode == 0
    assert coord("--url", cluster.url, "sessions", "kill", str(session)).returncode == Exit.NOT_FOUND
    assert "free" in coord("--url", cluster.url, "locks", "why", "/of/session").stdout


def test_detached_sessions_are_listed_with_their_names(cluster: Dev, client: coord_core.Client) -> None:
    """Which work it is, which try, and whether anybody has it."""
    worker = coord_core.Client(cluster.url, detached=coord_core.Detached("/etl/load", attempt=3))
    worker.lock("/of/detached").acquire()
    session = worker.session.session_id
    worker.hand_off(hold=60)
    rows = {row["session"]: row for row in ask(cluster, "sessions", "ls")["sessions"]}
    detached = rows[session]["detached"]
    assert (detached["name"], detached["attempt"], detached["superseded"]) == ("/etl/load", 3, False)
    assert 0 < detached["held_seconds"] <= 60
    assert rows[session]["lease_left_seconds"] is None
    assert "/etl/load #3, handed off, held" in coord("--url", cluster.url, "sessions", "ls").stdout
    assert coord("--url", cluster.url, "sessions", "kill", str(session)).returncode == 0


def test_with_permits_so_many_commands_run_at_a_time(cluster: Dev, client: coord_core.Client) -> None:
    """The next one is told who has them; each has a token."""
    words = [*COORD, "--url", cluster.url, "lock", "/pool", "-N", "2", "--", "sh", "-c", "echo $COORD_FENCING_TOKEN; exec cat"]
    processes = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    tokens = [process.stdout.readline() for process in processes if process.stdout is not None]
    busy = coord("--url", cluster.url, "lock", "/pool", "-N", "2", "--no-wait", "--", "true")
    for process in processes:
        process.communicate("")
    assert len(set(tokens)) == 2
    assert busy.returncode == Exit.NOT_ACQUIRED
    assert "2 of 2 permits are taken" in busy.stderr
    assert [process.returncode for process in processes] == [0, 0]
    assert coord("--url", cluster.url, "lock", "/pool", "-N", "2", "--no-wait", "--", "true").returncode == 0


def test_what_a_client_calls_itself_cannot_break_the_line() -> None:
    """Labels are text: no newlines, no terminal sequences."""
    from coord_core.cli.why import why_lock

    owner = Owner("h", 1, "evil\n\x1b[2Jname")
    party = LockParty(SessionId(1), AttachmentId(1), owner, 1_000, FencingToken(7))
    closed = LockClosure("delay", FencingToken(7), owner, 90_000)
    for state in (LockState(party, (party,), 1), LockState(None, (), 0, closed)):
        sentence = why_lock("/l", state, None)
        assert sentence.isprintable()
    assert "had asked for this delay" in why_lock("/l", LockState(None, (), 0, closed), None)
