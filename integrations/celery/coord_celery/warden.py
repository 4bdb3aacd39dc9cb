"""The warden: a thread of the main process that looks after the pool children on the board.

Every tick it writes the lease down, fences children whose time is over, and notices children that have died: it holds a pidfd of
each, so a death is seen at once, whatever the reason (SIGKILL, OOM, a hard time limit, a revoke, a cold shutdown) and whatever
Celery makes of it.  A dead child's attachment is closed, which frees what it held and refuses what it may still have under way.

The thread never speaks to the service, because it must be on time: that is for a janitor of its own.
"""

import contextlib
import logging
import os
import select
import signal
import threading

from coord_celery import fence, watchdog
from coord_celery.board import Board, Slot, boottime_ns
from coord_celery.janitor import Janitor
from coord_celery.session import WorkerSession
from coord_core import errors

logger = logging.getLogger("coord.celery")

TICK_MS = 100


class Warden:
    """Looks after one board."""

    def __init__(self, board: Board, session: WorkerSession) -> None:
        self._board = board
        self._session = session
        self._poll = select.poll()
        #: pidfd -> the slot whose process it is; a slot is here from when it is first seen until it is free.
        self._watched: dict[int, Slot] = {}
        self._indexes: set[int] = set()
        #: (pid, start time, session) of the processes that were reported as fenced and are not gone yet.
        self._said_fenced: set[tuple[int, int, int]] = set()
        #: Of its own, so that what died last does not queue behind thousands of reservations.
        self._undertaker = Janitor()
        self._watchdog_pid = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="coord-warden", daemon=True)

    def fork_watchdog(self) -> None:
        """Before the pool, and before this plugin has threads."""
        self._watchdog_pid = watchdog.start(self._board)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        os.kill(self._watchdog_pid, signal.SIGKILL)  # our own child, not reaped yet: the pid is its
        os.waitpid(self._watchdog_pid, 0)
        for pidfd in self._watched:
            os.close(pidfd)

    def _look_after(self) -> None:
        while not self._stopping.is_set():
            try:
                self._tick()
            except OSError:  # out of file descriptors: if it lasts, the lease on the board ends and the watchdog acts
                logger.exception("looking after the pool processes")
                self._stopping.wait(TICK_MS / 1000)

    def _tick(self) -> None:
        self._board.publish_lease(*self._session.lease())
        for slot in fence.enforce(self._board, boottime_ns()):
            self._say_fenced(slot)
        self._watch_newcomers()
        for pidfd, _ in self._poll.poll(TICK_MS):
            self._bury(pidfd)
        self._replace_watchdog()

    def _watch_newcomers(self) -> None:
        for slot in self._board.occupied():
            if slot.index in self._indexes:
                continue
            pidfd = fence.open_process(slot.pid, slot.started)
            self._indexes.add(slot.index)
            if pidfd is None:
                self._clear(slot)
            else:
                self._watched[pidfd] = slot
                self._poll.register(pidfd, select.POLLIN)

    def _say_fenced(self, slot: Slot) -> None:
        """Once, whoever was first: this thread and the watchdog both signal until the process is gone or holds nothing."""
        holder = (slot.pid, slot.started, slot.session)
        if holder not in self._said_fenced:
            self._said_fenced.add(holder)
            logger.error("the lease is about to end: pool process %d is fenced (%s)", slot.pid, slot.fence.name.lower())

    def _bury(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        slot = self._watched.pop(pidfd)
        if slot.fence and slot.fence_at_ns(self._board.lease()) <= boottime_ns():
            self._say_fenced(slot)  # the watchdog, which says nothing itself, was first
        self._said_fenced = {holder for holder in self._said_fenced if holder[:2] != (slot.pid, slot.started)}
        self._clear(slot)

    def _clear(self, slot: Slot) -> None:
        """Free what the dead child held, then its slot."""
        self._undertaker.put(f"attachment {slot.attachment} of pool process {slot.pid}", lambda: self._close_attachment(slot))

    def _close_attachment(self, slot: Slot) -> None:
        session, _ = self._session.lease()
        if slot.attachment and slot.session == session:  # an earlier session's went with it
            with contextlib.suppress(errors.LostError):
                self._session.client().close_attachment(slot.attachment)
        slot.free()
        self._indexes.discard(slot.index)

    def _replace_watchdog(self) -> None:
        pid, status = os.waitpid(self._watchdog_pid, os.WNOHANG)
        if pid:
            logger.error("the watchdog (pid %d) ended with status %d; starting another", pid, status)
            self._watchdog_pid = watchdog.start(self._board)
