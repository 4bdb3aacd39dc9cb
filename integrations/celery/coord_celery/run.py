"""Running a singleton task: take the lock, say what to do where it cannot be had, and give it back.

The lock is taken in the task's `__call__`, under the worker's session and this process's own attachment, and given back on
`task_postrun`: after the result is stored and callbacks, chain and retry are published, whatever the outcome.  A process that dies
in between gives nothing back; the main process then closes its attachment (`warden.py`), and if that dies too, the session ends.
"""

import contextlib
import logging
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from celery.exceptions import Retry

from coord_celery.board import Fence
from coord_celery.errors import CoordUnavailable, LockLost, SingletonConflict
from coord_celery.fence import LOST_SIGNAL
from coord_celery.keys import lock_path
from coord_celery.link import Way
from coord_celery.publish import ATTEMPT_HEADER
from coord_celery.reservation import Reservation, withdraw
from coord_core import DistributedLock, Grant, errors

if TYPE_CHECKING:
    from coord_celery.task import SingletonTask

logger = logging.getLogger("coord.celery")

#: The lock's holder is this very task id: an earlier attempt that is just ending (a retry overtook its release) or that lives on
#: (a redelivery).  Wait this long for the first; the second goes back to the broker.
SAME_TASK_WAIT_S = 3.0

#: How often to ask for a lock that is refused and then found free.
ATTEMPTS = 3

#: Pauses of a task that is put back: from, doubled each time, to.
PUT_BACK_S_MIN = 1.0
PUT_BACK_S_MAX = 60.0

_FENCES = {"abort": Fence.ABORT, "raise": Fence.RAISE, "ignore": Fence.NONE}


@dataclass(slots=True, eq=False)
class Hold:
    """One run of one singleton task in this thread, and what it must give back."""

    task: "SingletonTask"
    task_id: str
    key: str = ""
    #: The task's place in the queue, until it is given up or handed on.
    reservation: Reservation | None = None
    #: Set before the lock is asked for: whatever interrupts the asking, `release` knows what there may be to give back.
    lock: DistributedLock | None = None
    way: Way | None = None
    #: What stands on the board for this run.
    fence: Fence = Fence.NONE

    @property
    def grant(self) -> Grant | None:
        return None if self.lock is None else self.lock.grant

    @property
    def token(self) -> int | None:
        return None if self.lock is None else self.lock.token

    def check(self) -> None:
        """Ask the cluster; raise `LockLost` where the lock is not held, `CoordUnavailable` where nobody could say."""
        grant = self.grant
        if grant is None:
            return
        try:
            grant.check()
        except errors.RetryableError as error:
            raise CoordUnavailable(self.key, None, str(error)) from error
        except errors.CoordError as error:
            raise LockLost(self.key, None, str(error)) from error

    def raise_fence(self, way: Way, fence: Fence) -> None:
        self.way, self.fence = way, fence
        way.raise_fence(fence)

    def lower_fence(self) -> None:
        """Nothing is left that must be stopped."""
        fence, self.fence = self.fence, Fence.NONE
        if self.way is not None:
            self.way.lower_fence(fence)

    def leave_queue(self) -> None:
        """Give up the place in the queue."""
        reservation, self.reservation = self.reservation, None
        if reservation is not None:
            withdraw(self.task.coord_link, reservation)

    def release(self) -> None:
        """Give back whatever there is."""
        self.lower_fence()
        self.leave_queue()
        if self.lock is None or self.lock.token is None:
            return
        try:
            self.lock.release()
        except errors.OutcomeUnknown as error:
            logger.warning("releasing the lock of %s (key %r): %s", self.task.name, self.key, error)
        except errors.CoordError as error:
            logger.error("the lock of %s (key %r) was lost before the task ended: %s", self.task.name, self.key, error)


