"""The plugin's settings, read from the app's configuration when they are first needed.

    coord_url            coord://[token@]host:port[,host:port]/namespace
    coord_namespace      instead of the URL's
    coord_session_ttl    seconds (15): after a worker's main process dies, its locks are free within this time
    coord_lease_margin   seconds (2): pool processes that hold locks are dead this long before others could be granted them
    coord_eager          take locks in `apply()`, `task_always_eager` and direct calls too (False)

The session is renewed three times in its TTL.

Rule: read with `app.conf.get`, never `app.add_defaults`: that would override what the user configured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.exceptions import ImproperlyConfigured

from coord_core import errors
from coord_core.client.url import parse_url

MARGIN_S = 2
_EXAMPLE = "coord://127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403/"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the settings say, checked."""

    #: With namespace and TTL in it.
    url: str
    lease_margin_s: float

    @classmethod
    def read(cls, app: Celery) -> "Settings":
        """Return the app's settings; raises `ImproperlyConfigured` that names the fault."""
        url = _url(app.conf)
        margin_s = app.conf.get("coord_lease_margin", MARGIN_S)
        try:
            ttl_ms = parse_url(url).ttl_ms
        except errors.InvalidUrl as error:
            raise ImproperlyConfigured(f"coord: coord_url, coord_namespace or coord_session_ttl: {error}") from error
        for fault in _faults(ttl_ms / 1000, margin_s):
            raise ImproperlyConfigured(f"coord: {fault}")
        return cls(url, margin_s)


def _url(conf: Any) -> str:
    """Return `coord_url` with what the other settings say put into it."""
    url = conf.get("coord_url")
    if not url:
        raise ImproperlyConfigured(f'coord: coord_url is not set; for example coord_url = "{_EXAMPLE}"')
    base, _, query = url.partition("?")
    options = [option for option in query.split("&") if option]
    namespace, ttl_s = conf.get("coord_namespace"), conf.get("coord_session_ttl")
    scheme, _, rest = base.partition("://")
    if namespace and scheme == "coord+embedded":  # whose path is a directory's
        options = [option for option in options if not option.startswith("namespace=")] + [f"namespace={namespace.strip('/')}"]
    elif namespace:
        base = f"{scheme}://{rest.partition('/')[0]}/{namespace.strip('/')}"
    if ttl_s is not None:
        options = [option for option in options if not option.startswith("ttl=")] + [f"ttl={round(ttl_s * 1000)}ms"]
    return f"{base}?{'&'.join(options)}" if options else base


def _faults(ttl_s: float, margin_s: float) -> Iterator[str]:
    if not 0 < margin_s <= ttl_s / 3:
        yield (
            f"coord_lease_margin ({margin_s:g} s) must be above 0 and at most a third of coord_session_ttl ({ttl_s:g} s):"
            " else one late renewal would stop every singleton task"
        )
