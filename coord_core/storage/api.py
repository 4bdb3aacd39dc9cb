"""What a node needs of its disk: the seam between consensus and where bytes rest.

Snapshots come in by the same batches: `snapshots` says how.

The contract, held by one test suite over every implementation (tests/storage):

1. `write` returns only when the whole batch is durable, and applies it wholly or not at all.
2. `load` after a crash returns the state of some prefix of the writes that includes every write that returned.
3. Everything but `close` is called from one thread at a time (the node's writer thread); `read_records` from one more.
4. An error in `write` is final: the storage is poisoned, every later call raises the same error, and the node stops.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from coord_core.protocol.members import Member
from coord_core.protocol.topics import TopicRecord
from coord_core.raft.messages import Entry, HardState, SnapshotMetadata
from coord_core.raft.zero import START
from coord_core.storage.records import Held, Stored, Trim
from coord_core.storage.snapshots import FIRST_STAGING, Chunk, Publish, Staging, StoredSnapshot
from coord_core.types import LogIndex, NodeId, TopicNumber


class Identity(msgspec.Struct, frozen=True):
    """Who this data directory is, written once when the node is formed and never changed."""

    #: 32 hexadecimal digits, drawn when the cluster was formed.
    cluster_id: str
    node_id: NodeId
    name: str
    #: Drawn when the data directory was made: a wiped directory is another incarnation and cannot vote in this one's name.
    incarnation: str


class Bootstrap(msgspec.Struct, frozen=True):
    """What a node begins with: the founding configuration, on which all agree, and whom to turn to."""

    identity: Identity
    #: By rising id: all founders; or, for a node that joined later, the members at that moment, itself among them.
    members: tuple[Member, ...]
    #: index 1, term 1, the founders as voters: everyone starts from this empty snapshot.
    snapshot: SnapshotMetadata


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction: everything consensus wants durable together."""

    #: Entries to append.  Contiguous; `entries[0].index` may lie at or below the last stored index, and then replaces that suffix.
    entries: Sequence[Entry] = ()
    hard_state: HardState | None = None
    #: Chunks of a snapshot that may be published one day.
    stage: Sequence[Chunk] = ()
    #: Comes before the entries: those follow the log that it leaves.
    publish: Publish | None = None
    #: Stagings whose chunks are not needed any more.  They go when it suits; the one that is published must not be among them.
    discard: Sequence[Staging] = ()
    #: Records of topics, of each topic in the order of their offsets.  What is stored already, or comes too late, is passed over.
    records: Sequence[Stored] = ()
    #: With these, all records of the entries up to here are stored.  None: it stays where it was.  It is as far as a snapshot that
    #: is published, whose log is trimmed.
    records_index: LogIndex | None = None
    #: What retention has passed.  It goes when it suits.
    trims: Sequence[Trim] = ()

    @property
    def is_empty(self) -> bool:
        nothing = not (self.entries or self.stage or self.discard or self.records or self.trims)
        return nothing and self.hard_state is None and self.publish is None


@dataclass(frozen=True, slots=True)
class Restored:
    """What a node finds on its disk."""

    bootstrap: Bootstrap
    hard_state: HardState
    #: All entries after `snapshot.log_index`, or after `bootstrap.snapshot.index` where there is no other snapshot; contiguous.
    entries: Sequence[Entry]
    snapshot: StoredSnapshot | None = None
    #: Above every staging of which anything is left.
    next_staging: Staging = FIRST_STAGING
    #: All records of the entries up to here are stored.
    records_index: LogIndex = START
    #: What is stored of topics, also of some that are gone; it may be more than that.
    held: Mapping[TopicNumber, Held] = field(default_factory=dict)

    @property
    def members(self) -> tuple[Member, ...]:
        """The nodes of the cluster as of the snapshot, and those that this node was told of when it joined later than that."""
        if self.snapshot is None:
            return self.bootstrap.members
        info = self.snapshot.info
        known = {member.node_id for member in info.members}
        later = (m for m in self.bootstrap.members if m.node_id > info.metadata.index and m.node_id not in known)
        return (*info.members, *later)


class Storage(Protocol):
    def load(self) -> Restored | None:
        """Return what is stored, or None where the node has not been formed yet.

        Raises `StorageCorrupt` where a checksum, the hash chain or the mark does not fit.
        """

    def form(self, bootstrap: Bootstrap) -> None:
        """Store the founding configuration, once.  Raises `StorageFailed` where the node has one already."""

    def write(self, batch: Batch) -> None:
        """Make the batch durable.  Raises `StorageFailed`; then the node must stop, and the storage refuses all further use."""

    def read_chunk(self, staging: Staging, seq: int) -> Chunk | None:
        """Return a staged chunk, published or not; None where it was discarded.  Raises `StorageCorrupt`."""

    def read_records(self, topic: TopicNumber, offset: int, records_max: int, bytes_max: int) -> Sequence[TopicRecord]:
        """Return stored records from `offset` on, or from the first one behind it that is left; at least one where there is any.

        Raises `StorageCorrupt`.
        """

    def last_index(self) -> LogIndex:
        """Index of the last durable entry (the snapshot's, or the founding one's, where there is none)."""

    def close(self) -> None:
        """Release files and locks.  Idempotent."""
