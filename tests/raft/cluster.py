"""A cluster of consensus cores in memory, for tests: no time but ticks, no network but a list, no disk but a record.

Messages lie in `network` until a test delivers them, so a test decides what arrives, in which order, and what is lost.  Disks
are synchronous unless a test says otherwise (`slow_disks`); then a Persist waits for `sync`.  With every step the harness
checks what Raft promises of the whole cluster (figure 3): election safety, log matching, leader completeness, state-machine
safety.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from coord_core.raft.config import RaftConfig
from coord_core.raft.membership import MembershipChange, MembershipStep, StepKind, Transition
from coord_core.raft.messages import Configuration, Entry, EntryKind, HardState, Message, SnapshotMetadata
from coord_core.raft.node import RaftNode
from coord_core.raft.outbox import Persist
from coord_core.raft.reads import ReadState
from coord_core.raft.ready import Ready
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term

STEPS = {"v": StepKind.ADD_VOTER, "l": StepKind.ADD_LEARNER, "r": StepKind.REMOVE, "u": StepKind.UPDATE}


@dataclass
class Disk:
    """What survives a crash."""

    snapshot: SnapshotMetadata
    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    #: How often a suffix was replaced.
    replaced: int = 0

    def write(self, persist: Persist) -> None:
        if persist.snapshot is not None:
            self.snapshot = persist.snapshot
            self.entries = []
        if persist.entries:
            keep = persist.entries[0].index - self.snapshot.index - 1
            assert 0 <= keep <= len(self.entries), "a Persist left a gap"
            self.replaced += keep < len(self.entries)
            self.entries[keep:] = persist.entries
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        last = self.entries[-1].index if self.entries else self.snapshot.index
        assert self.hard_state.commit <= last, "the stored commit index exceeds the stored log"


@dataclass
class Server:
    """One node with its disk and what it has applied."""

    node: RaftNode
    disk: Disk
    applied: list[Entry] = field(default_factory=list)
    reads: list[ReadState] = field(default_factory=list)
    unsynced: Persist | None = None


def founding(voters: Iterable[int], learners: Iterable[int] = (), index: int = 1, term: int = 1) -> SnapshotMetadata:
    """Return the point from which all founders start."""
    configuration = Configuration(voters=tuple(map(NodeId, voters)), learners=tuple(map(NodeId, learners)))
    return SnapshotMetadata(LogIndex(index), Term(term), configuration)


def disk(start: SnapshotMetadata, *terms: int, term: int, vote: int = 0, commit: int = 0) -> Disk:
    """Return a disk with one entry of each of `terms` after `start`."""
    first = start.index + 1
    entries = [Entry(LogIndex(i), Term(t), EntryKind.COMMAND, b"%d/%d" % (t, i)) for i, t in enumerate(terms, first)]
    return Disk(start, HardState(Term(term), NodeId(vote), LogIndex(commit)), entries)


class Cluster:
    """Nodes 1..n, or those of `voters` and `learners`."""

    def __init__(self, voters: int | Iterable[int] = 3, learners: Iterable[int] = (), seed: int = 0, **config: Any) -> None:
        self.rng = random.Random(seed)
        self.config = RaftConfig(node_id=NodeId(1), **config)
        self.start = founding(range(1, voters + 1) if isinstance(voters, int) else voters, learners)
        self.servers: dict[int, Server] = {}
        #: Sent and neither delivered nor lost.
        self.network: list[Message] = []
        #: Pairs (from, to) between which everything is lost.
        self.cut_links: set[tuple[int, int]] = set()
        #: Further loss: a message for which one of these is true is lost when sent.
        self.losses: list[Callable[[Message], bool]] = []
        #: See everything that is sent.
        self.watchers: list[Callable[[Message], None]] = []
        self.slow_disks: set[int] = set()
        self.down: set[int] = set()
        #: Take a snapshot after each applied entry, so that one is there for whoever needs it.
        self.snapshots = True
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, Entry] = {}
        for node_id in (*self.start.configuration.voters, *self.start.configuration.learners):
            self.add(node_id, Disk(self.start))

    # -- nodes

    def add(self, node_id: int, disk: Disk | None = None) -> RaftNode:
        """Start a node; without a disk it is one that knows nothing, not even who belongs."""
        disk = disk or Disk(SnapshotMetadata(LogIndex(0), Term(0), Configuration(voters=())))
        node = RaftNode(
            replace(self.config, node_id=NodeId(node_id)),
            hard_state=disk.hard_state,
            snapshot=disk.snapshot,
            entries=disk.entries,
            rng=random.Random(self.rng.random()),
        )
        self.servers[node_id] = Server(node, disk)
        self.down.discard(node_id)
        return node

    def __getitem__(self, node_id: int) -> RaftNode:
        return self.servers[node_id].node

    def role(self, node_id: int) -> Role:
        return self[node_id].role

    def crash(self, node_id: int) -> None:
        """Stop a node; what was not synced is gone."""
        self.down.add(node_id)
        self.network = [message for message in self.network if message.to != node_id]

    def restart(self, node_id: int) -> RaftNode:
        """Crash, and come back with what the disk has."""
        self.crash(node_id)
        return self.add(node_id, self.servers[node_id].disk)

    def leader(self) -> RaftNode | None:
        """Return the leader of the highest term among those that run."""
        leaders = [s.node for i, s in self.servers.items() if i not in self.down and s.node.role is Role.LEADER]
        return max(leaders, key=lambda node: node.term, default=None)

    # -- one step of one node

    def pump(self, node_id: int) -> list[Ready]:
        """Carry out all that a node wants done."""
        done = []
        while (ready := self[node_id].ready()) is not None:
            done.append(ready)
            self.carry_out(node_id, ready)
        return done

    def carry_out(self, node_id: int, ready: Ready) -> None:
        server = self.servers[node_id]
        self._check_leader(server.node)
        for message in ready.messages:
            self._check_said(server, message)
            for watch in self.watchers:
                watch(message)
            if (node_id, message.to) not in self.cut_links and not any(loss(message) for loss in self.losses):
                self.network.append(message)
        if ready.persist is not None:
            server.unsynced = ready.persist
            if node_id not in self.slow_disks:
                self.sync(node_id)
        self._apply(server, ready)
        server.reads.extend(ready.read_states)

    def _apply(self, server: Server, ready: Ready) -> None:
        node = server.node
        if ready.persist is not None and ready.persist.snapshot is not None:
            node.applied(ready.persist.snapshot.index)
        for entry in ready.committed:
            if entry.kind == EntryKind.CONFIGURATION:
                node.apply_membership(entry)
            # State-machine safety (Raft, figure 3): nobody applies another entry at the same index.
            assert self.committed.setdefault(entry.index, entry) == entry, f"two entries applied at {entry.index}"
            server.applied.append(entry)
            node.applied(entry.index)
            if self.snapshots:
                node.snapshot_taken(SnapshotMetadata(entry.index, entry.term, node.configuration))

    def sync(self, node_id: int) -> bool:
        """Let a node's outstanding write reach its disk; tell whether there was one."""
        server = self.servers[node_id]
        persist, server.unsynced = server.unsynced, None
        if persist is None:
            return False
        server.disk.write(persist)
        server.node.persisted(persist.ack)
        return True

    # -- the network

    def deliver(self, *to: int, only: Callable[[Message], bool] = lambda message: True) -> int:
        """Deliver what is under way (to the nodes named, where any are), once; tell how many messages that was."""
        now = [m for m in self.network if (not to or m.to in to) and only(m)]
        taken = set(map(id, now))
        self.network = [m for m in self.network if id(m) not in taken]
        for message in now:
            if message.to in self.servers and message.to not in self.down:
                self[message.to].step(message)
        return len(now)

    def settle(self, *nodes: int, max_rounds: int = 1000) -> None:
        """Deliver and carry out until nothing moves any more; only for the nodes named, where any are."""
        for _ in range(max_rounds):
            running = [i for i in (nodes or tuple(self.servers)) if i not in self.down]
            moved = sum(len(self.pump(i)) for i in running)
            moved += self.deliver(*running)
            if not moved:
                return
        raise AssertionError("the cluster does not come to rest")

    def lose(self, only: Callable[[Message], bool] = lambda message: True) -> list[Message]:
        """Lose what is under way; return it, so that it can come late."""
        lost = [m for m in self.network if only(m)]
        self.network = [m for m in self.network if not only(m)]
        return lost

    def cut(self, *sides: Iterable[int]) -> None:
        """Cut the network into sides; nodes named in none are cut off from all."""
        groups = [set(side) for side in sides]
        self.cut_links = {
            (a, b) for a in self.servers for b in self.servers if a != b and not any(a in group and b in group for group in groups)
        }
        self.lose(lambda m: (m.sender, m.to) in self.cut_links)

    def heal(self) -> None:
        self.cut_links = set()
        self.losses = []

    # -- time and work

    def tick(self, count: int = 1, *nodes: int) -> None:
        """Let time pass, delivering everything after each tick."""
        for _ in range(count):
            for node_id in nodes or tuple(self.servers):
                if node_id not in self.down:
                    self[node_id].tick()
            self.settle()

    def elect(self, node_id: int) -> RaftNode:
        """Make a node leader, with its no-op committed."""
        node = self[node_id]
        for server in self.servers.values():
            server.node.forget_leader()
        node.campaign()
        self.settle()
        assert node.role is Role.LEADER
        return node

    def propose(self, node_id: int, *commands: bytes) -> LogIndex:
        return self[node_id].propose(commands)[0]

    def change(self, node_id: int, steps: str, transition: Transition = Transition.AUTO) -> LogIndex:
        """Propose a membership change such as `v4 l5 r1`; nothing to leave a joint configuration."""
        each = tuple(MembershipStep(STEPS[word[0]], NodeId(int(word[1:]))) for word in steps.split())
        return self[node_id].propose_membership(MembershipChange(each, transition))

    def join_jointly(self, node_id: int, add: Iterable[int], remove: Iterable[int]) -> None:
        """Enter a joint configuration that is left only when asked, and settle in it; new nodes begin empty."""
        for new in add:
            self.add(new)
        steps = " ".join([*(f"v{new}" for new in add), *(f"r{old}" for old in remove)])
        self.change(node_id, steps, Transition.JOINT_EXPLICIT)
        self.settle()
        self.tick(3)

    # -- what Raft promises

    def _check_leader(self, node: RaftNode) -> None:
        if node.role is not Role.LEADER:
            return
        # Election safety (Raft, figure 3): at most one leader a term.
        assert self.leaders.setdefault(node.term, node.node_id) == node.node_id, f"two leaders in term {node.term}"

    def _check_said(self, server: Server, message: Message) -> None:
        # Nothing is said in a term that the disk does not have; a pre-vote names a term that nobody has entered.
        if not getattr(message, "pre_vote", False):
            assert message.term <= server.disk.hard_state.term, f"said before it was durable: {message}"

    def check_logs(self) -> None:
        """Log matching and leader completeness (Raft, figure 3), over all nodes."""
        logs = {i: {entry.index: entry for entry in _held(s.node)} for i, s in self.servers.items()}
        for a, log in logs.items():
            for b, other in logs.items():
                same = [i for i in log if i in other and log[i].term == other[i].term] if a < b else []
                for index in range(min(log, default=0), max(same, default=0) + 1):
                    assert index not in other or log.get(LogIndex(index)) == other[LogIndex(index)], (
                        f"{a} and {b} differ at {index}"
                    )
        leader = self.leader()
        if leader is not None and leader.term == max(self.leaders, default=0):
            log = logs[leader.node_id]
            for index, entry in self.committed.items():
                assert index < leader.first_index or log.get(LogIndex(index)) == entry, f"the leader lacks {entry}"

    def logs(self) -> dict[int, list[tuple[int, bytes]]]:
        """Return each node's log as (term, data) pairs."""
        return {i: [(entry.term, entry.data) for entry in _held(s.node)] for i, s in self.servers.items()}


def _held(node: RaftNode) -> tuple[Entry, ...]:
    return node.entries(node.first_index, LogIndex(node.last_index + 1))
