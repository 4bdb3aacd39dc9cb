"""Which calls are the same work: the key of a call, and its paths in the service.

Rule: publisher and worker must find the same key, though one sees the caller's objects and the other what the serializer made of
them.  So a value is reduced to what JSON would make of it before it becomes part of a key: a tuple is its list, a datetime its ISO
text, a UUID its digits.  `f(1)` and `f(a=1)` are one call: arguments are bound to the signature, defaults applied.

The lock and the reservation of one key lie side by side:

    /celery/singleton/<task>/<key>/lock      DistributedLock, held while the task runs
    /celery/singleton/<task>/<key>/queued    DistributedValue, there from publish until the run begins
"""

import base64
import enum
import hashlib
import inspect
import json
import string
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

ROOT = "/celery/singleton"

#: What is longer is cut and gets its digest.  A path has room for 512 bytes, of which the namespace may take half.
KEY_BYTES_MAX = 120
NAME_BYTES_MAX = 80

#: The key of `unique_on=()`: one instance of the task, whatever its arguments.
GLOBAL_KEY = "*"


def call_key(
    signature: inspect.Signature,
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    *,
    key: str | Callable[..., str] | None,
    unique_on: tuple[str, ...] | None,
) -> str:
    """Return the key of one call.

    Raises `TypeError` where the arguments do not fit the signature, or one of them has no stable text (then name the arguments
    that matter with `unique_on`, or give a `key`).
    """
    if callable(key):
        return _text(key(*args, **kwargs))
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = _flat(signature, bound.arguments)
    if isinstance(key, str):
        return key.format_map(arguments)
    chosen = arguments if unique_on is None else {name: arguments.get(name) for name in unique_on}
    if not chosen:
        return GLOBAL_KEY
    return ",".join(f"{name}={_json(name, value)}" for name, value in chosen.items())


def lock_path(task_name: str, key: str) -> str:
    """Return the path of the lock of one key of one task."""
    return f"{_base(task_name, key)}/lock"


def reservation_path(task_name: str, key: str) -> str:
    """Return the path of the reservation of one key of one task."""
    return f"{_base(task_name, key)}/queued"


def template_fields(template: str) -> set[str]:
    """Return the argument names that a format string uses; raises `ValueError` where it is malformed."""
    fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    if any(not field or field[0].isdigit() for field in fields):
        raise ValueError("name the arguments: {user_id}, not {} or {0}")
    return {field.split(".")[0].split("[")[0] for field in fields}


def _base(task_name: str, key: str) -> str:
    return f"{ROOT}/{_segment(task_name, NAME_BYTES_MAX)}/{_segment(key, KEY_BYTES_MAX)}"


def _segment(text: str, bytes_max: int) -> str:
    """Return `text` as one path segment: not empty, no slash in it, and short."""
    escaped = (text or GLOBAL_KEY).replace("%", "%25").replace("/", "%2F")
    raw = escaped.encode("utf-8", "backslashreplace")
    if len(raw) <= bytes_max:
        return raw.decode()
    digest = hashlib.sha256(raw).hexdigest()[:40]
    return f"{raw[: bytes_max - 41].decode('utf-8', 'ignore')}~{digest}"


def _flat(signature: inspect.Signature, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the bound arguments by name, those of `**kwargs` among them."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            flat.update(sorted(value.items()))
        else:
            flat[name] = value
    return flat


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"key=... must return a str, not {type(key).__name__}")
    return key


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except TypeError as error:
        hint = "name the arguments that matter with unique_on=(...), or give key=..."
        raise TypeError(f"argument {name!r} has no stable key ({error}): {hint}") from None


def _plain(value: Any) -> Any:
    """Return what JSON would make of `value`, and what it makes of that again."""
    match value:
        case enum.Enum():
            return _plain(value.value)
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {_member_name(name): _plain(member) for name, member in value.items()}
        case list() | tuple():
            return [_plain(member) for member in value]
        case set() | frozenset():
            return sorted((_plain(member) for member in value), key=lambda member: json.dumps(member, sort_keys=True))
        case datetime() | date() | time():
            return value.isoformat()
        case UUID() | Decimal():
            return str(value)
        case bytes():
            return _plain_bytes(value)
    raise TypeError(f"a {type(value).__name__}")


def _member_name(name: Any) -> str:
    plain = _plain(name)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _plain_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
