"""Calls of members on three real nodes: members and leaders are killed between asking and the result."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import coord_core
from coord_core import NotFound, OutcomeUnknown, RemoteError
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


class Callee:
    def __init__(self, nodes: Nodes, ttl_s: float = TTL_S) -> None:
        self._log = nodes.directory / f"callee-{len(list(nodes.directory.glob('callee-*')))}"
        self._log.touch()
        words = [nodes.url(ttl=f"{int(ttl_s * 1000)}ms"), str(self._log), "/g"]
        command = [sys.executable, "-m", "tests.cluster.callee", *words]
        nodes.run_client(nodes.clients[0], command, stdin=subprocess.PIPE, cwd=ROOT)
        until(lambda: self.told("ready"), PATIENCE_S, "the member")
        ready = self.told("ready")[0]
        self.pid, self.member = ready["pid"], ready["member"]

    def told(self, what: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if line["what"] == what]

    def ran(self) -> list[int]:
        return [line["number"] for line in self.told("ran")]


class Call(threading.Thread):
    """A call under way."""

    def __init__(self, remote: coord_core.RemoteMember, *args: Any, **options: Any) -> None:
        super().__init__(daemon=True)
        self._remote, self._args, self._options = remote, args, options
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._remote.execute(*self._args, **self._options)
        except coord_core.CoordError as error:
            self.outcome = error

    def wait(self) -> Any:
        self.join(PATIENCE_S)
        return self.outcome


def test_call_runs_on_its_member_once_though_the_leader_dies_meanwhile(nodes: Nodes):
    """Results and exceptions come back, over as many leaders as it takes."""
    callee, other = Callee(nodes, 30), Callee(nodes, 30)
    killed: list[str] = []
    with nodes.connect(ttl="30s") as client:
        remote = client.group("/g").member(callee.member)
        for number in range(2):
            call = Call(remote, "run", number, 2.0)
            until(lambda: len(callee.ran()) > len(killed), PATIENCE_S, "the call having begun")
            killed.append(nodes.wait_leader())
            nodes.kill(killed[-1])
            assert call.wait() == [number, callee.pid]
            nodes.start(killed[-1])
        with pytest.raises(RemoteError, match="ValueError: as it should"):
            remote.execute("fail")
        assert callee.ran() == [0, 1]
        assert other.ran() == []


def test_schedule_runs_though_all_nodes_were_killed(nodes: Nodes):
    callee = Callee(nodes, 60)
    with nodes.connect(ttl="60s") as client:
        work = client.group("/g").member(callee.member).schedule(3, "run", 7, 0)
        nodes.kill(*nodes.names)
        for name in nodes.names:
            nodes.start(name)
        assert work.result(PATIENCE_S) == [7, callee.pid]
        assert callee.ran() == [7]


def test_caller_of_a_member_that_is_killed_is_told_whether_it_had_begun(nodes: Nodes):
    begun, not_begun, heir = Callee(nodes), Callee(nodes), Callee(nodes)
    with nodes.connect() as client:
        group = client.group("/g")
        first = Call(group.member(begun.member), "run", 1, 60.0)
        again = Call(group.member(begun.member), "run", 2, 0, retry=True)
        until(lambda: begun.ran() == [1], PATIENCE_S, "the call having begun")
        os.kill(not_begun.pid, signal.SIGSTOP)
        second = Call(group.member(not_begun.member), "run", 3, 0)
        os.kill(begun.pid, signal.SIGKILL)
        os.kill(not_begun.pid, signal.SIGKILL)
        assert isinstance(first.wait(), OutcomeUnknown)
        assert isinstance(second.wait(), NotFound)
        assert again.wait() == [2, heir.pid]
        assert heir.ran() == [2]
