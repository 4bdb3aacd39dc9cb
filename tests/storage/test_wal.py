"""The write-ahead log: reused instead of growing, copied when it suits, synced before anything in it counts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coord_core.storage.api import Batch
from coord_core.storage.sqlite import CHECKPOINT_BUSY_BYTES, CHECKPOINT_IDLE_BYTES, SqliteStorage
from tests.storage.building import content, copy_as_after_a_crash, entries, state

Open = Callable[[Path], SqliteStorage]


def wal_size(directory: Path) -> int:
    return (directory / "coord.db-wal").stat().st_size


@pytest.mark.parametrize(("count", "size"), [(1, 100), (64, 128), (8, 20_000)])
def test_the_write_ahead_log_is_bounded_under_load(formed: SqliteStorage, tmp_path: Path, count: int, size: int) -> None:
    """Without a quiet moment for it the copy is made before a write; the file is reused from its start then."""
    written = 0
    first = 2
    while written < 3 * CHECKPOINT_BUSY_BYTES:
        before = formed._wal_bytes
        formed.write(Batch(entries(first, count, size=size)))
        first += count
        written += max(formed._wal_bytes - before, 0)
    assert wal_size(tmp_path / "node") < 1.25 * CHECKPOINT_BUSY_BYTES


def test_what_the_storage_believes_of_the_log_is_near_the_truth(formed: SqliteStorage, tmp_path: Path) -> None:
    """It counts instead of asking the file, whose size stays when it is reused."""
    for first in range(2, 202, 2):
        formed.write(Batch(entries(first, 1)))
        formed.write(Batch(entries(first + 1, 1, size=10_000), state(1, commit=first)))
    assert wal_size(tmp_path / "node") == pytest.approx(formed._wal_bytes, rel=0.15)


def test_a_quiet_moment_copies_the_log_only_when_it_is_worth_it(formed: SqliteStorage, tmp_path: Path) -> None:
    """Three syncs for a few pages would be waste; a few megabytes are better copied now than during a write."""
    formed.write(Batch(entries(2, 1)))
    before = (tmp_path / "node" / "coord.db").stat().st_size
    formed.idle()
    assert (tmp_path / "node" / "coord.db").stat().st_size == before
    formed.write(Batch(entries(3, 1, size=CHECKPOINT_IDLE_BYTES)))
    formed.idle()
    assert (tmp_path / "node" / "coord.db").stat().st_size > before + CHECKPOINT_IDLE_BYTES
    assert formed._wal_bytes == 0


def test_size_counts_database_and_log(formed: SqliteStorage, tmp_path: Path) -> None:
    """What `coord status` shows and what an alarm on disk space looks at."""
    formed.write(Batch(entries(2, 1, size=100_000)))
    assert formed.size_bytes() == wal_size(tmp_path / "node") + (tmp_path / "node" / "coord.db").stat().st_size
    assert formed.size_bytes() > 100_000


def test_loading_makes_durable_what_it_found(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """A killed process may have written without syncing; its successor reads it, acts on it, and must not lose it then."""
    formed.write(Batch(entries(2, 3)))
    crashed = copy_as_after_a_crash(tmp_path / "node", tmp_path / "crashed")
    storage = open_sqlite(crashed)
    expected = content(storage)
    copied = copy_as_after_a_crash(crashed, tmp_path / "without log")
    (copied / "coord.db-wal").unlink()
    assert content(open_sqlite(copied)) == expected


@pytest.mark.parametrize(("setting", "value"), [("synchronous", 2), ("journal_mode", "wal"), ("wal_autocheckpoint", 0)])
def test_a_commit_is_one_sync_before_it_returns(formed: SqliteStorage, setting: str, value: object) -> None:
    """Neither crash nor kill shows a missing sync, only a power cut does: so the settings that ask for it are held here."""
    assert formed._database.cursor.execute(f"PRAGMA {setting}").fetchone() == (value,)
