"""Logs beside the machine: which records every node must have, by the number of their log and their offsets.

Topics and parking lots put messages into logs; what a log is to them is their business.  Whoever keeps records looks here.
"""

from collections.abc import Iterator
from typing import Protocol

from coord_core.types import TopicNumber


class Kept(Protocol):
    """What is kept of one log: every record from `earliest` to before `end`."""

    @property
    def earliest(self) -> int: ...

    @property
    def end(self) -> int: ...


class Logs(dict[TopicNumber, Kept]):
    """By number: the index of the entry that made the log, so no two are alike."""

    __slots__ = ()

    def ranges(self) -> Iterator[tuple[TopicNumber, int, int]]:
        """Yield of every log its number, its earliest offset and its end."""
        return ((number, kept.earliest, kept.end) for number, kept in self.items())
