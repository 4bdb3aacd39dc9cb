"""What a replica tells its driver to note: nothing here needs to be carried out."""

from dataclasses import dataclass
from typing import TypeAlias

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


Fact: TypeAlias = RoleChanged | LeaderReady | SessionsEnded | Stalled
