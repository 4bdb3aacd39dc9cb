"""Runs the application's callbacks one after the other on a thread of their own.

The rule: a callback that blocks, or raises, delays other callbacks and nothing else; keep-alives never wait for one.
"""

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger("coord.client")


class CallbackThread:
    """A daemon thread, started with the first callback."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], object]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="coord-callbacks", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread end after what was submitted."""
        if self._thread is not None:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - the application's fault must not end the thread
                _log.exception("a state callback raised")
