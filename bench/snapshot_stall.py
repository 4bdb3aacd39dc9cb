"""How long a machine full of locks can keep a node from its next turn: `python -m bench.snapshot_stall --locks 1000000`.

Does in one process what a node does with such a machine, and times every step by itself: applying while names come and go, a
snapshot from its beginning to its end while entries are applied, reading it into a second machine, taking the first one apart, and
what the garbage collector adds.  Prints the longest step of each kind, in milliseconds of processor time (what else runs on the
machine does not count), the average, and how many there were.  Needs about 2 GiB for a million locks.

The collector is set as a server sets it, and collections are a kind of their own: they are taken out of the step they fell into.
"""

import argparse
import gc
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from coord_core.machine import Machine, dismantle
from coord_core.protocol.commands import Call, Command, OpenSession
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.server import garbage
from coord_core.server.loop import SLICE_ITEMS
from coord_core.types import AttachmentId, FencingToken, LogIndex, RequestNumber, SessionId

_clock = time.thread_time_ns


class Steps:
    """Times steps by kind, less the collections that fell into them."""

    def __init__(self) -> None:
        self._longest: dict[str, int] = defaultdict(int)
        self._total: dict[str, int] = defaultdict(int)
        self._count: dict[str, int] = defaultdict(int)
        self._collecting_since = 0
        self._collected = 0
        gc.callbacks.append(self._on_collection)

    def time(self, kind: str, step: Callable[..., Any], *arguments: Any) -> Any:
        collected, begin = self._collected, _clock()
        result = step(*arguments)
        self.note(kind, _clock() - begin - (self._collected - collected))
        return result

    def note(self, kind: str, spent_ns: int) -> None:
        self._longest[kind] = max(self._longest[kind], spent_ns)
        self._total[kind] += spent_ns
        self._count[kind] += 1

    def report(self) -> dict[str, dict[str, float]]:
        return {
            kind: {
                "longest_ms": round(self._longest[kind] / 1e6, 3),
                "average_ms": round(self._total[kind] / self._count[kind] / 1e6, 4),
                "count": self._count[kind],
            }
            for kind in self._longest
        }

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = _clock()
        else:
            spent_ns = _clock() - self._collecting_since
            self._collected += spent_ns
            self.note(f"collection of generation {info['generation']}", spent_ns)


class Clients:
    """Makes entries: sessions that acquire and release, each with a request at a time."""

    def __init__(self, steps: Steps, machine: Machine, sessions: int) -> None:
        self._steps = steps
        self._machine = machine
        self._index = 0
        self._random = random.Random(1)
        self._owners = [Owner(f"host-{number}", number, "worker") for number in range(sessions)]
        self._sessions = [self._open(owner) for owner in self._owners]
        self._requests = [0] * sessions
        #: (path, token, session) of every lock held.
        self.held: list[tuple[str, FencingToken, int]] = []

    def acquire(self, kind: str, path: str) -> None:
        number = self._random.randrange(len(self._sessions))
        self._call(kind, number, LockAcquire(path, None, self._owners[number]))
        self.held.append((path, FencingToken(self._index), number))

    def release(self, kind: str) -> None:
        at = self._random.randrange(len(self.held))
        self.held[at], self.held[-1] = self.held[-1], self.held[at]
        path, token, number = self.held.pop()
        self._call(kind, number, LockRelease(path, token))

    def _open(self, owner: Owner) -> SessionId:
        self._apply("apply", OpenSession(60_000, owner))
        return SessionId(self._index)

    def _call(self, kind: str, number: int, operation: LockAcquire | LockRelease) -> None:
        self._requests[number] = request = self._requests[number] + 1
        session = self._sessions[number]
        call = Call(session, AttachmentId(session), RequestNumber(request), RequestNumber(request - 1), (), operation)
        self._apply(kind, call)

    def _apply(self, kind: str, command: Command) -> None:
        self._index += 1
        self._steps.time(kind, self._machine.apply, LogIndex(self._index), self._index // 10, command)


def fill(clients: Clients, locks: int) -> None:
    for number in range(locks):
        clients.acquire("apply, filling", f"/tasks/reports.build/{number:08}")


def churn(clients: Clients, kind: str, entries: int) -> None:
    """Locks come and go, old ones and new ones."""
    for number in range(entries // 2):
        clients.release(kind)
        clients.acquire(kind, f"/tasks/{kind}/{number}")


def write(steps: Steps, machine: Machine, clients: Clients, *, busy: bool) -> list[bytes]:
    snapshot = steps.time("begin_snapshot", machine.begin_snapshot)
    chunks: list[bytes] = []
    while not snapshot.done:
        chunks += steps.time("slice of writing", snapshot.step, SLICE_ITEMS)
        if busy:
            churn(clients, "apply, in a snapshot", 20)
    machine.end_snapshot()
    return chunks


def read(steps: Steps, chunks: list[bytes]) -> Machine:
    machine = Machine()
    restoring = machine.begin_restore()
    for chunk in chunks:
        restoring.feed(chunk)
        while steps.time("slice of reading", restoring.step, SLICE_ITEMS):
            steps.time("setting aside", garbage.keep)
    steps.time("end of reading", restoring.finish)
    return machine


def take_apart(steps: Steps, machine: Machine) -> None:
    while steps.time("slice of taking apart", dismantle, machine, SLICE_ITEMS):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--locks", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=1_000, help="that hold them; one of them may hold them all")
    arguments = parser.parse_args()
    garbage.tame()
    steps = Steps()
    machine = Machine()
    clients = Clients(steps, machine, arguments.sessions)
    fill(clients, arguments.locks)
    churn(clients, "apply", arguments.locks // 10)
    chunks = write(steps, machine, clients, busy=True)
    write(steps, machine, clients, busy=False)
    other = read(steps, chunks)
    take_apart(steps, machine)
    del machine, clients
    take_apart(steps, other)
    size = sum(map(len, chunks))
    print(json.dumps({"locks": arguments.locks, "sessions": arguments.sessions, "bytes": size, "steps": steps.report()}, indent=2))


if __name__ == "__main__":
    main()
