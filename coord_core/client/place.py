"""Where the nodes are: what a client dials, and the secret that it shows there.

A cluster's URL says both.  An embedded node is at another address whenever another process has come to run it, so its place is
asked before every connection; running it, and taking over, is the business of `coord_core.embedded`, which is loaded by its name.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Protocol

from coord_core.client.url import ClientUrl, split_address


class Place(Protocol):
    """What one client has of it, from its first use to `leave`."""

    #: Shared secret of clients and nodes.
    token: str

    async def resolve(self, address: str) -> tuple[str, int]:
        """Return host and port to dial for an address.  Raises `CoordError` where there is nothing to dial yet."""
        ...

    async def addresses(self, known: Iterable[str]) -> list[str]:
        """Return host:port of every node to ask, of those that are known.  Raises as `resolve` does."""
        ...

    async def leave(self) -> None:
        """This client dials no more."""
        ...


class Addresses:
    """The nodes of a cluster, by host and port."""

    def __init__(self, token: str) -> None:
        self.token = token

    async def resolve(self, address: str) -> tuple[str, int]:
        return split_address(address)

    async def addresses(self, known: Iterable[str]) -> list[str]:
        return list(known)

    async def leave(self) -> None:
        pass


def load(url: ClientUrl) -> None:
    """Import what `place_of` needs, now: imports in the background and a fork at the same time do not go together."""
    if url.embedded:
        import_module("coord_core.embedded")


def place_of(url: ClientUrl) -> Place:
    """Return where the nodes of `url` are.  Raises `InvalidUrl` where its directory cannot be used."""
    if not url.embedded:
        return Addresses(url.token)
    place: Place = import_module("coord_core.embedded").join(url.addresses[0])
    return place
