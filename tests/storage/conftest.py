"""Fixtures of the storage tests: storages that are closed again, whatever the test did to them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coord_core.storage.sqlite import SqliteStorage
from tests.storage.building import BOOTSTRAP
from tests.storage.places import OnMemory, OnSqlite, Place


@pytest.fixture
def open_sqlite() -> Iterator[Callable[[Path], SqliteStorage]]:
    """Opens a SQLite storage on a directory."""
    with ExitStack() as stack:

        def opened(path: Path) -> SqliteStorage:
            storage = SqliteStorage(path)
            stack.callback(storage.close)
            return storage

        yield opened


@pytest.fixture
def formed(tmp_path: Path, open_sqlite: Callable[[Path], SqliteStorage]) -> SqliteStorage:
    """A formed SQLite storage in `tmp_path / "node"`."""
    storage = open_sqlite(tmp_path / "node")
    storage.form(BOOTSTRAP)
    return storage


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place: Place = OnMemory() if request.param == "memory" else OnSqlite(tmp_path / "node")
    yield place
    place.storage.close()


@pytest.fixture
def formed_place(place: Place) -> Place:
    place.storage.form(BOOTSTRAP)
    return place
