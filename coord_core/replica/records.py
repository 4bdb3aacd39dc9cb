"""Records of topics on their way from the machine to the disk, and those that were published lately.

Every node keeps the records of what it applies.  They gather here for a moment, or until they are enough for a row or two, and go
into whatever is written next then; where nothing is, into a write of their own.  The log has them meanwhile.  Some stay longer: who
reads at the end of a topic gets them without the disk.

Rules:
- `take` gives out everything applied so far and not given out yet, so a write that says how far records reach is right to say it.
  A snapshot is published with such a write.
- Writes become durable in the order in which they were given out.
- What is not stored stays here, whatever the bounds say: it is as bounded as the log, from which it was made.  What is stored is
  kept up to TAIL_RECORDS_MAX and TAIL_BYTES_MAX, which is looked at when a write has become durable.
- Topics that are gone, and what retention has passed, go from the disk when nobody is being sent a snapshot.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from coord_core.machine import Machine
from coord_core.protocol.topics import TopicRecord
from coord_core.storage.records import Held, Stored, Trim, size_of
from coord_core.types import LogIndex, TopicNumber

TAIL_RECORDS_MAX = 8_192
TAIL_BYTES_MAX = 8 * 1024 * 1024

#: So much that is not stored, or what waits for so long, goes into the next write.  A row of a hundred records takes a quarter of
#: the processor time that ten rows of ten take (ADR 12).
DUE_BYTES = 128 * 1024
DUE_TICKS = 10

#: The two writes that may be under way at a time.
Way = Literal["persist", "stage"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What goes into a write."""

    records: Sequence[Stored]
    index: LogIndex
    trims: Sequence[Trim]


class Records:
    """See the module's text.  The replica owns it."""

    def __init__(self, held: Mapping[TopicNumber, Held]) -> None:
        #: Of every topic of which anything is stored or on its way: the end of it.
        self.ends: dict[TopicNumber, int] = {topic: each.end for topic, each in held.items()}
        # What is on the disk of topics that the machine may not have any more: until it was compared with the machine.
        self._unseen: dict[TopicNumber, Held] | None = dict(held)
        self._waiting: list[Stored] = []
        self._waiting_bytes = 0
        self._waited_ticks = 0
        self._trims: dict[TopicNumber, int | None] = {}
        # In order of their coming, with sizes; and by topic, in order and without gaps.
        self._order: deque[tuple[TopicNumber, int]] = deque()
        self._recent: dict[TopicNumber, deque[TopicRecord]] = {}
        self._bytes = 0
        # Every record has a number, in order of its coming: of the first one here, and of the first one not given out.
        self._first = 0
        self._taken = 0
        # Of each write under way, the number of its first record.
        self._under_way: dict[Way, int] = {}

    # --- from the machine --------------------------------------------------------------------------------------------------------

    def published(self, records: Sequence[Stored]) -> None:
        """An entry has published these."""
        for topic, record in records:
            size = size_of(record)
            recent = self._recent.get(topic)
            if recent is None:
                recent = self._recent[topic] = deque()
            recent.append(record)
            self._order.append((topic, size))
            self._bytes += size
            self._waiting_bytes += size
            if record.offset >= self.ends.get(topic, 0):
                self.ends[topic] = record.offset + 1
        self._waiting += records

    def trimmed(self, trims: Iterable[Trim]) -> None:
        """An entry has let go of these."""
        for topic, below in trims:
            self._trims[topic] = below
            if below is None:
                self.ends.pop(topic, None)

    def compare(self, machine: Machine) -> None:
        """The machine is there: find out what is stored and not needed any more.

        A topic that is younger than the machine's last entry is not gone: its entry comes yet.
        """
        unseen, self._unseen = self._unseen, None
        for topic, held in (unseen or {}).items():
            known = machine.logs.get(topic)
            if known is None and topic <= machine.index:
                self.trimmed([(topic, None)])
            elif known is not None and known.earliest > held.first:
                self.trimmed([(topic, known.earliest)])

    @property
    def must_compare(self) -> bool:
        return self._unseen is not None

    def begin_anew(self, machine: Machine) -> None:
        """A leader's snapshot has taken the machine's place; all its records are stored."""
        # What is under way is stored in any case; nobody asks for it here.
        self._first = self._taken = self._taken + len(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._order.clear()
        self._recent.clear()
        self._bytes = 0
        self._under_way.clear()
        self._unseen = {topic: Held(0, end) for topic, end in self.ends.items()}
        self.compare(machine)

    # --- to the disk -------------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        if self._waiting or self._trims:
            self._waited_ticks += 1

    @property
    def is_due(self) -> bool:
        """Whether what waits is to go into the next write."""
        return self._waiting_bytes >= DUE_BYTES or self._waited_ticks >= DUE_TICKS

    @property
    def wants_write(self) -> bool:
        """Whether a write of its own is wanted: what may go can wait for another."""
        return bool(self._waiting) and self.is_due

    def take(self, way: Way, index: LogIndex, *, trim: bool) -> Taken:
        """Return what goes into the next write, where everything up to `index` was applied; with `trim`, also what may go."""
        records, self._waiting = self._waiting, []
        self._waiting_bytes = self._waited_ticks = 0
        if records:
            self._under_way[way] = self._taken
            self._taken += len(records)
        trims: Sequence[Trim] = ()
        if trim and self._trims:
            trims, self._trims = list(self._trims.items()), {}
        return Taken(records, index, trims)

    def stored(self, way: Way) -> None:
        """That write is durable."""
        if self._under_way.pop(way, None) is not None:
            self._forget_stored()

    # --- reading -----------------------------------------------------------------------------------------------------------------

    def read(self, topic: TopicNumber, offset: int, records_max: int, bytes_max: int) -> list[TopicRecord] | None:
        """Return records from `offset` on, at least one; None where it has to be read from the disk."""
        recent = self._recent.get(topic)
        if not recent or not recent[0].offset <= offset <= recent[-1].offset:
            return None
        found: list[TopicRecord] = []
        size = 0
        begin = offset - recent[0].offset
        for record in islice(recent, begin, begin + records_max):
            size += size_of(record)
            if found and size > bytes_max:
                break
            found.append(record)
        return found

    def recent(self, topic: TopicNumber) -> list[TopicRecord]:
        """Return all that is here of a topic."""
        return list(self._recent.get(topic, ()))

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _forget_stored(self) -> None:
        """Let go of the oldest of what is stored, down to the bounds."""
        durable = min([self._taken, *self._under_way.values()])
        order = self._order
        while self._first < durable and (len(order) > TAIL_RECORDS_MAX or self._bytes > TAIL_BYTES_MAX):
            topic, size = order.popleft()
            self._first += 1
            self._bytes -= size
            recent = self._recent[topic]
            recent.popleft()
            if not recent:
                del self._recent[topic]
