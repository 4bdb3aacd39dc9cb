"""A table by number that never stops the node: it grows a part at a time.

A plain dict of a million items takes 65 ms to grow.  Where one owner may come to have so many, its dict becomes a `Spread` at
SPREAD_AT items; below, the plain dict is faster and smaller.  It does not turn back.
"""

from collections.abc import Iterator, MutableMapping
from typing import TypeVar

K = TypeVar("K", bound=int)
V = TypeVar("V")

#: A dict of so many grows in well under a millisecond.
SPREAD_AT = 8_192

_PARTS = 256


class Spread(MutableMapping[K, V]):
    """What a dict can do, in no particular order."""

    __slots__ = ("_count", "_parts")

    def __init__(self, items: dict[K, V]) -> None:
        self._parts: tuple[dict[K, V], ...] = tuple({} for _ in range(_PARTS))
        self._count = 0
        self.update(items)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        for part in self._parts:
            yield from part

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and key in self._parts[key % _PARTS]

    def __getitem__(self, key: K) -> V:
        return self._parts[key % _PARTS][key]

    def __setitem__(self, key: K, value: V) -> None:
        part = self._parts[key % _PARTS]
        self._count -= len(part)
        part[key] = value
        self._count += len(part)

    def __delitem__(self, key: K) -> None:
        del self._parts[key % _PARTS][key]
        self._count -= 1

    def popitem(self) -> tuple[K, V]:
        """Remove and return any item.  Raises KeyError where there is none."""
        for part in self._parts:
            if part:
                self._count -= 1
                return part.popitem()
        raise KeyError("the table is empty")


def spread(items: MutableMapping[K, V]) -> MutableMapping[K, V]:
    """Return a table with the same items that may become large."""
    return Spread(items) if isinstance(items, dict) else items
