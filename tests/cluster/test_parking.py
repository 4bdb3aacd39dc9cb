"""Parking on real processes: every piece is handed out, in order, whoever is killed; what was committed never comes again."""

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

import coord_core
from coord_core import CoordError, SessionClosed
from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S, Nodes
from tests.cluster.participants import Participant

pytestmark = pytest.mark.xdist_group("cluster")

T = TypeVar("T")

LOT = "/lot"
KEYS = ("a", "b", "c", "d")
#: Of each key.
PIECES = 60


def insist(call: Callable[[], T]) -> T:
    """Do it until it is known to be done: none of what this test does must not be done twice."""
    while True:
        try:
            return call()
        except SessionClosed:
            raise
        except CoordError:
            continue


class Workers:
    """Threads that run what comes out of the broker, each under the lock of its key, or park it again where that is taken."""

    def __init__(self, client: coord_core.Client, count: int = 3) -> None:
        self._client = client
        self._count = count
        self._lot = client.parking(LOT)
        #: Keys and ids, as they were run.
        self.ran: list[tuple[str, str]] = []
        self._running: dict[str, str] = {}
        self.overlaps: list[tuple[str, str, str]] = []
        for number in range(count):
            threading.Thread(target=self._work, args=(number,), daemon=True).start()

    def _work(self, number: int) -> None:
        with contextlib.suppress(SessionClosed):
            for message in self._client.topic(f"{LOT}/broker").subscribe("earliest"):
                if message.offset % self._count == number:
                    assert message.key is not None
                    self._receive(message.key.decode(), message.headers["id"].decode(), message.payload)

    def _receive(self, key: str, name: str, message: bytes) -> None:
        lock = self._client.lock(f"/locks/{key}")
        if insist(lock.try_lock) is None:
            insist(lambda: self._lot.park(key, name, message, lock=f"/locks/{key}", max_waiting=1))
            return
        other = self._running.setdefault(key, name)
        if other != name:
            self.overlaps.append((key, other, name))
        self.ran.append((key, name))
        self._running.pop(key, None)
        with contextlib.suppress(CoordError):  # it is sent on until the cluster has it
            lock.release()


def told(consumers: list[Participant], what: str) -> list[dict[str, Any]]:
    return sorted((line for each in consumers for line in each.told(what)), key=lambda line: line["at"])


def test_every_piece_is_run_in_order_over_the_death_of_consumers_and_leaders():
    """At least once, and what was committed never again."""
    with Nodes(3) as nodes:
        nodes.start_all()
        with nodes.connect() as client, nodes.connect() as holder:
            lot = client.parking(LOT)
            locks = [holder.lock(f"/locks/{key}") for key in KEYS]
            for lock in locks:
                lock.acquire()
            for number in range(PIECES):
                for key in KEYS:
                    assert lot.park(key, f"{key}{number:03}", b"m" * 500, lock=f"/locks/{key}") == (number, False, True)
            consumers = [Participant(nodes, "consume", LOT) for _ in range(3)]
            workers = Workers(client)
            for lock in locks[1:]:
                lock.release()
            holder.close()  # the first is not given back: its holder is gone

            def handed(count: int) -> None:
                until(lambda: len(told(consumers, "handed")) >= count, PATIENCE_S, f"{count} pieces handed out")

            handed(40)
            last = told(consumers, "handed")[-1]["pid"]
            next(each for each in consumers if each.pid == last).kill()
            handed(90)
            nodes.kill(leader := nodes.wait_leader())
            handed(130)
            nodes.start(leader)
            last = told(consumers, "handed")[-1]["pid"]
            next(each for each in consumers if each.pid == last).kill()
            handed(180)
            nodes.kill(nodes.wait_leader())

            everything = {(key, f"{key}{number:03}") for key in KEYS for number in range(PIECES)}
            until(lambda: set(workers.ran) == everything, 2 * PATIENCE_S, "every piece having been run")
            until(lambda: insist(lot.info).pieces == 0, PATIENCE_S, "nothing being left")  # type: ignore[union-attr]
            assert not workers.overlaps
            _check_handed_out(consumers)


def _check_handed_out(consumers: list[Participant]) -> None:
    first: dict[str, list[str]] = defaultdict(list)
    for line in told(consumers, "handed"):
        if line["id"] not in first[line["key"]]:
            first[line["key"]].append(line["id"])
    for key in KEYS:
        assert first[key] == [f"{key}{number:03}" for number in range(PIECES)], f"the pieces of {key} were not called in order"
    committed = 0
    for line in sorted((*told(consumers, "handed"), *told(consumers, "committed")), key=lambda line: line["at"]):
        if line["what"] == "committed":
            committed = max(committed, line["offset"])
        else:
            assert line["offset"] >= committed, f"{line} was handed out though it was committed"
