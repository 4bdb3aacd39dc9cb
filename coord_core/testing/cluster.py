"""A whole cluster from one seed: nodes, disks, network, clients, and every checker at its place.

Nothing happens here; `run` lets time pass, breaks things, heals them and judges.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from coord_core.client.session import SessionConfig
from coord_core.client.settings import DetachedConfig
from coord_core.machine import Applied, Machine
from coord_core.machine.invariants import check
from coord_core.protocol.commands import CloseAttachment, Command
from coord_core.protocol.members import Member
from coord_core.protocol.messages import Acknowledge, ClientMessage, Follow, ServerMessage
from coord_core.protocol.operations import Owner
from coord_core.raft import RaftConfig
from coord_core.raft.messages import Configuration, SnapshotMetadata
from coord_core.replica import Effects, LaneLimits, ReplicaConfig, SnapshotInstalled, SnapshotTaken
from coord_core.replica.membership import everyone
from coord_core.storage.api import Bootstrap, Identity
from coord_core.testing.callers import CallBooks
from coord_core.testing.checkers.announcements import AnnouncementChecks
from coord_core.testing.checkers.applied import AppliedChecks, ObservedMachine
from coord_core.testing.checkers.beliefs import BeliefChecks
from coord_core.testing.checkers.claims import ClaimChecks
from coord_core.testing.checkers.consensus import ConsensusChecks
from coord_core.testing.checkers.leases import LeaseChecks
from coord_core.testing.checkers.parking import ParkingChecks
from coord_core.testing.checkers.relays import RelayChecks
from coord_core.testing.checkers.streams import StreamChecks
from coord_core.testing.client import ClientProcess
from coord_core.testing.connection import Connection
from coord_core.testing.disk import DiskSpeed, SimulatedDisk
from coord_core.testing.family import Family
from coord_core.testing.mix import Mix
from coord_core.testing.network import Network
from coord_core.testing.node import Node, Pace
from coord_core.testing.operators import Applicant, Operator
from coord_core.testing.relays import Relay
from coord_core.testing.simulator import SECOND, Simulator
from coord_core.testing.workload import CLOSING_LOCKS, LIMITERS, LOCKS, SEMAPHORES, STREAMS, Books
from coord_core.types import LogIndex, NodeId, SessionId, Term

#: 32 hexadecimal digits, as a real one.
CLUSTER_ID = "5eed" * 8


#: Makes a node's disk.
Disks = Callable[[Bootstrap, random.Random, DiskSpeed], SimulatedDisk]


class Watchers:
    """All checkers that watch the nodes, behind one face (`node.Witness`)."""

    def __init__(self, nodes: dict[NodeId, Node], base: SnapshotMetadata, mix: Mix) -> None:
        self.consensus = ConsensusChecks(nodes, int(base.index), int(base.term), [(int(base.index), base.configuration)])
        self.applied = AppliedChecks(LOCKS, self._first_applied, self._applied, mix.ring_records_max)
        self.leases = LeaseChecks()
        self.beliefs = BeliefChecks()
        self.streams = StreamChecks(STREAMS, mix.pushed_records_max)
        self.claims = ClaimChecks(CLOSING_LOCKS, SEMAPHORES, LIMITERS)
        self.parking = ParkingChecks()
        self._has_parkers = mix.habits.parkers > 0
        self.announcements = AnnouncementChecks(self.streams)
        self.relays = RelayChecks()
        #: What happened to snapshots, by kind of fact.
        self.snapshots: Counter[str] = Counter()

    def booted(self, node: Node) -> None:
        self.consensus.booted(node)

    def machine_for(self, node: Node) -> Machine:
        return self.applied.machine_for(node)

    def turned(self, node: Node, effects: Effects) -> None:
        self.consensus.turned(node, effects)
        self.leases.turned(node, effects)
        if effects.facts:
            self.announcements.turned(node, effects)
        for fact in effects.facts:
            if isinstance(fact, SnapshotTaken | SnapshotInstalled):
                self.snapshots[type(fact).__name__] += 1

    def asked(self, node: Node, connection: Connection, message: ClientMessage) -> None:
        self.leases.keep_alive(connection.number, message)
        if isinstance(message, Follow | Acknowledge):
            self.announcements.asked(node, connection.number, message)

    def answered(self, node: Node, connection: Connection, message: ServerMessage) -> None:
        self.leases.answered(node, connection, message)
        self.announcements.answered(node, message)

    def _first_applied(self, machine: ObservedMachine, index: int, command: Command, applied: Applied) -> None:
        self.leases.applied(machine.node, self.consensus.term_of(machine.node, index), index, command, applied)
        self.streams.applied(machine, index, command, applied)
        self.claims.applied(machine, index, command, applied)
        if self._has_parkers:
            self.parking.applied(machine, index, command, applied)
        self.relays.applied(index, machine.time_ms, command, applied)
        if applied.closed or type(command) is CloseAttachment:
            check(machine)  # What somebody had is gone with it, whole.

    def _applied(self, node: Node, command: Command, applied: Applied) -> None:
        self.announcements.applied(node, command, applied)


class Cluster:
    """Everything there is in one seed."""

    def __init__(self, simulator: Simulator, mix: Mix, disks: Disks = SimulatedDisk) -> None:
        self.simulator = simulator
        self.mix = mix
        self._disks = disks
        self._rng = simulator.stream("cluster")
        self.network = Network(simulator, mix.weather)
        self.nodes: dict[NodeId, Node] = {}
        self._members = tuple(_member(number) for number in range(1, mix.nodes + 1))
        self._founding = _founding(self._members)
        self.watchers = Watchers(self.nodes, self._founding, mix)
        watchers = self.watchers
        self.books = Books(watchers.applied.acknowledged, watchers.beliefs, watchers.streams, parking=watchers.parking)
        self.calls = CallBooks()
        self.tick_ms = 50
        self.ttl_ms = mix.habits.ttl_ms
        self.servers: dict[str, Node] = {}
        for member in self._members:
            identity = Identity(CLUSTER_ID, member.node_id, member.name, member.incarnation)
            self._add(member.name, member.client_address, Bootstrap(identity, self._members, self._founding))
        self.operator = Operator(simulator, self.network, self) if mix.operator else None
        self.families = [self._family(f"c{number}") for number in range(1, self._rng.randint(2, 4) + 1)]
        self.relays = [self._relay(number) for number in range(mix.habits.relays)]

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()
        for family in self.families:
            family.keeper.start()
        for relay in self.relays:
            relay.start()
        if self.operator is not None:
            self.operator.start()

    def keepers(self) -> list[ClientProcess]:
        return [family.keeper for family in self.families]

    def configuration(self) -> Configuration:
        """Return what is in force, as of what is committed."""
        return self.watchers.consensus.configurations[-1][1]

    def sound_nodes(self) -> list[Node]:
        """Return the members that can live: all but those that lost their disk."""
        members = everyone(self.configuration())
        return [node for node in self.nodes.values() if node.node_id in members and not node.lost]

    def strangers(self) -> list[Node]:
        """Return the nodes that are no members and do not know it, though a member could have told them."""
        members = everyone(self.configuration())
        return [node for node in self.nodes.values() if node.node_id not in members and node.up]

    def may_lose(self, node: Node) -> bool:
        """Whether the cluster would survive the loss of this node for good, whatever is under way."""
        index, configuration = self.watchers.consensus.configurations[-1]
        members = everyone(configuration)
        lost = [other for other in self.nodes.values() if other.disk.in_doubt and other.node_id in members]
        if self.operator is not None:
            # While nobody can be sure that a change is committed, its outcome may hang on those who counted before it.
            is_known = all(other.disk.hard_state.commit >= index for other in self.sound_nodes())
            if not self.operator.idle or configuration.outgoing or node.node_id not in members or not is_known:
                return False
        return len(lost) < (len(configuration.voters) - 1) // 2

    def found_node(self, applicant: Applicant, bootstrap: Bootstrap) -> None:
        """An applicant knows with what to begin: from now on it is a node."""
        applicant.kill()
        self._add(applicant.name, applicant.identity.client_address, bootstrap).start()

    def _add(self, name: str, client_address: str, bootstrap: Bootstrap) -> Node:
        node = self._node(name, bootstrap)
        self.nodes[node.node_id] = self.servers[client_address] = node
        self.network.join(node.node_id, node)
        return node

    def leader(self) -> Node | None:
        """Return the node that leads and takes commands, and that the most recent term knows as its leader."""
        leading = [node for node in self.nodes.values() if node.up and not node.stopped and node.replica.status().ready]
        return max(leading, key=lambda node: node.replica.status().term, default=None)

    def _drift(self) -> float:
        return self._rng.uniform(-self.mix.drift_max, self.mix.drift_max)

    def _node(self, name: str, bootstrap: Bootstrap) -> Node:
        disk = self._disks(bootstrap, self.simulator.stream(f"disk {name}"), DiskSpeed())
        config = _node_config(bootstrap.identity.node_id, self.mix, self.tick_ms)
        skew = self._rng.uniform(-self.mix.tick_skew_max, self.mix.tick_skew_max)
        return Node(
            self.simulator,
            self.network,
            config,
            disk,
            self.watchers,
            name=name,
            drift=self._drift(),
            pace=Pace(
                turn_us_max=30_000 if self.mix.cramped else self._rng.choice((200, 5_000)),
                work_items_max=self.mix.work_items_max,
                tick_rate=1.0 + skew,
                dial_us=SECOND if self.mix.operator else None,
            ),
        )

    def _family(self, name: str) -> Family:
        config = SessionConfig(
            seeds=tuple(member.client_address for member in self._members),
            owner=Owner(name, 1),
            ttl_ms=self.ttl_ms,
        )
        keeper = ClientProcess(self.simulator, self.network, name, self.servers, config, drift=self._drift())
        return Family(keeper, self.books, self.calls, self.mix.habits, self.simulator.stream(f"work of {name}"), self._spawn)

    def _relay(self, number: int) -> Relay:
        rng = self.simulator.stream(f"relay {number}")

        def bear(name: str, detached: DetachedConfig) -> ClientProcess:
            seeds = tuple(member.client_address for member in self._members)
            config = SessionConfig(seeds, Owner(name, 1), ttl_ms=self.ttl_ms, detached=detached)
            drift = rng.uniform(-self.mix.drift_max, self.mix.drift_max)
            return ClientProcess(self.simulator, self.network, name, self.servers, config, drift=drift)

        return Relay(number, bear, self.books, rng, self.simulator.after)

    def _spawn(self, keeper: ClientProcess, name: str, session_id: SessionId) -> ClientProcess:
        config = replace(keeper.config, session_id=session_id)
        return ClientProcess(self.simulator, self.network, name, self.servers, config, drift=keeper.drift, keeper=keeper)


def _member(number: int) -> Member:
    return Member(NodeId(number), f"n{number}", f"n{number}:7400", f"n{number}:7401", f"{number:032x}")


def _node_config(node_id: NodeId, mix: Mix, tick_ms: int) -> ReplicaConfig:
    raft = RaftConfig(node_id=node_id, max_append_bytes=mix.append_bytes_max, announce_commits=False)  # as servers have it
    if not mix.cramped:
        return ReplicaConfig(raft, tick_ms, snapshots=mix.snapshots, pushed_records_max=mix.pushed_records_max)
    return ReplicaConfig(
        raft=replace(raft, max_append_bytes=100, max_inflight_appends=2, max_inflight_bytes=1_000, max_uncommitted_bytes=150),
        tick_ms=tick_ms,
        snapshots=mix.snapshots,
        lanes=LaneLimits(control_requests_max=4, peer_messages_max=32, commands_max=2, turn_commands_max=1),
        pushed_records_max=mix.pushed_records_max,
    )


def _founding(members: tuple[Member, ...]) -> SnapshotMetadata:
    return SnapshotMetadata(LogIndex(len(members)), Term(1), Configuration(tuple(member.node_id for member in members)))
