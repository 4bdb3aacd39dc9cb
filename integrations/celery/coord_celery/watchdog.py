"""The watchdog: a process beside the worker that fences its children when the main process cannot.

The main process fences for itself as long as it runs.  The watchdog is for when it hangs in C code or is stopped: it is forked
before the pool, maps the board and does nothing but read deadlines from it.  It speaks to nobody, logs nothing, takes no lock that
another thread could have held at the fork, and ends with the main process: there is then nobody left whose children it could guard
(what still lives of them it kills first), and the board's directory goes with it.

It has a session (`setsid`) of its own, so that a stop of the terminal's foreground group does not stop it too, and ignores the
signals that ask a worker to wind down: tasks go on running during a warm shutdown.  They are blocked across the fork, since one
that is sent to the whole group may find the watchdog before it has said so.
"""

import gc
import os
import select
import shutil
import signal
from typing import NoReturn

from coord_celery.board import Board, boottime_ns
from coord_celery.fence import enforce, next_fence_ns, send

#: A child that starts to hold a lock is noticed after this long at the latest.
LOOK_INTERVAL_NS = 250_000_000

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def start(board: Board) -> int:
    """Fork the watchdog of the calling process; return its pid."""
    parent = os.getpid()
    pidfd = os.pidfd_open(parent)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        pid = os.fork()
        if pid == 0:
            _live_and_die(board, parent, pidfd)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(pidfd)
    return pid


def _live_and_die(board: Board, parent: int, pidfd: int) -> NoReturn:
    status = 1
    try:
        gc.freeze()  # leave the parent's objects where they are: fewer pages to copy
        os.setsid()
        for signum in _IGNORED:
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)  # nothing is pending: ignoring a signal drops it
        _watch(board, parent, pidfd)
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's exit handlers


def _watch(board: Board, parent: int, pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    while os.getppid() == parent:
        enforce(board, boottime_ns())
        wait_ns = next_fence_ns(board, boottime_ns(), LOOK_INTERVAL_NS)
        if poll.poll(wait_ns / 1e6):
            break
    _clear_up(board)


def _clear_up(board: Board) -> None:
    for slot in board.occupied():
        if slot.fence:
            send(slot, signal.SIGKILL)
    shutil.rmtree(board.path.parent, ignore_errors=True)
