"""Who changes the cluster while everything goes wrong: an operator, and nodes that ask to be let in.

The operator adds nodes, removes any (also the leader, also dead ones), replaces nodes whose disk is lost by new ones on an empty
disk, and has leadership handed over; one thing at a time, asked again and again until a leader has answered.  Nothing is forced.

Rule: while a lost node is a member, nobody sound is removed.  What is left could always form a majority, so the cluster must go on.
"""

from typing import Protocol

from coord_core.errors import CoordError
from coord_core.protocol.administration import Administration, RemoveMember, TransferLeadership
from coord_core.protocol.messages import Administer, PeerIdentity, Reply, ServerMessage
from coord_core.protocol.results import Done, Failed
from coord_core.raft.messages import Configuration
from coord_core.replica.membership import everyone
from coord_core.storage.api import Bootstrap
from coord_core.testing.connection import Connection
from coord_core.testing.network import Network
from coord_core.testing.node import Node
from coord_core.testing.process import Process
from coord_core.testing.simulator import MILLISECOND, SECOND, Simulator
from coord_core.types import NodeId

#: A cluster is not made larger than this.
MEMBERS_MAX = 6

#: How long the operator waits for an answer before it asks somebody else.
PATIENCE_US = 3 * SECOND


class Site(Protocol):
    """The cluster, as the operator finds it."""

    nodes: dict[NodeId, Node]

    def configuration(self) -> Configuration:
        """In force, as of what is committed."""

    def found_node(self, applicant: "Applicant", bootstrap: Bootstrap) -> None:
        """A node begins its first life on an empty disk."""


class Applicant(Process):
    """A node that is not formed yet: it asks one node after another until one tells it with what to begin."""

    def __init__(self, simulator: Simulator, network: Network, site: Site, name: str, identity: PeerIdentity) -> None:
        super().__init__(simulator, name, drift=0.0)
        self.identity = identity
        self.formed = False
        self._network = network
        self._site = site

    def start(self) -> None:
        super().start()
        self._ask()

    def _ask(self) -> None:
        if self.formed:
            return
        node = self.rng.choice([node for node in self._site.nodes.values() if not node.removed])
        self._network.tell(self, node, node.applied_for, self)
        self.later(self.rng.randint(100, 1_000) * MILLISECOND, self._ask)

    def let_in(self, bootstrap: Bootstrap) -> None:
        if not self.formed:
            self.formed = True
            self.note(f"is let in as node {bootstrap.identity.node_id}")
            self._site.found_node(self, bootstrap)

    def turned_away(self, error: CoordError) -> None:
        self.note(f"is turned away: {error.message}")


