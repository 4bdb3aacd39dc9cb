"""A cluster of real processes for somebody's tests: `coord dev`, whose nodes can be killed, stopped and started again.

The rule: nothing outlives the test process: `coord dev` and every node that is started again are told by the kernel when their
parent has ended.  What a cluster of processes cannot show in reasonable time, partitions and lost disks, is the simulator's.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import coord_core

_COORD = (sys.executable, "-m", "coord_core.cli.main")
_SECONDS_MAX = 30.0
_ASK_AGAIN_S = 0.02
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Node:
    name: str
    pid: int
    listen: str
    #: Once it was started again, it is a child of this process.
    process: "subprocess.Popen[bytes] | None" = None


class RealCluster:
    """Nodes are numbered from 0.  Use it as a context manager, or call `close`."""

    def __init__(self, nodes: int = 3, *, options: str = "") -> None:
        """Start it; return when it has a leader.  `options`: for the URL, such as "ttl=2s"."""
        self._directory = Path(tempfile.mkdtemp(prefix="coord-test-"))
        self._clients: list[coord_core.Client] = []
        self._nodes: list[_Node] = []
        command = [*_COORD, "-o", "json", "dev", "--nodes", str(nodes), "--data", str(self._directory)]
        self._dev = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_ends_with(os.getpid(), signal.SIGTERM)
        )
        assert self._dev.stdout is not None
        said = self._dev.stdout.readline()
        if not said:
            _, why = self._dev.communicate()
            self.close()
            raise RuntimeError(f"coord dev ended with {self._dev.returncode}: {why}")
        first = json.loads(said)
        self._nodes = [_Node(node["name"], node["pid"], node["listen"]) for node in first["nodes"]]
        #: For `coord_core.connect`.
        self.url: str = first["url"] + (f"?{options}" if options else "")
        self.client = self.connect()

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def connect(self, *, label: str = "") -> coord_core.Client:
        """Return a client of its own session; it is closed with the cluster."""
        client = coord_core.connect(self.url, label=label)
        self._clients.append(client)
        return client

    def leader(self, timeout: float = 10.0) -> int:
        """Return the number of the node that leads, waiting for one."""
        names = [node.name for node in self._nodes]
        leader = _wait(lambda: self.client.status(1.0).leader, timeout, "no node leads")
        return names.index(leader.node)

    def address(self, number: int) -> str:
        """Return host:port of a node."""
        return self._nodes[number].listen

    # --- doing -------------------------------------------------------------------------------------------------------------------

    def kill(self, number: int) -> None:
        """SIGKILL a node; return when it is gone."""
        node = self._nodes[number]
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(node.pid)
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], _SECONDS_MAX)
            finally:
                os.close(pidfd)
        if node.process is not None:
            node.process.wait(_SECONDS_MAX)

    def pause(self, number: int) -> None:
        """Stop a node where it stands: to the others it is cut off, and it does not know."""
        os.kill(self._nodes[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let a paused node go on."""
        os.kill(self._nodes[number].pid, signal.SIGCONT)

    def restart(self, number: int) -> None:
        """Start a node on its data, after killing it where it runs; return when it takes part again."""
        self.kill(number)
        node = self._nodes[number]
        flags = ["--name", node.name, "--data-dir", str(self._directory / node.name), "--listen", node.listen]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COORD_")}
        with (self._directory / f"{node.name}.log").open("ab") as log:
            node.process = subprocess.Popen(
                [*_COORD, "server", *flags],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_ends_with(os.getpid(), signal.SIGKILL),
            )
        node.pid = node.process.pid
        _wait(lambda: self._takes_part(node), _SECONDS_MAX, f"{node.name} does not take part again")

    def close(self) -> None:
        """End everything and remove the data.  Idempotent."""
        for client in self._clients:
            client.close(timeout=0.5)
        for node in self._nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait(_SECONDS_MAX)
        if self._dev.poll() is None:
            self._dev.terminate()
        self._dev.communicate(timeout=_SECONDS_MAX)
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> "RealCluster":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _takes_part(self, node: _Node) -> bool:
        assert node.process is not None
        if node.process.poll() is not None:
            raise RuntimeError(f"{node.name} ended with {node.process.returncode}: its log is in {self._directory}")
        return any(status.node == node.name and status.leader for status in self.client.status(1.0).answered)


def _wait(condition: Callable[[], Any], seconds: float, otherwise: str) -> Any:
    """Return the condition's first true value.  Raises `TimeoutError`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{otherwise} after {seconds:g} s")
        time.sleep(_ASK_AGAIN_S)
    return value


def _ends_with(parent: int, signum: int) -> Callable[[], None]:
    """Return what a child calls to be sent `signum` when its parent has ended (prctl(2); elsewhere than on Linux it is not)."""
    libc = ctypes.CDLL(None, use_errno=True)

    def bind() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
            if os.getppid() != parent:
                os.kill(os.getpid(), signum)

    return bind
