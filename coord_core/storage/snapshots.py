"""What a snapshot is to storages and to those who send it: numbered chunks, a sum over all of them, and what they are good for.

A snapshot comes into a storage in three steps.  Its chunks are *staged* under a number that the node gives it, in as many
transactions as it likes.  It is *published* in one: that transaction makes it the node's snapshot, in place of the one before,
and trims the log or replaces it.  What is not the node's snapshot any more, or never became it, is *discarded*, a few chunks at
a time.  At load everything staged that was not published is discarded: a crash in mid-stage leaves the former snapshot and the
whole log.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import NewType

import msgspec

from coord_core.protocol.members import Member
from coord_core.raft.messages import SnapshotMetadata
from coord_core.types import LogIndex, Term

#: Numbers the stagings of one data directory, from 1.  Never used twice as long as a chunk of it may be there.
Staging = NewType("Staging", int)
FIRST_STAGING = Staging(1)

_SEQ = Struct(">Q")
_encode = msgspec.msgpack.Encoder().encode


class SnapshotInfo(msgspec.Struct, frozen=True, array_like=True):
    """All there is to say of a snapshot besides its chunks."""

    metadata: SnapshotMetadata
    #: Names and addresses of the nodes, as of the same index.
    members: tuple[Member, ...]
    chunks: int
    #: Bytes of all chunks.
    size: int
    #: Of the above and all chunks: two snapshots with the same sum are one.
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk on its way to or from the disk."""

    staging: Staging
    #: From 0.
    seq: int
    #: `chunk_crc`.
    crc: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Publish:
    """Makes a staged snapshot the node's own.  All its chunks were staged before."""

    staging: Staging
    info: SnapshotInfo
    #: The log begins behind it, at or before the snapshot: what is kept below spares a follower that lags a little the snapshot.
    log_index: LogIndex
    log_term: Term
    #: The snapshot is a leader's: every stored entry goes.
    replaces_log: bool = False


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """The node's snapshot, as found on the disk; whole and verified."""

    staging: Staging
    info: SnapshotInfo
    #: The entries of the log follow it.
    log_index: LogIndex
    log_term: Term
    chunks: Sequence[bytes]


class SnapshotSum:
    """Sums up a snapshot while its chunks come by."""

    __slots__ = ("_hash", "chunks", "size")

    def __init__(self, metadata: SnapshotMetadata, members: Sequence[Member]) -> None:
        self._hash = sha256(_encode((metadata, tuple(members))))
        self.chunks = 0
        self.size = 0

    def add(self, data: bytes) -> None:
        self._hash.update(data)
        self.chunks += 1
        self.size += len(data)

    def digest(self) -> bytes:
        return self._hash.digest()

    def fits(self, info: SnapshotInfo) -> bool:
        """Whether what came by is all of that snapshot."""
        return (self.chunks, self.size, self.digest()) == (info.chunks, info.size, info.sha256)


def chunk_crc(seq: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_SEQ.pack(seq)))
