"""How well each node is, as nodes tell each other: `Vitals`, and what was heard of it.

Each follower tells its leader when it gets to know it, when something changes, and every second; the leader tells the followers
what a majority agrees on (`comparing`).  It is a report, not a promise: it may be lost, it comes again, and nothing of consensus
rests on it.  What the leader makes of the disks is in `space`.
"""

from dataclasses import dataclass

import msgspec

from coord_core.raft.node import RaftNode
from coord_core.raft.state import Role
from coord_core.raft.zero import NOBODY
from coord_core.replica.facts import DiskRoom, Fact
from coord_core.storage.room import UNMEASURED, Level, Room
from coord_core.types import LogIndex, NodeId, Term

#: A report is repeated after so many ticks, and what was heard longer ago than three of them says nothing any more.
REPEAT_TICKS = 20
STALE_TICKS = 3 * REPEAT_TICKS

#: (index, hash): the state that a node had there.
Mark = tuple[LogIndex, int]


class Vitals(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag=30):
    """A node's report.  The tags from 30 on are of this file: they share a union with those of consensus and of transfers."""

    sender: NodeId
    to: NodeId
    #: Of the leadership in which it is said.
    term: Term
    #: `storage.room.Level`.
    level: int
    free_bytes: int
    #: Version of the machine that the hashes are of: those of different versions say nothing about each other.
    version: int
    #: The sender's own, the last few.
    marks: tuple[Mark, ...] = ()
    #: A leader's: what a majority of voters has, the last few.
    agreed: tuple[Mark, ...] = ()
    #: Bytes that must be free until its room is ample again; -1: not known (also to an older release).
    needed_bytes: int = -1


@dataclass(slots=True)
class Heard:
    """What a leader knows of another node."""

    room: Room
    age_ticks: int = 0

    @property
    def is_stale(self) -> bool:
        return self.age_ticks > STALE_TICKS


class VitalSigns:
    """A node's own, and those it was told of while it leads."""

    def __init__(self, raft: RaftNode) -> None:
        self._raft = raft
        #: This node's own disk, as last measured.
        self.room: Room = UNMEASURED
        #: On a leader, by node; whoever was not heard in this leadership is not here.
        self.others: dict[NodeId, Heard] = {}
        #: Ticks of this node under its present leader, or as leader.
        self.ticks = 0
        self._is_due = False
        self._facts: list[Fact] = []

    @property
    def is_full(self) -> bool:
        """Whether this node takes no entries."""
        return self.room.level is Level.FULL

    @property
    def has_output(self) -> bool:
        return self._is_due or bool(self._facts)

    # --- events ------------------------------------------------------------------------------------------------------------------

    def measured(self, room: Room) -> None:
        """The driver has looked at the disk."""
        if room.level is not self.room.level:
            self._facts.append(DiskRoom(room.level.name.lower(), room.free_bytes))
        self.room = room
        self.changed()

    def changed(self) -> None:
        """There is something new to tell."""
        self._is_due = self._raft.leader_id != NOBODY

    def role_changed(self) -> None:
        """Another leader, or another term: it knows nothing yet."""
        self.others.clear()
        self.ticks = 0
        self.changed()

    def tick(self) -> None:
        self.ticks += 1
        for heard in self.others.values():
            heard.age_ticks += 1
        if self.ticks % REPEAT_TICKS == 0:
            self.changed()

    def hear(self, message: Vitals) -> bool:
        """Take a report; whether it counts: it is of this term, and from a node of the configuration or from the leader."""
        if message.term != self._raft.term:
            return False
        if self._raft.role is not Role.LEADER:
            return message.sender == self._raft.leader_id
        if message.sender not in {peer.node_id for peer in self._raft.progress()}:
            return False
        level = Level(min(max(message.level, Level.AMPLE), Level.FULL))
        self.others[message.sender] = Heard(Room(level, message.free_bytes, message.needed_bytes))
        return True

    # --- a turn ------------------------------------------------------------------------------------------------------------------

    def receivers(self) -> list[NodeId]:
        """Return whom to tell now, if anybody."""
        if not self._is_due:
            return []
        self._is_due = False
        own, leader = self._raft.node_id, self._raft.leader_id
        if self._raft.role is Role.LEADER:
            return [peer.node_id for peer in self._raft.progress() if peer.node_id != own]
        return [] if leader in (NOBODY, own) else [leader]

    def report(self, to: NodeId, version: int, marks: tuple[Mark, ...], agreed: tuple[Mark, ...]) -> Vitals:
        raft, room = self._raft, self.room
        return Vitals(
            sender=raft.node_id,
            to=to,
            term=raft.term,
            level=room.level,
            free_bytes=room.free_bytes,
            version=version,
            marks=marks,
            agreed=agreed,
            needed_bytes=room.needed_bytes,
        )

    def take_facts(self) -> list[Fact]:
        facts, self._facts = self._facts, []
        return facts
