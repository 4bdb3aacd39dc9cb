"""A leader's snapshots on their way to followers that lag behind its log.

A follower that needs one costs the leader a few chunks of memory and a read of the disk each, never a heartbeat and never the log:
compaction goes on.  Where it has gone on beyond the snapshot that was sent, the follower gets the next one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from coord_core.raft.messages import InstallSnapshot
from coord_core.raft.node import RaftNode
from coord_core.raft.progress import Sending as Flow
from coord_core.replica.config import SnapshotConfig
from coord_core.replica.facts import Fact, SnapshotSent
from coord_core.replica.transfer import PeerMessage, SnapshotAck, SnapshotChunk, SnapshotOffer
from coord_core.storage.snapshots import Chunk, SnapshotInfo, Staging
from coord_core.types import NodeId


@dataclass(frozen=True, slots=True)
class ChunkRead:
    """Read a chunk from the disk for a follower."""

    to: NodeId
    staging: Staging
    seq: int


@dataclass(slots=True)
class _Transfer:
    staging: Staging
    info: SnapshotInfo
    #: The follower has every chunk below it, for good.
    safe: int = 0
    #: The next one to be read.
    next: int = 0
    #: Ticks since the follower was last heard to make progress, and since the beginning.
    idle_ticks: int = 0
    age_ticks: int = 0


class Sending:
    """All transfers of one leadership."""

    def __init__(self, config: SnapshotConfig, raft: RaftNode) -> None:
        self._config = config
        self._raft = raft
        self._transfers: dict[NodeId, _Transfer] = {}
        #: What is to be carried out by the next turn.
        self.messages: list[PeerMessage] = []
        self.reads: list[ChunkRead] = []
        self.facts: list[Fact] = []

    @property
    def is_active(self) -> bool:
        return bool(self._transfers)

    @property
    def has_output(self) -> bool:
        return bool(self.messages or self.reads)

    def in_use(self) -> Iterable[Staging]:
        """The snapshots that must stay on the disk."""
        return [transfer.staging for transfer in self._transfers.values()]

    def begin(self, to: NodeId, staging: Staging, info: SnapshotInfo) -> None:
        """Consensus has nothing else for that follower: offer it the snapshot."""
        self._transfers[to] = _Transfer(staging, info)
        self._offer(to, info)

    def end_all(self) -> None:
        """This node leads no more, or in another term."""
        self._transfers.clear()
        self.messages.clear()
        self.reads.clear()

    def acknowledged(self, message: SnapshotAck) -> None:
        """A follower says what it has."""
        transfer = self._transfers.get(message.sender)
        if transfer is None or message.sha256 != transfer.info.sha256 or not _can_be(message):
            return
        if message.safe > transfer.safe:
            transfer.idle_ticks = 0
        if message.safe >= transfer.info.chunks:
            self._finish(message.sender, transfer)
            return
        if message.resume is None:
            transfer.safe = max(transfer.safe, message.safe)
        else:
            # It may have less than it had: it was started anew.
            transfer.safe, transfer.next = message.safe, message.resume
        self._read_on(message.sender, transfer)

    def asked(self, follower: NodeId) -> None:
        """It has all chunks, and asks for records: it makes progress."""
        if follower in self._transfers:
            self._transfers[follower].idle_ticks = 0

    def chunk_read(self, read: ChunkRead, chunk: Chunk | None) -> None:
        """The disk has answered; None: the chunk is gone."""
        transfer = self._transfers.get(read.to)
        if transfer is None or transfer.staging != read.staging:
            return
        if chunk is None:
            self._fail(read.to, transfer, "it is gone from the disk")
            return
        self.messages.append(
            SnapshotChunk(
                sender=self._raft.node_id,
                to=read.to,
                term=self._raft.term,
                sha256=transfer.info.sha256,
                seq=chunk.seq,
                crc=chunk.crc,
                data=chunk.data,
            )
        )

    def tick(self) -> None:
        if not self._transfers:
            return
        wanting = {peer.node_id for peer in self._raft.progress() if peer.state is Flow.SNAPSHOT}
        for to, transfer in list(self._transfers.items()):
            transfer.age_ticks += 1
            transfer.idle_ticks += 1
            if to not in wanting:
                # It has found its way without: another leader's snapshot, or entries that came late.
                del self._transfers[to]
            elif transfer.age_ticks >= self._config.give_up_ticks:
                self._fail(to, transfer, "it took too long")
            elif transfer.idle_ticks % self._config.retry_ticks == 0:
                self._offer(to, transfer.info)

    def _offer(self, to: NodeId, info: SnapshotInfo) -> None:
        self.messages.append(SnapshotOffer(sender=self._raft.node_id, to=to, term=self._raft.term, info=info))

    def _read_on(self, to: NodeId, transfer: _Transfer) -> None:
        end = min(transfer.info.chunks, transfer.safe + self._config.window_chunks)
        self.reads += [ChunkRead(to, transfer.staging, seq) for seq in range(transfer.next, end)]
        transfer.next = max(transfer.next, end)

    def _finish(self, to: NodeId, transfer: _Transfer) -> None:
        del self._transfers[to]
        metadata = transfer.info.metadata
        # In the present term: the one in which consensus asked for it may be over.
        self.messages.append(InstallSnapshot(sender=self._raft.node_id, to=to, term=self._raft.term, metadata=metadata))
        self._raft.report_snapshot(to, ok=True)
        self.facts.append(SnapshotSent(metadata.index, to))

    def _fail(self, to: NodeId, transfer: _Transfer, reason: str) -> None:
        del self._transfers[to]
        self._raft.report_snapshot(to, ok=False)
        self.facts.append(SnapshotSent(transfer.info.metadata.index, to, reason))


def _can_be(message: SnapshotAck) -> bool:
    """Whether a follower can have said so: what it has for good came in order."""
    return message.safe >= 0 and (message.resume is None or message.safe <= message.resume)
