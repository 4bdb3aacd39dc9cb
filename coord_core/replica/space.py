"""What a leader makes of the disks: whether it takes commands, and whether another node should lead.

A command is durable on a majority or nowhere.  So new ones are taken while this node and a majority of voters have ample room;
what is promised to nobody who has none.  The lane of what gives things back goes on until this node is *full*.

- A leader without ample room hands over to a voter that has more, where there is one: then nobody is refused at all.
- A voter that was not heard of for a while has no room that anyone could count on.  Alone that is no reason to refuse, or a cluster
  with a node that is down would say that disks are full.
- A refusal names the nodes, what they have left and what they need, and what to do about each cause.

The rule: `look` decides, whenever something changed and with every tick; a turn only reads what was decided.
"""

from collections.abc import Mapping

from coord_core.protocol.members import Member
from coord_core.protocol.results import Failed
from coord_core.raft.node import RaftNode
from coord_core.raft.quorum import active
from coord_core.raft.refusals import Refused
from coord_core.raft.state import Role
from coord_core.replica.facts import CommandsRefused, CommandsTaken, Fact
from coord_core.replica.vitals import STALE_TICKS, VitalSigns
from coord_core.storage.room import Level, Room
from coord_core.types import NodeId

#: How long a leader waits at least before it tries again to hand over, and in election timeouts: while it tries, for one of them,
#: all commands wait.  After each attempt it waits twice as long, up to so many times as long.
HAND_OVER_TICKS = 40
HAND_OVER_TIMEOUTS = 4
HAND_OVER_PAUSES_MAX = 16


class Space:
    """Of one node; it means something while the node leads."""

    def __init__(self, raft: RaftNode, signs: VitalSigns) -> None:
        self._raft = raft
        self._signs = signs
        #: New commands are refused, or those that give something back too: look at `refuses_commands` and `refuses_control`.
        self.is_short = False
        #: Whom entries need not be sent to: there they would be dropped.
        self.full: frozenset[NodeId] = frozenset()
        #: When it is tried again, and how long the pause after that is.
        self._hand_over_at = self._pause_ticks = 0
        #: That commands are refused was noted, and not yet that they are taken again.
        self._is_told = False
        self._facts: list[Fact] = []

    @property
    def refuses_commands(self) -> bool:
        """While leadership goes elsewhere, they are only put off."""
        return self.is_short and not self._raft.transferee

    @property
    def refuses_control(self) -> bool:
        """Then nothing at all is proposed."""
        return self._signs.is_full and self.refuses_commands

    @property
    def has_output(self) -> bool:
        return bool(self._facts)

    def role_changed(self, members: Mapping[NodeId, Member]) -> None:
        self._hand_over_at = self._pause_ticks = 0
        self._is_told = False
        self.look(members)

    def look(self, members: Mapping[NodeId, Member]) -> None:
        """Decide anew."""
        if self._raft.role is not Role.LEADER:
            self.is_short, self.full = False, frozenset()
            return
        self.full = frozenset(node for node, heard in self._signs.others.items() if heard.room.level is Level.FULL)
        if self._signs.room.level is not Level.AMPLE:
            self._hand_over()
        self.is_short = self._signs.room.level is not Level.AMPLE or not self._majority_has_room()
        if self.refuses_commands and not self._is_told:
            self._facts.append(CommandsRefused(self.reason(members)))
            self._is_told = True
        elif self._is_told and not self.is_short:
            self._facts.append(CommandsTaken())
            self._is_told = False

    def refusal(self, members: Mapping[NodeId, Member]) -> Failed:
        """Return what a client is told."""
        return Failed("DiskFull", self.reason(members), {"free_bytes": self._signs.room.free_bytes})

    def reason(self, members: Mapping[NodeId, Member]) -> str:
        """Return why new commands are refused: by node, and what to do."""
        told, short, silent = [], [], []
        for voter in self._voters():
            member, room = members.get(voter), self._room(voter)
            name = str(voter) if member is None else member.name
            if room is None:
                told.append(f"node {name} is not heard")
                silent.append(name)
            elif room.level is not Level.AMPLE:
                needed = f" and needs {_mebibytes(room.needed_bytes)}" if room.needed_bytes >= 0 else ""
                told.append(f"node {name} has {_mebibytes(room.free_bytes)} free{needed}")
                short.append(name)
        goes_on = "reads and leases go on" if self.refuses_control else "releases, reads and leases go on"
        return f"no room on disk for new commands: {', '.join(told)}. {_advice(short, silent)}; {goes_on} meanwhile"

    def take_facts(self) -> list[Fact]:
        facts, self._facts = self._facts, []
        return facts

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _room(self, node: NodeId) -> Room | None:
        """A node's room; None where it was not heard of for a while."""
        if node == self._raft.node_id:
            return self._signs.room
        heard = self._signs.others.get(node)
        if heard is None:
            # A leadership begins with trust: every report comes within a moment.
            return Room(Level.AMPLE, -1) if self._signs.ticks <= STALE_TICKS else None
        return None if heard.is_stale else heard.room

    def _voters(self) -> list[NodeId]:
        configuration = self._raft.configuration
        return sorted({*configuration.voters, *configuration.outgoing})

    def _majority_has_room(self) -> bool:
        rooms = {voter: self._room(voter) for voter in self._voters()}
        if not any(room is not None and room.level is not Level.AMPLE for room in rooms.values()):
            return True
        with_room = [voter for voter, room in rooms.items() if room is not None and room.level is Level.AMPLE]
        configuration = self._raft.configuration
        return active(configuration.voters, configuration.outgoing, with_room)

    def _hand_over(self) -> None:
        """Let the voter with the most room lead, if it has more than this node."""
        signs = self._signs
        if self._raft.transferee or signs.ticks < self._hand_over_at:
            return
        best = min(
            (
                (heard.room.level, -heard.room.free_bytes, voter)
                for voter in self._raft.configuration.voters
                if (heard := signs.others.get(voter)) is not None and not heard.is_stale
            ),
            default=None,
        )
        if best is None or best[0] >= signs.room.level:
            return
        least = max(HAND_OVER_TICKS, HAND_OVER_TIMEOUTS * self._raft.election_timeout_ticks)
        self._pause_ticks = min(max(2 * self._pause_ticks, least), HAND_OVER_PAUSES_MAX * least)
        self._hand_over_at = signs.ticks + self._pause_ticks
        try:
            self._raft.transfer(best[2])
        except Refused:
            # It comes up again.
            return


def _advice(short: list[str], silent: list[str]) -> str:
    """By cause: a node that is down has nothing to free, and being back it may be the one that is wanting."""
    where = "there" if not silent else f"on the disk of {' and '.join(short)}"
    start = f", or start {' or '.join(silent)} again" if silent else ""
    return f"Free space {where} (each node's data directory needs some){start}"


def _mebibytes(count: int) -> str:
    return f"{max(count, 0) / (1024 * 1024):.1f} MiB"
