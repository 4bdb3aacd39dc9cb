"""Fencing children before their lease ends: the one decision, carried out by the main process and by the watchdog alike.

A child that holds a lock is stopped at `lease end - margin`, so that it is dead before the cluster can grant the lock to anybody
else.  Both processes read the same board and may act on the same child; doing it twice does no harm.

A pid alone may name a later process by the time the signal is sent.  A pidfd does not: it is opened first, then the start time is
compared, then the signal goes through the descriptor.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from coord_celery.board import Board, Fence, Slot, process_started

#: Raises LockLost in tasks with on_lost="raise".  Celery uses SIGUSR1 in children (soft time limits), not this one.
LOST_SIGNAL = signal.SIGUSR2

_SIGNALS = {Fence.ABORT: signal.SIGKILL, Fence.RAISE: LOST_SIGNAL}


def enforce(board: Board, now_ns: int) -> list[Slot]:
    """Signal every child whose time is over; return those that were there to be signalled."""
    lease = board.lease()
    overdue = (slot for slot in board.occupied() if slot.fence and slot.fence_at_ns(lease) <= now_ns)
    return [slot for slot in overdue if send(slot, _SIGNALS[slot.fence])]


def next_fence_ns(board: Board, now_ns: int, longest_ns: int) -> int:
    """Return how long the caller may wait before it must call `enforce` again, at most `longest_ns`.

    Once the time is over, waiting on is right: who begins to hold a lock then looks at the lease before it does anything.
    """
    left_ns = board.lease().fence_at_ns - now_ns
    return min(longest_ns, left_ns) if left_ns > 0 else longest_ns


def send(slot: Slot, signum: int) -> bool:
    """Send a signal to the slot's process and no other; False where it is gone."""
    with opened(slot.pid, slot.started) as pidfd:
        if pidfd is None:
            return False
        signal.pidfd_send_signal(pidfd, signum)
        return True


def open_process(pid: int, started: int) -> int | None:
    """Return a pidfd of exactly the process that started then; None where it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if process_started(pid) != started:
        os.close(pidfd)
        return None
    return pidfd


@contextmanager
def opened(pid: int, started: int) -> Iterator[int | None]:
    """`open_process`, closed at the end of the block."""
    pidfd = open_process(pid, started)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)
