"""`init_app`: hang the plugin on a Celery app.  Opens nothing; that comes with the first use, or with the worker."""

from typing import Any

from celery import Celery, signals

from coord_celery import run
from coord_celery.keys import reservation_path
from coord_celery.link import Link
from coord_celery.reservation import Reservation, withdraw_later, withdraw_task_later
from coord_celery.step import CoordStep, CoordThreadsStep
from coord_celery.task import SingletonTask


def init_app(app: Celery) -> Celery:
    """Give `app` its link to the coordination service and its workers their session.  Calling it again changes nothing.

    Declaring a singleton task does this by itself; call it where an app is to fail early without `coord_url`, or for clarity.
    """
    if not hasattr(app, "coord_link"):
        app.coord_link = Link(app)
        app.steps["worker"].update((CoordStep, CoordThreadsStep))
    _connect_signals()
    return app


def _connect_signals() -> None:
    """Connect the handlers, once a process: they look at the task to see whether it is theirs."""
    signals.task_postrun.connect(_on_postrun, weak=False, dispatch_uid="coord_celery.postrun")
    signals.task_revoked.connect(_on_revoked, weak=False, dispatch_uid="coord_celery.revoked")
    signals.task_failure.connect(_on_failure, weak=False, dispatch_uid="coord_celery.failure")
    signals.task_unknown.connect(_on_unknown, weak=False, dispatch_uid="coord_celery.unknown")


def _on_postrun(task: Any = None, task_id: str = "", **_: Any) -> None:
    if isinstance(task, SingletonTask):
        run.end(task, task_id)


def _on_revoked(sender: Any = None, request: Any = None, **_: Any) -> None:
    """Main process: the task will not run; its place is free.  On the event loop, so: later."""
    reservation = Reservation.from_headers(getattr(request, "headers", None))
    if reservation is not None and isinstance(sender, SingletonTask):
        withdraw_later(sender.coord_link, reservation)


def _on_failure(sender: Any = None, task_id: str = "", args: Any = None, kwargs: Any = None, **_: Any) -> None:
    """Main process: the pool process is gone, by a signal or a time limit; it may not have come to give up its place."""
    if isinstance(sender, SingletonTask) and sender.coord_link.must_not_wait:
        path = reservation_path(sender.name, sender.coord_key(args, kwargs))
        withdraw_task_later(sender.coord_link, path, task_id)


def _on_unknown(sender: Any = None, message: Any = None, **_: Any) -> None:
    """Main process: a singleton task that this worker does not know was thrown away."""
    reservation = Reservation.from_headers(getattr(message, "headers", None))
    link = getattr(getattr(sender, "app", None), "coord_link", None)
    if reservation is not None and link is not None:
        withdraw_later(link, reservation)
