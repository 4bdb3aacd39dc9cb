"""How soon the next candidate knows that it leads: when the leader resigns, and when its process is killed.

- *resign*: two candidates in two processes; whoever leads resigns and enters again behind the other.
- *death*: SIGKILL to a leader's process.  Nobody else can know before its time to live is over, so that is taken off what is
  noted; below zero is well, since the lease counts from the last sign of life.  Several elections go on at a time, each with
  processes of its own, and their leaders die at different moments between two signs of life.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.peers.rounds import Note
from bench.peers.system import System
from bench.peers.worker import Worker

TTL_S = 5
#: Elections of a system at a time.
LANES = 4
#: Until a candidate that was told to campaign is in the queue.
_QUEUED_S = 0.25


def resigns(systems: Mapping[str, System], python: Callable[[str], str], trials: int, note: Note) -> None:
    """The systems take turns, trial by trial."""
    pairs = {name: [_candidate(name, system, python) for _ in range(2)] for name, system in systems.items()}
    try:
        for leader, successor in pairs.values():
            leader.ready()
            leader.ask("campaign", name="resigns")
            leader.ask("elected")
            successor.ready()
        for trial in range(trials):
            for name, (leader, successor) in pairs.items():
                successor.ask("campaign", name="resigns")
                time.sleep(_QUEUED_S)
                began = leader.ask("resign")
                took_ms = (successor.ask("elected") - began) / 1e6
                note({"system": name, "measure": "resign", "users": 1, "round": trial, "took_ms": took_ms})
                pairs[name].reverse()
    finally:
        for pair in pairs.values():
            for worker in pair:
                worker.kill()


def deaths(systems: Mapping[str, System], python: Callable[[str], str], trials: int, note: Note) -> None:
    """All systems and lanes at once: what is measured is mostly waiting."""
    lanes = [_Lane(name, system, python, number) for name, system in systems.items() for number in range(LANES)]
    try:
        with ThreadPoolExecutor(len(lanes)) as together:
            list(together.map(_Lane.begin, lanes))
            for trial in range(-(-trials // LANES)):
                list(together.map(_Lane.add_successor, lanes))
                time.sleep(1 + 0.31 * trial % TTL_S / 3)
                for found in together.map(_Lane.kill_leader, lanes):
                    note({**found, "round": trial})
    finally:
        for lane in lanes:
            lane.end()


class _Lane:
    """One election: a leader, and who comes after it."""

    def __init__(self, name: str, system: System, python: Callable[[str], str], number: int) -> None:
        self._make = lambda: _candidate(name, system, python)
        self._name, self._election, self._number = name, f"deaths-{number}", number
        self._leader = self._make()
        self._successor: Worker | None = None

    def begin(self) -> None:
        self._leader.ready()
        self._leader.ask("campaign", name=self._election)
        self._leader.ask("elected")

    def add_successor(self) -> None:
        successor = self._successor = self._make()
        successor.ready()
        successor.ask("campaign", name=self._election)

    def kill_leader(self) -> dict[str, Any]:
        assert self._successor is not None
        time.sleep(self._number * TTL_S / 3 / LANES)
        began = time.monotonic_ns()
        self._leader.kill()
        self._leader, self._successor = self._successor, None
        took_s = (self._leader.ask("elected") - began) / 1e9
        return {"system": self._name, "measure": "death", "users": 1, "took_ms": (took_s - TTL_S) * 1000}

    def end(self) -> None:
        for worker in filter(None, (self._leader, self._successor)):
            worker.kill()


def _candidate(name: str, system: System, python: Callable[[str], str]) -> Worker:
    return Worker(python(name), name, system.servers, users=1, ttl_s=TTL_S)
