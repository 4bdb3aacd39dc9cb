"""Reading topics: where records are near they are answered at once, else when the disk has given them.

A fetch is a linearizable read: a quorum has confirmed this leader when it was placed, so what it answers was there.  What retention
passes while the disk is asked is left out.

Bound: FETCHES_MAX wait for the disk; one more is refused with Busy.
"""

from dataclasses import dataclass
from itertools import count

import msgspec

from coord_core.errors import StorageCorrupt
from coord_core.machine import Machine
from coord_core.protocol.messages import ServerMessage, Told
from coord_core.protocol.results import Failed
from coord_core.protocol.topics import TopicFetch, TopicFetched, TopicRecord
from coord_core.replica.pending import Origin
from coord_core.replica.records import Records
from coord_core.types import TopicNumber

FETCHES_MAX = 1_024


@dataclass(frozen=True, slots=True)
class RecordRead:
    """Read records of a topic from the disk."""

    number: int
    topic: TopicNumber
    offset: int
    records_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class _Fetch:
    origin: Origin
    query: TopicFetch
    placed: TopicFetched


class Fetches:
    """The fetches of one node that wait for its disk."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._waiting: dict[int, _Fetch] = {}
        self._numbers = count(1)
        #: What is to be carried out by the next turn.
        self.reads: list[RecordRead] = []
        self.replies: list[tuple[int, ServerMessage]] = []

    @property
    def has_output(self) -> bool:
        return bool(self.reads or self.replies)

    def begin(self, origin: Origin, query: TopicFetch, machine: Machine, now_ms: int) -> None:
        """A confirmed fetch; `now_ms`: cluster time."""
        placed = machine.topics.place(query, now_ms)
        if isinstance(placed, Failed):
            self._tell(origin, placed)
            return
        if placed.next >= placed.end:
            self._tell(origin, placed)
            return
        found = self._records.read(placed.topic, placed.next, query.records_max, query.bytes_max)
        if found is not None:
            self._answer(origin, placed, found)
        elif len(self._waiting) >= FETCHES_MAX:
            busy = Failed("Busy", f"{FETCHES_MAX} fetches wait for the disk; try again in a moment", {"limit": FETCHES_MAX})
            self._tell(origin, busy)
        else:
            self._ask(_Fetch(origin, query, placed))

    def records_read(self, read: RecordRead, records: list[TopicRecord], machine: Machine) -> None:
        """The disk has answered.  Raises `StorageCorrupt` where it does not have what it must."""
        fetch = self._waiting.pop(read.number)
        topic = machine.topics.by_number.get(read.topic)
        first = records[0].offset if records else fetch.placed.end
        if topic is not None and first > max(read.offset, topic.kept.earliest):
            if self._records.read(read.topic, max(read.offset, topic.kept.earliest), 1, 1) is None:
                message = f"records of topic {read.topic} from {read.offset} on are missing, the next one is {first}"
                raise StorageCorrupt(f"{message}: this node must not go on from its data directory", topic=read.topic)
            records = []
        # What was published meanwhile belongs to a later fetch: its end is that of the moment when it was placed.
        end = fetch.placed.end
        records = [record for record in records if record.offset < end] if records and records[-1].offset >= end else records
        self._answer(fetch.origin, fetch.placed, records)

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _ask(self, fetch: _Fetch) -> None:
        number = next(self._numbers)
        self._waiting[number] = fetch
        query = fetch.query
        self.reads.append(RecordRead(number, fetch.placed.topic, fetch.placed.next, query.records_max, query.bytes_max))

    def _answer(self, origin: Origin, placed: TopicFetched, records: list[TopicRecord]) -> None:
        following = records[-1].offset + 1 if records else placed.next
        self._tell(origin, msgspec.structs.replace(placed, records=tuple(records), next=following))

    def _tell(self, origin: Origin, answer: TopicFetched | Failed) -> None:
        self.replies.append((origin[0], Told(origin[1], answer)))
