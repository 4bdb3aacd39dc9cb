"""What a replica can be told, with units and how the figures hang together."""

from dataclasses import dataclass, field

from coord_core.machine import CHUNK_BYTES_MAX
from coord_core.raft.config import RaftConfig
from coord_core.replica.lanes import LaneLimits
from coord_core.replica.watches import PUSHED_RECORDS_MAX

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SnapshotConfig:
    """When a node takes a snapshot, what it keeps of the log then, and how it moves snapshots."""

    #: Applied entries, or bytes of them, since the last snapshot that make the next one due.  It is not taken before the log since
    #: the last one has as many bytes as that had: a large state is not written again and again for a few entries.
    entries: int = 50_000
    bytes: int = 64 * _MIB
    #: What of the log is kept before the applied index, at most so many entries of so many bytes: a follower that lags less
    #: needs no snapshot, and one that lags more holds up nothing.
    trailing_entries: int = 10_000
    trailing_bytes: int = 16 * _MIB
    #: Bytes of a chunk, at most what a frame between nodes may have.
    chunk_bytes: int = CHUNK_BYTES_MAX
    #: Bytes of chunks in one transaction.  A commit of the log may have to wait for it.
    stage_bytes: int = _MIB
    #: Encoded bytes that may wait for the disk before no more are encoded; eight times as much, and the snapshot is given up.
    pending_bytes: int = 4 * _MIB
    #: Chunks on their way to one follower: what a heartbeat may have to wait for.
    window_chunks: int = 4
    #: Without progress for this long a snapshot is offered again.
    retry_ticks: int = 10
    #: A transfer that takes longer is given up: its snapshot must not stay on the disk for ever.
    give_up_ticks: int = 12_000


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    raft: RaftConfig
    #: Milliseconds between two calls of `Replica.tick`; elections and heartbeats count in these.
    tick_ms: int = 50
    lanes: LaneLimits = field(default_factory=LaneLimits)
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    #: Records that a follower of a stream is given and has not acknowledged.
    pushed_records_max: int = PUSHED_RECORDS_MAX