class Operator(Process):
    """Does one thing after another until it is told to end."""

    def __init__(self, simulator: Simulator, network: Network, site: Site) -> None:
        super().__init__(simulator, "op", drift=0.0)
        self._network = network
        self._site = site
        self._over = False
        self._applicant: Applicant | None = None
        self._request: Administration | None = None
        self._connection: Connection | None = None
        self._seq = 0
        self._joined = 0
        #: What was done, by kind.
        self.done: dict[str, int] = {"add": 0, "remove": 0, "replace": 0, "transfer": 0, "refused": 0}

    def start(self) -> None:
        super().start()
        self.later(self.rng.randint(500, 2_000) * MILLISECOND, self._act)

    def end(self) -> None:
        """Begin nothing more."""
        self._over = True

    @property
    def idle(self) -> bool:
        """Whether nothing is under way of which the outcome is not known."""
        return self._request is None and (self._applicant is None or self._is_voter(self._applicant))

    def busy(self) -> str:
        """Return what is not done yet; empty where nothing is."""
        if self._request is not None:
            return f"nobody has answered {self._request}"
        return "" if self.idle or self._applicant is None else f"{self._applicant.name} does not vote yet"

    def _is_voter(self, applicant: Applicant) -> bool:
        """Whether it was promoted; or removed, or lost, before it could be."""
        for node in self._site.nodes.values():
            if node.incarnation == applicant.identity.incarnation:
                return node.removed or node.lost or node.node_id in self._site.configuration().voters
        return False

    # --- what it does -------------------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        if self._over:
            return
        if self.idle:
            self._applicant = None
            self._choose()
        self.later(self.rng.randint(300, 3_000) * MILLISECOND, self._act)

    def _choose(self) -> None:
        configuration = self._site.configuration()
        members = [node for node in self._site.nodes.values() if node.node_id in everyone(configuration)]
        lost = [node for node in members if node.lost]
        choice = self.rng.random()
        if lost and choice < 0.7:
            self._replace(lost[0]) if choice < 0.4 else self._remove(lost[0])
        elif choice < 0.4 and len(members) < MEMBERS_MAX:
            self._add()
        elif choice < 0.8 and not lost and len(configuration.voters) > 2:
            self._remove(self.rng.choice(members))
        elif members:
            self._ask_for("transfer", TransferLeadership(self.rng.choice(members).node_id))

    def _add(self) -> None:
        self._joined += 1
        name = f"m{self._joined}"
        self._let_apply(name, name, replaces=False)
        self.done["add"] += 1

    def _replace(self, node: Node) -> None:
        """The machine gets a new disk and keeps its name."""
        self._joined += 1
        self._let_apply(f"m{self._joined}", node.member_name, replaces=True)
        self.done["replace"] += 1

    def _let_apply(self, name: str, member_name: str, *, replaces: bool) -> None:
        identity = PeerIdentity(member_name, f"{name}:incarnation", f"{name}:7400", f"{name}:7401", replaces=replaces)
        self.note(f"starts {name}{f' in place of {member_name}' if replaces else ''}")
        self._applicant = Applicant(self.simulator, self._network, self._site, name, identity)
        self._applicant.start()

    def _remove(self, node: Node) -> None:
        self._ask_for("remove", RemoveMember(node.node_id))

    # --- how it asks --------------------------------------------------------------------------------------------------------------

    def _ask_for(self, kind: str, request: Administration) -> None:
        self.note(f"wants {request}")
        self._request = request
        self.done[kind] += 1
        self._ask()

    def _ask(self) -> None:
        """Ask somebody; whoever does not lead says so."""
        self._hang_up()
        self._seq += 1
        node = self.rng.choice([node for node in self._site.nodes.values() if not node.removed])
        self._connection = Connection(self._network, self._network.next_number(), self, node)
        self._connection.dial()
        self.later(PATIENCE_US, self._ask_again, self._seq)

    def _ask_again(self, seq: int) -> None:
        if seq == self._seq and self._request is not None:
            self._ask()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def connected(self, connection: Connection) -> None:
        if connection is self._connection and self._request is not None:
            connection.send(Administer(self._seq, self._request))

    def connection_failed(self, connection: Connection) -> None:
        self._try_another(connection)

    def connection_lost(self, connection: Connection) -> None:
        self._try_another(connection)

    def answered(self, connection: Connection, message: ServerMessage) -> None:
        if connection is not self._connection or self._request is None:
            return
        match message:
            case Reply(result=Done()):
                self._resolved("is done")
            case Reply(result=Failed(code=code, message=why)) if self._settles(code):
                self.done["refused"] += 1
                self._resolved(f"is refused: {why}")
            case _:
                self._try_another(connection)

    def _settles(self, code: str) -> bool:
        """Whether a refusal is the answer.  A removal that is not possible now is asked for again: it may be under way already."""
        return code not in ("Unavailable", "Busy") or isinstance(self._request, TransferLeadership)

    def _resolved(self, how: str) -> None:
        self.note(f"{self._request} {how}")
        self._request = None
        self._hang_up()

    def _try_another(self, connection: Connection) -> None:
        if connection is self._connection:
            self.later(self.rng.randint(50, 300) * MILLISECOND, self._ask_again, self._seq)
