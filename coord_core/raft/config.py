"""What can be set about consensus.  All times are ticks of the driver's clock, all sizes bytes."""

from dataclasses import dataclass

from coord_core.errors import InvalidConfig
from coord_core.types import NodeId

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """One node's settings.  Every node of a cluster should have the same, except for `node_id`."""

    node_id: NodeId
    #: A follower that hears nothing for a random time in [t, 2t) campaigns.  6 at 50 ms a tick: 300 to 600 ms.
    election_timeout_ticks: int = 6
    #: Between heartbeats of the leader.  At most a third of the election timeout, so that one lost heartbeat deposes nobody.
    heartbeat_ticks: int = 1
    #: Size of one Append; a single entry larger than it travels alone.
    max_append_bytes: int = _MIB
    #: Appends on the way to one follower before the leader waits for an answer.
    max_inflight_appends: int = 64
    max_inflight_bytes: int = 8 * _MIB
    #: Proposals are refused while more than this waits to be committed.
    max_uncommitted_bytes: int = 32 * _MIB
    #: Committed entries in one Ready; a single larger entry comes alone.  Bounds how long one turn of the driver applies.
    max_committed_bytes: int = 4 * _MIB
    #: Reads waiting for a quorum before more are refused.
    max_waiting_reads: int = 65536
    #: Ask before raising the term (dissertation, 9.6), so that a node coming back from a partition deposes nobody.
    pre_vote: bool = True
    #: A leader that hears no quorum for an election timeout steps down, and nobody votes while it hears a leader
    #: (dissertation, 6.2 and 4.2.3).
    check_quorum: bool = True
    #: Tell followers of a risen commit index at once, by an Append of its own, as etcd/raft does.  Without it the index rides along
    #: with the next Append or heartbeat: a follower applies later by at most a heartbeat, which nobody waits for, and every batch
    #: costs two messages a follower less.
    announce_commits: bool = True
    #: Hand out further Persists while earlier ones are under way, as etcd/raft does under this name; the driver's duties are others
    #: then (`pipeline.py`).  Off: one at a time, and what gathers meanwhile goes into the next.
    async_storage_writes: bool = False
    #: Something outside answers by the leader's lease (etcd/raft: lease-based reads): no node gives the lease up before its time.
    lease_relied_on: bool = False
    #: A refused vote tells what is committed, which opens a lock that a removed leader can leave behind
    #: (`election.on_vote_reply`).  Off: a refusal says nothing but no, as with etcd/raft.
    refusals_tell_commit: bool = True
    #: The following three are where this core is stricter than etcd/raft; its own scenarios need them off.
    #: A leader that was removed or demoted steps down when it applies that change (dissertation, 4.2.2).
    step_down_on_removal: bool = True
    #: Refuse a membership change that does not fit the current configuration, or while another is pending.
    validate_membership: bool = True
    #: Refuse membership changes until an entry of the own term is committed.  The bug of 2015 behind this rule cannot happen
    #: where a change takes effect only when applied; the rule stays, for it costs one round trip after an election.
    membership_waits_for_own_term: bool = True

    def validate(self) -> None:
        """Raises `InvalidConfig` with all faults in `details["faults"]`."""
        faults = [
            f"{name} must be at least 1"
            for name in (
                "node_id",
                "heartbeat_ticks",
                "max_append_bytes",
                "max_inflight_appends",
                "max_inflight_bytes",
                "max_uncommitted_bytes",
                "max_committed_bytes",
                "max_waiting_reads",
            )
            if getattr(self, name) < 1
        ]
        if self.election_timeout_ticks < 3 * self.heartbeat_ticks:
            faults.append("election_timeout_ticks must be at least 3 x heartbeat_ticks")
        if self.max_inflight_bytes < self.max_append_bytes:
            faults.append("max_inflight_bytes must be at least max_append_bytes")
        if self.lease_relied_on and not self.check_quorum:
            faults.append("lease_relied_on needs check_quorum: without it nobody keeps a lease")
        if faults:
            raise InvalidConfig("; ".join(faults), faults=faults)
