"""A node that lies without knowing it is found out by its peers: put in, seen, stopped."""

from dataclasses import replace

import pytest

from coord_core.errors import NodeSuspect
from coord_core.storage.memory import MemoryStorage
from coord_core.testing.disk import SimulatedDisk
from coord_core.testing.run import Failure, run
from tests.simulation.test_mutations import CRASHES


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


def causes(seeds: int) -> list[BaseException]:
    """Return what each seed ends with, of those that do not end well."""
    found: list[BaseException] = []
    for seed in range(1, seeds + 1):
        try:
            run(seed, mix=replace(CRASHES, nodes=3, kinds=("crash", "crash at a boundary")))
        except Failure as failure:
            found.append(failure.cause)
    return found


def test_a_node_whose_disk_forgets_what_it_acknowledged_is_stopped_in_some_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in every one: after a change of leader nobody knows any more what it had said."""
    disks_forget_their_last_entry(monkeypatch)
    assert any(isinstance(cause, NodeSuspect) for cause in causes(10))
