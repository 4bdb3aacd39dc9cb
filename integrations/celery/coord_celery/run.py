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
from typing import TYPE_CHECKING, Any

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
    """One run of one singleton task in this thread, and the lock it holds, if it takes one."""

    task_name: str
    task_id: str
    key: str
    lock: DistributedLock | None = None
    grant: Grant | None = None
    way: Way | None = None
    fence: Fence = Fence.NONE

    @property
    def token(self) -> int | None:
        return None if self.grant is None else self.grant.token

    def check(self) -> None:
        """Ask the cluster; raise `LockLost` where the lock is not held, `CoordUnavailable` where nobody could say."""
        if self.grant is None:
            return
        try:
            self.grant.check()
        except errors.RetryableError as error:
            raise CoordUnavailable(self.key, None, str(error)) from error
        except errors.CoordError as error:
            raise LockLost(self.key, None, str(error)) from error

    def release(self) -> None:
        """Give the lock back."""
        if self.lock is None or self.way is None:
            return
        self.way.lower_fence(self.fence)  # the task is over: nothing is left that must be stopped
        try:
            self.lock.release()
        except errors.OutcomeUnknown as error:
            logger.warning("releasing the lock of %s (key %r): %s", self.task_name, self.key, error)
        except errors.CoordError as error:
            logger.error("the lock of %s (key %r) was lost before the task ended: %s", self.task_name, self.key, error)


class _Holds(threading.local):
    """The runs of this thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Hold] = []


_holds = _Holds()


def current(task: "SingletonTask") -> Hold | None:
    """Return the innermost run of `task` in this thread."""
    return next((hold for hold in reversed(_holds.stack) if hold.task_name == task.name), None)


def is_entered(task: "SingletonTask", task_id: str) -> bool:
    """Whether this run has its lock already: a task that calls itself directly is one run."""
    hold = current(task)
    return hold is not None and hold.task_id == task_id


def begin(task: "SingletonTask", task_id: str, args: Any, kwargs: Any) -> Hold | None:
    """Take the lock for a run; None where the run is to be skipped.

    Raises `SingletonConflict` (on_conflict="fail"), `CoordUnavailable`, or Celery's `Retry` when the task was put back.
    """
    hold = Hold(task.name, task_id, task.coord_key(args, kwargs))
    if task.singleton.locks and not _take(task, hold):
        return None
    reservation = Reservation.from_headers(task.request.headers)
    if reservation is not None:
        withdraw(task.coord_link, reservation)
    _holds.stack.append(hold)
    return hold


def end(task: "SingletonTask", task_id: str) -> None:
    """The run is over, however: give back what it holds."""
    hold = current(task)
    if hold is not None and hold.task_id == task_id:
        _holds.stack.remove(hold)
        hold.release()


def _take(task: "SingletonTask", hold: Hold) -> bool:
    try:
        holder = _acquire(task, hold)
    except (errors.RetryableError, errors.OutcomeUnknown, errors.LostError) as error:
        unavailable = CoordUnavailable(hold.key, None, str(error))
        if task.singleton.on_unavailable[1] == "fail" or task.request.called_directly or task.request.is_eager:
            raise unavailable from error
        put_back(task, unavailable)
    if hold.grant is not None:
        return True
    if holder == hold.task_id:
        put_back(task, SingletonConflict(hold.key, holder, "an earlier attempt of this task is still running"))
    return _give_way(task, hold, holder)


def _acquire(task: "SingletonTask", hold: Hold) -> str | None:
    """Fill in the grant, or return the task id of the holder.  The fence stands before the question is asked."""
    way = task.coord_link.way()
    lock = way.client().lock(lock_path(task.name, hold.key), label=hold.task_id)
    fence = _FENCES[task.singleton.on_lost]
    if fence is Fence.RAISE:
        _listen_for_loss()
    way.raise_fence(fence)
    try:
        grant, holder = _ask(lock, hold.task_id)
        if grant is not None and grant.is_held_locally():
            hold.lock, hold.grant, hold.way, hold.fence = lock, grant, way, fence
        elif grant is not None:  # granted late: the lease is over, or about to be
            with contextlib.suppress(errors.CoordError):
                lock.release()
    finally:
        if hold.grant is None:
            way.lower_fence(fence)
    if hold.grant is None and holder is None:
        raise errors.Unavailable("the lock was neither granted nor held by anybody")
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


def _give_way(task: "SingletonTask", hold: Hold, holder: str | None) -> bool:
    reservation = Reservation.from_headers(task.request.headers)
    if reservation is not None:
        withdraw(task.coord_link, reservation)
    if task.singleton.on_conflict == "fail":
        raise SingletonConflict(hold.key, holder)
    logger.info("Task %s[%s] skipped: key %r is held by task %s", task.name, hold.task_id, hold.key, holder)
    return False


def put_back(task: "SingletonTask", reason: Exception) -> None:
    """Send the running task to the broker again, under its own id and without using up a retry; raises `Retry`."""
    request = task.request
    attempt = int((request.headers or {}).get(ATTEMPT_HEADER, 0)) + 1
    countdown = min(PUT_BACK_S_MAX, PUT_BACK_S_MIN * 2 ** min(attempt - 1, 10)) * random.uniform(0.5, 1)
    headers = {**(request.headers or {}), ATTEMPT_HEADER: attempt}
    again = task.signature_from_request(request, countdown=countdown, retries=request.retries, headers=headers)
    task.publish_unasked(again.args, again.kwargs, **again.options)
    raise Retry(exc=reason, when=countdown) from reason


def _listen_for_loss() -> None:
    """Install the handler of the fence's milder signal, where that can be and nobody else has one."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(LOST_SIGNAL) in (signal.SIG_DFL, None):
        signal.signal(LOST_SIGNAL, _raise_lost)


def _raise_lost(signum: int, frame: Any) -> None:
    """Signal handler: raise `LockLost` in the task whose lock cannot be kept."""
    for hold in reversed(_holds.stack):
        if hold.fence is Fence.RAISE and hold.way is not None:
            hold.way.lower_fence(hold.fence)
            hold.fence = Fence.NONE
            raise LockLost(hold.key, None, "the lease is about to end")


def holding(task: "SingletonTask", args: Any, kwargs: Any, body: Callable[[], Any]) -> Any:
    """Run a direct call under the lock (`coord_eager`): there is no `task_postrun` to give it back."""
    task_id = f"direct-{random.getrandbits(64):016x}"
    if begin(task, task_id, args, kwargs) is None:
        return None
    with contextlib.ExitStack() as stack:
        stack.callback(end, task, task_id)
        return body()
