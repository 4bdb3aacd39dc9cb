"""The options of a singleton task, checked when the task is declared.

Rule: a misspelt option or an impossible value fails at import, with the names that would have been right; it is never handed on to
Celery, which would set it as an attribute that nobody reads.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from coord_celery.keys import template_fields

SCOPES = ("queued", "running", "both")
ON_DUPLICATE = ("return", "raise", "ignore")
ON_CONFLICT = ("skip", "fail")
ON_LOST = ("abort", "raise", "ignore")
UNAVAILABLE_AT_PUBLISH = ("raise", "send")
UNAVAILABLE_AT_RUN = ("retry", "fail")

#: What `app.task` and `autoretry` take besides the attributes of the task class.
_CELERY_DECORATOR_OPTIONS = frozenset(
    {
        *("bind", "filter", "lazy", "shared"),
        *("autoretry_for", "dont_autoretry_for", "retry_backoff", "retry_backoff_max", "retry_jitter", "retry_kwargs"),
        *("pydantic", "pydantic_context", "pydantic_dump_kwargs", "pydantic_strict"),
        *("compression", "delivery_mode", "exchange", "exchange_type", "immediate", "mandatory", "queue", "routing_key"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SingletonOptions:
    """How a task is kept single.  Immutable; `validate` runs at construction."""

    #: Format string over the arguments (`"user-{user_id}"`) or a callable of the task's own arguments.  None: see `unique_on`.
    key: str | Callable[..., str] | None = None
    #: Names of the arguments that make the key.  None: all of them.  (): one instance of the task whatever its arguments.
    unique_on: tuple[str, ...] | str | None = None
    #: queued: no two in the queue.  running: no two running.  both: one queued or running at a time.
    scope: str = "both"
    #: At publish: hand back the AsyncResult of the one that is there, raise DuplicateTask, or drop it (result in state IGNORED).
    on_duplicate: str = "return"
    #: At run: succeed with None at once, or fail with SingletonConflict.
    on_conflict: str = "skip"
    #: Seconds after its ETA (or now) for which a queued task is believed in, if nobody ever sees it run.
    queued_ttl: float = 86400
    #: When the lock cannot be kept: kill the pool process in time, raise LockLost in the task, or go on.
    on_lost: str = "abort"
    #: (at publish: raise | send, at run: retry | fail) where the service does not answer.
    on_unavailable: tuple[str, str] = ("raise", "retry")

    def __post_init__(self) -> None:
        object.__setattr__(self, "on_unavailable", tuple(self.on_unavailable))
        faults = list(self._faults())
        if faults:
            raise ValueError("singleton task: " + "; ".join(faults))

    @property
    def key_names(self) -> tuple[str, ...] | None:
        """The arguments that make the key; None: all of them."""
        return (self.unique_on,) if isinstance(self.unique_on, str) else self.unique_on

    @property
    def reserves(self) -> bool:
        """Whether a place is reserved at publish."""
        return self.scope != "running"

    @property
    def locks(self) -> bool:
        """Whether the lock is taken at run."""
        return self.scope != "queued"

    def check_against(self, parameters: dict[str, inspect.Parameter]) -> None:
        """Raise `ValueError` where `key` or `unique_on` name arguments that the task does not take."""
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        used = template_fields(self.key) if isinstance(self.key, str) else set(self.key_names or ())
        unknown = sorted(used - set(parameters))
        if unknown:
            raise ValueError(f"singleton task: no argument named {', '.join(unknown)}; it takes ({', '.join(parameters)})")

    def _faults(self) -> Iterable[str]:
        yield from _choice("scope", self.scope, SCOPES)
        yield from _choice("on_duplicate", self.on_duplicate, ON_DUPLICATE)
        yield from _choice("on_conflict", self.on_conflict, ON_CONFLICT)
        yield from _choice("on_lost", self.on_lost, ON_LOST)
        yield from _pair(self.on_unavailable)
        yield from _key_faults(self.key, self.unique_on)
        if not _is_positive(self.queued_ttl):
            yield f"queued_ttl must be a number of seconds above 0, not {self.queued_ttl!r}"


def reject_unknown(options: Iterable[str], base: type) -> None:
    """Raise `TypeError` for an option that is neither ours nor Celery's, with the nearest name that is."""
    ours = set(SingletonOptions.__dataclass_fields__)
    for option in options:
        if option in _CELERY_DECORATOR_OPTIONS or option in ("base", "name") or hasattr(base, option):
            continue
        near = difflib.get_close_matches(option, ours | _CELERY_DECORATOR_OPTIONS | set(dir(base)), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"singleton task: unknown option {option!r}{hint}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> Iterable[str]:
    if value not in choices:
        yield f"{name} must be one of {', '.join(choices)}, not {value!r}"


def _pair(value: tuple[Any, ...]) -> Iterable[str]:
    if len(value) != 2:
        yield f"on_unavailable must be a pair (at publish, at run), not {value!r}"
        return
    yield from _choice("on_unavailable at publish", value[0], UNAVAILABLE_AT_PUBLISH)
    yield from _choice("on_unavailable at run", value[1], UNAVAILABLE_AT_RUN)


def _key_faults(key: Any, unique_on: Any) -> Iterable[str]:
    if not isinstance(unique_on, str | tuple | None):
        yield f"unique_on must be a tuple of names, not {unique_on!r}"
    if key is not None and unique_on is not None:
        yield "give key or unique_on, not both"
    if isinstance(key, str):
        try:
            template_fields(key)
        except ValueError as error:
            yield f"key {key!r} is not a format string over the arguments: {error}"
    elif key is not None and not callable(key):
        yield f"key must be a format string or a callable, not {key!r}"
