"""A fresh cluster for one measurement, run by `coord dev` in a temporary directory."""

import json
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType

COORD = [sys.executable, "-m", "coord_core.cli.main"]


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    pid: int


class Cluster:
    """Context manager: started on entry, gone on exit."""

    def __init__(self, nodes: int = 3) -> None:
        self._dev = subprocess.Popen(
            [*COORD, "-q", "dev", "--nodes", str(nodes), "-o", "json"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        assert self._dev.stdout is not None
        line = self._dev.stdout.readline()
        if not line:
            raise RuntimeError(f"the cluster did not start: coord dev exited with {self._dev.wait()}")
        started = json.loads(line)
        self.url: str = started["url"]
        self.nodes = [Node(node["name"], node["pid"]) for node in started["nodes"]]

    def leader(self) -> Node:
        """Return the node that leads now.  Raises `StopIteration` where none does."""
        out = subprocess.run([*COORD, "--url", self.url, "-o", "json", "status"], capture_output=True, text=True, check=True)
        name = json.loads(out.stdout)["leader"]
        return next(node for node in self.nodes if node.name == name)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._dev.terminate()
        self._dev.wait(timeout=30)
