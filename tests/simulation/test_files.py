"""Whole clusters on real files: what SQLite gives back after power cuts and damage is what the nodes wrote, or nothing at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coord_core.storage.api import Batch
from coord_core.storage.sqlite import SqliteStorage
from coord_core.testing.files import FileDisk, Files
from coord_core.testing.mix import CALM, Mix
from coord_core.testing.run import Failure, run
from coord_core.testing.simulator import MILLISECOND
from coord_core.testing.workload import Habits

MEMORY = Path("/dev/shm")

POWER_CUTS = Mix(
    nodes=3,
    weather=CALM,
    kinds=("crash", "blink", "slow disk", "crash of all", "failing disk", "full disk", "damaged disk"),
    every_us=200 * MILLISECOND,
    drift_max=0.0,
    tick_skew_max=0.0,
    habits=Habits(think_us_max=600 * MILLISECOND),
)


@contextmanager
def on_files() -> Iterator[Files]:
    """Disks in memory where there is such a place: syncing them costs nothing."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="coord-") as directory:
        files = Files(Path(directory))
        try:
            yield files
        finally:
            files.close()


@pytest.mark.parametrize("seed", range(1, 7))
def test_real_files_survive_power_cuts_and_notice_damage(seed: int) -> None:
    """Every restart compares all that the files hold with what was written."""
    with on_files() as files:
        run(seed, mix=POWER_CUTS, disks=files)


def test_seed_on_files_is_the_same_run_twice() -> None:
    """What is lost in a power cut follows from the seed too."""
    reports = []
    for _ in range(2):
        with on_files() as files:
            reports.append(run(4, mix=POWER_CUTS, disks=files))
    assert reports[0] == reports[1]


def test_writes_are_torn_and_damage_is_found_in_these_seeds() -> None:
    """Where neither happens the test above proves nothing."""
    disks: list[FileDisk] = []
    for seed in range(1, 4):
        with on_files() as files:
            run(seed, mix=POWER_CUTS, disks=files)
            disks += files.disks
    torn, survived, refused = (sum(getattr(disk, name) for disk in disks) for name in ("torn", "survived", "refused"))
    assert torn > survived > 0
    assert refused > 0


def test_file_that_forgets_what_was_acknowledged_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison bites: a storage that loses part of a write without noticing is no storage."""
    write = SqliteStorage.write

    def forgetful(storage: SqliteStorage, batch: Batch) -> None:
        write(storage, replace(batch, hard_state=None))

    monkeypatch.setattr(SqliteStorage, "write", forgetful)
    with on_files() as files, pytest.raises(Failure, match="the storage serves what was not written"):
        run(1, mix=POWER_CUTS, disks=files)
