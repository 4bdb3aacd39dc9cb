"""The state of one node, in one place: what `election`, `replication`, `reads` and `membership` work on.

Only data and what follows from it directly.  The rule: `term`, `voted_for`, `role` and `leader_id` change in `roles.py` and
nowhere else (`voted_for` also where a vote is given, in `election.py`), the log's marks in `log.py`, progress in `progress.py`.
"""

import random
from dataclasses import dataclass, field
from enum import Enum

from coord_core.raft.config import RaftConfig
from coord_core.raft.invariants import Watch
from coord_core.raft.log import RaftLog
from coord_core.raft.messages import Configuration, HardState
from coord_core.raft.outbox import Outbox
from coord_core.raft.progress import Inflight, Progress
from coord_core.raft.reads import ReadRounds
from coord_core.raft.zero import NOBODY, START
from coord_core.types import LogIndex, NodeId, Term


class Role(Enum):
    """Raft, 5.1; the pre-candidate is the dissertation's 9.6."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(slots=True)
class State:
    """See the module's text.  Fields without a note are what their types say."""

    config: RaftConfig
    node_id: NodeId
    log: RaftLog
    rng: random.Random
    #: Latest term seen (Raft, figure 2).  May run ahead of the disk; `outbox` holds back whatever says so to others.
    term: Term
    #: Who got this node's vote in `term`; 0 for none.
    voted_for: NodeId
    outbox: Outbox
    configuration: Configuration
    role: Role = Role.FOLLOWER
    #: 0 while unknown.  A leader names itself.
    leader_id: NodeId = NOBODY
    #: Everyone in the configuration, by rising id, this node too.  Its values mean something on a leader only.
    progress: dict[NodeId, Progress] = field(default_factory=dict)
    #: The answers to this node's own (pre-)campaign.
    votes: dict[NodeId, bool] = field(default_factory=dict)
    #: Ticks since the leader was heard (follower), the campaign began, or the quorum was last counted (leader).
    election_elapsed: int = 0
    #: Ticks since the last heartbeat round (leader).
    heartbeat_elapsed: int = 0
    #: This node's own draw from [t, 2t): when it campaigns.
    timeout_drawn: int = 0
    #: Ticks until a campaign after the leader's connection closed; 0 for none (`election.leader_lost`).
    campaign_countdown: int = 0
    #: Ticks from one question of a node that lost its leader to the next, doubled each time; 0 where it asks once.
    ask_again_ticks: int = 0
    #: Who is to take over; 0 for nobody.  Nothing is proposed meanwhile.
    transferee: NodeId = NOBODY
    #: On a leader: the index of its no-op, the first entry of its term.
    leading_from: LogIndex = START
    #: On a leader: no membership change at or below this index may be pending when another is proposed.
    pending_membership: LogIndex = START
    #: Index of the last membership change in force.
    configured: LogIndex = START
    #: The driver wants to know after a crash that the log is committed up to here.
    commit_to_keep: LogIndex = START
    reads: ReadRounds = field(default_factory=ReadRounds)
    watch: Watch = field(default_factory=Watch)
    #: Messages that were no part of the protocol, since the start; and why the last one was.
    dropped: int = 0
    last_dropped: str = ""

    @property
    def is_leader(self) -> bool:
        return self.role is Role.LEADER

    @property
    def own_term_committed(self) -> bool:
        """A leader knows what is committed only after an entry of its own term is (dissertation, 6.4)."""
        return self.is_leader and self.log.commit >= self.leading_from

    @property
    def is_promotable(self) -> bool:
        """A node that votes, and has its log whole, may campaign."""
        own = self.progress.get(self.node_id)
        return own is not None and not own.is_learner and self.log.installing is None

    @property
    def is_single_voter(self) -> bool:
        return self.configuration.voters == (self.node_id,) and not self.configuration.outgoing

    def hard_state(self) -> HardState:
        return HardState(self.term, self.voted_for, self.log.commit)

    def new_progress(self, next_index: LogIndex) -> Progress:
        return Progress(next_index, Inflight(self.config.max_inflight_appends, self.config.max_inflight_bytes))

    def drop(self, reason: str) -> None:
        """Remember that a message was ignored because it cannot be true."""
        self.dropped += 1
        self.last_dropped = reason
