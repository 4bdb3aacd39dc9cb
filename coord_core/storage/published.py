"""The row of table `snapshot`: the node's snapshot, and where the log begins since it was published."""

from typing import NamedTuple

import msgspec

from coord_core.protocol.members import Member
from coord_core.raft.messages import Configuration, SnapshotMetadata
from coord_core.storage import integrity
from coord_core.storage.snapshots import Publish, SnapshotInfo, Staging
from coord_core.types import LogIndex, Term


class SnapshotRow(NamedTuple):
    """In the order of the columns."""

    staging: Staging
    last_index: LogIndex
    term: Term
    #: msgpack of a `Configuration`.
    configuration: bytes
    #: msgpack of a tuple of `Member`.
    members: bytes
    chunks: int
    size: int
    sha256: bytes
    log_index: LogIndex
    log_term: Term
    row_index: LogIndex
    chain: bytes
    crc: int = 0

    @property
    def is_sound(self) -> bool:
        return self.crc == integrity.snapshot_crc(self[:-1])

    def info(self) -> SnapshotInfo:
        """Raises what msgspec raises."""
        configuration = msgspec.msgpack.decode(self.configuration, type=Configuration)
        members = msgspec.msgpack.decode(self.members, type=tuple[Member, ...])
        metadata = SnapshotMetadata(self.last_index, self.term, configuration)
        return SnapshotInfo(metadata, members, self.chunks, self.size, self.sha256)


def seal_snapshot(publish: Publish, row_index: LogIndex, chain: bytes) -> SnapshotRow:
    """Return the row for a snapshot behind which the log goes on with the row after `row_index` and the link `chain`."""
    info = publish.info
    row = SnapshotRow(
        staging=publish.staging,
        last_index=info.metadata.index,
        term=info.metadata.term,
        configuration=msgspec.msgpack.encode(info.metadata.configuration),
        members=msgspec.msgpack.encode(info.members),
        chunks=info.chunks,
        size=info.size,
        sha256=info.sha256,
        log_index=publish.log_index,
        log_term=publish.log_term,
        row_index=row_index,
        chain=chain,
    )
    return row._replace(crc=integrity.snapshot_crc(row[:-1]))
