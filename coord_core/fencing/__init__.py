"""Fencing: what a token is for.

A lease ends for the cluster and for its holder, but not for what the holder has already begun: a process that was stopped between
its last look and its write writes late.  Only the store that the write reaches can refuse it, by the rule of this room:

    a store remembers the greatest token that it has seen under a name, and refuses a smaller one in the same step in which the
    write takes effect.

An equal token is the same holder; a greater one is a later holder and is remembered; a smaller one raises `StaleToken`.

- `tokens`: what may be given as a token: a grant of a lock, a leadership, or a number.
- `sql`: `SqlFences`, `FencedColumn`: in the transaction of your own writes, with SQLAlchemy (PostgreSQL and SQLite).
- `redis`: `RedisFences`, `AsyncRedisFences`: in one script with your own writes.
- `headers`, `http`: a header that carries the token to a service, and a middleware (WSGI, ASGI) that refuses there.
- `memory`: `MemoryFences`: for a service that is one process and remembers nothing else either.

The names below are loaded when first used: neither SQLAlchemy nor a Redis client is imported by who does not use them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord_core.errors import StaleToken
    from coord_core.fencing.headers import HEADER, fencing_header, parse_header, raise_if_stale
    from coord_core.fencing.http import AsgiFencing, WsgiFencing
    from coord_core.fencing.memory import MemoryFences
    from coord_core.fencing.redis import AsyncRedisFences, RedisFences
    from coord_core.fencing.sql import FencedColumn, SqlFences
    from coord_core.fencing.tokens import Fencing

_HOMES = {
    "AsgiFencing": "http",
    "AsyncRedisFences": "redis",
    "FencedColumn": "sql",
    "Fencing": "tokens",
    "HEADER": "headers",
    "MemoryFences": "memory",
    "RedisFences": "redis",
    "SqlFences": "sql",
    "WsgiFencing": "http",
    "fencing_header": "headers",
    "parse_header": "headers",
    "raise_if_stale": "headers",
}

__all__ = [
    "HEADER",
    "AsgiFencing",
    "AsyncRedisFences",
    "FencedColumn",
    "Fencing",
    "MemoryFences",
    "RedisFences",
    "SqlFences",
    "StaleToken",
    "WsgiFencing",
    "fencing_header",
    "parse_header",
    "raise_if_stale",
]


def __getattr__(name: str) -> Any:
    if name == "StaleToken":
        from coord_core.errors import StaleToken

        return StaleToken
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
