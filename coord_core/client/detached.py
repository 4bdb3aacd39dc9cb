"""Which detached session a client takes up: `Detached`.

A detached session outlives its process.  It is named after the work, not after who does it: a worker opens it, takes a lock, hands
it off and ends; a trigger takes it up and holds the lock on; another worker finishes.  Of two attempts at the same work the later
one takes over.
"""

import os
from dataclasses import dataclass

from coord_core.client import paths
from coord_core.client.settings import DetachedConfig
from coord_core.errors import InvalidRequest
from coord_core.protocol.commands import ACTOR_BYTES_MAX, HOLD_MS_MAX, INSTANCE_BYTES_MAX, Attempt

_ATTEMPT_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Detached:
    """A name and an attempt: `Client(url, detached=Detached("/etl/2026-11-25/load", attempt=2))`.

    `name`: a path, such as deployment, dag, run and task; it is in the client's namespace, and no resource's.  `attempt`: from 0,
    rising with every new try.  `instance`: tells tries of one number apart, the later one greater, as UUIDv7 are as text.
    """

    name: str
    attempt: int = 1
    instance: str = ""

    def config(self, namespace: str) -> DetachedConfig:
        """Return what one client is configured with, under a name of its own.  Raises `InvalidRequest`."""
        if not 0 <= self.attempt <= _ATTEMPT_MAX:
            raise InvalidRequest(f"an attempt is a number from 0 that rises with every try: {self.attempt!r}", field="attempt")
        if len(self.instance.encode(errors="surrogatepass")) > INSTANCE_BYTES_MAX:
            raise InvalidRequest(f"an instance has at most {INSTANCE_BYTES_MAX} bytes", field="instance")
        attempt = Attempt(self.attempt, self.instance)
        return DetachedConfig(paths.full_path(namespace, self.name), attempt, os.urandom(ACTOR_BYTES_MAX))


def hold_ms(hold: float) -> int:
    """Return the milliseconds for which a session is to be held.  Raises `InvalidRequest`."""
    if not 1 <= hold * 1000 <= HOLD_MS_MAX:
        raise InvalidRequest(f"hold is a number of seconds, at most {HOLD_MS_MAX // 1000}: {hold!r}", field="hold")
    return round(hold * 1000)


def fences(takeover: str) -> bool:
    """Return what a handle's `takeover` says.  Raises `InvalidRequest`."""
    if takeover not in ("wait", "fence"):
        raise InvalidRequest(f'takeover is "wait" or "fence": {takeover!r}', field="takeover")
    return takeover == "fence"
