"""Replicas with disks: what `harness` does, plus snapshots' writes and reads, restarts, and a say in what arrives."""

import random
from collections.abc import Callable
from typing import TypeVar

from coord_core.protocol.operations import Operation, ValueSet
from coord_core.raft.config import RaftConfig
from coord_core.replica import Effects, PeerMessage, Replica, ReplicaConfig, SnapshotConfig
from coord_core.storage.api import Batch, Restored
from coord_core.storage.memory import MemoryStorage
from coord_core.storage.snapshots import StoredSnapshot
from coord_core.types import NodeId, SessionId
from tests.replica.harness import TICK_MS, Driver, call, restored

F = TypeVar("F")

#: A snapshot every twenty entries, in chunks of a few, and next to nothing kept before it.
SMALL = SnapshotConfig(entries=20, trailing_entries=5, chunk_bytes=200, stage_bytes=400)


class Nodes(Driver):
    """Writes are durable at once unless their node is in `stuck_disks`; messages arrive unless cut or not `passes`."""

    def __init__(self, nodes: int = 3, snapshots: SnapshotConfig = SMALL, items: int = 1_000) -> None:
        super().__init__(0)
        self.snapshots = snapshots
        #: Of work between turns, a turn.
        self.items = items
        self.disks: dict[int, MemoryStorage] = {}
        self.passes: Callable[[PeerMessage], bool] = lambda message: True
        self.sent: list[PeerMessage] = []
        #: Nodes that are down.
        self.down: set[int] = set()
        #: Nodes whose snapshots' writes wait; and what waits.
        self.slow: set[int] = set()
        self.staging: dict[int, Batch] = {}
        #: How often records were read from a disk.
        self.read_from_disk = 0
        self._lives = 0
        for node in range(1, nodes + 1):
            self.disks[node] = MemoryStorage()
            self.disks[node].form(restored(node, nodes).bootstrap)
            self._boot(node)
        self._session: SessionId | None = None
        self._requests = 0

    # --- life
    # -----------------------------------------------------------------------------------------------------------------------

    def _boot(self, node: int) -> None:
        self._lives += 1
        found = self.disks[node].load()
        assert isinstance(found, Restored)
        config = ReplicaConfig(RaftConfig(NodeId(node)), tick_ms=TICK_MS, snapshots=self.snapshots)
        self.replicas[node] = Replica(config, found, rng=random.Random(f"{node}/{self._lives}"), now_ms=self.now_ms)

    def crash(self, node: int) -> None:
        """Power is lost: what was written stays."""
        self.down.add(node)
        self.disks[node] = self.disks[node].clone()
        self.slow.discard(node)
        self.staging.pop(node, None)
        self.stuck_disks.discard(node)

    def start(self, node: int) -> None:
        self.down.discard(node)
        self._boot(node)

    # --- work
    # -----------------------------------------------------------------------------------------------------------------------

    def turn(self, node: int) -> Effects:
        if node in self.down:
            return Effects()
        replica = self.replicas[node]
        effects = replica.turn(self.now_ms)
        for connection, reply in effects.replies:
            self.answers[connection, reply.seq] = reply  # type: ignore[union-attr]
        self.facts.extend((node, fact) for fact in effects.facts)
        for message in effects.send:
            self.deliver(node, message)
        batch = effects.batch()
        if effects.persist is not None and batch is not None and node not in self.stuck_disks:
            self.disks[node].write(batch)
            replica.persisted(effects.persist.ack)
        if effects.stage is not None:
            assert node not in self.staging, "one write of a snapshot at a time"
            self.staging[node] = effects.stage
        if node in self.staging and node not in self.slow:
            self.disks[node].write(self.staging.pop(node))
            replica.staged()
        for read in effects.reads:
            replica.chunk_read(read, self.disks[node].read_chunk(read.staging, read.seq))
        for record_read in effects.record_reads:
            records = self.disks[node].read_records(
                record_read.topic, record_read.offset, record_read.records_max, record_read.bytes_max
            )
            self.read_from_disk += 1
            replica.records_read(record_read, records)
        replica.work(self.items)
        return effects

    def deliver(self, sender: int, message: PeerMessage) -> None:
        self.sent.append(message)
        if message.to in self.replicas and message.to not in self.down and self.passes(message):
            super().deliver(sender, message)

    def advance(self, ms: int, *, nodes: tuple[int, ...] = ()) -> None:
        super().advance(ms, nodes=nodes or tuple(node for node in self.replicas if node not in self.down))

    def elect(self) -> int:
        for _ in range(400):
            ready = [node for node, each in self.replicas.items() if node not in self.down | self.cut and each.status().ready]
            if ready:
                return max(ready, key=lambda node: self.replicas[node].status().term)
            self.advance(TICK_MS)
        raise AssertionError("no leader")

    def wait(self, until: Callable[[], bool], most_ms: int = 60_000) -> None:
        """Let time pass until something holds."""
        for _ in range(most_ms // TICK_MS):
            if until():
                return
            self.advance(TICK_MS)
        raise AssertionError("it does not come about")

    # --- clients
    # --------------------------------------------------------------------------------------------------------------------

    def load(self, count: int, size: int = 10, paths: int = 10, leader: int = 0) -> None:
        """Write values through the leader, one after the other."""
        leader = leader or self.elect()
        session = self.session(leader)
        for _ in range(count):
            number = self._requests + 1
            self.ask(leader, session, ValueSet(f"/v/{number % paths}", str(number).encode().ljust(size, b".")))

    def session(self, leader: int) -> SessionId:
        if self._session is None:
            self._session = self.open(leader, ttl_ms=3_600_000, connection=77)
        return self._session

    def ask(self, leader: int, session: SessionId, operation: Operation) -> object:
        """Ask with the next number, and wait for the answer."""
        self._requests += 1
        number = self._requests
        self.submit(leader, 77, 100 + number, call(session, number, operation, low_water=number - 1))
        self.settle(4)
        for _ in range(200):
            if (77, 100 + number) in self.answers:
                return self.result(77, 100 + number)
            self.advance(TICK_MS)
        raise AssertionError("no answer")

    # --- looking
    # --------------------------------------------------------------------------------------------------------------------

    def are_level(self, *nodes: int) -> bool:
        """Whether these (all) nodes have applied all there is, with the same outcome."""
        chosen = [self.replicas[node] for node in nodes or self.replicas]
        last = max(each.status().last_index for each in chosen)
        return all(each.status().applied_index == last for each in chosen) and len({each.machine.digest() for each in chosen}) == 1

    def snapshot(self, node: int) -> StoredSnapshot:
        """The node's snapshot as its disk has it."""
        found = self.disks[node].clone().load()
        assert found is not None
        assert found.snapshot is not None
        return found.snapshot

    def noted(self, kind: type[F], node: int = 0) -> list[F]:
        return [fact for noted_by, fact in self.facts if isinstance(fact, kind) and node in (0, noted_by)]
