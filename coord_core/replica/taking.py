"""A node's own snapshot, from the decision to the last byte staged.

It is encoded in slices, between turns, as fast as the disk takes it: what is encoded and not staged is bounded.  What the machine
must write down at once because it is about to change is not; where that gathers (a disk that stands still under full load), the
snapshot is given up, and the next one is due at once.
"""

from collections import deque
from collections.abc import Sequence

from coord_core.machine import Machine
from coord_core.protocol.members import Member
from coord_core.raft.messages import SnapshotMetadata
from coord_core.replica.config import SnapshotConfig
from coord_core.storage.snapshots import Chunk, SnapshotInfo, SnapshotSum, Staging, chunk_crc

#: How much more than `pending_bytes` may gather before the snapshot is given up.
_GIVE_UP_FACTOR = 8


class Taking:
    """One own snapshot in the making."""

    def __init__(
        self, config: SnapshotConfig, staging: Staging, metadata: SnapshotMetadata, members: Sequence[Member], machine: Machine
    ) -> None:
        self.staging = staging
        self.metadata = metadata
        self._config = config
        self._members = tuple(members)
        self._machine = machine
        self._snapshot = machine.begin_snapshot(config.chunk_bytes)
        self._sum = SnapshotSum(metadata, members)
        self._chunks: deque[Chunk] = deque()
        self._chunk_bytes = 0

    @property
    def has_work(self) -> bool:
        """Whether a slice may be encoded now."""
        return not self._snapshot.done and self._chunk_bytes < self._config.pending_bytes

    @property
    def is_too_much(self) -> bool:
        return self._chunk_bytes + self._snapshot.pending_bytes > _GIVE_UP_FACTOR * self._config.pending_bytes

    @property
    def is_encoded(self) -> bool:
        """Whether everything has been encoded and taken."""
        return self._snapshot.done and not self._chunks

    @property
    def has_chunks(self) -> bool:
        return bool(self._chunks)

    def step(self, items: int) -> None:
        """Encode about so many items."""
        for data in self._snapshot.step(items):
            self._chunks.append(Chunk(self.staging, self._sum.chunks, chunk_crc(self._sum.chunks, data), data))
            self._sum.add(data)
            self._chunk_bytes += len(data)
        if self._snapshot.done:
            self._machine.end_snapshot()

    def take(self) -> list[Chunk]:
        """Return what goes into the next transaction, at least one chunk where there is any."""
        taken = take_chunks(self._chunks, self._config.stage_bytes)
        self._chunk_bytes -= sum(len(chunk.data) for chunk in taken)
        return taken

    def info(self) -> SnapshotInfo:
        """What to publish, when all of it is encoded."""
        return SnapshotInfo(self.metadata, self._members, self._sum.chunks, self._sum.size, self._sum.digest())

    def abandon(self) -> None:
        self._machine.end_snapshot()


def take_chunks(queue: deque[Chunk], most_bytes: int) -> list[Chunk]:
    """Take from the front what fits, at least one where there is any."""
    taken: list[Chunk] = []
    size = 0
    while queue and (not taken or size + len(queue[0].data) <= most_bytes):
        size += len(queue[0].data)
        taken.append(queue.popleft())
    return taken
