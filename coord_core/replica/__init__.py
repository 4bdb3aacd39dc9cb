"""One node's replica: consensus and machine put together, without I/O.

Events go in (a peer's message, a client's request, a finished write, a tick), effects come out (write, send, answer).  The server's
loop and the simulator drive the same object; neither decides anything.

- `replica`: the face, and the order of things in a turn.
- `lanes`: the two bounded queues in front of it; control goes first.
- `membership`: who belongs, and how that changes; `roster`: what the driver keeps of it.
- `pending`: who waits for the answer to which command.
- `reads`: quorum-confirmed rounds, shared by reads, keep-alives and expiry checks.
- `telling`: what clients are told unasked; `watches`: which connection follows which subscription; `announcements`: answers that
  wait for an audience.
- `records`: what was published to topics, on its way to the disk; `fetches`: those who read it.
- `leases`: until when each session is alive, on the leader's clock.
- `entries`: what an entry's bytes are.
- `snapshots`: when they are taken, published, installed; `taking` (its own), `receiving`, `sending` (the leader's, with the
  messages of `transfer`), `building` (a machine out of one).
- `vitals`: what nodes report of themselves; `space`: what a leader makes of full disks; `comparing`: of hashes of their states.
"""

from coord_core.replica.config import ReplicaConfig, SnapshotConfig
from coord_core.replica.entries import unstamp
from coord_core.replica.facts import (
    CommandsRefused,
    CommandsTaken,
    DiskRoom,
    Fact,
    LeaderReady,
    MachineLoaded,
    RoleChanged,
    SessionsEnded,
    SnapshotAbandoned,
    SnapshotInstalled,
    SnapshotSent,
    SnapshotTaken,
    Stalled,
    StatesDiffer,
)
from coord_core.replica.fetches import RecordRead
from coord_core.replica.lanes import LaneLimits
from coord_core.replica.replica import Effects, Replica, ReplicaStatus
from coord_core.replica.roster import Roster, Standing
from coord_core.replica.sending import ChunkRead
from coord_core.replica.transfer import PeerMessage, SnapshotAck, SnapshotChunk, SnapshotOffer
from coord_core.replica.vitals import Vitals

__all__ = [
    "ChunkRead",
    "CommandsRefused",
    "CommandsTaken",
    "DiskRoom",
    "Effects",
    "Fact",
    "LaneLimits",
    "LeaderReady",
    "MachineLoaded",
    "PeerMessage",
    "RecordRead",
    "Replica",
    "ReplicaConfig",
    "ReplicaStatus",
    "RoleChanged",
    "Roster",
    "SessionsEnded",
    "SnapshotAbandoned",
    "SnapshotAck",
    "SnapshotChunk",
    "SnapshotConfig",
    "SnapshotInstalled",
    "SnapshotOffer",
    "SnapshotSent",
    "SnapshotTaken",
    "Stalled",
    "Standing",
    "StatesDiffer",
    "Vitals",
    "unstamp",
]
