"""`@singleton_task`: `app.task(base=SingletonTask)` with its options checked first."""

import inspect
from collections.abc import Callable
from typing import Any

from celery import Celery, shared_task

from coord_celery.options import SingletonOptions, reject_unknown
from coord_celery.task import SingletonTask


def singleton_task(
    app: Celery | None = None,
    *,
    key: str | Callable[..., str] | None = None,
    unique_on: tuple[str, ...] | str | None = None,
    scope: str = "both",
    on_duplicate: str = "return",
    on_conflict: str = "skip",
    queued_ttl: float = 86400,
    on_lost: str = "abort",
    on_unavailable: tuple[str, str] = ("raise", "retry"),
    **celery_task_options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Declare a task of which one is queued or running at a time for each key.

    Without `app` it is a shared task.  Options not named here are Celery's own (`bind`, `autoretry_for`, `acks_late`, ...).
    See `SingletonOptions` for what each option means.

    Raises `TypeError` for an unknown option and `ValueError` for an impossible value, when the task is declared.
    """
    if app is not None and not isinstance(app, Celery):
        raise TypeError("write @singleton_task(app) or, for a shared task, @singleton_task()")
    base = _with_singleton(celery_task_options.pop("base", None))
    reject_unknown(celery_task_options, base)
    options = SingletonOptions(
        key=key,
        unique_on=unique_on,
        scope=scope,
        on_duplicate=on_duplicate,
        on_conflict=on_conflict,
        queued_ttl=queued_ttl,
        on_lost=on_lost,
        on_unavailable=on_unavailable,
    )

    def declare(function: Callable[..., Any]) -> Any:
        options.check_against(_parameters(function, bound=bool(celery_task_options.get("bind"))))
        make = shared_task if app is None else app.task
        return make(base=base, singleton=options, **celery_task_options)(function)

    return declare


def _with_singleton(base: type | None) -> type:
    """Return a base class that is a singleton's and the user's."""
    if base is None:
        return SingletonTask
    if issubclass(base, SingletonTask):
        return base
    return type(f"Singleton{base.__name__}", (SingletonTask, base), {"abstract": True})


def _parameters(function: Callable[..., Any], *, bound: bool) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(function).parameters)
    if bound:
        parameters.pop(next(iter(parameters), ""), None)
    return parameters
