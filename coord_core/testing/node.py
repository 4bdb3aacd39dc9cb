"""A server process: the one loop around a real `Replica`, which crashes wherever a loop can crash.

The driver's duties are those of `coord_core.replica.replica`.  Between any two of them lies a *boundary* at which an armed
crash strikes, so that every order of "sent", "written", "acknowledged" and "dead" is met.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from coord_core.errors import NodeError, RetryableError, StorageCorrupt, StorageFailed
from coord_core.machine import Machine
from coord_core.protocol.messages import (
    Acknowledge,
    Administer,
    Ask,
    ClientMessage,
    Follow,
    GetStatus,
    Hello,
    KeepAlive,
    Members,
    NodeStatus,
    ServerMessage,
    Submit,
    Welcome,
)
from coord_core.raft import PersistAck
from coord_core.replica import ChunkRead, Effects, PeerMessage, RecordRead, Replica, ReplicaConfig, Standing
from coord_core.storage.api import Batch
from coord_core.testing.connection import Connection
from coord_core.testing.disk import SimulatedDisk
from coord_core.testing.network import Network
from coord_core.testing.peers import Applicant, KnownPeers
from coord_core.testing.process import Process
from coord_core.testing.simulator import MILLISECOND, Simulator
from coord_core.types import NodeId
from coord_core.wire.codec import decode_server, encode


class Boundary(Enum):
    """Where a crash can strike."""

    BEFORE_TURN = "before a turn"
    AFTER_TURN = "after a turn, nothing carried out"
    BEFORE_APPLYING = "with all effects carried out, before what is committed is applied"
    BETWEEN_SENDS = "between two sends"
    WRITE_BEGUN = "with a write on its way"
    WRITTEN = "after a write, before it is acknowledged"
    ACKNOWLEDGED = "after a write was acknowledged"
    ANSWERED = "after answering clients"
    STAGE_BEGUN = "with a snapshot's write on its way"
    STAGED = "after a snapshot's write, before it is acknowledged"
    STAGED_TOLD = "after a snapshot's write was acknowledged"
    INSTALLING = "with a leader's snapshot on its way to take the log's place"
    WORKED = "after a slice of a snapshot"


class Witness(Protocol):
    """Who watches the nodes: `checkers`."""

    def booted(self, node: "Node") -> None: ...

    def turned(self, node: "Node", effects: Effects) -> None: ...

    def asked(self, node: "Node", connection: Connection, message: ClientMessage) -> None: ...

    def answered(self, node: "Node", connection: Connection, message: ServerMessage) -> None: ...

    def machine_for(self, node: "Node") -> Machine: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one node's loop runs."""

    #: From the first arrival to the turn that takes it.
    turn_us_max: int = 300
    #: Items of what is done between two turns, at most; drawn anew each time.
    work_items_max: int = 1_000
    #: Real time between two ticks, in parts of what it should be.
    tick_rate: float = 1.0
    #: How often it calls the others, whether or not there is something to say; None: never, since nobody comes or goes.
    dial_us: int | None = None


