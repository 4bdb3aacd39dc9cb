"""Damage to the files: whatever was changed behind the storage's back is found at load, and never served.

SQLite's own checks find none of these (`coord_core.storage.integrity` says what does).
"""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from coord_core.errors import NodeError, StorageCorrupt
from coord_core.storage import integrity
from coord_core.storage.api import Batch
from coord_core.storage.rows import LogRow, pack
from coord_core.storage.sqlite import SqliteStorage
from tests.storage.building import BOOTSTRAP, FOUNDING_STATE, content, copy_as_after_a_crash, entries, random_batches, state

Open = Callable[[Path], SqliteStorage]

WHAT_TO_DO = "move the directory .* away and start the node on an empty one with --join ADDRESS --replace"


@pytest.fixture
def stopped(formed: SqliteStorage, tmp_path: Path) -> Path:
    """The directory of a node that wrote four batches (entries 2-4, 5-6, 7, 8-9) and stopped in good order."""
    for first, count in ((2, 3), (5, 2), (7, 1), (8, 2)):
        formed.write(Batch(entries(first, count), state(1, voted_for=2, commit=first - 1)))
    formed.close()
    return tmp_path / "node"


def tamper(directory: Path, statement: str, *parameters: object) -> None:
    """Change a row as no program of ours would."""
    with closing(sqlite3.connect(directory / "coord.db")) as database, database:
        assert database.execute(statement, parameters).rowcount == 1


def rows(directory: Path) -> list[LogRow]:
    with closing(sqlite3.connect(directory / "coord.db")) as database:
        return [LogRow(*row) for row in database.execute("SELECT * FROM log ORDER BY first_index")]


def flip(data: bytes, position: int, bit: int = 0) -> bytes:
    return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


def test_an_undamaged_directory_loads(stopped: Path, open_sqlite: Open) -> None:
    """The other tests of this file would pass on a storage that refuses everything."""
    assert content(open_sqlite(stopped)) == (state(1, voted_for=2, commit=7), entries(2, 8))


@pytest.mark.parametrize("column", ["last_index", "crc", "chain", "data"])
def test_a_changed_log_row_is_named(stopped: Path, open_sqlite: Open, column: str) -> None:
    """The message says which row, so that somebody can look; and what to do, since looking will not mend it."""
    row = rows(stopped)[1]._asdict()
    value = flip(row[column], 5) if isinstance(row[column], bytes) else row[column] + 1
    tamper(stopped, f"UPDATE log SET {column} = ? WHERE first_index = 5", value)
    with pytest.raises(StorageCorrupt, match=f"coord.db: the log row at 5 .*{WHAT_TO_DO}"):
        open_sqlite(stopped).load()


@pytest.mark.parametrize("first_index", [2, 5, 7, 8])
def test_a_lost_log_row_is_found(stopped: Path, open_sqlite: Open, first_index: int) -> None:
    """At either end or in the middle: the rest is whole and each row is good by itself."""
    tamper(stopped, "DELETE FROM log WHERE first_index = ?", first_index)
    with pytest.raises(StorageCorrupt, match=r"log rows are missing|the log ends at 7"):
        open_sqlite(stopped).load()


def test_an_older_version_of_a_log_row_is_found(stopped: Path, open_sqlite: Open) -> None:
    """A page that was never written back is good by its checksum; only the chain knows that the row was replaced since."""
    before = rows(stopped)
    [older] = pack(entries(5, 2, term=9), before[0].chain)
    tamper(stopped, "UPDATE log SET crc = ?, chain = ?, data = ? WHERE first_index = 5", older.crc, older.chain, older.data)
    with pytest.raises(StorageCorrupt, match="the log row at 7 breaks the hash chain"):
        open_sqlite(stopped).load()


def test_an_older_version_of_the_last_log_row_is_found(stopped: Path, open_sqlite: Open) -> None:
    """Nothing follows it in the chain; the meta row knows how the log ends."""
    before = rows(stopped)
    [older] = pack(entries(8, 2, term=9), before[2].chain)
    tamper(stopped, "UPDATE log SET crc = ?, chain = ?, data = ? WHERE first_index = 8", older.crc, older.chain, older.data)
    with pytest.raises(StorageCorrupt, match="the log ends at 9"):
        open_sqlite(stopped).load()


@pytest.mark.parametrize("column", ["term", "voted_for", "commit_index", "crc"])
def test_a_changed_hard_state_is_found(stopped: Path, open_sqlite: Open, column: str) -> None:
    """A vote that reads as another lets the node vote twice in a term."""
    tamper(stopped, f"UPDATE hard_state SET {column} = {column} + 1")
    with pytest.raises(StorageCorrupt, match=f"hard_state is damaged.*{WHAT_TO_DO}"):
        open_sqlite(stopped).load()


