"""Interleaved rounds: every round visits every figure, and for each figure every system, each time in another order.

All systems are up all the while, each with its client process connected; one of them is at work.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.measures import percentile
from bench.peers.system import System
from bench.peers.worker import Worker
from bench.processes import cpu_seconds, cpu_seconds_of

#: Of a round of one figure; messages are told for twice as long.
FAN_OUT_SECONDS = 2.0
USERS_MAX = 256
SUBSCRIBERS_MAX = 10

Note = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table."""

    measure: str
    #: Under way at a time, or subscribers.
    users: int


FIGURES = (
    *(Figure("pairs", users) for users in (1, 16, 64, 256)),
    *(Figure("writes", users) for users in (1, 16, 64, 256)),
    Figure("reads", 64),
    Figure("handovers", 16),
    *(Figure("publish", users) for users in (1, 64, 256)),
    *(Figure("fan-out", users) for users in (1, SUBSCRIBERS_MAX)),
)


class Rounds:
    """Context manager: a client process for each of the systems."""

    def __init__(self, systems: Mapping[str, System], python: Callable[[str], str]) -> None:
        self._systems = systems
        self._python = python
        self._workers: dict[str, Worker] = {}
        self._undo = ExitStack()

    def run(self, figures: Sequence[Figure], rounds: int, seconds: float, note: Note) -> None:
        for number in range(rounds):
            for figure in figures:
                names = [name for name, system in self._systems.items() if figure.measure in system.measures]
                shift = number % max(1, len(names))
                for name in names[shift:] + names[:shift]:
                    note({"round": number, **self._figure(name, figure, seconds)})

    def _figure(self, name: str, figure: Figure, seconds: float) -> dict[str, Any]:
        began, pids = time.perf_counter(), self._systems[name].pids
        servers, everybody = sum(cpu_seconds_of(pids).values()), _busy_seconds()
        try:
            found = self._take(name, figure, seconds)
        except RuntimeError as error:
            found = {"error": str(error)}
        lasted = time.perf_counter() - began
        servers = sum(cpu_seconds_of(pids).values()) - servers
        workers = found.get("cpu_client", 0.0)
        return {
            "system": name,
            "measure": figure.measure,
            "users": figure.users,
            **found,
            "cpu_servers": servers,
            "cores_of_others": round(max(0.0, _busy_seconds() - everybody - servers - workers) / lasted, 2),
            "sync_ms": round(sync_ms(self._systems[name].directory), 3),
        }

    def _take(self, name: str, figure: Figure, seconds: float) -> dict[str, Any]:
        worker = self._workers[name]
        found: dict[str, Any]
        if figure.measure == "fan-out":
            return self._fan_out(name, figure.users)
        if figure.measure == "handovers":
            found = worker.ask("handovers", users=figure.users, seconds=2 * seconds)
        else:
            found = worker.ask("rate", what=figure.measure, users=figure.users, seconds=seconds)
        return found

    def _fan_out(self, name: str, subscribers: int) -> dict[str, Any]:
        system = self._systems[name]
        with Worker(self._python(name), name, system.servers, users=4) as listener:
            listener.ready()
            listener.ask("subscribe", count=subscribers)
            time.sleep(0.5)
            listener.ask("heard")
            before = cpu_seconds(listener.process.pid)
            published = self._workers[name].ask("publish_at_rate", seconds=FAN_OUT_SECONDS)["published"]
            heard = listener.ask("heard")
            used = cpu_seconds(listener.process.pid) - before
        delivered = len(heard) / (published * subscribers)
        return {"p50_ms": percentile(heard, 0.5), "p99_ms": percentile(heard, 0.99), "delivered": delivered, "cpu_client": used}

    def __enter__(self) -> "Rounds":
        for name, system in self._systems.items():
            worker = Worker(self._python(name), name, system.servers, users=USERS_MAX)
            self._workers[name] = self._undo.enter_context(worker)
        for worker in self._workers.values():
            worker.ready()
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()


def warm_up(rounds: Rounds, seconds: float) -> None:
    """Have each do what it does most: what is compiled while it runs, is."""
    rounds.run([Figure(measure, 64) for measure in ("writes", "pairs", "reads", "publish")], 1, seconds, lambda found: None)


def sync_ms(directory: Path, times: int = 20) -> float:
    """Return how long the disk takes at the moment to sync 4 KiB more of a file, in the middle."""
    took = []
    path = directory / "probe"
    with path.open("ab", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    path.unlink()
    return percentile(took, 0.5) * 1000


def _busy_seconds() -> float:
    """Return what all processors of the machine have worked so far (proc(5): all but idle and waiting for a disk)."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