class Node(Process):
    """One node: its process, and the disk and the clock drift that outlive it."""

    def __init__(
        self,
        simulator: Simulator,
        network: Network,
        config: ReplicaConfig,
        disk: SimulatedDisk,
        witness: Witness,
        *,
        name: str,
        drift: float,
        pace: Pace,
    ) -> None:
        self.node_id: NodeId = config.raft.node_id
        super().__init__(simulator, name, drift=drift)
        identity = disk.bootstrap.identity
        #: Among the members; another node may have had it, on a disk that was lost.
        self.member_name = identity.name
        self.incarnation = identity.incarnation
        #: It was told that it was removed: its process ends, and says the same whenever it is started.
        self.removed = False
        self.disk = disk
        self.pace = pace
        self.usual_speed = disk.speed
        self.armed: Boundary | None = None
        #: How soon after such a crash the node is there again by itself; None where somebody else starts it.
        self.back_us: int | None = None
        #: A write was handed out and is not acknowledged yet.
        self.writing = False
        #: What the storage thread will do after the write that is on its way.
        self._staging = False
        self._queued: deque[tuple[Batch, Callable[..., None], tuple[Any, ...]]] = deque()
        self.replica: Replica
        self._config = config
        self._network = network
        self._witness = witness
        self._connections: dict[int, Connection] = {}
        self._peers = KnownPeers(disk.restored())
        self._turn_scheduled = False

    # --- life ---------------------------------------------------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether its disk is damaged: when the process ends, nothing starts from that disk again."""
        return bool(self.disk.damage)

    def start(self) -> None:
        if self.removed:
            return
        try:
            restored = self.disk.restored()
        except StorageCorrupt as fault:
            self.note(f"refuses to start: {fault.message}")
            return
        super().start()
        self.armed = self.back_us = None
        self._turn_scheduled = self.writing = False
        self._staging = False
        self._queued.clear()
        rng = self.simulator.stream(f"raft {self.name} life {self.life}")
        now_ms = self.clock.now_ms()
        self.replica = Replica(self._config, restored, rng=rng, now_ms=now_ms, make_machine=lambda: self._witness.machine_for(self))
        self._peers = KnownPeers(restored)
        self._witness.booted(self)
        self._tick_later()
        if self.pace.dial_us is not None:
            self._dial(self.pace.dial_us)

    def kill(self) -> None:
        landed = self.disk.crash()
        super().kill()
        if landed:
            self.note("the write that was on its way had made it")
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.broken(at_once=self.rng.random() < 0.5)
        self._network.gone(self.node_id)

    def _strike(self, boundary: Boundary) -> bool:
        """Die here if that was planned."""
        if self.armed is boundary:
            self.note(f"crashes {boundary.value}")
            self.kill()
            if self.back_us is not None:
                self.simulator.after(self.back_us, self.start_again)
            return True
        return False

    def start_again(self) -> None:
        """Start, unless somebody has done so."""
        if not self.up:
            self.start()

    # --- arrivals -----------------------------------------------------------------------------------------------------------------

    def message(self, message: PeerMessage) -> None:
        self.simulator.detail(self.name, f"hears {type(message).__name__} of term {message.term} from n{message.sender}")
        if self._hears(message.sender):
            self.replica.receive(message)

    def peer_unreachable(self, peer: NodeId) -> None:
        self.replica.unreachable(peer)

    def peer_connection_lost(self, peer: NodeId) -> None:
        self.note(f"lost its connection to n{peer}")
        self.replica.leader_connection_lost(peer)

    # --- who belongs --------------------------------------------------------------------------------------------------------------

    def _dial(self, every_us: int) -> None:
        """Call all others, now and then: who was removed learns it from those who still hear."""
        for peer in self._peers.everyone():
            self._network.call(self.node_id, peer)
        self.later(every_us, self._dial, every_us)

    def called_by(self, peer: NodeId) -> None:
        self._hears(peer)

    def _hears(self, peer: NodeId) -> bool:
        standing = self._peers.hears(peer, self.replica.durable_commit)
        if standing is Standing.REMOVED:
            self._network.tell_removed(self.node_id, peer)
        return standing in (Standing.MEMBER, Standing.TO_COME)

    def told_removed(self) -> None:
        self.note("was removed: it stops for good")
        self.removed = True
        self.kill()

    def applied_for(self, applicant: Applicant) -> None:
        """A node asks to be let in."""
        bootstrap = self._peers.apply(applicant)
        if bootstrap is None:
            self.replica.join(applicant.identity)
        else:
            self._network.tell(self, applicant, applicant.let_in, bootstrap)

    def _follow(self, effects: Effects) -> None:
        if effects.members is not None:
            for applicant, bootstrap in self._peers.follow(effects.members, effects.members_index):
                self._network.tell(self, applicant, applicant.let_in, bootstrap)
            news = Members(self.replica.status().members)
            for connection in list(self._connections.values()):
                connection.answer(news)
        for identity, error in effects.turned_away:
            for applicant in self._peers.turn_away(identity):
                self._network.tell(self, applicant, applicant.turned_away, error)

    # --- clients ------------------------------------------------------------------------------------------------------------------

    def accept(self, connection: Connection) -> None:
        self._connections[connection.number] = connection

    def asked(self, connection: Connection, message: ClientMessage) -> None:
        if connection.number not in self._connections:
            connection.broken(at_once=True)
            return
        match message:
            case Hello():
                connection.answer(self._welcome())
            case GetStatus(seq):
                connection.answer(self._status(seq))
            case Submit() | KeepAlive() | Ask() | Administer():
                self._witness.asked(self, connection, message)
                self.replica.request(connection.number, message)
            case Follow():
                self._witness.asked(self, connection, message)
                self.replica.follow(connection.number, message)
            case Acknowledge():
                self._witness.asked(self, connection, message)
                self.replica.acknowledge(connection.number, message)

    def client_gone(self, connection: Connection) -> None:
        if self._connections.pop(connection.number, None) is not None:
            self.replica.connection_closed(connection.number)

    def _welcome(self) -> Welcome:
        status = self.replica.status()
        leader = "" if status.leader is None else status.leader.client_address
        return Welcome(1, self.disk.bootstrap.identity.cluster_id, self.name, status.members, leader)

    def _status(self, seq: int) -> NodeStatus:
        status = self.replica.status()
        return NodeStatus(
            seq=seq,
            cluster_id=self.disk.bootstrap.identity.cluster_id,
            node=self.name,
            role=status.role,
            term=status.term,
            leader="" if status.leader is None else status.leader.client_address,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            last_index=status.last_index,
            sessions=status.sessions,
            members=status.members,
            version="simulated",
        )

    def transfer_leadership(self, to: NodeId) -> None:
        """An operator asks this node to hand over."""
        try:
            self.replica.transfer_leadership(to)
        except RetryableError as refused:
            self.note(f"does not hand over to n{to}: {refused.message}")

    # --- the loop -----------------------------------------------------------------------------------------------------------------

    def stirred(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self.simulator.after(self.rng.randint(1, self.pace.turn_us_max), self._turn, self.life)

    def _tick_later(self) -> None:
        self.later(int(self._config.tick_ms * MILLISECOND * self.pace.tick_rate), self._tick)

    def _tick(self) -> None:
        self.replica.tick()
        self._tick_later()

    def _turn(self, life: int) -> None:
        if life != self.life or not self.up:
            return
        self._turn_scheduled = False
        if self.stopped or self._strike(Boundary.BEFORE_TURN) or self._take_turn():
            return
        if self.replica.must_apply and (self._strike(Boundary.BEFORE_APPLYING) or self._take_turn()):
            return
        if self._work():
            return
        if self.replica.has_work():
            self.stirred()

    def _work(self) -> bool:
        """Do a slice of what is done between turns; say whether the node crashed meanwhile."""
        if not self.replica.has_slices:
            return False
        self.replica.work(self.rng.randint(1, self.pace.work_items_max))
        return self._strike(Boundary.WORKED)

    def _take_turn(self) -> bool:
        """Take a turn and carry out its effects; say whether the node crashed meanwhile."""
        effects = self.replica.turn(self.clock.now_ms())
        for fact in effects.facts:
            self.note(str(fact))
        self._witness.turned(self, effects)
        self.writing = self.writing or effects.persist is not None
        if self._strike(Boundary.AFTER_TURN):
            return True
        self._follow(effects)
        write_first = effects.persist is not None and self.rng.random() < 0.5
        if write_first and self._begin_write(effects):
            return True
        if self._send(effects) or self._answer(effects):
            return True
        if not write_first and self._begin_write(effects):
            return True
        return self._begin_stage(effects)

    # Each of these says whether the node crashed meanwhile.

    def _send(self, effects: Effects) -> bool:
        for message in effects.send:
            if self._peers.reaches(message.to):
                self._network.send(message)
            if self._strike(Boundary.BETWEEN_SENDS):
                return True
        return False

    def _answer(self, effects: Effects) -> bool:
        for number, message in effects.replies:
            connection = self._connections.get(number)
            if connection is not None:
                self._witness.answered(self, connection, message)
                connection.answer(message)
        for number, push in effects.pushes:
            connection = self._connections.get(number)
            if connection is not None:
                # Through the codec: what was encoded long before is decoded only there.
                connection.answer(decode_server(encode(push)))
        return bool(effects.replies or effects.pushes) and self._strike(Boundary.ANSWERED)

    def _begin_write(self, effects: Effects) -> bool:
        persist = effects.persist
        if persist is None:
            return False
        batch = effects.batch()
        assert batch is not None, "there is something to persist"
        if self._staging:
            self._queued.append((batch, self._written, (persist.ack,)))
        else:
            self._put(batch, self._written, persist.ack)
        if persist.snapshot is not None and self._strike(Boundary.INSTALLING):
            return True
        return self._strike(Boundary.WRITE_BEGUN)

    def _begin_stage(self, effects: Effects) -> bool:
        for read in effects.reads:
            self.simulator.after(self.rng.randint(50, 2 * MILLISECOND), self._read, self.life, read)
        for record_read in effects.record_reads:
            self.simulator.after(self.rng.randint(50, 2 * MILLISECOND), self._read_records, self.life, record_read)
        if effects.stage is None:
            return False
        if self.disk.busy:
            self._queued.append((effects.stage, self._staged, ()))
        else:
            self._put(effects.stage, self._staged)
        return self._strike(Boundary.STAGE_BEGUN)

    def _put(self, batch: Batch, then: Callable[..., None], *arguments: Any) -> None:
        duration_us = self.disk.begin(batch)
        self._staging = then == self._staged
        self.simulator.after(duration_us, then, self.life, *arguments)

    def _put_next(self) -> None:
        self._staging = False
        if self._queued:
            batch, then, arguments = self._queued.popleft()
            self._put(batch, then, *arguments)

    def _read(self, life: int, read: ChunkRead) -> None:
        if life != self.life or not self.up:
            return
        try:
            chunk = self.disk.read_chunk(read.staging, read.seq)
        except NodeError as error:
            self.arrive(self._fail, error)
        else:
            self.arrive(self.replica.chunk_read, read, chunk)

    def _read_records(self, life: int, read: RecordRead) -> None:
        if life != self.life or not self.up:
            return
        try:
            records = self.disk.read_records(read.topic, read.offset, read.records_max, read.bytes_max)
        except NodeError as error:
            self.arrive(self._fail, error)
        else:
            self.arrive(self.replica.records_read, read, records)

    def _lands(self) -> bool:
        """The write on its way has come to its end: well, or badly, of which the loop hears in its turn."""
        try:
            self.disk.complete()
        except StorageFailed as error:
            self.arrive(self._fail, error)
            return False
        return True

    def _fail(self, error: NodeError) -> None:
        self.note(f"stops: {error.message}")
        self.kill()

    def _staged(self, life: int) -> None:
        if life != self.life or not self.up or not self._lands():
            return
        if not self._strike(Boundary.STAGED):
            self._put_next()
            self.arrive(self._staged_told)

    def _staged_told(self) -> None:
        self.replica.staged()
        self._strike(Boundary.STAGED_TOLD)

    def _written(self, life: int, ack: PersistAck) -> None:
        """The writer thread has committed.  It tells the loop, which may be stopped or dead by then."""
        if life != self.life or not self.up or not self._lands():
            return
        if not self._strike(Boundary.WRITTEN):
            self._put_next()
            self.arrive(self._acknowledged, ack)

    def _acknowledged(self, ack: PersistAck) -> None:
        self.writing = False
        self.replica.persisted(ack)
        self._strike(Boundary.ACKNOWLEDGED)
