"""How a running cluster lets nodes in, and hears of those that have moved: the side that answers.

A node that asks stays on the line until it is a member as it says it is, and is then told with what to begin: the founding
configuration, from which it follows the log, and the members as they are now, to whom it turns.

Any node may be asked, and tells the replica; only a leader can do something about it, and only a leader knows why not.
"""

from collections.abc import Iterable
from typing import Protocol

from coord_core.errors import CoordError, InvalidRequest
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PeerIdentity
from coord_core.server.connections import Connection
from coord_core.server.joining import Joiner, check_line
from coord_core.storage.api import Bootstrap, Identity


class Gate(Protocol):
    """The node's loop."""

    def join(self, caller: PeerIdentity) -> None:
        """The caller wants to be let in.  Answered by `follow` or `turn_away`."""


class Admission:
    """Answers nodes that ask to be let in."""

    def __init__(self, formed: Bootstrap, members: Iterable[Member], gate: Gate) -> None:
        self._formed = formed
        self._gate = gate
        self._members = tuple(members)
        self._waiting: list[Joiner] = []

    def admit(self, connection: Connection, caller: PeerIdentity) -> Joiner:
        """Return what the connection becomes.  Raises why it is refused."""
        check_line(len(self._waiting))
        self._check(caller)
        joiner = Joiner(self, connection, caller)
        self._waiting.append(joiner)
        return joiner

    def take_over(self, joiners: Iterable[Joiner]) -> None:
        """Those that were on the line while this node was formed."""
        for joiner in joiners:
            joiner.desk = self
            self._waiting.append(joiner)
            # One that called with another disk while the founding was being written is none of the members.
            self._check(joiner.caller)
            self.welcomed(joiner)

    def welcomed(self, joiner: Joiner) -> None:
        """It may be answered from now on."""
        if joiner in self._waiting and (member := self._member(joiner.caller)) is not None:
            self._waiting.remove(joiner)
            joiner.answer(self._bootstrap_for(member))

    def follow(self, members: Iterable[Member]) -> None:
        """The members are others now: somebody may have been let in."""
        self._members = tuple(members)
        for joiner in list(self._waiting):
            self.welcomed(joiner)

    def turn_away(self, caller: PeerIdentity, error: CoordError) -> None:
        """The leader cannot let the caller in."""
        for joiner in [joiner for joiner in self._waiting if joiner.caller == caller]:
            self._waiting.remove(joiner)
            joiner.refuse(error)

    def hang_up(self, joiner: Joiner) -> None:
        if joiner in self._waiting:
            self._waiting.remove(joiner)

    def _check(self, caller: PeerIdentity) -> None:
        own = self._formed.identity
        if caller.name == own.name and caller.incarnation != own.incarnation:
            raise InvalidRequest(f"this node is named {caller.name!r} too: every node needs a name of its own")
        if self._member(caller) is None:
            self._gate.join(caller)

    def _member(self, caller: PeerIdentity) -> Member | None:
        """Return the caller as a member, where it is one as it says."""
        for member in self._members:
            if member == caller.as_member(member.node_id):
                return member
        return None

    def _bootstrap_for(self, member: Member) -> Bootstrap:
        identity = Identity(self._formed.identity.cluster_id, member.node_id, member.name, member.incarnation)
        return Bootstrap(identity, self._members, self._formed.snapshot)
