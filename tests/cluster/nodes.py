"""A cluster of real `coord server` processes on a network that can be cut: started, killed, stopped, started again.

Every node has a directory and a log that all its lives share.  `close` ends everything; so does the end of this process.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import coord_core
from coord_core.client.status import ask_cluster
from coord_core.protocol.messages import NodeStatus
from tests.cli.running import COORD, until
from tests.cluster.leash import on_leash
from tests.cluster.network import Network, both_ways, one_way, open_network

T = TypeVar("T")

#: For what a healthy cluster does in a second, on a machine that has much else to do.
PATIENCE_S = 45.0
STATUS_S = 1.0


class Nodes:
    """Context manager: formed on `start`, gone on exit."""

    def __init__(
        self,
        count: int,
        directory: Path | None = None,
        *,
        clients: Sequence[str] = ("clients",),
        flags: Sequence[str] = (),
        network: str = "auto",
    ) -> None:
        """`clients`: hosts of their own; `flags`: of every node; `network`: see `open_network`."""
        self.names = tuple(f"n{number}" for number in range(1, count + 1))
        self.clients = tuple(clients)
        self._is_temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="coord-nodes-")) if directory is None else directory
        self._flags = tuple(flags)
        #: The command of a node that is no plain `coord server`, by name.
        self.commands: dict[str, Sequence[str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._others: list[subprocess.Popen[bytes]] = []
        self.network: Network = open_network(self.names, self.clients, kind=network)

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- what there is ------------------------------------------------------------------------------------------------------------

    def url(self, **options: object) -> str:
        asked = "&".join(f"{name}={value}" for name, value in options.items())
        return f"coord://{','.join(map(self.network.address, self.names))}" + (f"?{asked}" if asked else "")

    def data(self, name: str) -> Path:
        return self.directory / name

    def log(self, name: str) -> str:
        """Return what the node has said, in all its lives."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def is_up(self, name: str) -> bool:
        """Whether it runs; a stopped process does."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def rest(self, *names: str) -> list[str]:
        return [name for name in self.names if name not in names]

    # --- their lives --------------------------------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Form the cluster and wait for its leader."""
        for name in self.names:
            self.start(name)
        self.wait_leader()

    def start(self, name: str) -> None:
        assert not self.is_up(name), f"{name} runs"
        forming = ["--init", "--founders", ",".join(self.names)]
        if name != self.names[0]:
            forming = ["--join", self.network.address(self.names[0])]
        self._start(name, forming)

    def _start(self, name: str, forming: Sequence[str]) -> None:
        flags = ["--name", name, "--data-dir", str(self.data(name)), *self.network.listening(name), *forming, *self._flags]
        command = self.network.command(name, [*self.commands.get(name, [*COORD, "server"]), *flags])
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                on_leash(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def replace(self, name: str, by: str) -> None:
        """Start a node whose disk is lost again, on an empty one, in the place of the member of its name; `by`: whom it asks."""
        assert not self.is_up(name), f"{name} runs"
        shutil.rmtree(self.data(name))
        self._start(name, ["--join", self.network.address(by), "--replace"])

    def run_client(self, host: str, command: Sequence[str], **more: Any) -> "subprocess.Popen[bytes]":
        """Start a process of a client on its host."""
        process: subprocess.Popen[bytes] = subprocess.Popen(on_leash(self.network.command(host, command)), **more)
        self._others = [*(other for other in self._others if other.poll() is None), process]
        return process

    def signal(self, name: str, signum: int) -> None:
        if self.is_up(name):
            os.kill(self.pid(name), signum)

    def kill(self, *names: str) -> None:
        """SIGKILL to all of them at one moment; wait for their ends."""
        for name in names:
            self.signal(name, signal.SIGKILL)
        for name in names:
            self._processes[name].wait()

    def stop(self, name: str) -> int:
        """End it in good order; return its exit code."""
        self.signal(name, signal.SIGCONT)
        self.signal(name, signal.SIGTERM)
        return self.wait_ended(name)

    def wait_ended(self, name: str) -> int:
        return self._processes[name].wait(PATIENCE_S)

    def close(self) -> None:
        for process in [*self._others, *self._processes.values()]:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            process.wait()
        self.network.close()
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- the network between them -------------------------------------------------------------------------------------------------

    def cut_off(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """Block everything between these nodes and the others; return the links, for `heal`."""
        group = list(names)
        links = both_ways(group, self.rest(*group))
        self.network.block(links)
        return links

    def mute(self, name: str) -> list[tuple[str, str]]:
        """The other nodes do not hear it any more; it hears them."""
        links = one_way([name], self.rest(name))
        self.network.block(links)
        return links

    def deafen(self, name: str) -> list[tuple[str, str]]:
        """It does not hear the other nodes any more; they hear it."""
        links = one_way(self.rest(name), [name])
        self.network.block(links)
        return links

    # --- looking at them ----------------------------------------------------------------------------------------------------------

    def status(self, names: Sequence[str] = ()) -> Mapping[str, NodeStatus | None]:
        """Ask the nodes themselves; None: no answer."""
        addresses = {self.network.address(name): name for name in names or self.names}
        report = self.network.run(lambda: asyncio.run(ask_cluster(addresses, "", None, STATUS_S)))
        return {addresses[one.address]: one.status for one in report.nodes if one.address in addresses}

    def leader(self, among: Sequence[str] = ()) -> str | None:
        """Return the node that leads by its own word; of several the one of the highest term."""
        leading = [(one.term, name) for name, one in self.status(among).items() if one is not None and one.role == "leader"]
        return max(leading)[1] if leading else None

    def wait_leader(self, among: Sequence[str] = ()) -> str:
        name: str = until(lambda: self.leader(among), PATIENCE_S, "a leader")
        return name

    def wait_level(self, names: Sequence[str] = ()) -> int:
        """Wait until all these nodes have applied the same index, which is the end of their logs; return it."""

        def level() -> int:
            found = [(one.applied_index, one.last_index) if one else (0, -1) for one in self.status(names).values()]
            indexes = {index for pair in found for index in pair}
            return indexes.pop() if len(indexes) == 1 and len(found) == len(names or self.names) else 0

        index: int = until(level, PATIENCE_S, "all nodes having applied the same")
        return index

    def connect(self, **options: object) -> coord_core.Client:
        """Return a client that reaches every node, connected."""

        def connected() -> coord_core.Client:
            client = coord_core.connect(self.url(**options))
            client.wait_connected(PATIENCE_S)
            return client

        return self.network.run(connected)

    def watch(self, work: Callable[[], T]) -> T:
        return self.network.run(work)
