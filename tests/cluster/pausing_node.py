"""`python -m tests.cluster.pausing_node FLAGS...`: `coord server` on a disk that stands still when it is told to.

When a file `pause` is beside the data directory (`DATA.pause`), the next write takes it away and waits for the seconds in it before
it does anything.
"""

import functools
import sys
import time
from pathlib import Path

from coord_core.cli.main import run
from coord_core.server import node
from coord_core.server.server import Server
from coord_core.storage.api import Batch
from coord_core.storage.sqlite import SqliteStorage


class PausingStorage(SqliteStorage):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._pause = pause_file(directory)

    def write(self, batch: Batch) -> None:
        if self._pause.exists():
            seconds = float(self._pause.read_text())
            time.sleep(seconds)
            self._pause.unlink()
        super().write(batch)


def pause_file(data: Path) -> Path:
    return data.with_suffix(".pause")


if __name__ == "__main__":
    node.Server = functools.partial(Server, open_storage=PausingStorage)  # type: ignore[misc, assignment]
    sys.exit(run(["server", *sys.argv[1:]]))
