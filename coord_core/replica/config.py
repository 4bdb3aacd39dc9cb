"""What a replica can be told, with units and how the figures hang together."""

from dataclasses import dataclass, field

from coord_core.raft.config import RaftConfig
from coord_core.replica.lanes import LaneLimits


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    raft: RaftConfig
    #: Milliseconds between two calls of `Replica.tick`; elections and heartbeats count in these.
    tick_ms: int = 50
    lanes: LaneLimits = field(default_factory=LaneLimits)
