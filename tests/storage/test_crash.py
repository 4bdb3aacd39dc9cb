"""SIGKILL at any moment: what was acknowledged is there afterwards, and nothing half done (LogCabin, braft #119)."""

import os
import random
import signal
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from coord_core.storage.api import Batch
from coord_core.storage.sqlite import SqliteStorage
from tests.storage.building import BOOTSTRAP, content, copy_as_after_a_crash, entries, random_batches, state

KILLS = 36


def write_until_killed(directory: Path, seed: int, acknowledged: int) -> None:
    """The child: writes appends and truncations one after another and acknowledges each on the pipe.  Never returns."""
    try:
        storage = SqliteStorage(directory)
        storage.form(BOOTSTRAP)
        for batch, _ in random_batches(seed):
            storage.write(batch)
            os.write(acknowledged, b".")
    finally:
        os._exit(1)


def killed_after(directory: Path, seed: int, writes: int) -> int:
    """Run the child until it has acknowledged `writes` batches, kill it, and return how many it had acknowledged by then."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        write_until_killed(directory, seed, writing)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as acknowledgements:
        seen = 0
        while seen < writes:
            data = acknowledgements.read(writes - seen)
            assert data, "the child ended by itself"
            seen += len(data)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return seen + len(acknowledgements.readall())


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_node_finds_what_it_acknowledged(tmp_path: Path, seed: int) -> None:
    """The kill falls anywhere: before BEGIN, in the middle of replacing the log's end, between COMMIT and the mark.

    At most one batch more than was acknowledged may be there, and it is there wholly or not at all.
    """
    acknowledged = killed_after(tmp_path / "node", seed, random.Random(seed).randint(1, 120))
    states = [expected for _, expected in islice(random_batches(seed), acknowledged + 1)]
    storage = SqliteStorage(tmp_path / "node")
    try:
        assert content(storage) in (states[acknowledged - 1], states[acknowledged]), f"seed {seed}"
    finally:
        storage.close()


def test_a_crash_between_any_two_statements_leaves_the_old_log_or_the_new(
    formed: SqliteStorage, tmp_path: Path, open_sqlite: Callable[[Path], SqliteStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """braft #119: the end of the log cut off and what replaces it not there yet.  Here the cut goes through a row."""
    formed.write(Batch(entries(2, 3), state(1)))
    formed.write(Batch(entries(5, 4), None))
    before = content(formed)
    copies: list[Path] = []
    execute = formed._formed()._execute

    def crash_before(*statement: Any) -> Any:
        copies.append(copy_as_after_a_crash(tmp_path / "node", tmp_path / f"copy{len(copies)}"))
        return execute(*statement)

    monkeypatch.setattr(formed._formed(), "_execute", crash_before)
    formed.write(Batch(entries(4, 2, term=2), state(2, commit=3)))
    after = content(formed)
    assert len(copies) > 6
    assert [content(open_sqlite(copy)) for copy in copies] == [before] * len(copies)
    assert content(open_sqlite(copy_as_after_a_crash(tmp_path / "node", tmp_path / "last"))) == after
