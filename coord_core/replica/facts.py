"""What a replica tells its driver to note: nothing here needs to be carried out.

`LockBroken`, as the operator is answered, is the leader's: one node writes down who took a lock from whom, and why.
"""

from dataclasses import dataclass
from typing import TypeAlias

from coord_core.protocol.locks import LockBroken
from coord_core.types import LogIndex, NodeId, SessionId, Term


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """This node's role, its term or the leader it knows changed."""

    role: str
    term: Term
    #: 0: none known.
    leader: NodeId


@dataclass(frozen=True, slots=True)
class LeaderReady:
    """The leader has applied its own term's first entry: commands are taken and all leases run anew."""

    term: Term
    index: LogIndex
    sessions: int


@dataclass(frozen=True, slots=True)
class SessionsEnded:
    """Sessions that the entry at `index` closed or expired."""

    index: LogIndex
    sessions: tuple[SessionId, ...]
    expired: bool


@dataclass(frozen=True, slots=True)
class Stalled:
    """Two turns lay this far apart; all leases were moved by as much."""

    gap_ms: int


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """This node's own snapshot is on its disk; the log begins behind `log_index` now."""

    index: LogIndex
    size: int
    log_index: LogIndex


@dataclass(frozen=True, slots=True)
class SnapshotAbandoned:
    """This node's own snapshot came to nothing; another is taken in time."""

    index: LogIndex
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """A follower has all of this leader's snapshot; or will not get it (`reason`)."""

    index: LogIndex
    to: NodeId
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """A leader's snapshot has replaced what this node had."""

    index: LogIndex
    size: int


@dataclass(frozen=True, slots=True)
class MachineLoaded:
    """The machine has been made from the snapshot with which this node started."""

    index: LogIndex


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """This node's disk has another level of room (`storage.room`): ample, low or full."""

    level: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class CommandsRefused:
    """This leader takes no new commands, for want of room on disks."""

    reason: str


@dataclass(frozen=True, slots=True)
class CommandsTaken:
    """This leader takes commands again."""


@dataclass(frozen=True, slots=True)
class StatesDiffer:
    """Nodes that applied the same entries up to `index` have different states.

    `decided`: `nodes` have another than a majority, and stop; else nobody can say who is right, and `nodes` are all that reported.
    """

    index: LogIndex
    nodes: tuple[NodeId, ...]
    decided: bool


Fact: TypeAlias = (
    RoleChanged
    | LeaderReady
    | SessionsEnded
    | LockBroken
    | Stalled
    | SnapshotTaken
    | SnapshotAbandoned
    | SnapshotSent
    | SnapshotInstalled
    | MachineLoaded
    | DiskRoom
    | CommandsRefused
    | CommandsTaken
    | StatesDiffer
)
