"""What nodes say to each other to move a snapshot: offered, asked for, sent in chunks, acknowledged.

    leader:   SnapshotOffer  ->
    follower:                <-  SnapshotAck(safe=0, resume=0)
    leader:   SnapshotChunk 0, 1, 2, 3  ->
    follower:                <-  SnapshotAck(safe=2), SnapshotAck(safe=4), ...
    follower:                <-  RecordsAsk(topic, 17, 2000)     for what topics must have and it has not
    leader:   RecordsPart(17 ... 940)  ->
    follower:                <-  RecordsAsk(topic, 941, 2000), ...
    follower:                <-  SnapshotAck(safe=all)
    leader:   InstallSnapshot (consensus) ->         when all of it is safe

Which records there must be says the snapshot itself: of each topic, from its earliest to its end.  The follower asks for what it
lacks, a part at a time, and has it on its disk before it asks for the next; so it may be started anew, or go on with another
leader.

Every message may be lost or repeated.  A follower takes chunks in order only and says what it wants next; where that goes on too
long without progress the leader offers again, and the follower says where to resume, be it after a broken connection.
"""

from typing import TypeAlias

import msgspec

from coord_core.protocol.topics import TopicRecord
from coord_core.raft.messages import Message
from coord_core.replica.vitals import Vitals
from coord_core.storage.snapshots import SnapshotInfo
from coord_core.types import NodeId, Term, TopicNumber


class _Transfer(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    # Tags from 20: they share a union with the messages of consensus.
    sender: NodeId
    to: NodeId
    #: Of the leader: what another term says belongs to another leadership.
    term: Term


class SnapshotOffer(_Transfer, frozen=True, tag=20):
    info: SnapshotInfo


class SnapshotChunk(_Transfer, frozen=True, tag=21):
    #: The sum of the snapshot to which it belongs.
    sha256: bytes
    seq: int
    crc: int
    data: bytes


class SnapshotAck(_Transfer, frozen=True, tag=22):
    sha256: bytes
    #: Every chunk below it is on the follower's disk and in its machine: it may be sent as many more as the window has.  The number
    #: of all chunks: the snapshot is whole, and its sum is right.
    safe: int
    #: Send from here on, whatever was sent before: what came below it came in order.  None: go on as before.
    resume: int | None


class RecordsAsk(_Transfer, frozen=True, tag=23):
    sha256: bytes
    topic: TopicNumber
    #: From here on, but not this far.
    offset: int
    end: int


class RecordsPart(_Transfer, frozen=True, tag=24):
    sha256: bytes
    topic: TopicNumber
    #: What was asked for.
    offset: int
    records: tuple[TopicRecord, ...]
    #: Where to go on: what lies between here and the last record is not kept any more.
    next: int


TransferMessage: TypeAlias = SnapshotOffer | SnapshotChunk | SnapshotAck | RecordsAsk | RecordsPart

#: Everything that one node says to another.
PeerMessage: TypeAlias = Message | TransferMessage | Vitals
