"""A few replicas and a hand that carries out their effects: no sockets, no disk, time as a number."""

import random

from coord_core.protocol.commands import Call, OpenSession
from coord_core.protocol.members import Member
from coord_core.protocol.messages import Reply, ServerMessage, Submit
from coord_core.protocol.operations import Operation, Owner
from coord_core.protocol.results import SessionOpened
from coord_core.raft.config import RaftConfig
from coord_core.raft.messages import Configuration, Entry, HardState, SnapshotMetadata
from coord_core.raft.outbox import Persist
from coord_core.replica import Effects, LaneLimits, PeerMessage, Replica, ReplicaConfig
from coord_core.storage.api import Bootstrap, Identity, Restored
from coord_core.types import AttachmentId, LogIndex, NodeId, RequestNumber, SessionId, Term
from coord_core.wire.codec import decode_server, encode, encode_command

OWNER = Owner("host", 42, "test")
TICK_MS = 50


def restored(node: int, nodes: int, entries: tuple[Entry, ...] = (), hard_state: HardState | None = None) -> Restored:
    ids = tuple(NodeId(i + 1) for i in range(nodes))
    members = tuple(Member(i, f"n{i}", f"127.0.0.1:{7500 + i}", f"127.0.0.1:{7400 + i}", f"life{i}") for i in ids)
    snapshot = SnapshotMetadata(LogIndex(1), Term(1), Configuration(ids))
    bootstrap = Bootstrap(Identity("c" * 32, NodeId(node), f"n{node}", f"life{node}"), members, snapshot)
    return Restored(bootstrap, hard_state or HardState(Term(1), NodeId(0), LogIndex(1)), entries)


def replica(node: int = 1, nodes: int = 1, lanes: LaneLimits | None = None, now_ms: int = 0) -> Replica:
    config = ReplicaConfig(RaftConfig(NodeId(node)), tick_ms=TICK_MS, lanes=lanes or LaneLimits())
    return Replica(config, restored(node, nodes), rng=random.Random(node), now_ms=now_ms)


class Driver:
    """Carries out effects at once: writes are durable when asked, messages arrive unless cut."""

    def __init__(self, nodes: int = 1, lanes: LaneLimits | None = None) -> None:
        self.now_ms = 0
        self.replicas = {i: replica(i, nodes, lanes) for i in range(1, nodes + 1)}
        self.answers: dict[tuple[int, int], object] = {}
        #: What was pushed, by connection.
        self.pushes: list[tuple[int, ServerMessage]] = []
        self.facts: list[tuple[int, object]] = []
        #: Nodes that hear and say nothing.
        self.cut: set[int] = set()
        #: Nodes whose writes never finish.
        self.stuck_disks: set[int] = set()
        self.stuck: list[tuple[int, Persist]] = []

    def turn(self, node: int) -> Effects:
        effects = self.replicas[node].turn(self.now_ms)
        for connection, reply in effects.replies:
            self.answers[connection, reply.seq] = reply  # type: ignore[union-attr]
        self.pushes.extend((connection, decode_server(encode(push))) for connection, push in effects.pushes)
        self.facts.extend((node, fact) for fact in effects.facts)
        for message in effects.send:
            self.deliver(node, message)
        if effects.persist is not None:
            if node in self.stuck_disks:
                self.stuck.append((node, effects.persist))
            else:
                self.replicas[node].persisted(effects.persist.ack)
        return effects

    def deliver(self, sender: int, message: PeerMessage) -> None:
        if sender not in self.cut and message.to not in self.cut:
            self.replicas[message.to].receive(message)

    def settle(self, turns: int = 12) -> None:
        """Take turns until what was started has gone through."""
        for _ in range(turns):
            for node in self.replicas:
                self.turn(node)

    def advance(self, ms: int, *, nodes: tuple[int, ...] = ()) -> None:
        """Let time pass in ticks; only `nodes` where given."""
        for _ in range(ms // TICK_MS):
            self.now_ms += TICK_MS
            for node in nodes or self.replicas:
                self.replicas[node].tick()
            self.settle(4)

    def elect(self) -> int:
        for _ in range(200):
            leaders = [node for node, each in self.replicas.items() if each.status().ready]
            if leaders:
                return leaders[0]
            self.advance(TICK_MS)
        raise AssertionError("no leader")

    def submit(self, node: int, connection: int, seq: int, command) -> None:
        self.replicas[node].request(connection, Submit(seq, encode_command(command)))  # type: ignore[arg-type]

    def open(self, node: int, ttl_ms: int = 1_000, connection: int = 1, seq: int = 1) -> SessionId:
        self.submit(node, connection, seq, OpenSession(ttl_ms, OWNER))
        self.settle()
        reply = self.answers[connection, seq]
        assert isinstance(reply, Reply)
        assert isinstance(reply.result, SessionOpened)
        return reply.result.session

    def result(self, connection: int, seq: int):
        reply = self.answers.get((connection, seq))
        return reply.result if isinstance(reply, Reply) else reply


def call(session: SessionId, request: int, operation: Operation, low_water: int = 0) -> Call:
    return Call(session, AttachmentId(session), RequestNumber(request), RequestNumber(low_water), (), operation)
