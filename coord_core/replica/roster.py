"""Whom a node speaks with: the members by its log, and those that have called and whose entry it has yet to come to.

A node's id is the index of the entry that added it.  So one comparison tells a member that is news from one that was removed, as
long as the members and the index are of one moment: a driver takes both from the same `Effects` and asks nobody else.
"""

from collections.abc import Iterable, Mapping
from enum import Enum

from coord_core.errors import Busy
from coord_core.protocol.members import Member
from coord_core.types import LogIndex, NodeId

#: Nodes that call and that this node does not know of yet: it lags, or they are not what they say.  One more is refused.
TO_COME_MAX = 32


class Standing(Enum):
    """What a caller is to this node."""

    MEMBER = "member"
    #: Added by an entry that this node has not come to.
    TO_COME = "to come"
    #: It was a member once, and this node would know that after a crash too.
    REMOVED = "removed"
    #: Removed, as far as this node has applied; a crash could still make it ask that very node for its vote.
    REMOVED_SO_FAR = "removed so far"


class Roster:
    """One node's.  Made of what it finds on its disk; `follow` replaces it."""

    def __init__(self, members: Iterable[Member], index: LogIndex) -> None:
        #: As of the entry at `index`, which is applied; and those that this node was told of when it joined.
        self.members: Mapping[NodeId, Member] = {member.node_id: member for member in members}
        self.index = index
        #: As they said themselves: members to come, and members that have moved.
        self._told: dict[NodeId, Member] = {}

    def follow(self, members: Iterable[Member], index: LogIndex) -> None:
        """The log says who belongs, as of `index`."""
        self.members = {member.node_id: member for member in members}
        self.index = index
        self._told = {node: member for node, member in self._told.items() if self._is_news(member)}

    def everyone(self) -> dict[NodeId, Member]:
        """Return whom to be connected with, where they are as far as is known."""
        return {**self.members, **self._told}

    def standing(self, caller: NodeId, durable_commit: LogIndex) -> Standing:
        """`durable_commit`: up to where this node would know after a crash that its log is committed."""
        if caller in self.members:
            return Standing.MEMBER
        if caller > self.index:
            return Standing.TO_COME
        return Standing.REMOVED if durable_commit >= self.index else Standing.REMOVED_SO_FAR

    def expect(self, member: Member) -> None:
        """Count on a member as it says it is, until the log says more.  Raises `Busy` where too many have called.

        Its last word counts: who is where the log says is not looked for any more where it was in between.
        """
        if self.members.get(member.node_id) == member:
            self._told.pop(member.node_id, None)
            return
        if member.node_id not in self._told and len(self._told) >= TO_COME_MAX:
            raise Busy(f"{TO_COME_MAX} nodes that this one does not know yet have called already", limit="members to come")
        self._told[member.node_id] = member

    def _is_news(self, member: Member) -> bool:
        known = self.members.get(member.node_id)
        if known is None:
            return member.node_id > self.index
        return known != member and known.incarnation == member.incarnation
