"""What a singleton task can raise, on either side of the broker.

    coord_core.CoordError
    +-- SingletonError            key, holder_task_id, reason
        +-- DuplicateTask         at publish: one is queued or running already (on_duplicate="raise")
        +-- SingletonConflict     at run: another run holds the lock (on_conflict="fail")
        +-- LockLost              during the run: exclusion cannot be shown any more (also a coord_core LockLost)
        +-- CoordUnavailable      the service could not be asked (also a coord_core Unavailable)

Celery moves exceptions in two ways: pickled, and as `(class, args)` in JSON result backends, rebuilt by `cls(*args)`.  Both work
because `args` is exactly what the constructor takes, and plain.
"""

from typing import Any

from coord_core import errors

__all__ = ["CoordUnavailable", "DuplicateTask", "LockLost", "SingletonConflict", "SingletonError"]


class SingletonError(errors.CoordError):
    """Root of this module.  `key` is the singleton's key; `holder_task_id` the task in the way, where known."""

    summary = "singleton task"

    def __init__(self, key: str = "", holder_task_id: str | None = None, reason: str = "") -> None:
        super().__init__(_sentence(self.summary, key, holder_task_id, reason), key=key, holder_task_id=holder_task_id)
        self.key = key
        self.holder_task_id = holder_task_id
        self.reason = reason
        self.args = (key, holder_task_id, reason)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class DuplicateTask(SingletonError):
    """At publish: a task with this key is queued or running; nothing was sent."""

    summary = "already queued or running"


class SingletonConflict(SingletonError):
    """At run: another run holds this key; the body was not executed."""

    summary = "another run holds the lock"


class LockLost(SingletonError, errors.LockLost):
    """The lock is not held any more, or cannot be shown to be.  Stop acting on it; the fencing token guards what was begun."""

    summary = "the lock is lost"


class CoordUnavailable(SingletonError, errors.Unavailable):
    """The coordination service did not answer.  At publish: nothing was sent.  At run: the body was not executed."""

    summary = "the coordination service did not answer"


def _sentence(summary: str, key: str, holder: str | None, reason: str) -> str:
    held = f", held by task {holder}" if holder else ""
    why = f": {reason}" if reason else ""
    return f"{summary} (key {key!r}{held}){why}"
