"""`client.create(path, DistributedLock)` and `client.get(path, DistributedLock)`: access by the class of the resource.

A name is bound to its type as long as there is something to remember under it, so `create` makes nothing but topics: it checks that
the name is free or of that type, and returns a handle.  `get` is for one that is there.
"""

from typing import TYPE_CHECKING, Any

from coord_core.errors import InvalidRequest, NotFound, WrongType
from coord_core.protocol.queries import PathInfo, PathState

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

#: By the name of the class, with or without "Async": the method that makes a handle, and what the machine calls it.
_KINDS = {
    "DistributedLock": ("lock", "lock"),
    "DistributedLeaderElection": ("election", "election"),
    "DistributedMembershipGroup": ("group", "group"),
    "DistributedTopic": ("topic", "topic"),
    "DistributedValue": ("value", "value"),
    "DistributedSemaphore": ("semaphore", "semaphore"),
    "RateLimiter": ("rate_limiter", "rate limiter"),
    "ParkingLot": ("parking", "parking"),
}


def factory_of(kind: type) -> str:
    """Return the method of a client that makes handles of a class.  Raises `InvalidRequest`."""
    return _names(kind)[0]


async def check(client: "AsyncClient", path: str, kind: type, *, must_exist: bool) -> None:
    """Raise `WrongType` where the name is another type's, `NotFound` where it must be in use and is not."""
    _, expected = _names(kind)
    state: PathState = await client.driver().ask(PathInfo(client.full_path(path)))
    if state.kind and state.kind != expected:
        raise WrongType(f"{path} is in use as a {state.kind}", path=path, type=state.kind)
    if must_exist and not state.kind:
        raise NotFound(f"there is no {expected} {path}: nobody uses it at the moment", path=path)


def _names(kind: type) -> tuple[str, str]:
    name: Any = getattr(kind, "__name__", "").removeprefix("Async")
    found = _KINDS.get(name)
    if found is None:
        raise InvalidRequest(f"{kind!r} is no resource; there are {', '.join(_KINDS)}", field="kind")
    return found
