"""The network between the processes of one cluster, which can lose everything in one direction, silently.

Two of one form: `namespaces` (a kernel's own, where this process may make one) and `proxy` (sockets on loopback).  A *host* is a
name; nodes and clients live on hosts, and what is blocked is blocked between two of them, one way.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from tests.cluster.namespaces import Namespaces, NotAllowed
from tests.cluster.proxy import Proxies

T = TypeVar("T")


class Network(Protocol):
    #: What people are told.
    kind: str

    def address(self, node: str) -> str:
        """Return host:port by which everybody dials a node."""

    def listening(self, node: str) -> list[str]:
        """Return the flags of `coord server` by which the node is reached there."""

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` on a host."""

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` where everybody can be reached, whatever is blocked: for whoever watches."""

    def block(self, links: Iterable[tuple[str, str]]) -> None:
        """Lose, from now on, everything that goes from the first host of a pair to the second.  Nobody is told."""

    def unblock(self, links: Iterable[tuple[str, str]]) -> None: ...

    def close(self) -> None:
        """Leave nothing behind.  Idempotent."""


def open_network(nodes: Sequence[str], others: Sequence[str] = (), *, kind: str = "auto") -> Network:
    """Return a network of hosts for `nodes` and for clients on `others`.

    `kind`: "namespaces" (raises `NotAllowed` where the machine has none for us), "proxy", or "auto": the first that there is.
    """
    if kind in ("auto", "namespaces"):
        try:
            return Namespaces([*nodes, *others])
        except NotAllowed:
            if kind != "auto":
                raise
    return Proxies(nodes)


def both_ways(one: Iterable[str], other: Iterable[str]) -> list[tuple[str, str]]:
    """Return the links between two groups of hosts, in both directions."""
    others = list(other)
    return [link for a in one for b in others if a != b for link in ((a, b), (b, a))]


def one_way(sources: Iterable[str], targets: Iterable[str]) -> list[tuple[str, str]]:
    ends = list(targets)
    return [(a, b) for a in sources for b in ends if a != b]
