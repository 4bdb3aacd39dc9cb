"""A leader's snapshot on its way into a follower: staged on the disk and read into a new machine as it comes.

A chunk is acknowledged when it is durable and read, so neither the disk nor the machine falls behind by more than the leader's
window. When the last one is, the sum over all is checked.  The machine then says which records its topics have; those that this
node has not are asked for, and when all are durable consensus may install it.
"""

from collections import deque
from collections.abc import Mapping

from coord_core.machine import Machine
from coord_core.replica.building import Build
from coord_core.replica.taking import take_chunks
from coord_core.replica.transfer import RecordsPart, SnapshotChunk
from coord_core.storage.snapshots import Chunk, SnapshotInfo, SnapshotSum, Staging, chunk_crc
from coord_core.types import TopicNumber


class Receiving:
    """One snapshot that arrives."""

    def __init__(self, info: SnapshotInfo, staging: Staging, machine: Machine) -> None:
        self.info = info
        self.staging = staging
        self.build = Build(machine)
        #: What the leader was told last.
        self.acknowledged = 0
        #: Since the leader was last heard about it.
        self.idle_ticks = 0
        #: Whole, verified, on the disk and in the machine; records may be missing yet.
        self.is_verified = False
        #: Records that this node does not have: topic, first offset, and the one behind the last.
        self.missing: deque[tuple[TopicNumber, int, int]] = deque()
        #: Those that came and are not on the disk; with the message that brought them.
        self.part: RecordsPart | None = None
        #: The last resumption that was asked for: once a gap, not once for each chunk behind it.
        self.resumed_at = -1
        self._sum = SnapshotSum(info.metadata, info.members)
        self._chunks: deque[Chunk] = deque()
        self._staged = 0

    @property
    def is_complete(self) -> bool:
        """Whether it may be installed."""
        return self.is_verified and not self.missing and self.part is None

    @property
    def safe(self) -> int:
        """Every chunk below it is durable and read."""
        return min(self._staged, self.build.read)

    @property
    def accepted(self) -> int:
        """How many chunks have come, durable and read or not."""
        return self._sum.chunks

    @property
    def has_chunks(self) -> bool:
        return bool(self._chunks)

    @property
    def has_arrived(self) -> bool:
        """Whether everything is durable and read, be it right or wrong."""
        return self.safe == self.info.chunks

    def take_in(self, message: SnapshotChunk) -> bool:
        """Take the next chunk; False where it is another, or damaged."""
        if message.seq != self.accepted or message.seq >= self.info.chunks or chunk_crc(message.seq, message.data) != message.crc:
            return False
        self._sum.add(message.data)
        self._chunks.append(Chunk(self.staging, message.seq, message.crc, message.data))
        self.build.add(message.data)
        return True

    def take(self, most_bytes: int) -> list[Chunk]:
        """Return what goes into the next transaction."""
        return take_chunks(self._chunks, most_bytes)

    def staged(self, count: int) -> None:
        self._staged += count

    def verify(self) -> bool:
        """Everything has arrived: whether it is what was offered."""
        self.is_verified = self._sum.fits(self.info)
        if self.is_verified:
            self.build.finish()
        return self.is_verified

    def look_for_missing(self, ends: Mapping[TopicNumber, int]) -> None:
        """Find out which records are missing, where of each topic there is everything up to its `ends`."""
        for topic, earliest, end in self.build.machine.logs.ranges():
            first = max(earliest, ends.get(topic, 0))
            if first < end:
                self.missing.append((topic, first, end))

    def take_in_records(self, message: RecordsPart) -> bool:
        """Take what was asked for last; False where it is something else."""
        if self.part is not None or not self.missing or (message.topic, message.offset) != self.missing[0][:2]:
            return False
        self.part = message
        return True

    def records_staged(self) -> None:
        """The part is durable."""
        part, self.part = self.part, None
        assert part is not None, "there was something to stage"
        topic, _, end = self.missing.popleft()
        if part.next < end:
            self.missing.appendleft((topic, part.next, end))
