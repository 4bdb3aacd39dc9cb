"""Publishing a singleton task: which publishes ask first, and what becomes of a duplicate.

    first publish            reserved; a duplicate is dealt with by `on_duplicate`
    retry, autoretry         same task id: reserved anew, sent in any case: never a duplicate of itself
    member of a canvas       sent as it is: its task id is promised to others already; the run decides
    task_always_eager        nothing to reserve

`send_task` and foreign producers do not pass here at all: the run decides.  Nor does what a worker puts back (`run.py`): its
reservation still stands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery import states
from celery.result import EagerResult
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.utils.uuid import uuid

from coord_celery.errors import CoordUnavailable, DuplicateTask
from coord_celery.keys import lock_path, reservation_path
from coord_celery.reservation import HEADER, Reservation, reserve, withdraw, withdraw_task_later
from coord_core import errors

if TYPE_CHECKING:
    from coord_celery.task import SingletonTask

#: Message header of a task that a worker put back because it could not be run yet: how often that was.
ATTEMPT_HEADER = "coord_attempt"

#: Options that only a canvas (or the callback of a task) passes.
_CANVAS_OPTIONS = ("group_id", "chord", "chain", "root_id", "parent_id")

Send = Callable[[str, dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The key is taken; by whom, where known."""

    task_id: str | None


def publish(task: "SingletonTask", args: Any, kwargs: Any, task_id: str | None, options: dict[str, Any], send: Send) -> Any:
    """Publish through `send(task_id, headers)`, or return or raise what `on_duplicate` says."""
    headers = dict(options.get("headers") or {})
    task_id = task_id or uuid()
    for spent in (HEADER, ATTEMPT_HEADER):  # a retry's headers are those of the run that it repeats
        headers.pop(spent, None)
    if not _asks_first(task, options):
        return send(task_id, headers)
    key = task.coord_key(args, kwargs)
    found = _reserve(task, key, task_id, options)
    if isinstance(found, Duplicate):
        return _answer_duplicate(task, key, task_id, found)
    return _send_reserved(task, task_id, headers, found, send)


def _asks_first(task: "SingletonTask", options: dict[str, Any]) -> bool:
    if not task.singleton.reserves or task.app.conf.task_always_eager:
        return False
    if options.get("retries"):
        return not task.coord_link.must_not_wait  # `retry_on_worker_lost` publishes from the main process
    return all(options.get(name) is None for name in _CANVAS_OPTIONS)


def _reserve(task: "SingletonTask", key: str, task_id: str, options: dict[str, Any]) -> "Reservation | Duplicate | None":
    """Return the reservation; None where it goes without one."""
    path = reservation_path(task.name, key)
    try:
        try:
            found = _try_reserve(task, key, path, task_id, _ttl(task, options))
        except errors.SessionExpired:  # not applied; a process that was asleep for long finds out here, and opens another
            found = _try_reserve(task, key, path, task_id, _ttl(task, options))
    except (errors.RetryableError, errors.OutcomeUnknown, errors.LostError) as error:
        if not isinstance(error, errors.RetryableError):
            withdraw_task_later(task.coord_link, path, task_id)
        if task.singleton.on_unavailable[0] == "send" or options.get("retries"):
            return None
        raise CoordUnavailable(key, None, str(error)) from error
    if isinstance(found, Duplicate) and options.get("retries"):
        return None
    return found


def _try_reserve(task: "SingletonTask", key: str, path: str, task_id: str, ttl: float) -> "Reservation | Duplicate":
    """Reserve, then look whether one is running.

    In this order: a task that goes from queued to running takes the lock before it gives up its reservation, so it is seen by one
    of the two.
    """
    client = task.coord_link.client()
    found = reserve(client, path, task_id, ttl)
    if not isinstance(found, Reservation):
        return Duplicate(found)
    if task.singleton.scope == "both":
        holder = client.lock(lock_path(task.name, key)).holder()
        if holder is not None and holder.owner.label != task_id:
            withdraw(task.coord_link, found)
            return Duplicate(holder.owner.label or None)
    return found


def _answer_duplicate(task: "SingletonTask", key: str, task_id: str, duplicate: Duplicate) -> Any:
    if task.singleton.on_duplicate == "raise":
        raise DuplicateTask(key, duplicate.task_id)
    if task.singleton.on_duplicate == "return" and duplicate.task_id:
        return task.AsyncResult(duplicate.task_id)
    return EagerResult(task_id, None, states.IGNORED, name=task.name)


def _send_reserved(
    task: "SingletonTask", task_id: str, headers: dict[str, Any], reservation: Reservation | None, send: Send
) -> Any:
    if reservation is None:
        return send(task_id, headers)
    headers[HEADER] = reservation.header()
    try:
        return send(task_id, headers)
    except BaseException:
        withdraw(task.coord_link, reservation)
        raise


def _ttl(task: "SingletonTask", options: dict[str, Any]) -> float:
    """Return how long to believe in the queued task: `queued_ttl` from when it is due, but not beyond its expiry."""
    due_s = options.get("countdown") or _seconds_until(task, options.get("eta")) or 0
    ttl = max(0.0, due_s) + task.singleton.queued_ttl
    expires_s = _seconds_until(task, options.get("expires", task.expires))
    return ttl if expires_s is None else min(ttl, max(1.0, expires_s))


def _seconds_until(task: "SingletonTask", when: Any) -> float | None:
    """Return how far away a time is that Celery accepts: seconds, a datetime, or ISO text."""
    if when is None or isinstance(when, int | float):
        return when
    moment: datetime = maybe_make_aware(maybe_iso8601(when), task.app.timezone)
    return (moment - datetime.now(UTC)).total_seconds()
