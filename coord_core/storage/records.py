"""Records of topics as storages take, hold and give them.

The rule: *a record is a fact*.  What stands under (topic, offset) is the same on every node and for ever, so it is written once, by
whichever way it comes first (applied from the log, or sent along with a snapshot), and what comes again is passed over (ADR 12).
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from coord_core.protocol.topics import TopicRecord
from coord_core.types import TopicNumber

#: What is stored.
Stored: TypeAlias = tuple[TopicNumber, TopicRecord]
#: Nothing of a topic below an offset is kept any more; None: nothing at all.
Trim: TypeAlias = tuple[TopicNumber, int | None]

#: What msgpack adds to a record's bytes, about.
_OVERHEAD_BYTES = 32


class Held(NamedTuple):
    """What a storage has of a topic: from its first record on there is every one below `end`, but for what was trimmed."""

    first: int
    end: int


def size_of(record: TopicRecord) -> int:
    """Return about how many bytes a record takes."""
    size = _OVERHEAD_BYTES + len(record.payload) + len(record.key or b"")
    return size + sum(len(name) + len(value) for name, value in record.headers) if record.headers else size


def take(records: Sequence[TopicRecord], records_max: int, bytes_max: int) -> list[TopicRecord]:
    """Return as many from the front as fit, at least one where there is any."""
    taken: list[TopicRecord] = []
    size = 0
    for record in records[:records_max]:
        size += size_of(record)
        if taken and size > bytes_max:
            break
        taken.append(record)
    return taken
