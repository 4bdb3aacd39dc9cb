"""Where a storage can live, and what a restart is there."""

from pathlib import Path

from coord_core.storage.api import Storage
from coord_core.storage.memory import MemoryStorage
from coord_core.storage.sqlite import SqliteStorage


class OnMemory:
    """A restart of a memory storage is a clone."""

    def __init__(self) -> None:
        self.storage: Storage = MemoryStorage()

    def restart(self) -> Storage:
        assert isinstance(self.storage, MemoryStorage)
        survivor = self.storage.clone()
        self.storage.close()
        self.storage = survivor
        return survivor


class OnSqlite:
    """A restart of a SQLite storage opens its directory again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.storage: Storage = SqliteStorage(path)

    def restart(self) -> Storage:
        self.storage.close()
        self.storage = SqliteStorage(self._path)
        return self.storage


Place = OnMemory | OnSqlite
