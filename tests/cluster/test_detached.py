"""Detached sessions on three real nodes: a lock lives on while processes and leaders die, stop and are replaced."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import coord_core
from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S, Nodes
from tests.cluster.participants import TTL_S

pytestmark = pytest.mark.xdist_group("cluster")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes(3, clients=("clients",)) as nodes:
        nodes.start_all()
        yield nodes


class Actor:
    """One process of one attempt."""

    def __init__(self, nodes: Nodes, attempt: int = 1, *, ttl_s: float = TTL_S, name: str = "/etl/load", path: str = "/l") -> None:
        self._log = nodes.directory / f"actor-{len(list(nodes.directory.glob('actor-*')))}"
        self._log.touch()
        words = [nodes.url(ttl=f"{int(ttl_s * 1000)}ms"), str(self._log), name, str(attempt), path]
        command = [sys.executable, "-m", "tests.cluster.actor", *words]
        self._process = nodes.run_client(nodes.clients[0], command, stdin=subprocess.PIPE, cwd=ROOT)
        self.pid: int = self.wait("ready")["pid"]

    def told(self, what: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if line["what"] == what]

    def wait(self, what: str, count: int = 1) -> dict[str, Any]:
        until(lambda: len(self.told(what)) >= count, PATIENCE_S, f"{count} times {what}")
        return self.told(what)[count - 1]

    def holds(self) -> int:
        token: int = self.wait("holds")["token"]
        return token

    def tell(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(what.encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)


def holder(client: coord_core.Client) -> int | None:
    found = client.lock("/l").holder()
    return None if found is None else found.token


def test_lock_lives_on_while_its_processes_and_the_leader_die(nodes: Nodes):
    """Handed off to nobody over a failover, then taken up; killed within the TTL, then taken up again; always one token."""
    first = Actor(nodes, ttl_s=10)
    token = first.holds()
    first.tell("hand-off 30")
    first.wait("done")
    nodes.kill(nodes.wait_leader())
    nodes.wait_leader()
    second = Actor(nodes, ttl_s=10)
    assert second.holds() == token
    second.signal(signal.SIGKILL)
    third = Actor(nodes, ttl_s=10)
    assert third.holds() == token
    with nodes.connect() as client:
        assert holder(client) == token
        third.tell("release")
        third.wait("done")
        assert holder(client) is None


def test_stopped_process_that_was_replaced_can_do_nothing_when_it_goes_on(nodes: Nodes):
    """A triggerer that is restarted while the old one hangs: what the old one does on its way out is not applied."""
    stalled = Actor(nodes, ttl_s=30)
    token = stalled.holds()
    stalled.signal(signal.SIGSTOP)
    replacement = Actor(nodes, ttl_s=30)
    assert replacement.holds() == token
    stalled.tell("release")
    stalled.signal(signal.SIGCONT)
    assert stalled.wait("refused")["code"] in ("Superseded", "LockLost")
    stalled.wait("lost")
    replacement.tell("check")
    replacement.wait("done")
    with nodes.connect() as client:
        assert holder(client) == token


def test_later_attempt_holds_only_when_the_earlier_one_believes_no_more(nodes: Nodes):
    """The earlier one lives, hears that it was superseded, and says nothing: its lease decides, ahead of who waited before."""
    first = Actor(nodes, attempt=1)
    token = first.holds()
    with nodes.connect() as client:
        stranger = Actor(nodes, name="/other")
        until(lambda: len(client.lock("/l").waiters()) == 1, PATIENCE_S, "the stranger waiting")
        second = Actor(nodes, attempt=2)
        granted = second.wait("holds")
        assert granted["token"] > token
        assert first.wait("lost")["at"] < granted["at"]
        assert stranger.told("holds") == []
        assert Actor(nodes, attempt=1).wait("refused")["code"] == "Superseded"
        second.tell("release")
        assert stranger.holds() > granted["token"]


def test_what_was_handed_off_and_not_taken_up_ends_though_nobody_comes(nodes: Nodes):
    """Cluster time goes on without traffic, and over a change of leader."""
    worker = Actor(nodes)
    worker.holds()
    with nodes.connect() as client:
        worker.tell("hand-off 2")
        worker.wait("done")
        nodes.kill(nodes.wait_leader())
        nodes.wait_leader()
        assert client.lock("/l").acquire(timeout=PATIENCE_S) is not None
