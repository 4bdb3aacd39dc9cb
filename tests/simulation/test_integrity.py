"""A node that lies without knowing it is found out by its peers: put in, seen, stopped."""

from dataclasses import replace

import pytest

from coord_core.errors import NodeSuspect
from coord_core.machine import Machine
from coord_core.storage.memory import MemoryStorage
from coord_core.storage.room import Level, Room
from coord_core.testing.checkers.applied import ObservedMachine
from coord_core.testing.disk import SimulatedDisk
from coord_core.testing.drills import CRASHES, CUTS, PARTITIONS, SNAPSHOTS
from coord_core.testing.mix import Mix
from coord_core.testing.node import Node
from coord_core.testing.run import TROUBLE_US, Failure, run


def disks_forget_their_last_entry(patch: pytest.MonkeyPatch) -> None:
    """Every crash takes the last durable entry with it."""
    crash = SimulatedDisk.crash

    def forgetful(disk: SimulatedDisk) -> bool:
        landed = crash(disk)
        storage: MemoryStorage = disk._storage
        if storage.entries and storage.last_index() > storage.hard_state.commit:
            storage._entries.pop()
        return landed

    patch.setattr(SimulatedDisk, "crash", forgetful)


def causes(seeds: int, mix: Mix) -> list[BaseException]:
    """Return what each seed ends with, of those that do not end well."""
    found: list[BaseException] = []
    for seed in range(1, seeds + 1):
        try:
            run(seed, mix=mix)
        except Failure as failure:
            found.append(failure.cause)
    return found


def test_a_node_whose_disk_forgets_what_it_acknowledged_is_stopped_in_some_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in every one: after a change of leader nobody knows any more what it had said."""
    disks_forget_their_last_entry(monkeypatch)
    crashes = replace(CRASHES, nodes=3, kinds=("crash", "crash at a boundary"))
    assert any(isinstance(cause, NodeSuspect) for cause in causes(10, crashes))


def one_node_has_another_state(patch: pytest.MonkeyPatch) -> None:
    """From some entry on node 2's memory has a bit flipped, whatever it is restarted from."""
    patch.setattr("coord_core.replica.replica.COMPARE_EVERY", 8)
    rolling_hash = Machine.rolling_hash.fget  # type: ignore[attr-defined]

    def flipped(machine: Machine) -> int:
        wrong = isinstance(machine, ObservedMachine) and machine.node.node_id == 2 and machine.index > 10
        return int(rolling_hash(machine)) ^ int(wrong)

    patch.setattr(Machine, "rolling_hash", property(flipped))


def test_a_node_whose_state_differs_is_stopped_in_every_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it leader or follower, and whatever is lost or delayed on the way; nobody else is."""
    one_node_has_another_state(monkeypatch)
    found = causes(4, PARTITIONS)
    assert len(found) == 4
    for cause in found:
        assert isinstance(cause, NodeSuspect), cause
        assert int(cause.details["own"]) == int(cause.details["agreed"]) ^ 1


def test_hashes_that_are_equal_stop_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots, restarts and new leaders included; compared so often that it happens many times."""
    monkeypatch.setattr("coord_core.replica.replica.COMPARE_EVERY", 4)
    for seed in range(1, 4):
        for mix in (SNAPSHOTS, CRASHES):
            run(seed, mix=mix)


def disks_fill_up(patch: pytest.MonkeyPatch) -> None:
    """Until everything is healed, each node's disk has another level of room now and then."""
    tick = Node._tick

    def crowded(node: Node) -> None:
        rng = node.rng
        if node.simulator.now_us > TROUBLE_US:
            node.replica.disk_room(Room(Level.AMPLE, 10**9))
        elif rng.random() < 0.05:
            node.replica.disk_room(Room(rng.choice(list(Level)), rng.randint(0, 10**8)))
        tick(node)

    patch.setattr(Node, "_tick", crowded)


@pytest.mark.parametrize("mix", [CRASHES, PARTITIONS, SNAPSHOTS, CUTS], ids=["crashes", "partitions", "snapshots", "cuts"])
def test_full_disks_break_no_promise(monkeypatch: pytest.MonkeyPatch, mix: Mix) -> None:
    """Who was told that there was no room has had nothing applied; nobody's lease ends early; all is as ever when there is room."""
    disks_fill_up(monkeypatch)
    for seed in range(1, 5):
        run(seed, mix=mix)
