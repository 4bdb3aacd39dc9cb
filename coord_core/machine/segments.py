"""What a topic keeps of its records, without the records: where it begins and ends, and what goes when.

Records stand in *segments*, about a 64th of what the topic may keep each, and go from the old end a segment at a time.  So a topic
of any length takes a few kilobytes here, and what is kept is exact to a 64th.

Rules:
- Offsets rise by one from 0 and are never given out twice.
- By bytes, a segment goes as soon as there is too much, but never the newest record.  By number, it goes when enough is left
  without it.  By age, when its last record is too old.
- There are at most SEGMENTS_MAX: over it, the two oldest become one.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, TypeAlias

from coord_core.machine.bounds import SEGMENTS_MAX
from coord_core.protocol.topics import Retention

#: A segment is full at this part of any of the limits.
_PARTS = 64

#: A segment in a snapshot: first offset, records, bytes, cluster time of its first and of its last record.
SegmentRow: TypeAlias = tuple[int, int, int, int, int]


class Segment:
    __slots__ = ("bytes", "count", "first", "first_ms", "last_ms")

    def __init__(self, first: int, count: int, size: int, first_ms: int, last_ms: int) -> None:
        self.first = first
        self.count = count
        self.bytes = size
        #: Cluster time of its first and of its last record.
        self.first_ms = first_ms
        self.last_ms = last_ms

    def row(self) -> SegmentRow:
        return self.first, self.count, self.bytes, self.first_ms, self.last_ms


class Segments:
    __slots__ = ("_age_max", "_bytes_max", "_count_max", "_segments", "bytes", "end", "retention")

    def __init__(self, retention: Retention, end: int = 0, rows: Iterable[SegmentRow] = ()) -> None:
        self._segments: deque[Segment] = deque(Segment(*row) for row in rows)
        #: The offset of the next record.
        self.end = end
        #: Of all records kept.
        self.bytes = sum(segment.bytes for segment in self._segments)
        self.configure(retention)

    @property
    def earliest(self) -> int:
        """The offset of the oldest record kept; `end` where there is none."""
        return self._segments[0].first if self._segments else self.end

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self._segments)

    def configure(self, retention: Retention) -> None:
        """Keep so much from now on; `trim` carries it out."""
        self.retention = retention
        no_limit = 1 << 62
        self._bytes_max = max(1, retention.bytes // _PARTS)
        self._count_max = no_limit if retention.records is None else max(1, retention.records // _PARTS)
        self._age_max = no_limit if retention.age_ms is None else max(1, retention.age_ms // _PARTS)

    def append(self, size: int, time_ms: int) -> int:
        """Take up a record of so many bytes; return its offset."""
        offset = self.end
        self.end = offset + 1
        self.bytes += size
        segment = self._segments[-1] if self._segments else None
        if segment is None or self._is_full(segment, size, time_ms):
            self._segments.append(Segment(offset, 1, size, time_ms, time_ms))
            if len(self._segments) > SEGMENTS_MAX:
                self._merge_oldest()
            return offset
        segment.count += 1
        segment.bytes += size
        segment.last_ms = time_ms
        return offset

    def trim(self, time_ms: int) -> bool:
        """Let go of what is over; return whether that was anything."""
        segments, retention = self._segments, self.retention
        before = len(segments)
        while segments and self._must_go(segments[0], retention, time_ms):
            self.bytes -= segments.popleft().bytes
        return len(segments) != before

    def goes_at_ms(self) -> int | None:
        """Return the cluster time at which the oldest segment is too old, as things stand."""
        age_ms = self.retention.age_ms
        return None if age_ms is None or not self._segments else self._segments[0].last_ms + age_ms

    def at(self, time_ms: int) -> int:
        """Return an offset at or before the first record of that time or later, by less than a segment; `end` where none is."""
        return next((segment.first for segment in self._segments if segment.last_ms >= time_ms), self.end)

    def rows(self) -> list[SegmentRow]:
        return [segment.row() for segment in self._segments]

    def state(self) -> Any:
        return self.end, self.bytes, self.rows()

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _is_full(self, segment: Segment, size: int, time_ms: int) -> bool:
        return (
            segment.bytes + size > self._bytes_max
            or segment.count >= self._count_max
            or time_ms - segment.first_ms >= self._age_max
        )

    def _must_go(self, oldest: Segment, retention: Retention, time_ms: int) -> bool:
        if retention.age_ms is not None and oldest.last_ms + retention.age_ms <= time_ms:
            return True
        if len(self._segments) == 1:
            return False
        if self.bytes > retention.bytes:
            return True
        return retention.records is not None and self.end - oldest.first - oldest.count >= retention.records

    def _merge_oldest(self) -> None:
        oldest, second = self._segments.popleft(), self._segments[0]
        second.first, second.first_ms = oldest.first, oldest.first_ms
        second.count += oldest.count
        second.bytes += oldest.bytes
