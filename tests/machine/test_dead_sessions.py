"""The duty that matters, for every type of resource: nothing that a dead session held is still held (spec: resources, Sessions)."""

from collections.abc import Callable

import pytest

from coord_core.machine import Machine
from coord_core.machine.resources import Resource
from coord_core.protocol.parking import Park, ParkingClaim
from coord_core.protocol.topics import Retention, TopicClaim, TopicCreate
from tests.machine.driver import OWNER, Log, Process

#: How a process comes to hold, or wait for, something of each kind: a way for a resource that another cannot stand for.
WAYS: dict[str, Callable[[Process, str], object]] = {
    "lock": lambda process, path: process.acquire(path),
    "semaphore": lambda process, path: process.take(1, 1, path=path),
    "rate limiter": lambda process, path: process.spend(3, wait_ms=None, path=path),
    "election": lambda process, path: process.enter(path),
    "group": lambda process, path: process.join(path),
    "stream": lambda process, path: process.subscribe("group", path),
    "topic": lambda process, path: process.call(TopicClaim(path, "readers", OWNER)),
    "parking": lambda process, path: process.call(ParkingClaim(path, OWNER)),
    # Nobody's: they stay when their writer ends.
    "value": lambda process, path: process.set(path, b"x"),
    "bay": lambda process, path: process.call(Park(path, "key", "id", b"", path + "/gate")),
}
NOBODYS = {"value", "bay"}

#: What must be there first, and stays.
BEFORE: dict[str, Callable[[Process, str], object]] = {
    "topic": lambda process, path: process.call(TopicCreate(path, Retention())),
}

ENDS: dict[str, Callable[[Process], object]] = {
    "expiry": Process.expire,
    "close": Process.close,
    "the end of its process": Process.close_attachment,
}


def resources(machine: Machine) -> dict[str, Resource]:
    return machine._registry.by_kind


def test_every_type_of_resource_is_in_the_table() -> None:
    """Who adds one says here how something of it is held."""
    assert set(WAYS) == set(resources(Machine()))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", sorted(set(WAYS) - NOBODYS))
def test_nothing_that_a_dead_session_held_or_waited_for_is_left(kind: str, end: str) -> None:
    """In the same entry, what it held, what it waited for, and whatever names were bound for it."""
    log = Log()
    process, other = log.open(), log.open()
    for number in range(3):
        BEFORE.get(kind, lambda process, path: None)(other, f"/{number}")
    before, names = resources(log.machine)[kind].state(), len(log.machine._names)
    for number in range(3):
        WAYS[kind](process, f"/{number}")
        WAYS[kind](process, f"/{number}")
    assert resources(log.machine)[kind].state() != before, "nothing was held"
    ENDS[end](process)
    left = resources(log.machine)[kind]
    if kind == "rate limiter":
        # What it spent is spent; only its place in the queue is gone.
        assert all(log.limiter(f"/{number}").waiters_total == 0 for number in range(3))
        log.wait(300)
    assert left.state() == before
    assert len(log.machine._names) == names


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ["lock", "semaphore", "election", "rate limiter"])
def test_what_a_dead_session_held_goes_to_who_lives_and_nothing_to_its_own_waits(kind: str, end: str) -> None:
    """All that end in an entry leave their queues before anybody inherits."""
    log = Log()
    dead, alive = log.open(), log.open()
    for process in (dead, dead, alive):
        WAYS[kind](process, "/x")
    ENDS[end](dead)
    if kind == "rate limiter":
        log.wait(300)
    text = repr(resources(log.machine)[kind].state())
    assert f"({dead.attachment}, " not in text
    assert log.session(alive.session).holdings == (0 if kind == "rate limiter" else 1)
