"""One node's replica: consensus and machine put together, without I/O.

Events go in (a peer's message, a client's request, a finished write, a tick), effects come out (write, send, answer).  The server's
loop and the simulator drive the same object; neither decides anything.

- `replica`: the face, and the order of things in a turn.
- `lanes`: the two bounded queues in front of it; control goes first.
- `pending`: who waits for the answer to which command.
- `reads`: quorum-confirmed rounds, shared by reads, keep-alives and expiry checks.
- `leases`: until when each session is alive, on the leader's clock.
- `entries`: what an entry's bytes are.
"""

from coord_core.replica.config import ReplicaConfig
from coord_core.replica.facts import Fact, LeaderReady, RoleChanged, SessionsEnded, Stalled
from coord_core.replica.lanes import LaneLimits
from coord_core.replica.replica import Effects, Replica, ReplicaStatus

__all__ = [
    "Effects",
    "Fact",
    "LaneLimits",
    "LeaderReady",
    "Replica",
    "ReplicaConfig",
    "ReplicaStatus",
    "RoleChanged",
    "SessionsEnded",
    "Stalled",
]
