"""The processes of the clients, one a host."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.nodes import Nodes
from tests.torture.records import now_ns
from tests.torture.worker import HEALED


class Workers:
    def __init__(self, nodes: Nodes, directory: Path, clients: int, seed: int, *, ttl_s: float, share: int) -> None:
        """`clients`: of each process; `share`: how many operations each may make on one key."""
        self.hosts: Sequence[str] = nodes.clients
        self.ttl_s = ttl_s
        self.directory = directory
        self.began_ns = now_ns()
        self._nodes = nodes
        self._clients = clients
        self._seed = seed
        self._share = share
        self._lives = dict.fromkeys(self.hosts, 0)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, host: str) -> None:
        """Begin a new life on a host: other clients, with other sessions."""
        self._lives[host] += 1
        name = f"{host}.{self._lives[host]}"
        url = self._nodes.url(ttl=f"{self.ttl_s * 1000:.0f}ms", timeout="3s")
        about = [url, self.directory, name, self._clients, self._seed, self.began_ns, self._share]
        with (self.directory / f"{host}.log").open("ab") as log:
            self._processes[host] = self._nodes.run_client(
                host,
                [sys.executable, "-m", "tests.torture.worker", *map(str, about)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def signal(self, host: str, signum: int) -> None:
        if self._processes[host].poll() is None:
            os.kill(self._processes[host].pid, signum)

    def kill(self, host: str) -> None:
        self._processes[host].kill()
        self._processes[host].wait()

    def failed(self) -> list[str]:
        """Return the hosts whose process has ended by an error of its own."""
        return [host for host, process in self._processes.items() if (process.poll() or 0) > 0]

    def finish(self, seconds: float) -> list[str]:
        """Let every client prove that it can work, and end; return the hosts that did not within the time, or failed."""
        (self.directory / HEALED).touch()
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(process.poll() is None for process in self._processes.values()):
            time.sleep(0.05)
        return [host for host, process in self._processes.items() if process.poll() != 0]

    def lines(self) -> int:
        """Return about how many operations were written down: two lines each."""
        return sum(_lines_of(path) for path in self.directory.glob("*.jsonl")) // 2


_counted: dict[Path, tuple[int, int]] = {}


def _lines_of(path: Path) -> int:
    """Count what was added since the last time."""
    offset, lines = _counted.get(path, (0, 0))
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(1 << 20):
            offset += len(data)
            lines += data.count(b"\n")
    _counted[path] = offset, lines
    return lines