def test_an_older_hard_state_is_found(stopped: Path, open_sqlite: Open) -> None:
    """A lost page write brings back the row from before the vote, with a good checksum of its own."""
    older = FOUNDING_STATE
    tamper(
        stopped,
        "UPDATE hard_state SET term = ?, voted_for = ?, commit_index = ?, crc = ?",
        *(older.term, older.voted_for, older.commit, integrity.hard_state_crc(older)),
    )
    with pytest.raises(StorageCorrupt, match="hard_state is not the one of the last transaction"):
        open_sqlite(stopped).load()


@pytest.mark.parametrize("column", ["node_id", "commit_seq", "last_index", "hard_state_crc", "crc"])
def test_a_changed_meta_row_is_found(stopped: Path, open_sqlite: Open, column: str) -> None:
    """It seals the other tables, so it has a seal of its own."""
    tamper(stopped, f"UPDATE meta SET {column} = {column} + 1")
    with pytest.raises(StorageCorrupt, match="meta is damaged"):
        open_sqlite(stopped).load()


def test_a_changed_founding_is_found(stopped: Path, open_sqlite: Open) -> None:
    """Another founding configuration is another quorum."""
    tamper(stopped, "UPDATE founding SET data = CAST(replace(data, 'east', 'eest') AS BLOB)")
    with pytest.raises(StorageCorrupt, match="founding is missing or damaged"):
        open_sqlite(stopped).load()


def test_a_column_that_changed_its_type_is_found(stopped: Path, open_sqlite: Open) -> None:
    """A bit in a row's header makes a number of bytes or text of them, and the driver stumbles before any checksum is looked at."""
    for value in ("NULL", "'seven'", "CAST(x'fffe' AS TEXT)"):
        crashed = copy_as_after_a_crash(stopped, stopped.with_name(f"copy {len(list(stopped.parent.iterdir()))}"))
        with closing(sqlite3.connect(crashed / "coord.db")) as database, database:
            database.execute("PRAGMA writable_schema = ON")
            database.execute("UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'hard_state'")
        tamper(crashed, f"UPDATE hard_state SET term = {value}")
        with pytest.raises(StorageCorrupt, match=WHAT_TO_DO):
            open_sqlite(crashed).load()


@pytest.mark.parametrize("table", ["founding", "hard_state"])
def test_a_lost_row_is_found(stopped: Path, open_sqlite: Open, table: str) -> None:
    tamper(stopped, f"DELETE FROM {table}")
    with pytest.raises(StorageCorrupt, match=f"{table} is missing"):
        open_sqlite(stopped).load()


def test_a_damaged_storage_stays_refused(stopped: Path, open_sqlite: Open) -> None:
    """Whoever catches the error must not get on by trying again."""
    tamper(stopped, "DELETE FROM hard_state")
    storage = open_sqlite(stopped)
    with pytest.raises(StorageCorrupt) as first:
        storage.load()
    for call in (storage.load, lambda: storage.form(BOOTSTRAP), lambda: storage.write(Batch(entries(2, 1)))):
        with pytest.raises(StorageCorrupt) as again:
            call()
        assert again.value is first.value


def test_a_damaged_row_is_not_cut_to_a_sound_one(formed: SqliteStorage) -> None:
    """A truncation inside a row writes the row anew; a fresh checksum over damaged bytes would make them content."""
    formed.write(Batch(entries(2, 3)))
    [data] = formed._database.cursor.execute("SELECT data FROM log").fetchone()
    formed._database.cursor.execute("UPDATE log SET data = ?", (flip(data, len(data) - 30),))
    with pytest.raises(StorageCorrupt, match="the log row at 2 is damaged"):
        formed.write(Batch(entries(4, 1, term=2)))


