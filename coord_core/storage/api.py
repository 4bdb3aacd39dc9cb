"""What a node needs of its disk: the seam between consensus and where bytes rest.

The contract, held by one test suite over every implementation (tests/storage):

1. `write` returns only when the whole batch is durable, and applies it wholly or not at all.
2. `load` after a crash returns the state of some prefix of the writes that includes every write that returned.
3. `write` and `load` are called from one thread at a time (the node's writer thread).
4. An error in `write` is final: the storage is poisoned, every later call raises the same error, and the node stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from coord_core.protocol.members import Member
from coord_core.raft.messages import Entry, HardState, SnapshotMetadata
from coord_core.types import LogIndex, NodeId


class Identity(msgspec.Struct, frozen=True):
    """Who this data directory is, written once when the node is formed and never changed."""

    #: 32 hexadecimal digits, drawn when the cluster was formed.
    cluster_id: str
    node_id: NodeId
    name: str
    #: Drawn when the data directory was made: a wiped directory is another incarnation and cannot vote in this one's name.
    incarnation: str


class Bootstrap(msgspec.Struct, frozen=True):
    """The founding configuration: what all founders agree on before the first election."""

    identity: Identity
    #: All founders, by rising id.
    members: tuple[Member, ...]
    #: index 1, term 1, the founders as voters: every founder starts from this empty snapshot.
    snapshot: SnapshotMetadata


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction: everything consensus wants durable together."""

    #: Entries to append.  Contiguous; `entries[0].index` may lie at or below the last stored index, and then replaces that suffix.
    entries: Sequence[Entry] = ()
    hard_state: HardState | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """What a node finds on its disk."""

    bootstrap: Bootstrap
    hard_state: HardState
    #: All entries after `bootstrap.snapshot.index`, contiguous.
    entries: Sequence[Entry]


class Storage(Protocol):
    def load(self) -> Restored | None:
        """Return what is stored, or None where the node has not been formed yet.

        Raises `StorageCorrupt` where a checksum, the hash chain or the mark does not fit.
        """

    def form(self, bootstrap: Bootstrap) -> None:
        """Store the founding configuration, once.  Raises `StorageFailed` where the node has one already."""

    def write(self, batch: Batch) -> None:
        """Make the batch durable.  Raises `StorageFailed`; then the node must stop, and the storage refuses all further use."""

    def last_index(self) -> LogIndex:
        """Index of the last durable entry (the founding snapshot's where there is none)."""

    def close(self) -> None:
        """Release files and locks.  Idempotent."""
