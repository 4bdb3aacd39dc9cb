"""Consensus: a Raft core that does no I/O.

`RaftNode` takes calls and gives out `Ready` values; a driver moves the bytes.  Commands are opaque: only CONFIGURATION entries
are read. The algorithms are those of Ongaro's dissertation in the form that etcd/raft has given them; the code is our own.

The driver's duties
-------------------

1.  One owner.  All calls come from one thread, and none from within another.
2.  After inputs, call `ready()` until it returns None, and carry out each Ready before or while taking new inputs:
    - send `messages` at once, in order to each peer.  They never say more than the disk knows; what does is held back inside.
      Losing, repeating and delaying them is safe;
    - write `persist` in one transaction, durably, then call `persisted(persist.ack)`.  There is at most one outstanding, and
      there may be any number of other calls in between.  `entries` replace whatever is stored from the first one's index on;
      with `snapshot`, everything stored before goes.  If the write fails the node stops: nothing can be taken back;
    - apply `committed` in order, calling `apply_membership(entry)` for each CONFIGURATION entry when it comes to it, then
      `applied(index)`.  Before a Persist with `snapshot` is acknowledged nothing is handed out; load the snapshot into the
      machine and call `applied(snapshot.index)` before applying what follows;
    - answer each of `read_states` once its index is applied;
    - on `changed`, fail the reads that wait and the proposals that another leader may have cut off.
3.  Call `tick()` at an even pace.  After a stall call it once, not once for each missed tick: the messages that arrived
    meanwhile have not been looked at yet.
4.  `step()` only what comes from this cluster: peers are authenticated, and their incarnation checked, below.
5.  Call `unreachable(peer)` where a message could not be sent, `leader_lost()` where the connection to the leader closed.
6.  An InstallSnapshot carries no bytes.  The leader's driver moves the snapshot and calls `report_snapshot`; the follower's
    driver steps the message only when the snapshot is there, whole and checked.
7.  After a crash, hand in what storage has: hard state, snapshot, entries (and where these begin, if before the snapshot).  All
    of it, or none ever again: a node that lost what it had acknowledged must not come back under its id.
8.  Node ids are never used twice, and never 0.
9.  `InvariantViolation` from any call: stop.  Send nothing, write nothing.

Where this differs from the dissertation, and why
-------------------------------------------------

*A configuration takes effect when applied, not when appended* (against 4.1).  With etcd/raft.  It needs no roll-back when a
suffix is replaced, and a snapshot can never carry an uncommitted configuration.  Safe because at most one change may be
unapplied, and a node with a committed unapplied change does not campaign.  In return a configuration that lost its quorum
cannot be left, which nothing can cure but the recovery tool.

*A candidate counts its own vote when it is durable, a leader its own entries likewise*: both are handled like those of others,
so the rule "nothing counts that a crash would undo" has no exception, and the leader's disk runs beside the network (10.2.1).

*Committed entries may be handed out before they are on this node's own disk.*  A quorum of others has them; the applied state
is rebuilt from the log, so a crash loses nothing.  The stored commit index never exceeds the stored log.

*A risen commit index alone is not written.*  It is no part of figure 2's persistent state; it rides along with the next write.

*Pre-vote and check quorum are on together.*  9.6 leaves open what a node of a higher term does that neither wins nor hears:
here every message of an older leader or pre-candidate is answered with the newer term, so nobody stays stuck (etcd#8501,
#8243).

*The lease answers nothing* (with etcd/raft): within it a vote request is dropped, not rejected, so that a rejection by many
cannot end a campaign that the rest would carry.

*A refused vote tells what is committed* (with TiKV's raft-rs).  A leader that removed itself can be the only one to know that,
and have the longer log; it refuses whoever should follow, who counts by the old configuration.  Told of the commit index, that
one applies the change and needs the vote no more.  A node that was removed should run until a new leader has shown itself.
`refusals_tell_commit` can be switched off.

*`leader_lost`* has no counterpart there: a closed connection is better news than silence, and costs a tenth of the time.  It
gives up the node's own lease only, so the leader stays as long as a quorum hears it.

*No lease reads* (against 6.4.1): they would make answers depend on clocks.  `lease_relied_on` only keeps nodes from giving the
lease up early, for a driver that makes them all the same.

*A leader that was removed steps down when it applies the change* (4.2.2), rather than when it is committed.

Stricter than etcd/raft: one outstanding Persist (group commit, and no write can overtake another; `async_storage_writes` lifts
that, and changes duty 2 as `pipeline.py` says); nobody proposes for another
(clients find the leader); a membership change is checked against the configuration before it is appended and refused, not
turned into an empty entry; messages that cannot be true are dropped where etcd/raft panics.
"""

from coord_core.raft.config import RaftConfig
from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.membership import MembershipChange, MembershipStep, StepKind, Transition
from coord_core.raft.node import RaftNode
from coord_core.raft.outbox import Persist, PersistAck
from coord_core.raft.progress import Sending
from coord_core.raft.reads import ReadState
from coord_core.raft.ready import PeerProgress, Ready
from coord_core.raft.refusals import (
    MembershipRefused,
    NotLeaderError,
    ProposalBusy,
    ReadsBusy,
    Refused,
    TransferRefused,
    Transferring,
)
from coord_core.raft.state import Role

__all__ = [
    "InvariantViolation",
    "MembershipChange",
    "MembershipRefused",
    "MembershipStep",
    "NotLeaderError",
    "PeerProgress",
    "Persist",
    "PersistAck",
    "ProposalBusy",
    "RaftConfig",
    "RaftNode",
    "ReadState",
    "ReadsBusy",
    "Ready",
    "Refused",
    "Role",
    "Sending",
    "StepKind",
    "TransferRefused",
    "Transferring",
    "Transition",
]
