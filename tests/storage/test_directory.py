"""The data directory: one process, one owner."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coord_core.errors import DataDirInUse, StorageFailed
from coord_core.storage.directory import DataDirectory
from coord_core.storage.sqlite import SqliteStorage

Open = Callable[[Path], SqliteStorage]


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path, open_sqlite: Open) -> None:
    """It holds lock names, payloads and votes; parents that are missing are made on the way."""
    open_sqlite(tmp_path / "var" / "node").load()
    node = tmp_path / "var" / "node"
    assert node.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in node.iterdir()) == ["coord.db", "coord.db-wal", "lock", "mark"]


def test_a_second_storage_is_told_who_has_the_directory(tmp_path: Path, open_sqlite: Open) -> None:
    """Two writers would take turns at forgetting each other's votes."""
    open_sqlite(tmp_path / "node")
    with pytest.raises(DataDirInUse, match=f"in use by process {os.getpid()}") as error:
        SqliteStorage(tmp_path / "node")
    assert error.value.details["pid"] == os.getpid()


def test_a_file_where_the_directory_should_be_is_named(tmp_path: Path) -> None:
    """Or in its path; in words, without the system's numbers."""
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "node"):
        with pytest.raises(StorageFailed, match=f"data directory {path}: {file}.* is there and is no directory") as error:
            DataDirectory(path)
        assert "Errno" not in error.value.message


def test_another_process_is_refused_and_gets_in_when_the_holder_is_dead(tmp_path: Path, open_sqlite: Open) -> None:
    """The lock goes with the process, however it dies: a kill leaves nothing to clean up."""
    hold = (
        "import sys; from pathlib import Path; from coord_core.storage.directory import DataDirectory;"
        "held = DataDirectory(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "node")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd()
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataDirInUse, match=f"in use by process {holder.pid};"):
            SqliteStorage(tmp_path / "node")
        holder.kill()
    assert open_sqlite(tmp_path / "node").load() is None


def test_closing_lets_the_next_one_in(tmp_path: Path, open_sqlite: Open) -> None:
    """In the same process too: embedded nodes stop and start again."""
    open_sqlite(tmp_path / "node").close()
    assert open_sqlite(tmp_path / "node").load() is None


def test_a_failed_opening_leaves_no_lock_behind(tmp_path: Path) -> None:
    """The operator mends what the message says and starts again."""
    node = tmp_path / "node"
    node.mkdir()
    (node / "coord.db").write_bytes(b"this is not a database, and long enough to be sure of it" * 100)
    with pytest.raises(Exception, match="damaged"):
        SqliteStorage(node)
    DataDirectory(node).release()


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A file of that name, for one."""
    (tmp_path / "node").write_text("")
    with pytest.raises(StorageFailed, match=f"data directory {tmp_path / 'node'}: "):
        SqliteStorage(tmp_path / "node")
