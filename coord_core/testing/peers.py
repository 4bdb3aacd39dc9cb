"""Whom a simulated node speaks with, as servers have it (`server.running`, `server.peers`, `server.admission`).

A node sends to the members that it knows, and to those that have called and whose entry it has yet to come to.  Who calls and was
removed is told so, and stops for good: a node's id is the index of the entry that added it, so whoever has come that far knows.
"""

from collections.abc import Iterable
from typing import Protocol

from coord_core.errors import CoordError
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PeerIdentity
from coord_core.replica import Roster, Standing
from coord_core.storage.api import Bootstrap, Identity, Restored
from coord_core.testing.network import Host
from coord_core.types import LogIndex, NodeId


class Applicant(Host, Protocol):
    """A process that asks to be let in."""

    identity: PeerIdentity

    def let_in(self, bootstrap: Bootstrap) -> None: ...

    def turned_away(self, error: CoordError) -> None: ...


class KnownPeers:
    """What one life of a node knows of the others."""

    def __init__(self, restored: Restored) -> None:
        self._bootstrap = restored.bootstrap
        snapshot = restored.bootstrap.snapshot if restored.snapshot is None else restored.snapshot.info.metadata
        self._roster = Roster(restored.members, snapshot.index)
        self._applicants: list[Applicant] = []

    def reaches(self, peer: NodeId) -> bool:
        return peer in self._roster.everyone()

    def everyone(self) -> list[NodeId]:
        return sorted(self._roster.everyone())

    def hears(self, caller: NodeId, durable_commit: LogIndex) -> Standing:
        """Return what the caller is to this node; one that is to come is answered from now on."""
        standing = self._roster.standing(caller, durable_commit)
        if standing is Standing.TO_COME:
            self._roster.expect(Member(caller, f"n{caller}", "", "", ""))
        return standing

    def follow(self, members: Iterable[Member], index: LogIndex) -> list[tuple[Applicant, Bootstrap]]:
        """The log says who belongs; return the applicants that are members now, and what each begins with."""
        self._roster.follow(members, index)
        found = [(applicant, self._begins_with(applicant.identity)) for applicant in self._applicants]
        self._applicants = [applicant for applicant, bootstrap in found if bootstrap is None]
        return [(applicant, bootstrap) for applicant, bootstrap in found if bootstrap is not None]

    def apply(self, applicant: Applicant) -> Bootstrap | None:
        """Somebody asks: return what it begins with where it is a member already; otherwise it waits."""
        bootstrap = self._begins_with(applicant.identity)
        if bootstrap is None and applicant not in self._applicants:
            self._applicants.append(applicant)
        return bootstrap

    def turn_away(self, identity: PeerIdentity) -> list[Applicant]:
        """The leader refuses it: return who waits here under that identity."""
        refused = [applicant for applicant in self._applicants if applicant.identity == identity]
        self._applicants = [applicant for applicant in self._applicants if applicant.identity != identity]
        return refused

    def _begins_with(self, identity: PeerIdentity) -> Bootstrap | None:
        for member in self._roster.members.values():
            if (member.name, member.incarnation) == (identity.name, identity.incarnation):
                own = Identity(self._bootstrap.identity.cluster_id, member.node_id, member.name, member.incarnation)
                return Bootstrap(own, tuple(self._roster.members.values()), self._bootstrap.snapshot)
        return None
