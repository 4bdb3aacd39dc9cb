"""Paths and the resources bound to them.

Rule: a name is bound exactly as long as its resource has something to remember (a holder, a waiter, data).  The resource binds it
with its first use and drops it with its last, so names made from task arguments do not pile up.  That a dropped and rebound name
never sees an old token again is no work of this file: tokens are log indexes.

Whoever changes what a name is bound to, or binds or drops it, has looked it up here just before, by `find` or `get`: then a
snapshot that is being written has seen it (see `snapshot`), and `bind` and `drop` know where it belongs.

The table is in shards, chosen by a checksum of the path: one dict of a million names stops the node for 65 ms when it grows, and
takes 25 to list.  The checksum is the same in every process; Python's own hash of a text is not.
"""

from typing import TYPE_CHECKING, ClassVar, TypeVar
from zlib import crc32

from coord_core.machine import refusals
from coord_core.machine.bounds import NAMES_BYTES_MAX, NAMES_MAX
from coord_core.protocol.operations import PATH_BYTES_MAX
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

#: A power of two.  At NAMES_MAX a shard has 32,000 names, which are listed, or make it grow, within two milliseconds.
_SHARDS = 64
_SHARD_MASK = _SHARDS - 1


class Names:
    __slots__ = ("_bytes", "_count", "_length", "_path", "_shard", "_shards", "snapshot")

    def __init__(self) -> None:
        self._shards: tuple[dict[str, Named], ...] = tuple({} for _ in range(_SHARDS))
        # How many are bound, and bytes of their paths.
        self._count = 0
        self._bytes = 0
        # The path looked up last, its bytes, and the shard in which it is or would be.
        self._path = ""
        self._length = 0
        self._shard = self._shards[0]
        #: The snapshot being written.
        self.snapshot: Snapshot | None = None

    def __len__(self) -> int:
        return self._count

    def find(self, path: str, kind: type[N]) -> N | Failed | None:
        """Return the resource of that type; None where the name is free; `Failed` where it is ill-formed or another type's."""
        try:
            encoded = path.encode()
        except UnicodeEncodeError:
            return refusals.check_path(path)
        self._path = path
        self._length = length = len(encoded)
        self._shard = shard = self._shards[crc32(encoded) & _SHARD_MASK]
        resource = shard.get(path)
        if resource is None:
            # A bound path was checked when it was bound.
            return None if length <= PATH_BYTES_MAX and path.startswith("/") else refusals.check_path(path)
        if self.snapshot is not None:
            self.snapshot.before_change(path, resource)
        if type(resource) is not kind:
            return refusals.wrong_type(path, resource.kind)
        return resource

    def get(self, path: str) -> Named:
        """Return what a path is bound to, to change it."""
        encoded = path.encode()
        self._path = path
        self._length = len(encoded)
        self._shard = shard = self._shards[crc32(encoded) & _SHARD_MASK]
        resource = shard[path]
        if self.snapshot is not None:
            self.snapshot.before_change(path, resource)
        return resource

    def look_up(self, name: str) -> Named | None:
        """Return what a name of the machine's own is bound to; it is no path, and no path is one."""
        encoded = name.encode()
        self._path = name
        self._length = len(encoded)
        self._shard = shard = self._shards[crc32(encoded) & _SHARD_MASK]
        return shard.get(name)

    def will_change(self, name: str, resource: Named) -> None:
        """Whoever has a resource at hand, and has not looked it up, says so before changing it."""
        if self.snapshot is not None:
            self.snapshot.before_change(name, resource)

    def bind(self, path: str, resource: Named) -> Failed | None:
        """Bind the path looked up last, which is free and well-formed; return why not, if so."""
        assert path == self._path, "a name is looked up before it is bound"
        if self._count >= NAMES_MAX:
            return refusals.over_limit("names in use", NAMES_MAX, self._count + 1)
        if self._bytes + self._length > NAMES_BYTES_MAX:
            return refusals.over_limit("bytes of all names in use", NAMES_BYTES_MAX, self._bytes + self._length)
        resource.written = 0 if self.snapshot is None else self.snapshot.number
        self._shard[path] = resource
        self._count += 1
        self._bytes += self._length
        return None

    def drop(self, path: str) -> None:
        """Free the path looked up last."""
        del self._shard[path]
        self._count -= 1
        self._bytes -= self._length

    def restore(self, path: str, resource: Named) -> None:
        """Bind a path from a snapshot: it was within the bounds."""
        encoded = path.encode()
        resource.written = 0
        self._shards[crc32(encoded) & _SHARD_MASK][path] = resource
        self._count += 1
        self._bytes += len(encoded)

    # --- looking at all of them --------------------------------------------------------------------------------------------------

    def shards(self) -> tuple[dict[str, Named], ...]:
        """Return the tables that together have every name, only to look at them."""
        return self._shards

    def of_type(self, kind: type[N]) -> list[tuple[str, N]]:
        """Return the names bound to resources of that type, in order of their paths."""
        return sorted((path, resource) for shard in self._shards for path, resource in shard.items() if type(resource) is kind)
