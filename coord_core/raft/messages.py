"""What consensus stores and what nodes say to each other.

These are plain records: no behaviour lives here.  They are msgspec structs so that the driver can write them to a socket or to
a disk without translating them, but nothing in this package encodes or decodes anything.

The union `Message` is closed: `match` over it ends in `assert_never`.
"""

from enum import IntEnum
from typing import TypeAlias

import msgspec

from coord_core.types import LogIndex, NodeId, Term


class EntryKind(IntEnum):
    """What an entry's bytes are."""

    #: Opaque to consensus.  Empty bytes are the no-op with which a leader begins its term (dissertation, 6.4).
    COMMAND = 0
    #: A membership change; takes effect when applied, as in etcd/raft.
    CONFIGURATION = 1


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot of the replicated log."""

    index: LogIndex
    term: Term
    kind: int
    data: bytes


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be durable before any message that depends on it leaves (Raft, figure 2: persistent state)."""

    term: Term = Term(0)
    #: The candidate that got this node's vote in `term`; 0 for none.
    voted_for: NodeId = NodeId(0)
    #: Highest index known to be committed.  Not needed for safety; it spares a restarted node the wait for a leader.
    commit: LogIndex = LogIndex(0)


class Configuration(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who votes.  `outgoing` is not empty while a joint change is under way (dissertation, 4.3)."""

    voters: tuple[NodeId, ...]
    outgoing: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    #: Voters of `outgoing` that become learners when the joint configuration is left.
    learners_next: tuple[NodeId, ...] = ()
    #: Leave the joint configuration without being asked, as soon as it is applied.
    auto_leave: bool = False


class SnapshotMetadata(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a snapshot stands in the log, and the configuration committed at that point."""

    index: LogIndex
    term: Term
    configuration: Configuration


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    sender: NodeId
    to: NodeId
    term: Term


class VoteRequest(_Message, frozen=True, tag=1):
    """RequestVote (Raft, 5.2), and its rehearsal where `pre_vote` (dissertation, 9.6): then `term` is the one it would start."""

    last_index: LogIndex
    last_term: Term
    pre_vote: bool
    #: The leader asked for this election (TimeoutNow): the receiver ignores its leader lease.
    transfer: bool = False


class VoteReply(_Message, frozen=True, tag=2):
    pre_vote: bool
    granted: bool
    #: Refused: what the voter knows to be committed, for a candidate that has it without knowing (`election.on_vote_reply`).
    commit: LogIndex = LogIndex(0)
    commit_term: Term = Term(0)


class Append(_Message, frozen=True, tag=3):
    """AppendEntries (Raft, 5.3)."""

    prev_index: LogIndex
    prev_term: Term
    commit: LogIndex
    entries: tuple[Entry, ...]


class AppendReply(_Message, frozen=True, tag=4):
    #: Accepted: the last index known to match.  Rejected: the `prev_index` that did not.
    index: LogIndex
    rejected: bool = False
    #: Where the follower suggests to probe next, with the term it has there.
    hint_index: LogIndex = LogIndex(0)
    hint_term: Term = Term(0)


class Heartbeat(_Message, frozen=True, tag=5):
    commit: LogIndex
    #: The read round this heartbeat confirms (dissertation, 6.4); 0 for none.
    context: int = 0


class HeartbeatReply(_Message, frozen=True, tag=6):
    context: int = 0


class InstallSnapshot(_Message, frozen=True, tag=7):
    """Tells a follower that what it needs is in a snapshot; the driver moves the bytes and reports back."""

    metadata: SnapshotMetadata


class TimeoutNow(_Message, frozen=True, tag=8):
    """The leader hands over: start an election at once (dissertation, 3.10)."""


Message: TypeAlias = VoteRequest | VoteReply | Append | AppendReply | Heartbeat | HeartbeatReply | InstallSnapshot | TimeoutNow
