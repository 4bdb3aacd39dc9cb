"""A cluster whose nodes have an append thread and an apply thread each: the driver's duties under `async_storage_writes`.

What is asked of a thread waits in its queue until a test lets it work.  A node's messages to itself lie in the network like those
of others, but cannot be lost.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from coord_core.raft.messages import Entry, EntryKind, Message, SnapshotMetadata
from coord_core.raft.node import RaftNode
from coord_core.raft.outbox import Persist
from coord_core.raft.ready import Ready
from tests.raft.cluster import Cluster, Disk, Server


class ThreadedCluster(Cluster):
    """`Cluster` with asynchronous storage writes; `slow_disks` means nothing here."""

    def __init__(self, voters: int | Iterable[int] = 3, **config: Any) -> None:
        self.appending: dict[int, deque[Persist]] = {}
        self.applying: dict[int, deque[list[Entry]]] = {}
        super().__init__(voters, async_storage_writes=True, **config)

    def add(self, node_id: int, disk: Disk | None = None) -> RaftNode:
        self.appending[node_id], self.applying[node_id] = deque(), deque()
        return super().add(node_id, disk)

    def carry_out(self, node_id: int, ready: Ready) -> None:
        server = self.servers[node_id]
        self._check_leader(server.node)
        for message in ready.messages:
            self._send(node_id, message)
        if ready.persist is not None:
            self.appending[node_id].append(ready.persist)
        if ready.committed:
            assert ready.committed[-1].index <= server.node.durable_index, "handed out before it is on this node's disk"
            self.applying[node_id].append(ready.committed)
        server.reads.extend(ready.read_states)

    def _send(self, node_id: int, message: Message) -> None:
        if (node_id, message.to) not in self.cut_links and not any(loss(message) for loss in self.losses):
            self.network.append(message)

    def lose(self, only: Callable[[Message], bool] = lambda message: True) -> list[Message]:
        return super().lose(lambda message: message.sender != message.to and only(message))

    def sync(self, node_id: int) -> bool:
        """Let the append thread do one thing; tell whether there was one."""
        if not self.appending[node_id]:
            return False
        persist, server = self.appending[node_id].popleft(), self.servers[node_id]
        server.disk.write(persist)
        for message in persist.replies:
            if message.to == node_id:
                self.network.append(message)
            else:
                self._send(node_id, message)
        server.node.persisted(persist.ack)
        if persist.snapshot is not None and persist.snapshot.index > server.node.applied_index:
            server.node.applied(persist.snapshot.index)
        return True

    def apply(self, node_id: int) -> bool:
        """Let the apply thread do one thing; tell whether there was one."""
        if not self.applying[node_id]:
            return False
        server = self.servers[node_id]
        for entry in self.applying[node_id].popleft():
            # What was handed out before a snapshot came is in that.
            if entry.index >= server.node.first_index:
                self._apply_one(server, entry)
        return True

    def _apply_one(self, server: Server, entry: Entry) -> None:
        node = server.node
        if entry.kind == EntryKind.CONFIGURATION:
            node.apply_membership(entry)
        assert self.committed.setdefault(entry.index, entry) == entry, f"two entries applied at {entry.index}"
        server.applied.append(entry)
        node.applied(entry.index)
        node.snapshot_taken(SnapshotMetadata(entry.index, entry.term, node.configuration))

    def settle(self, *nodes: int, max_rounds: int = 1000) -> None:
        for _ in range(max_rounds):
            running = [i for i in (nodes or tuple(self.servers)) if i not in self.down]
            moved = sum(len(self.pump(i)) for i in running) + self.deliver(*running)
            moved += sum(self.sync(i) + self.apply(i) for i in running)
            if not moved:
                return
        raise AssertionError("the cluster does not come to rest")

    def crash_in_mid_write(self, node_id: int, rng: random.Random) -> None:
        """Crash after some of the queued writes, in order, have reached the disk; nobody was told."""
        queue = self.appending[node_id]
        for _ in range(rng.randrange(len(queue) + 1)):
            self.servers[node_id].disk.write(queue.popleft())
        self.restart(node_id)