class TestMark:
    """The mark knows outside the database what was acknowledged."""

    @pytest.mark.parametrize("position", range(36))
    def test_a_flipped_bit_is_found(self, stopped: Path, open_sqlite: Open, position: int) -> None:
        """In the number it would hide a loss or claim one."""
        mark = stopped / "mark"
        mark.write_bytes(flip(mark.read_bytes(), position, bit=position % 8))
        with pytest.raises(StorageCorrupt, match=f"node/mark: .*{WHAT_TO_DO}"):
            open_sqlite(stopped).load()

    @pytest.mark.parametrize("content", [b"", b"coordmk1", bytes(36), None], ids=["empty", "short", "zeros", "missing"])
    def test_a_mark_that_is_none_is_found(self, stopped: Path, open_sqlite: Open, content: bytes | None) -> None:
        """Without it nobody can say that nothing is lost."""
        (stopped / "mark").unlink()
        if content is not None:
            (stopped / "mark").write_bytes(content)
        with pytest.raises(StorageCorrupt, match="mark"):
            open_sqlite(stopped).load()

    def test_a_lost_end_of_the_write_ahead_log_is_found(self, formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
        """SQLite takes what is left as the whole and answers `ok`: the transactions after it are gone without a word."""
        for index in range(2, 12):
            formed.write(Batch(entries(index, 1)))
        crashed = copy_as_after_a_crash(tmp_path / "node", tmp_path / "crashed")
        whole = (crashed / "coord.db-wal").read_bytes()
        (crashed / "coord.db-wal").write_bytes(whole[:-4120])
        with pytest.raises(StorageCorrupt, match=f"committed transactions are missing: 11 .* ends at 10.*{WHAT_TO_DO}"):
            open_sqlite(crashed).load()

    def test_a_bit_in_the_middle_of_the_write_ahead_log_is_found(
        self, formed: SqliteStorage, tmp_path: Path, open_sqlite: Open
    ) -> None:
        """One bit drops every transaction after it, not only its own."""
        for index in range(2, 102):
            formed.write(Batch(entries(index, 1)))
        crashed = copy_as_after_a_crash(tmp_path / "node", tmp_path / "crashed")
        whole = (crashed / "coord.db-wal").read_bytes()
        (crashed / "coord.db-wal").write_bytes(flip(whole, len(whole) // 2))
        with pytest.raises(StorageCorrupt, match="committed transactions are missing: 101 "):
            open_sqlite(crashed).load()

    def test_a_lost_write_ahead_log_is_found(self, formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
        """Somebody copied the database without it, or a tool removed it."""
        formed.write(Batch(entries(2, 1)))
        crashed = copy_as_after_a_crash(tmp_path / "node", tmp_path / "crashed")
        (crashed / "coord.db-wal").unlink()
        with pytest.raises(StorageCorrupt, match="acknowledged"):
            open_sqlite(crashed).load()

    def test_a_removed_database_is_not_a_fresh_node(self, stopped: Path, open_sqlite: Open) -> None:
        """It would be formed again under the same name and vote a second time in terms it voted in."""
        (stopped / "coord.db").unlink()
        storage = open_sqlite(stopped)
        with pytest.raises(StorageCorrupt, match="the database is empty, but 5 transactions were acknowledged"):
            storage.form(BOOTSTRAP)

    def test_an_older_copy_of_the_database_is_found(self, formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
        """A backup put back beside the newer mark: a node must not go back in time."""
        formed.write(Batch(entries(2, 1)))
        backup = copy_as_after_a_crash(tmp_path / "node", tmp_path / "backup")
        formed.write(Batch(entries(3, 1)))
        (backup / "mark").write_bytes((tmp_path / "node" / "mark").read_bytes())
        with pytest.raises(StorageCorrupt, match=r"missing: 3 were acknowledged .* ends at 2"):
            open_sqlite(backup).load()

    def test_another_past_of_the_same_length_is_found(self, formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
        """The number fits, the log does not: what was acknowledged is not what is there."""
        fork = copy_as_after_a_crash(tmp_path / "node", tmp_path / "fork")
        formed.write(Batch(entries(2, 1)))
        other = open_sqlite(fork)
        other.load()
        other.write(Batch(entries(2, 1, term=2)))
        other.close()
        (fork / "mark").write_bytes((tmp_path / "node" / "mark").read_bytes())
        with pytest.raises(StorageCorrupt, match="is not the one that was acknowledged"):
            open_sqlite(fork).load()

    def test_a_mark_behind_the_database_is_normal(self, formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
        """The process died between COMMIT and the mark; or the machine did before the mark was synced."""
        older = (tmp_path / "node" / "mark").read_bytes()
        formed.write(Batch(entries(2, 1)))
        crashed = copy_as_after_a_crash(tmp_path / "node", tmp_path / "crashed")
        (crashed / "mark").write_bytes(older)
        assert content(open_sqlite(crashed)) == (FOUNDING_STATE, entries(2, 1))
        assert (crashed / "mark").read_bytes() == (tmp_path / "node" / "mark").read_bytes()


@pytest.mark.parametrize("file", ["coord.db", "coord.db-wal", "mark"])
def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path: Path, open_sqlite: Open, file: str) -> None:
    """No single bit of any file makes the node load something else than what was written."""
    node = tmp_path / "node"
    storage = open_sqlite(node)
    storage.form(BOOTSTRAP)
    batches = list(islice(random_batches(seed=7), 16))
    for step, (batch, _) in enumerate(batches):
        if step == 8:
            storage._checkpoint()
        storage.write(batch)
    expected = batches[-1][1]
    crashed = copy_as_after_a_crash(node, tmp_path / "crashed")
    sound = {path.name: path.read_bytes() for path in crashed.iterdir()}
    draw = random.Random(file)
    # Most of a young database is empty.
    written = [position for position, byte in enumerate(sound[file]) if byte]
    found = 0
    for _ in range(80):
        for name, data in sound.items():
            (crashed / name).write_bytes(data)
        position, bit = draw.choice(written), draw.randrange(8)
        (crashed / file).write_bytes(flip(sound[file], position, bit))
        try:
            damaged = SqliteStorage(crashed)
        except NodeError:
            found += 1
            continue
        try:
            assert content(damaged) == expected, f"bit {bit} of byte {position} of {file}"
        except NodeError:
            found += 1
        finally:
            damaged.close()
    assert found
