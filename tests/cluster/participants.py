"""Processes that take part (`participant`), and what they have written down."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S, Nodes

TTL_S = 1.5


class Participant:
    """One process, on a host of its own where the network has one for it."""

    def __init__(self, nodes: Nodes, part: str, path: str, *, host: str = "", ttl_s: float = TTL_S) -> None:
        number = len(list(nodes.directory.glob("participant-*")))
        self._log = nodes.directory / f"participant-{number}"
        self._log.touch()
        script = str(Path(__file__).with_name("participant.py"))
        command = [sys.executable, script, nodes.url(ttl=f"{int(ttl_s * 1000)}ms"), str(self._log), part, path]
        self._process = nodes.run_client(host or nodes.clients[0], command, stdin=subprocess.PIPE)
        self.ready = self.wait("ready")
        #: Of the process itself: a namespace's wrapper may stand before it.
        self.pid: int = self.ready["pid"]

    def told(self, what: str = "") -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if what in ("", line["what"])]

    def wait(self, what: str, count: int = 1) -> dict[str, Any]:
        """Wait until it has been told so often; return the last of these."""
        until(lambda: len(self.told(what)) >= count, PATIENCE_S, f"{count} times {what}")
        return self.told(what)[count - 1]

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)
