"""The way of this process to the service; which one it is depends on what the process is.

    producer        a session of its own, opened at the first use
    main process    the worker's session (`session.py`)
    pool child      an attachment of its own under the worker's session, and a slot on the board

Nothing is opened at import, by `init_app`, or before a fork for the time after it: a forked child begins with nothing.
"""

import contextlib
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Protocol

from celery import Celery

import coord_core
from coord_celery.board import BOARD_VARIABLE, Board, Fence, Slot, boottime_ns
from coord_celery.settings import Settings
from coord_core import Client, errors

#: A pool child's first word with the service; then the task is put back.
ATTACH_TIMEOUT_S = 5.0

#: A task that finds no session waits this long for one: a worker that has just started is opening it.
SESSION_WAIT_S = 3.0
NO_SESSION = "the worker has no session with the coordination service at present"

#: How often a pool child looks at the board meanwhile.
_LOOK_S = 0.02
_GONE = ("LOST", "CLOSED")


class Way(Protocol):
    """How a process reaches the service."""

    def client(self) -> Client:
        """Return a client that works now; raises `CoordError` where there is none."""

    def raise_fence(self, fence: Fence) -> None:
        """Before asking for a lock: what is to happen to this process if the lease ends."""

    def lower_fence(self, fence: Fence) -> None:
        """Nothing is left to protect."""

    def close(self) -> None:
        """Let go of everything."""


class Link:
    """One app's way, found when first used and again after a fork."""

    def __init__(self, app: Celery) -> None:
        self._app = weakref.ref(app)
        self._begin_anew()
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        #: Set by the worker's main process: how it reaches its session.
        self.main: Way | None = None
        #: The main process of a prefork pool: what it publishes, it publishes from its event loop, which must not wait.
        self.must_not_wait = False
        self._finding = threading.Lock()
        self._way: Way | None = None
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            app = self._app()
            assert app is not None
            self._settings = Settings.read(app)
        return self._settings

    @property
    def eager(self) -> bool:
        """Whether eager and direct calls take locks; asked for where nothing else of ours may be configured."""
        app = self._app()
        return bool(app is not None and app.conf.get("coord_eager", False))

    def way(self) -> Way:
        if self.main is not None:
            return self.main
        with self._finding:
            if self._way is None:
                self._way = _find(self.settings)
            return self._way

    def client(self) -> Client:
        return self.way().client()

    def close(self) -> None:
        """Close what this process opened for itself."""
        with self._finding:
            way, self._way = self._way, None
        if way is not None:
            way.close()


class Producer:
    """A session of this process's own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = threading.Lock()
        self._client: Client | None = None

    def client(self) -> Client:
        with self._opening:
            if self._client is not None and self._client.session.state.name in _GONE:
                self.close()
            if self._client is None:
                self._client = coord_core.connect(self._settings.url)
            return self._client

    def raise_fence(self, fence: Fence) -> None:
        """Nobody watches this process."""

    def lower_fence(self, fence: Fence) -> None:
        """Nobody watches this process."""

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(errors.CoordError):
                client.close()


class PoolChild:
    """An attachment under the worker's session, known to the main process by this child's slot."""

    def __init__(self, settings: Settings, board: Board) -> None:
        self._settings = settings
        self._board = board
        self._slot: Slot | None = None
        self._client: Client | None = None
        self._session = 0
        self._fences: list[Fence] = []
        self._opening = threading.Lock()

    def client(self) -> Client:
        with self._opening:
            session = self._wait_for_session()
            if self._client is None or self._session != session or self._client.session.state.name in _GONE:
                self._attach(session)
            assert self._client is not None
            return self._client

    def raise_fence(self, fence: Fence) -> None:
        if fence:
            self._fences.append(fence)
            self._show_fence()

    def lower_fence(self, fence: Fence) -> None:
        if fence:
            self._fences.remove(fence)
            self._show_fence()

    def close(self) -> None:
        """Nothing: the main process closes this child's attachment when it is gone."""

    def _wait_for_session(self) -> int:
        deadline_ns = boottime_ns() + int(SESSION_WAIT_S * 1e9)
        while (now_ns := boottime_ns()) < deadline_ns:
            lease = self._board.lease()
            if lease.session and now_ns < lease.fence_at_ns:
                return lease.session
            time.sleep(_LOOK_S)
        raise errors.Unavailable(NO_SESSION)

    def _attach(self, session: int) -> None:
        """Attach to the session, and write the attachment down before anything can be granted to it."""
        client = coord_core.attach(self._settings.url, session, lease=lambda: self._lease_end(session))
        try:
            client.wait_connected(timeout=ATTACH_TIMEOUT_S)
            self._leave(client, session)
        except errors.CoordError:
            client.close(0)
            raise
        attachment = client.session.attachment_id
        assert attachment is not None
        if self._slot is None:
            self._slot = self._board.claim()
        self._slot.attach(session, attachment)
        self._client, self._session = client, session

    def _leave(self, successor: Client, session: int) -> None:
        """Close this child's last attachment while the slot still names it, so that there is no moment without a closer."""
        if self._slot is not None and self._slot.attachment and self._slot.session == session:
            successor.close_attachment(self._slot.attachment)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(errors.CoordError):
                client.close(0)

    def _lease_end(self, session: int) -> float | None:
        lease = self._board.lease()
        return lease.end_ns / 1e9 if lease.session == session else None

    def _show_fence(self) -> None:
        if self._slot is not None:
            self._slot.set_fence(max(self._fences, default=Fence.NONE))


def _find(settings: Settings) -> Way:
    board = _board_of_parent()
    return Producer(settings) if board is None else PoolChild(settings, board)


def _board_of_parent() -> Board | None:
    """Return the board of the worker whose child this process is; None for any other process, also a child's own children."""
    path = os.environ.get(BOARD_VARIABLE)
    if not path or not Path(path).exists():
        return None
    board = Board(Path(path))
    if board.owner_pid == os.getppid():
        return board
    board.close()
    return None
