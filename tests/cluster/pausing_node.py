"""`python -m tests.cluster.pausing_node FLAGS...`: `coord server` on a disk that stands still when it is told to.

When there is a file `DATA.pause` beside the data directory, the next write waits for the seconds in it before it does anything, and
takes the file away then.
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

#: Instead of `coord server`.
COMMAND = (sys.executable, "-m", "tests.cluster.pausing_node")


class PausingStorage(SqliteStorage):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._order = _order(directory)

    def write(self, batch: Batch) -> None:
        if self._order.exists():
            time.sleep(float(self._order.read_text()))
            self._order.unlink()
        super().write(batch)


def pause(data: Path, seconds: float) -> Path:
    """Have the disk under `data` stand still; return the file that is gone when it goes on."""
    draft = data.with_suffix(".draft")
    draft.write_text(str(seconds))
    return draft.rename(_order(data))


def _order(data: Path) -> Path:
    return data.with_suffix(".pause")


if __name__ == "__main__":
    node.Server = functools.partial(Server, open_storage=PausingStorage)  # type: ignore[misc, assignment]
    sys.exit(run(["server", *sys.argv[1:]]))
