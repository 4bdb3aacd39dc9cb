"""A node that was found out stays out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coord_core.errors import NodeSuspect
from coord_core.storage.api import Batch
from coord_core.storage.sqlite import SqliteStorage
from coord_core.storage.suspect import condemn
from tests.storage.building import entries


def test_no_storage_opens_where_the_node_was_condemned(formed: SqliteStorage, tmp_path: Path) -> None:
    """Else it would vote after every restart until somebody tells it again; the first reason is nearest to the cause."""
    formed.write(Batch(entries(2, 1)))
    formed.close()
    condemn(tmp_path / "node", "entry 7 was acknowledged and is gone")
    condemn(tmp_path / "node", "something that followed from it")
    for _ in range(2):
        with pytest.raises(NodeSuspect, match=r"suspect: .* must not go on: entry 7 was acknowledged and is gone$"):
            SqliteStorage(tmp_path / "node")


def test_half_a_reason_condemns_nobody(formed: SqliteStorage, tmp_path: Path, open_sqlite: Callable[[Path], SqliteStorage]) -> None:
    """The file gets its name when it is whole and durable."""
    formed.close()
    (tmp_path / "node" / "suspect.new").write_bytes(b"this n")
    open_sqlite(tmp_path / "node")
