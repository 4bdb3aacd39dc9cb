"""The one loop of a node, and the one owner of its replica.

A turn: everything that arrived in this pass of the event loop has been handed to the replica; the replica works once; its effects
are carried out in the order peers, clients, disk.  Peers first, because their disks then work while ours does.

The rule: nothing in a turn waits, and whatever goes wrong in one stops the node.  A replica whose effects were carried out by half
must not go on, so there is no error here that is survived.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from coord_core.errors import CoordError
from coord_core.protocol.locks import LockBroken
from coord_core.protocol.members import Member
from coord_core.protocol.messages import Acknowledge, Administer, Ask, Follow, KeepAlive, PeerIdentity, ServerMessage, Submit
from coord_core.protocol.topics import TopicRecord
from coord_core.replica import (
    ChunkRead,
    CommandsRefused,
    CommandsTaken,
    DiskRoom,
    Effects,
    Fact,
    LeaderReady,
    MachineLoaded,
    PeerMessage,
    RecordRead,
    Replica,
    ReplicaStatus,
    RoleChanged,
    SessionsEnded,
    SnapshotAbandoned,
    SnapshotInstalled,
    SnapshotSent,
    SnapshotTaken,
    Stalled,
    StatesDiffer,
)
from coord_core.server import garbage
from coord_core.server.writer import StorageThread
from coord_core.storage.api import Batch
from coord_core.storage.snapshots import Chunk
from coord_core.types import LogIndex, NodeId

log = logging.getLogger("coord.server")

#: What is done between two turns may take so long, in slices of so many items, each a fraction of that.
SLICES_S = 0.005
SLICE_ITEMS = 200


class Outlets(Protocol):
    """Where effects go.  Neither call waits."""

    def send(self, messages: Sequence[PeerMessage]) -> None:
        """To other nodes."""

    def deliver(self, replies: Sequence[tuple[int, ServerMessage]]) -> None:
        """To clients, by connection."""

    def push(self, pushes: Sequence[tuple[int, ServerMessage]]) -> None:
        """To clients as well, but no answers."""

    def follow(self, members: Sequence[Member], index: LogIndex) -> None:
        """Be connected with these nodes from now on: the members as of the applied entry at `index`."""

    def turn_away(self, caller: PeerIdentity, error: CoordError) -> None:
        """Tell a node that asked to be let in why it is not."""


def now_ms() -> int:
    """The clock of leases and turns: never falls, and does not count what the machine slept."""
    return time.monotonic_ns() // 1_000_000


class NodeLoop:
    """Gathers events, takes turns.  `failed` is called once, when the node must stop."""

    def __init__(
        self,
        *,
        name: str,
        replica: Replica,
        storage: StorageThread,
        outlets: Outlets,
        tick_ms: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._replica = replica
        self._storage = storage
        self._outlets = outlets
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._tick_s = tick_ms / 1000
        # A turn is on the loop's list: everything that arrives before it runs is in it.
        self._scheduled = False
        # Set for good by `stop` or a failure: from then on nothing is sent, answered or written.
        self._stopped = False
        self._due = self._loop.time() + self._tick_s
        self._timer = self._loop.call_at(self._due, self._on_timer)
        storage.watch_room(lambda room: self._event(self._replica.disk_room, room))

    def stop(self) -> None:
        """Take no more turns.  Idempotent."""
        self._stopped = True
        self._timer.cancel()

    def status(self) -> ReplicaStatus:
        return self._replica.status()

    # --- events -----------------------------------------------------------------------------------------------------------------

    def request(self, connection: int, message: Submit | KeepAlive | Ask | Administer) -> None:
        self._replica.request(connection, message)
        self._wake()

    def follow(self, connection: int, message: Follow) -> None:
        self._replica.follow(connection, message)
        self._wake()

    def acknowledge(self, connection: int, message: Acknowledge) -> None:
        self._replica.acknowledge(connection, message)
        self._wake()

    def join(self, caller: PeerIdentity) -> None:
        """A node asks to be let in, or says that it has moved."""
        self._replica.join(caller)
        self._wake()

    def matched(self) -> dict[NodeId, LogIndex]:
        return self._replica.matched()

    def connection_closed(self, connection: int) -> None:
        self._replica.connection_closed(connection)

    def receive(self, message: PeerMessage) -> None:
        self._replica.receive(message)
        self._wake()

    def peer_lost(self, peer: NodeId) -> None:
        """A connection with `peer` was closed by the other side or the network."""
        if not self._stopped:
            self._replica.leader_connection_lost(peer)
            self._wake()

    def unreachable(self, peer: NodeId) -> None:
        if not self._stopped:
            self._replica.unreachable(peer)

    # --- turns ------------------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        try:
            self._carry_out(self._replica.turn(now_ms()))
            if self._replica.must_apply:
                # The disk and the other nodes are at work: apply before anything else is looked at.
                self._carry_out(self._replica.turn(now_ms()))
            if self._replica.has_slices:
                self._work()
            if self._replica.has_work():
                self._wake()
        except BaseException as error:
            self.fail(error)
            if not isinstance(error, Exception):
                raise

    def _carry_out(self, effects: Effects) -> None:
        """What others wait for goes first: the disk, the nodes, then the clients."""
        batch = effects.batch()
        if effects.persist is not None and batch is not None:
            self._write(batch, self._replica.persisted, effects.persist.ack)
        if effects.stage is not None:
            self._write(effects.stage, self._replica.staged)
        for read in effects.reads:
            self._read(read)
        for record_read in effects.record_reads:
            self._read_records(record_read)
        if effects.members is not None:
            self._outlets.follow(effects.members, effects.members_index)
        for caller, error in effects.turned_away:
            self._outlets.turn_away(caller, error)
        if effects.send:
            self._outlets.send(effects.send)
        if effects.replies:
            self._outlets.deliver(effects.replies)
        if effects.pushes:
            self._outlets.push(effects.pushes)
        for fact in effects.facts:
            self._note(fact)

    def _write(self, batch: Batch, when_durable: Callable[..., None], *arguments: object) -> None:
        def done(error: BaseException | None) -> None:
            if error is not None:
                self.fail(error)
            else:
                self._event(when_durable, *arguments)

        self._storage.write(batch, done)

    def _read(self, read: ChunkRead) -> None:
        def done(chunk: Chunk | None, error: BaseException | None) -> None:
            if error is not None:
                self.fail(error)
            else:
                self._event(self._replica.chunk_read, read, chunk)

        self._storage.read_chunk(read.staging, read.seq, done)

    def _read_records(self, read: RecordRead) -> None:
        def done(records: Sequence[TopicRecord], error: BaseException | None) -> None:
            if error is not None:
                self.fail(error)
            else:
                self._event(self._replica.records_read, read, records)

        self._storage.read_records(read.topic, read.offset, read.records_max, read.bytes_max, done)

    def _work(self) -> None:
        """Do some of what is done between turns; what is left waits for the next one."""
        until = time.perf_counter() + SLICES_S
        makes_many_objects = self._replica.makes_many_objects
        while self._replica.work(SLICE_ITEMS) and time.perf_counter() < until:
            pass
        if makes_many_objects:
            garbage.keep()

    # --- time -------------------------------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        """Count one tick, however many were missed.

        A timer that comes late means that this process stood still, and then other nodes' messages wait in the sockets: they are
        read before time is counted, or a node that was stopped for a while would believe that everybody else had been.
        """
        now = self._loop.time()
        late = now - self._due > self._tick_s
        self._due = now + self._tick_s if late else self._due + self._tick_s
        self._timer = self._loop.call_at(self._due, self._on_timer)
        if late:
            self._loop.call_later(0, self._event, self._replica.tick)
        else:
            self._event(self._replica.tick)

    def _event(self, function: Callable[..., None], *arguments: object) -> None:
        """Hand in what the event loop called for; it would note an error and go on, and the node must not."""
        if self._stopped:
            return
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - the node stops with it
            self.fail(error)
        else:
            self._wake()

    # --- what people are told -----------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Stop the node because of `error`."""
        if not self._stopped:
            self.stop()
            self._failed(error)

    def _note(self, fact: Fact) -> None:
        status = self._replica.status()
        where = f"node {self._name} term {status.term} index {status.applied_index}:"
        match fact:
            case RoleChanged(role, term, leader):
                names = {member.node_id: member.name for member in status.members}
                log.info("%s %s in term %d, leader %s", where, role, term, names.get(leader, "unknown"))
            case LeaderReady(term, _, sessions):
                log.info("%s leads term %d and takes commands; %d session%s", where, term, sessions, _s(sessions))
            case SessionsEnded(index, sessions, expired):
                how = "expired" if expired else "closed"
                log.log(
                    logging.INFO if expired else logging.DEBUG,
                    "%s %d session%s %s by entry %d: %s",
                    where,
                    len(sessions),
                    _s(len(sessions)),
                    how,
                    index,
                    ", ".join(map(str, sessions[:20])),
                )
            case LockBroken():
                log.warning("%s %s", where, audit_line(fact))
            case SnapshotTaken(index, size, log_index):
                log.info("%s snapshot at %d, %d bytes; the log begins behind %d", where, index, size, log_index)
            case SnapshotAbandoned(index, reason):
                log.warning("%s snapshot at %d given up: %s", where, index, reason)
            case SnapshotSent(index, to, reason):
                name = next((member.name for member in status.members if member.node_id == to), str(to))
                if reason:
                    log.warning("%s snapshot at %d not sent to node %s: %s", where, index, name, reason)
                else:
                    log.info("%s snapshot at %d sent to node %s", where, index, name)
            case SnapshotInstalled(index, size):
                log.info("%s the leader's snapshot at %d installed, %d bytes", where, index, size)
            case MachineLoaded(index):
                log.info("%s loaded from the snapshot at %d", where, index)
            case Stalled(gap_ms):
                log.warning("%s stood still for %d ms; all leases run that much longer", where, gap_ms)
            case DiskRoom(level, free_bytes):
                serious = logging.INFO if level == "ample" else logging.ERROR
                log.log(serious, "%s room on its disk is %s, %.1f MiB free", where, level, free_bytes / (1024 * 1024))
            case CommandsRefused(reason):
                log.error("%s takes no new commands: %s", where, reason)
            case StatesDiffer(index, nodes, decided):
                who = ", ".join(member.name for member in status.members if member.node_id in nodes)
                if decided:
                    log.critical("%s the state of %s at entry %d is not that of a majority; it must stop", where, who, index)
                else:
                    log.error("%s the states of %s differ at entry %d; too few agree to say who is right", where, who, index)
            case CommandsTaken():
                log.info("%s takes commands again: there is room on the disks", where)
            case _:
                assert_never(fact)


def audit_line(broken: LockBroken) -> str:
    """Write down who took which lock from whom, and why.  What clients say of themselves is quoted: it cannot forge a line."""
    by, holder = (f"{owner.host}:{owner.pid} {owner.label}".rstrip() for owner in (broken.by, broken.holder))
    return f"audit: lock {broken.path!r} broken, token {broken.token}, by {by!r}, from {holder!r}, reason {broken.reason!r}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
