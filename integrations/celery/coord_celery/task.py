"""`SingletonTask`: the base class that asks before it publishes and locks before it runs."""

import inspect
from typing import Any

from celery import Celery, Task

from coord_celery import run
from coord_celery.keys import call_key
from coord_celery.link import Link
from coord_celery.options import SingletonOptions
from coord_celery.publish import publish
from coord_celery.run import Hold
from coord_core.protocol.queries import LockParty


class Coord:
    """`self.coord` inside a task: what its lock is good for."""

    __slots__ = ("_hold", "_task")

    def __init__(self, task: "SingletonTask", hold: Hold | None) -> None:
        self._task = task
        self._hold = hold

    @property
    def key(self) -> str | None:
        """The key of this run; None outside one."""
        return None if self._hold is None else self._hold.key

    @property
    def token(self) -> int | None:
        """The fencing token: later runs of this key have greater ones.  None where no lock is taken (eager, scope="queued")."""
        return None if self._hold is None else self._hold.token

    def check(self) -> None:
        """Ask the cluster whether this run still holds its lock.

        Raises `LockLost` (it does not: stop) or `CoordUnavailable` (nobody could say; it stands at most until the lease is over).
        """
        if self._hold is not None:
            self._hold.check()

    def holder(self) -> LockParty | None:
        """Ask the service who holds the lock of this key: `.owner.label` is the task id, `.token`, `.since_ms`."""
        if self._hold is None or self._hold.lock is None:
            return None
        return self._hold.lock.holder()


class SingletonTask(Task):  # type: ignore[misc]
    """Base class of singleton tasks.  `@singleton_task` uses it; `@app.task(base=SingletonTask)` works alone.

    Options go in the attribute `singleton`: `@app.task(base=SingletonTask, singleton=SingletonOptions(unique_on=("user_id",)))`.
    """

    abstract = True
    singleton = SingletonOptions()

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        from coord_celery.app import init_app

        init_app(app)

    @property
    def coord(self) -> Coord:
        """The lock of the run that is going on in this thread."""
        return Coord(self, run.current(self))

    @property
    def coord_link(self) -> Link:
        link: Link = self.app.coord_link
        return link

    def coord_key(self, args: Any, kwargs: Any) -> str:
        """Return the key of a call of this task with these arguments."""
        args, kwargs = args or (), kwargs or {}
        if self._dump_pydantic_arguments is not None:
            args, kwargs = self._dump_pydantic_arguments(args, kwargs)
        options = self.singleton
        return call_key(inspect.signature(self.run), args, kwargs, key=options.key, unique_on=options.key_names)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """Publish, unless a task with this key is queued or running: then `on_duplicate` decides.

        Raises, besides what Celery's own raises: `DuplicateTask`, and `CoordUnavailable` where the service does not answer (nothing
        was sent).
        """

        def send(task_id: str, headers: dict[str, Any]) -> Any:
            with_headers = {**options, "headers": headers} if headers else {**options, "headers": None}
            return super(SingletonTask, self).apply_async(
                args, kwargs, task_id=task_id, producer=producer, link=link, link_error=link_error, shadow=shadow, **with_headers
            )

        return publish(self, args, kwargs, task_id, options, send)

    def publish_unasked(self, args: Any, kwargs: Any, **options: Any) -> Any:
        """Publish as Celery does."""
        return super().apply_async(args, kwargs, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body under the lock; None where it is skipped."""
        request = self.request
        if request.called_directly or request.is_eager:
            if not self.coord_link.eager:
                return super().__call__(*args, **kwargs)
            if request.called_directly:
                return run.holding(self, args, kwargs, lambda: super(SingletonTask, self).__call__(*args, **kwargs))
        if run.is_entered(self, request.id):
            return super().__call__(*args, **kwargs)
        return super().__call__(*args, **kwargs) if run.begin(self, request.id, args, kwargs) else None
