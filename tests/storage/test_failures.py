"""A disk that refuses: the first error is the last write, nothing of the batch is stored, and nothing is tried again."""

import errno
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coord_core.errors import StorageFailed
from coord_core.storage.api import Batch
from coord_core.storage.failures import failure_of
from coord_core.storage.sqlite import CHECKPOINT_IDLE_BYTES, SqliteStorage
from tests.storage.building import BOOTSTRAP, FOUNDING_STATE, content, entries, state

Open = Callable[[Path], SqliteStorage]


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let the kernel refuse every write beyond `size_bytes` of any file (EFBIG), as a failing disk would refuse (EIO)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_poisoned(storage: SqliteStorage, error: StorageFailed) -> None:
    calls: tuple[Callable[[], object], ...] = (
        storage.load,
        storage.last_index,
        storage.idle,
        lambda: storage.form(BOOTSTRAP),
        lambda: storage.write(Batch(entries(2, 1))),
    )
    for call in calls:
        with pytest.raises(StorageFailed) as again:
            call()
        assert again.value is error


def test_a_full_disk_is_named_and_poisons_the_storage(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """SQLite's own refusal, by a bound on its pages; the entries and the vote of the batch share its fate."""
    formed.write(Batch(entries(2, 1), state(2)))
    database = formed._database.cursor
    [[pages]] = database.execute("PRAGMA page_count").fetchall()
    database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFailed, match="the disk is full") as error:
        formed.write(Batch(entries(3, 100, size=1000), state(3, voted_for=2)))
    assert error.value.details["full"] is True
    assert_poisoned(formed, error.value)
    formed.close()
    assert content(open_sqlite(tmp_path / "node")) == (state(2), entries(2, 1))


def test_an_io_error_while_committing_poisons_the_storage(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """The kernel refuses the write to the write-ahead log: nobody can say what of it is on the disk."""
    formed.write(Batch(entries(2, 1), state(2)))
    size = (tmp_path / "node" / "coord.db-wal").stat().st_size
    with file_size_limit(size + 6000), pytest.raises(StorageFailed, match=r"disk I/O error.*The node stops") as error:
        formed.write(Batch(entries(3, 1), state(3, voted_for=2)))
    assert_poisoned(formed, error.value)
    formed.close()
    assert content(open_sqlite(tmp_path / "node")) == (state(2), entries(2, 1))


def test_an_io_error_while_checkpointing_poisons_the_storage(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """A checkpoint that failed half way must not be followed by a write that reuses the log; all that was acknowledged stays."""
    first = 2
    while formed._wal_bytes < CHECKPOINT_IDLE_BYTES:
        formed.write(Batch(entries(first, 64, size=1000)))
        first += 64
    with file_size_limit((tmp_path / "node" / "coord.db").stat().st_size), pytest.raises(StorageFailed, match="I/O") as error:
        formed.idle()
    assert_poisoned(formed, error.value)
    formed.close()
    assert content(open_sqlite(tmp_path / "node")) == (FOUNDING_STATE, entries(2, first - 2, size=1000))


def test_a_mark_that_cannot_be_written_poisons_the_storage(
    formed: SqliteStorage, tmp_path: Path, open_sqlite: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is committed but not acknowledged; after a restart it may be there, and here it is."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("coord_core.storage.mark.os.pwrite", refuse)
        with pytest.raises(StorageFailed, match="Input/output error") as error:
            formed.write(Batch(entries(2, 1)))
    assert_poisoned(formed, error.value)
    formed.close()
    assert content(open_sqlite(tmp_path / "node")) == (FOUNDING_STATE, entries(2, 1))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_for_the_mark_is_a_full_disk_too(number: int) -> None:
    """A quota is a full disk to whoever has to mend it."""
    assert "the disk is full" in str(failure_of(OSError(number, "no"), Path("/data/coord.db")))


def test_any_other_error_of_sqlite_keeps_its_words() -> None:
    """`database is locked`, for one, must not be called a full disk."""
    assert "database is locked" in str(failure_of(sqlite3.DatabaseError("database is locked"), Path("/data/coord.db")))
