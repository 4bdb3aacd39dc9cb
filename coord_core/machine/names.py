"""Paths and the resources bound to them.

Rule: a name is bound exactly as long as its resource has something to remember (a holder, a waiter, data).  The resource binds it
with its first use and drops it with its last, so names made from task arguments do not pile up.  That a dropped and rebound name
never sees an old token again is no work of this file: tokens are log indexes.

Whoever changes what a name is bound to, or binds or drops it, gets it here in the same entry, by `find` or `get`: then a
snapshot that is being written has seen it before (see `snapshot`).
"""

from typing import TYPE_CHECKING, ClassVar, TypeVar

from coord_core.machine import refusals
from coord_core.machine.bounds import NAMES_BYTES_MAX, NAMES_MAX
from coord_core.protocol.results import Failed

if TYPE_CHECKING:
    from coord_core.machine.snapshot import Snapshot


class Named:
    """What a path can be bound to: base of `locks.Lock` and `values.Value`."""

    __slots__ = ("written",)

    #: Number of the snapshot that has this already, or began before this was bound.
    written: int

    #: For people, and the detail `type` of WrongType.
    kind: ClassVar[str]


N = TypeVar("N", bound=Named)


class Names:
    __slots__ = ("_bound", "_bytes", "snapshot")

    def __init__(self) -> None:
        self._bound: dict[str, Named] = {}
        # Bytes of all bound paths.
        self._bytes = 0
        #: The snapshot being written.
        self.snapshot: Snapshot | None = None

    def __len__(self) -> int:
        return len(self._bound)

    def get(self, path: str) -> Named | None:
        """Return the resource, to change it."""
        if self.snapshot is not None:
            self.snapshot.before_name(path)
        return self._bound.get(path)

    def bound(self, path: str) -> Named | None:
        """Return the resource, only to look at it."""
        return self._bound.get(path)

    def paths(self) -> list[str]:
        """Return every name in use."""
        return list(self._bound)

    def find(self, path: str, kind: type[N]) -> N | Failed | None:
        """Return the resource of that type; None where the name is free; `Failed` where it is ill-formed or another type's."""
        if self.snapshot is not None:
            self.snapshot.before_name(path)
        resource = self._bound.get(path)
        if resource is None:
            # A bound path was checked when it was bound.
            return refusals.check_path(path)
        if type(resource) is not kind:
            return refusals.wrong_type(path, resource.kind)
        return resource

    def bind(self, path: str, resource: Named) -> Failed | None:
        """Bind a free, well-formed path; return why not, if so."""
        assert path not in self._bound, f"{path} is bound already"
        length = refusals.utf8_length(path)
        if len(self._bound) >= NAMES_MAX:
            return refusals.over_limit("names in use", NAMES_MAX, len(self._bound) + 1)
        if self._bytes + length > NAMES_BYTES_MAX:
            return refusals.over_limit("bytes of all names in use", NAMES_BYTES_MAX, self._bytes + length)
        resource.written = 0 if self.snapshot is None else self.snapshot.number
        self._bound[path] = resource
        self._bytes += length
        return None

    def restore(self, path: str, resource: Named) -> None:
        """Bind a path from a snapshot: it was within the bounds."""
        resource.written = 0
        self._bound[path] = resource
        self._bytes += refusals.utf8_length(path)

    def drop(self, path: str) -> None:
        del self._bound[path]
        self._bytes -= refusals.utf8_length(path)

    def of_type(self, kind: type[N]) -> list[tuple[str, N]]:
        """Return the names bound to resources of that type, in order of their paths."""
        return sorted((path, resource) for path, resource in self._bound.items() if type(resource) is kind)
