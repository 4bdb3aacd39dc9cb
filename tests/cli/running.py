"""Real clusters for these tests: `coord dev` as its users run it, and what to look at from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COORD = [sys.executable, "-m", "coord_core.cli.main"]


def until(condition: Callable[[], Any], seconds: float = 15, what: str = "the condition") -> Any:
    """Return the condition's first true value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.01)
    return value


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Dev:
    """A running `coord dev`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COORD, "dev", "-o", "json", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, said = self.process.communicate()
            pytest.fail(f"coord dev ended with {self.process.returncode}: {said}")
        self.first = json.loads(line)
        self.url: str = self.first["url"]
        self.pids: dict[str, int] = {node["name"]: node["pid"] for node in self.first["nodes"]}

    def status(self) -> dict[str, Any]:
        found = coord("--url", self.url, "-o", "json", "--timeout", "1s", "status")
        return json.loads(found.stdout) if found.stdout else {"leader": None, "nodes": []}

    def leader(self) -> int:
        """Return the pid of the node that leads."""
        name: str = until(lambda: self.status()["leader"], what="a leader")
        return self.pids[name]

    def kill_node(self, name: str) -> None:
        os.kill(self.pids[name], signal.SIGKILL)

    def kill_nodes(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)

    def signal_nodes(self, signum: int) -> None:
        for pid in self.pids.values():
            if is_running(pid):
                os.kill(pid, signum)

    def stop(self) -> int:
        self.signal_nodes(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode


def coord(*arguments: str, seconds: float = 30, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Run `coord` to its end."""
    return subprocess.run([*COORD, *arguments], capture_output=True, text=True, timeout=seconds, check=False, **more)
