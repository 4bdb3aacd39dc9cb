"""The worker's session with the service, kept by its main process for itself and its pool children.

One thread opens it, sees it get lost, and opens the next.  A worker starts whether the service answers or not: tasks that need no
lock run, singleton tasks are put back until there is a session.
"""

import logging
import threading
import time

import coord_core
from coord_celery.board import Board, Fence
from coord_celery.link import NO_SESSION, SESSION_WAIT_S
from coord_celery.settings import Settings
from coord_core import Client, errors

logger = logging.getLogger("coord.celery")

_RETRY_S = 1.0
_OPEN_TIMEOUT_S = 10.0
#: How often to look whether the children of a lost session are gone.
_LOOK_S = 0.05


class WorkerSession:
    """A `Way` (see `link.py`) for code that runs in the main process: tasks of the solo and threads pools, signal handlers."""

    def __init__(self, settings: Settings, board: Board | None) -> None:
        self._settings = settings
        self._board = board
        self._client: Client | None = None
        #: The one session of that client which children are told of; their locks go with it.
        self._session_id = 0
        #: Set while there is a session.
        self._open_now = threading.Event()
        #: Set when something has changed: the session was lost, or the worker stops.
        self._moved = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._keep, name="coord-session", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the session: everything it holds is free at once."""
        self._stopping = True
        self._moved.set()
        if self._thread.ident is not None:
            self._thread.join()

    def client(self) -> Client:
        self._open_now.wait(SESSION_WAIT_S)
        client = self._client
        if client is None:
            raise errors.Unavailable(NO_SESSION)
        return client

    def lease(self) -> tuple[int, int]:
        """Return the session and when its lease ends (nanoseconds of the board's clock); (0, 0) where there is none."""
        client = self._client
        if client is None:
            return 0, 0
        # In this order: where the session is lost and followed by another in between, the number no longer fits.
        end = client.session.lease_deadline
        if end is None or client.session.session_id != self._session_id:
            return 0, 0
        return self._session_id, int(end * 1e9)

    def raise_fence(self, fence: Fence) -> None:
        """The main process does not kill itself: in solo and threads pools `check()` and the token guard."""

    def lower_fence(self, fence: Fence) -> None:
        """See `raise_fence`."""

    def close(self) -> None:
        """See `stop`."""

    def _keep(self) -> None:
        while not self._stopping:
            client = self._open()
            if client is None:
                continue
            self._moved.clear()
            client.session.on_state_change(lambda *_: self._moved.set())
            session_id = self._session_id = client.session.session_id or 0
            self._client = client
            self._open_now.set()
            logger.info("session %d with the coordination service is open", session_id)
            self._wait_until_over(client)
            self._open_now.clear()
            self._client = None
            if not self._stopping:
                logger.error("session %d is lost: pool processes that held its locks are stopped", session_id)
                self._wait_for_fenced()
            self._close(client)

    def _open(self) -> Client | None:
        client = coord_core.connect(self._settings.url)
        try:
            client.wait_connected(timeout=_OPEN_TIMEOUT_S)
        except errors.CoordError as error:
            logger.error("no session with the coordination service, singleton tasks have to wait: %s", error)
            self._close(client)
            self._moved.wait(_RETRY_S)
            return None
        return client

    def _wait_until_over(self, client: Client) -> None:
        """Return when the session is lost, also where a call of this process has opened another on the same client meanwhile."""
        while not self._stopping and client.session.session_id == self._session_id:
            self._moved.wait()
            self._moved.clear()

    def _close(self, client: Client) -> None:
        try:
            client.close()
        except errors.CoordError as error:
            logger.warning("session not closed, it ends with its TTL: %s", error)

    def _wait_for_fenced(self) -> None:
        """No new session while children of the old one still hold: `warden.py` and the watchdog are at it."""
        while self._board is not None and not self._stopping and any(slot.fence for slot in self._board.occupied()):
            time.sleep(_LOOK_S)
