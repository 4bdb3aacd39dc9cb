"""Reading topics and parking lots: where records are near they are answered at once, else when the disk has given them.

A fetch is a linearizable read: a quorum has confirmed this leader when it was placed, so what it answers was there.  What retention
passes while the disk is asked is left out.  Followers that need a snapshot's records are served the same way.

Bound: FETCHES_MAX wait for the disk; a client's fetch over it is refused with Busy, a follower asks again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TypeAlias

import msgspec

from coord_core.errors import StorageCorrupt
from coord_core.machine import Machine
from coord_core.machine.parked import Placed
from coord_core.protocol.messages import ServerMessage, Told
from coord_core.protocol.parking import Delivery, ParkingFetch, ParkingFetched
from coord_core.protocol.results import Failed
from coord_core.protocol.topics import FETCH_BYTES_MAX, FETCH_RECORDS_MAX, TopicFetch, TopicFetched, TopicRecord
from coord_core.replica.pending import Origin
from coord_core.replica.records import Records
from coord_core.replica.transfer import PeerMessage, RecordsAsk, RecordsPart
from coord_core.storage.records import take
from coord_core.types import TopicNumber

FETCHES_MAX = 1_024

Then: TypeAlias = Callable[[list[TopicRecord]], None]


@dataclass(frozen=True, slots=True)
class RecordRead:
    """Read records of a topic from the disk."""

    number: int
    topic: TopicNumber
    offset: int
    records_max: int
    bytes_max: int


_BUSY = Failed("Busy", f"{FETCHES_MAX} reads of records wait for the disk; try again in a moment", {"limit": FETCHES_MAX})


class _Gathering:
    """The messages of one fetch from a parking lot, as they come."""

    def __init__(self, answer: ParkingFetched, placed: list[Placed], tell: Callable[[ParkingFetched], None]) -> None:
        self._answer = answer
        self._tell = tell
        self._left = len(placed)
        self._found: dict[int, Delivery] = {}

    def take(self, placed: Placed, records: list[TopicRecord]) -> None:
        # What was taken away meanwhile has no message any more.
        if records and records[0].offset == placed.at:
            offset = placed.delivery.offset
            self._found[offset] = msgspec.structs.replace(placed.delivery, message=records[0].payload)
        self._left -= 1
        if not self._left:
            deliveries = tuple(self._found[offset] for offset in sorted(self._found))
            self._tell(msgspec.structs.replace(self._answer, deliveries=deliveries))


class Fetches:
    """What one node reads of its records for others."""

    def __init__(self, records: Records) -> None:
        self._records = records
        # What becomes of the records that the disk was asked for, and whether some may be missing.
        self._waiting: dict[int, tuple[Then, bool]] = {}
        self._numbers = count(1)
        #: What is to be carried out by the next turn.
        self.reads: list[RecordRead] = []
        self.replies: list[tuple[int, ServerMessage]] = []
        self.messages: list[PeerMessage] = []

    @property
    def has_output(self) -> bool:
        return bool(self.reads or self.replies or self.messages)

    # --- who asks ----------------------------------------------------------------------------------------------------------------

    def fetch(self, origin: Origin, query: TopicFetch, machine: Machine, now_ms: int) -> None:
        """A client's fetch, confirmed; `now_ms`: cluster time."""
        placed = machine.topics.place(query, now_ms)
        if isinstance(placed, Failed) or placed.next >= placed.end:
            self._tell(origin, placed)
            return

        def then(records: list[TopicRecord]) -> None:
            # What was published meanwhile belongs to a later fetch.
            known = tuple(record for record in records if record.offset < placed.end)
            following = known[-1].offset + 1 if known else placed.next
            self._tell(origin, msgspec.structs.replace(placed, records=known, next=following))

        if not self._read(placed.topic, placed.next, query.records_max, query.bytes_max, then):
            self._tell(origin, _BUSY)

    def fetch_deliveries(self, origin: Origin, query: ParkingFetch, machine: Machine) -> None:
        """A client's fetch from a parking lot, confirmed.  Its messages are in several bins: each is read for itself."""
        found = machine.parking.place(query)
        if isinstance(found, Failed):
            self._tell(origin, found)
        elif len(self._waiting) + len(found[1]) > FETCHES_MAX:
            self._tell(origin, _BUSY)
        elif not found[1]:
            self._tell(origin, found[0])
        else:
            gathering = _Gathering(found[0], found[1], partial(self._tell, origin))
            for each in found[1]:
                self._read(each.bin, each.at, 1, FETCH_BYTES_MAX, partial(gathering.take, each))

    def asked(self, ask: RecordsAsk, machine: Machine) -> None:
        """A follower asks for records that belong to a snapshot.  Those below the topic's earliest need not go along.

        The disk may lack more at the old end than the machine says: this node may have been started anew and not have come again to
        an entry that let go of them.  The follower comes to that entry too.
        """
        kept = machine.logs.get(ask.topic)
        begin = ask.end if kept is None else max(ask.offset, kept.earliest)

        def then(records: list[TopicRecord]) -> None:
            if not records and begin < ask.end:
                # What is left of them is so young that it is in memory only.
                young = [record for record in self._records.recent(ask.topic) if record.offset >= begin]
                records = take(young, FETCH_RECORDS_MAX, FETCH_BYTES_MAX)
            wanted = tuple(record for record in records if begin <= record.offset < ask.end)
            following = wanted[-1].offset + 1 if wanted else ask.end
            part = RecordsPart(
                sender=ask.to,
                to=ask.sender,
                term=ask.term,
                sha256=ask.sha256,
                topic=ask.topic,
                offset=ask.offset,
                records=wanted,
                next=following,
            )
            self.messages.append(part)

        if begin >= ask.end:
            then([])
        else:
            self._read(ask.topic, begin, FETCH_RECORDS_MAX, FETCH_BYTES_MAX, then, whole=False)

    # --- the disk ----------------------------------------------------------------------------------------------------------------

    def records_read(self, read: RecordRead, records: list[TopicRecord], machine: Machine) -> None:
        """The disk has answered.  Raises `StorageCorrupt` where it does not have what it must."""
        then, whole = self._waiting.pop(read.number)
        log = machine.logs.get(read.topic)
        if log is not None and whole:
            begin = max(read.offset, log.earliest)
            # What retention has passed meanwhile may be there or not; where that is all, who asked asks again.
            kept = [record for record in records if record.offset >= begin]
            if kept or not records:
                self._check_whole(read.topic, begin, log.end, kept)
            records = kept
        then(records)

    def _check_whole(self, topic: TopicNumber, begin: int, end: int, records: list[TopicRecord]) -> None:
        if records:
            is_whole = records[0].offset == begin and records[-1].offset - begin + 1 == len(records)
        else:
            # So young that it is in memory only.
            is_whole = begin >= end or self._records.read(topic, begin, 1, 1) is not None
        if not is_whole:
            message = f"of the records of topic {topic} from {begin} on some are missing"
            advice = "this node must not go on from its data directory; move it away and rejoin the cluster under a new node id"
            raise StorageCorrupt(f"{message}: {advice}", topic=topic)

    def _read(self, topic: TopicNumber, offset: int, records_max: int, bytes_max: int, then: Then, *, whole: bool = True) -> bool:
        """Read, now or soon; False where too many wait for the disk.  `whole`: what the machine has must be there."""
        found = self._records.read(topic, offset, records_max, bytes_max)
        if found is not None:
            then(found)
        elif len(self._waiting) >= FETCHES_MAX:
            return False
        else:
            number = next(self._numbers)
            self._waiting[number] = then, whole
            self.reads.append(RecordRead(number, topic, offset, records_max, bytes_max))
        return True

    def _tell(self, origin: Origin, answer: TopicFetched | ParkingFetched | Failed) -> None:
        self.replies.append((origin[0], Told(origin[1], answer)))
