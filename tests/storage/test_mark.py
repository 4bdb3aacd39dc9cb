"""When the mark is synced: never more often than every 100 ms, and never much later either."""

import os
from pathlib import Path

import pytest

from coord_core.storage.api import Batch
from coord_core.storage.mark import Mark, MarkValue
from coord_core.storage.sqlite import SqliteStorage
from tests.storage.building import BOOTSTRAP, entries

CHAIN = bytes(range(16))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def synced_at(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times of all syncs of the mark (SQLite's own do not pass through Python)."""
    times: list[float] = []
    real = os.fdatasync

    def recorded(fd: int) -> None:
        times.append(round(clock.seconds, 3))
        real(fd)

    monkeypatch.setattr("coord_core.storage.mark.os.fdatasync", recorded)
    return times


@pytest.fixture
def mark(tmp_path: Path, clock: Clock) -> Mark:
    mark = Mark(tmp_path / "mark", clock)
    mark.create()
    return mark


def test_what_was_written_is_read(mark: Mark, tmp_path: Path, clock: Clock) -> None:
    """By this process and by the next one."""
    assert mark.read() == MarkValue(0, bytes(16))
    mark.advance(MarkValue(2**53, CHAIN))
    assert mark.read() == MarkValue(2**53, CHAIN)
    mark.close()
    assert Mark(tmp_path / "mark", clock).read() == MarkValue(2**53, CHAIN)


def test_under_load_the_mark_is_synced_once_an_interval(mark: Mark, clock: Clock, synced_at: list[float]) -> None:
    """A sync for every batch would halve the speed; none at all would leave the mark behind for ever."""
    for number in range(1, 51):
        mark.advance(MarkValue(number, CHAIN))
        clock.seconds += 0.01
    assert synced_at == [100.1, 100.21, 100.32, 100.43]


def test_a_quiet_moment_syncs_at_once_what_the_next_write_would_have_to(mark: Mark, clock: Clock, synced_at: list[float]) -> None:
    """Sparse writes pay nothing: their syncs happen after they were acknowledged."""
    for number in range(1, 4):
        mark.advance(MarkValue(number, CHAIN))
        assert mark.sync_if_due() is None
        clock.seconds += 0.5
    assert synced_at == [100.0, 100.5, 101.0]


def test_a_quiet_moment_too_early_says_when_to_come_back(mark: Mark, clock: Clock, synced_at: list[float]) -> None:
    """The writer thread waits for so long at most."""
    mark.advance(MarkValue(1, CHAIN))
    mark.sync_if_due()
    clock.seconds += 0.03
    mark.advance(MarkValue(2, CHAIN))
    assert mark.sync_if_due() == pytest.approx(0.07)
    clock.seconds += 0.07
    assert mark.sync_if_due() is None
    assert mark.sync_if_due() is None
    assert synced_at == [100.0, 100.1]


def test_the_storage_marks_each_write_and_syncs_by_its_clock(tmp_path: Path, clock: Clock, synced_at: list[float]) -> None:
    """The seam between the two: written before `write` returns, synced in `idle`, by the load, or at the end."""
    storage = SqliteStorage(tmp_path / "node", clock=clock)
    storage.form(BOOTSTRAP)
    read = Mark(tmp_path / "node" / "mark", clock).read
    for index in range(2, 5):
        clock.seconds += 0.06
        storage.write(Batch(entries(index, 1)))
        assert read().commit_seq == index
    assert synced_at == [100.0, 100.18]
    clock.seconds += 0.06
    storage.write(Batch(entries(5, 1)))
    assert storage.idle() == pytest.approx(0.04)
    clock.seconds += 0.05
    assert storage.idle() is None
    storage.write(Batch(entries(6, 1)))
    storage.close()
    assert synced_at == [100.0, 100.18, 100.29, 100.29]
