"""The bootsteps: a worker's session begins before its pool has work and ends after its last task.

Two steps, because of the fork between them: the board is made and the watchdog forked before the pool, the threads that speak to
the service start after it.  A child forked while another thread imports a module inherits the import's lock, with nobody to
release it.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.exceptions import ImproperlyConfigured

from coord_celery.board import BOARD_VARIABLE, Board
from coord_celery.session import WorkerSession
from coord_celery.warden import Warden

_GREEN_POOLS = ("gevent", "eventlet")


class CoordStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Keeps the session and, for a prefork pool, board, warden and watchdog."""

    label = "Coord"

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._session: WorkerSession | None = None
        self._warden: Warden | None = None
        self._board: Board | None = None

    def include(self, worker: Any) -> bool:
        """Go first in the worker's steps, so: started before the pool forks, stopped when the pool is gone.

        `requires` cannot say that: it would have to stand in Celery's own Pool step.
        """
        worker.steps.insert(0, self)
        return True

    def start(self, worker: Any) -> None:
        link = worker.app.coord_link
        settings = link.settings  # a missing coord_url ends the worker here, with a sentence
        if worker.pool_cls.__module__.rpartition(".")[2] in _GREEN_POOLS:
            raise ImproperlyConfigured("coord_celery does not work in gevent and eventlet pools: use prefork, threads or solo")
        if issubclass(worker.pool_cls, PreforkPool):
            link.must_not_wait = True
            self._board = _new_board(settings.lease_margin_s)
        session = self._session = WorkerSession(settings, self._board)
        if self._board is not None:
            self._warden = Warden(self._board, session)
            self._warden.fork_watchdog()
        link.main = session
        worker.coord = self

    def start_threads(self) -> None:
        """Called when the pool has forked."""
        assert self._session is not None
        self._session.start()
        if self._warden is not None:
            self._warden.start()

    def stop(self, worker: Any) -> None:
        worker.app.coord_link.main = None
        worker.app.coord_link.must_not_wait = False
        if self._session is not None:
            self._session.stop()
        if self._warden is not None:
            self._warden.stop()
        if self._board is not None:
            os.environ.pop(BOARD_VARIABLE, None)
            shutil.rmtree(self._board.path.parent, ignore_errors=True)

    terminate = stop


class CoordThreadsStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the threads of `CoordStep`, which also stops them."""

    label = "Coord threads"
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        worker.coord.start_threads()

    def stop(self, worker: Any) -> None:
        """See `CoordStep.stop`: the pool goes first."""

    terminate = stop


def _new_board(margin_s: float) -> Board:
    if not (hasattr(os, "pidfd_open") and hasattr(time, "CLOCK_BOOTTIME")):
        raise ImproperlyConfigured(
            "coord_celery guards prefork pools on Linux only (5.3 or newer): here, use --pool threads or solo"
        )
    board = Board.create(Path(tempfile.mkdtemp(prefix="coord-celery-")), margin_ns=int(margin_s * 1e9))
    os.environ[BOARD_VARIABLE] = str(board.path)
    return board
