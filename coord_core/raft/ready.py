"""What a node gives out: what there is to do, and what it knows of its peers."""

from dataclasses import dataclass

from coord_core.raft.messages import Entry, Message
from coord_core.raft.outbox import Persist
from coord_core.raft.progress import Progress, Sending
from coord_core.raft.reads import ReadState
from coord_core.types import LogIndex, NodeId


@dataclass(slots=True)
class Ready:
    """What there is to do.  The driver owns the lists."""

    #: To be made durable, then acknowledged with `persisted(persist.ack)`.  No other comes before that.
    persist: Persist | None
    #: May be sent at once, in this order to each peer; whatever must wait for the disk is not in here yet.
    messages: list[Message]
    #: To be applied in order, then reported with `applied`.  May not be on this node's disk yet: a quorum has them.
    committed: list[Entry]
    #: Reads that may be answered once their index is applied.
    read_states: list[ReadState]
    #: Role, leader or term are others than at the last Ready.
    changed: bool


@dataclass(frozen=True, slots=True)
class PeerProgress:
    """What a leader knows of one node, for a status."""

    node_id: NodeId
    match: LogIndex
    next: LogIndex
    state: Sending
    is_learner: bool
    is_paused: bool
    recent_active: bool
    #: Answered within the last election timeout or two, and can be reached as far as is known.
    is_active: bool
    pending_snapshot: LogIndex
    inflight: int
    inflight_is_full: bool

    @classmethod
    def of(cls, node_id: NodeId, progress: Progress) -> "PeerProgress":
        return cls(
            node_id=node_id,
            match=progress.match,
            next=progress.next,
            state=progress.state,
            is_learner=progress.is_learner,
            is_paused=progress.is_paused,
            recent_active=progress.recent_active,
            is_active=progress.is_active,
            pending_snapshot=progress.pending_snapshot,
            inflight=len(progress.inflight),
            inflight_is_full=progress.inflight.is_full,
        )
