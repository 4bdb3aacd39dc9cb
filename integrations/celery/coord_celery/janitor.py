"""Clearing up behind what could not be cleared up on the spot, off the threads that must not wait.

A daemon thread, started with its first chore.  A chore that the service does not answer is tried again, with growing
pauses, until it is done or too old; nothing depends on it for safety: what is left over goes with its TTL or its session.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from coord_core import errors

logger = logging.getLogger("coord.celery")

CHORES_MAX = 10_000
#: How long the service may be away before a chore is given up.
PATIENCE_S = 600.0
#: Pauses grow from a tenth of a second to this.
PAUSE_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Chore:
    """One thing to do: `act` until it does not raise."""

    name: str
    act: Callable[[], None]
    asked_s: float


class Janitor:
    """The thread and its queue.  A forked child starts with an empty one: the parent does what the parent was asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], object] = time.sleep) -> None:
        self._clock = clock
        self._pause = pause
        self._begin_anew()
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._chores: queue.Queue[Chore] = queue.Queue(CHORES_MAX)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, name: str, act: Callable[[], None]) -> None:
        """Have `act` done soon; never blocks, never raises."""
        try:
            self._chores.put_nowait(Chore(name, act, self._clock()))
        except queue.Full:
            logger.warning("too much to clear up: left to its time limit: %s", name)
            return
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="coord-janitor", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            self._finish(self._chores.get())

    def _finish(self, chore: Chore) -> None:
        pause_s = 0.1
        while True:
            try:
                chore.act()
                return
            except (errors.LostError, errors.RequestError):
                return  # gone already, or not ours any more
            except errors.CoordError as error:
                if self._clock() - chore.asked_s > PATIENCE_S:
                    logger.warning("not cleared up, left to its time limit: %s (%s)", chore.name, error)
                    return
            self._pause(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)


#: This process's, for what may take its time.
janitor = Janitor()