class _Holds(threading.local):
    """The runs of this thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Hold] = []


_holds = _Holds()


def current(task: "SingletonTask") -> Hold | None:
    """Return the innermost run of `task` in this thread."""
    return next((hold for hold in reversed(_holds.stack) if hold.task.name == task.name), None)


def is_entered(task: "SingletonTask", task_id: str) -> bool:
    """Whether this run has its lock already: a task that calls itself directly is one run."""
    hold = current(task)
    return hold is not None and hold.task_id == task_id


def begin(task: "SingletonTask", task_id: str, args: Any, kwargs: Any) -> bool:
    """Take the lock for a run; False where the run is to be skipped.  `end` is to follow in any case, also where this raises.

    Raises `SingletonConflict` (on_conflict="fail"), `CoordUnavailable`, or Celery's `Retry` when the task was put back.
    """
    hold = Hold(task, task_id, reservation=Reservation.from_headers(task.request.headers))
    _holds.stack.append(hold)
    hold.key = task.coord_key(args, kwargs)
    holder = _take(hold) if task.singleton.locks else None
    hold.leave_queue()
    if holder is not None:
        end(task, task_id)
        _give_way(hold, holder)
    return holder is None


def end(task: "SingletonTask", task_id: str) -> None:
    """The run is over, however: give back what it has."""
    hold = current(task)
    if hold is not None and hold.task_id == task_id:
        _holds.stack.remove(hold)
        hold.release()


def _take(hold: Hold) -> str | None:
    """Take the lock; return the holder's task id where another task has it."""
    task = hold.task
    try:
        holder = _acquire(hold)
    except (errors.RetryableError, errors.OutcomeUnknown, errors.LostError) as error:
        unavailable = CoordUnavailable(hold.key, None, str(error))
        if task.singleton.on_unavailable[1] == "fail" or task.request.called_directly or task.request.is_eager:
            raise unavailable from error
        _put_back(hold, unavailable)
    if hold.grant is not None:
        return None
    if holder == hold.task_id:
        _put_back(hold, SingletonConflict(hold.key, holder, "an earlier attempt of this task is still running"))
    return holder


def _give_way(hold: Hold, holder: str) -> None:
    if hold.task.singleton.on_conflict == "fail":
        raise SingletonConflict(hold.key, holder)
    logger.info("Task %s[%s] skipped: key %r is held by task %s", hold.task.name, hold.task_id, hold.key, holder)


def _acquire(hold: Hold) -> str | None:
    """Take the lock, or return the task id of its holder.  The fence stands before the question is asked."""
    task = hold.task
    way = task.coord_link.way()
    lock = hold.lock = way.client().lock(lock_path(task.name, hold.key), label=hold.task_id)
    fence = _FENCES[task.singleton.on_lost]
    if fence is Fence.RAISE:
        _listen_for_loss()
    hold.raise_fence(way, fence)
    grant, holder = _ask(lock, hold.task_id)
    if grant is not None and grant.is_held_locally():
        return None
    hold.lower_fence()
    if grant is not None:  # granted late: the lease is over, or about to be
        with contextlib.suppress(errors.CoordError):
            lock.release()
    if grant is not None or holder is None:
        raise errors.Unavailable("the lock was not granted in time")
    return holder


def _ask(lock: DistributedLock, task_id: str) -> tuple[Grant | None, str | None]:
    """Return the grant, or the task id of the holder; neither, where the answers did not fit together."""
    for _ in range(ATTEMPTS):
        grant = lock.try_lock()
        if grant is not None:
            return grant, None
        holder = lock.holder()
        if holder is None:
            continue  # it has just become free, or nobody answered in time
        if holder.owner.label == task_id:
            return lock.acquire(timeout=SAME_TASK_WAIT_S), task_id
        return None, holder.owner.label
    return None, None


def _put_back(hold: Hold, reason: Exception) -> NoReturn:
    """Send the running task to the broker again, under its own id and without using up a retry; raises `Retry`."""
    task, request = hold.task, hold.task.request
    attempt = int((request.headers or {}).get(ATTEMPT_HEADER, 0)) + 1
    countdown = min(PUT_BACK_S_MAX, PUT_BACK_S_MIN * 2 ** min(attempt - 1, 10)) * random.uniform(0.5, 1)
    headers = {**(request.headers or {}), ATTEMPT_HEADER: attempt}
    again = task.signature_from_request(request, countdown=countdown, retries=request.retries, headers=headers)
    task.publish_unasked(again.args, again.kwargs, **again.options)
    hold.reservation = None  # the message has it
    raise Retry(exc=reason, when=countdown) from reason


def _listen_for_loss() -> None:
    """Install the handler of the fence's milder signal, where that can be and nobody else has one."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(LOST_SIGNAL) in (signal.SIG_DFL, None):
        signal.signal(LOST_SIGNAL, _raise_lost)


def _raise_lost(signum: int, frame: Any) -> None:
    """Signal handler: raise `LockLost` in the task whose lock cannot be kept."""
    for hold in reversed(_holds.stack):
        if hold.fence is Fence.RAISE:
            hold.lower_fence()
            raise LockLost(hold.key, None, "the lease is about to end")


def holding(task: "SingletonTask", args: Any, kwargs: Any, body: Callable[[], Any]) -> Any:
    """Run a direct call under the lock (`coord_eager`): there is no `task_postrun` to give it back."""
    task_id = f"direct-{random.getrandbits(64):016x}"
    try:
        return body() if begin(task, task_id, args, kwargs) else None
    finally:
        end(task, task_id)
