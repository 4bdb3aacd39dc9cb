"""Raft's promises (Raft, figure 3), judged from outside: from what nodes send, write and say of themselves.

The checker keeps a copy of each node's log, made of what the node sends and writes; nothing is read out of its inside.  What a node
has given up for a snapshot it is taken to have still: a snapshot may only say what was committed, and is held to that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from coord_core.raft.membership import changed, decode
from coord_core.raft.messages import Append, Configuration, Entry, EntryKind, SnapshotMetadata, VoteReply, VoteRequest
from coord_core.replica import Effects, PeerMessage, ReplicaStatus, SnapshotOffer
from coord_core.replica.facts import RoleChanged
from coord_core.testing.node import Node
from coord_core.testing.simulator import Violation
from coord_core.types import NodeId, Term


@dataclass(slots=True)
class View:
    """What is known of one node in its present life."""

    #: Index of the entry before `log[0]`.
    base: int
    log: list[Entry]
    term: int = 0
    commit: int = 0
    applied: int = 0
    #: Up to here the committed entries were compared.
    compared: int = 0
    role: str = "follower"
    #: The term that it led at the end of its last turn; 0 for none.
    led: int = 0

    def entry(self, index: int) -> Entry | None:
        at = index - self.base - 1
        return self.log[at] if 0 <= at < len(self.log) else None

    def put(self, entries: Sequence[Entry]) -> None:
        """Take over entries that the node has; they replace what it had from there on only where they differ."""
        at = int(entries[0].index) - self.base - 1
        if at > len(self.log):
            raise Violation(f"entries from {entries[0].index} leave a gap after {self.base + len(self.log)}")
        for offset, entry in enumerate(entries):
            if at + offset < len(self.log) and self.log[at + offset].term == entry.term:
                continue
            self.log[at + offset :] = entries[offset:]
            return


@dataclass(frozen=True, slots=True)
class Committed:
    entry: Entry
    #: The term of the node that was first to know.
    in_term: int


@dataclass
class ConsensusChecks:
    """Election safety, log matching, leader completeness, state-machine safety; votes; commits on a quorum of disks."""

    nodes: dict[NodeId, Node]
    base: int
    base_term: int
    #: What was ever in force by what is committed, each from its index on; the founding one first.
    configurations: list[tuple[int, Configuration]]
    views: dict[NodeId, View] = field(default_factory=dict)
    leaders: dict[int, NodeId] = field(default_factory=dict)
    #: Whom each node voted for in each term, over all its lives.
    votes: dict[tuple[NodeId, Term], NodeId] = field(default_factory=dict)
    #: (index, term) of every entry seen anywhere: the term before it, and its bytes.
    known: dict[tuple[int, int], tuple[int, bytes]] = field(default_factory=dict)
    #: Committed entries, from `base + 1`.
    committed: list[Committed] = field(default_factory=list)

    @property
    def last_committed(self) -> int:
        return self.base + len(self.committed)

    def booted(self, node: Node) -> None:
        covered = self._covered(node, int(node.disk.log_index), node.disk.term_at(int(node.disk.log_index)))
        log = [*covered, *node.disk.entries]
        view = View(self.base, log, term=int(node.disk.hard_state.term), compared=self.base)
        self.views[node.node_id] = view
        status = node.replica.status()
        if status.term < node.disk.hard_state.term:
            raise Violation(f"{node.name} forgot term {node.disk.hard_state.term}, it starts in {status.term}")

    def turned(self, node: Node, effects: Effects) -> None:
        view = self.views[node.node_id]
        applied_before = view.applied
        for message in effects.send:
            self._sent(node, view, message)
        # After what was sent: a deposed leader's last Appends may hold what it has given up by now.
        if effects.persist is not None and effects.persist.snapshot is not None:
            metadata = effects.persist.snapshot
            view.log = self._covered(node, int(metadata.index), metadata.term)
        if effects.persist is not None and effects.persist.entries:
            self._learn(view, effects.persist.entries)
        for fact in effects.facts:
            if type(fact) is RoleChanged:
                self._role(node, view, fact)
        status = node.replica.status()
        self._rises(node, view, status)
        # A follower that has a write under way may have replaced entries without our having seen it.
        if effects.persist is not None or not node.writing or view.role == "leader":
            self._counts(node, view)
            self._commits(node, view, applied_before)
        self._configured(node, view, status.configuration)
        view.led = view.term if view.role == "leader" else 0

    def term_of(self, node: Node, index: int) -> int:
        """Return the term of the entry that `node` has at `index`."""
        entry = self.views[node.node_id].entry(index)
        return 0 if entry is None else int(entry.term)

    def _covered(self, node: Node, index: int, term: Term | None) -> list[Entry]:
        """Return the entries that a snapshot at `index` stands for."""
        if index > self.last_committed:
            raise Violation(f"{node.name} has a snapshot at {index}; what is committed ends at {self.last_committed}")
        covered = [committed.entry for committed in self.committed[: index - self.base]]
        if term != (covered[-1].term if covered else self.base_term):
            raise Violation(
                f"{node.name} has a snapshot at {index} of term {term}; the committed entry's term is {covered[-1].term}"
            )
        return covered

    # --- what a node has ----------------------------------------------------------------------------------------------------------

    def _learn(self, view: View, entries: Sequence[Entry]) -> None:
        """Log matching, by induction: an (index, term) has one content and one predecessor, everywhere."""
        view.put(entries)
        first = int(entries[0].index)
        before = view.entry(first - 1)
        previous_term = self.base_term if before is None else int(before.term)
        if [entry.index for entry in entries] != list(range(first, first + len(entries))):
            raise Violation(f"entries {[int(entry.index) for entry in entries]} do not follow each other")
        for entry in entries:
            key = (int(entry.index), int(entry.term))
            known = self.known.setdefault(key, (previous_term, entry.data))
            if known != (previous_term, entry.data):
                raise Violation(
                    f"two different logs agree on index {entry.index} and term {entry.term}: {known} is not {entry.data!r}"
                )
            previous_term = int(entry.term)

    def _sent(self, node: Node, view: View, message: PeerMessage) -> None:
        if type(message) is Append:
            if message.entries:
                self._learn(view, message.entries)
        elif type(message) is SnapshotOffer:
            self._offered(node, message.info.metadata)
        elif type(message) is VoteReply:
            if message.granted and not message.pre_vote:
                self._voted(node, message.term, message.to)
        elif type(message) is VoteRequest and not message.pre_vote:
            self._voted(node, message.term, node.node_id)

    def _offered(self, node: Node, metadata: SnapshotMetadata) -> None:
        self._covered(node, int(metadata.index), metadata.term)
        if metadata.configuration not in self._in_force(int(metadata.index), int(metadata.index)):
            raise Violation(
                f"{node.name} offers a snapshot at {metadata.index} with {metadata.configuration}, never in force there"
            )

    def _voted(self, node: Node, term: Term, candidate: NodeId) -> None:
        earlier = self.votes.setdefault((node.node_id, term), candidate)
        if earlier != candidate:
            raise Violation(f"{node.name} voted twice in term {term}: for n{earlier} and for n{candidate}")

    # --- what it says of itself ---------------------------------------------------------------------------------------------------

    def _role(self, node: Node, view: View, fact: RoleChanged) -> None:
        if fact.role == "leader" and view.role != "leader":
            self._elected(node, view, int(fact.term))
        view.role = fact.role

    def _elected(self, node: Node, view: View, term: int) -> None:
        first = self.leaders.setdefault(term, node.node_id)
        if first != node.node_id:
            raise Violation(f"two leaders in term {term}: n{first} and {node.name}")
        for at in range(len(self.committed) - 1, -1, -1):
            committed = self.committed[at]
            if committed.in_term >= term:
                continue
            own = view.entry(self.base + 1 + at)
            if own is None or own.term != committed.entry.term:
                raise Violation(f"{node.name} leads term {term} without entry {committed.entry.index}, committed before")
            return

    def _rises(self, node: Node, view: View, status: ReplicaStatus) -> None:
        if status.term < view.term:
            raise Violation(f"{node.name}: the term fell from {view.term} to {status.term}")
        if status.commit_index < view.commit:
            raise Violation(f"{node.name}: the commit index fell from {view.commit} to {status.commit_index}")
        if not view.applied <= status.applied_index <= status.commit_index:
            raise Violation(f"{node.name}: applied {view.applied}, then {status.applied_index}, committed {status.commit_index}")
        view.term, view.commit, view.applied = int(status.term), int(status.commit_index), int(status.applied_index)

    def _counts(self, node: Node, view: View) -> None:
        """A leader commits by counting only entries of its own term (Raft, 5.4.2 and figure 8).

        It may hear from others what they know to be committed already.
        """
        if view.led != view.term or view.commit <= self.last_committed:
            return
        entry = view.entry(view.commit)
        if entry is not None and entry.term != view.term:
            raise Violation(
                f"{node.name}, leader of term {view.term}, committed entry {entry.index} of term {entry.term} by counting"
            )

    def _configured(self, node: Node, view: View, configuration: Configuration) -> None:
        """Every node has the configuration of what it has applied, or of the snapshot that it is about to begin from."""
        if view.commit <= self.last_committed and configuration not in self._in_force(view.applied, view.commit):
            raise Violation(f"{node.name} has applied {view.applied}; it counts by {configuration}, which is not in force there")

    def _in_force(self, first: int, last: int) -> list[Configuration]:
        """Return the configurations in force at the indexes from `first` to `last`."""
        found: list[Configuration] = []
        for index, configuration in reversed(self.configurations):
            if index <= last:
                found.append(configuration)
            if index <= first:
                break
        return found

    def _commits(self, node: Node, view: View, applied_before: int) -> None:
        while view.compared < view.commit:
            entry = view.entry(view.compared + 1)
            if entry is None:
                return
            view.compared += 1
            if view.compared > self.last_committed:
                self._on_a_quorum(node, entry, self._in_force(applied_before, view.applied))
                self.committed.append(Committed(entry, view.term))
                if entry.kind == EntryKind.CONFIGURATION:
                    configuration = changed(self.configurations[-1][1], decode(entry.data))
                    self.configurations.append((int(entry.index), configuration))
                continue
            first = self.committed[view.compared - self.base - 1].entry
            if first != entry:
                raise Violation(f"{node.name} committed another entry {entry.index}: term {entry.term}, not {first.term}")

    def _on_a_quorum(self, node: Node, entry: Entry, configurations: Sequence[Configuration]) -> None:
        """On enough disks for a configuration by which the node could count: one that was in force for it in this turn."""
        holding = [other for other in self.nodes.values() if other.disk.term_at(int(entry.index)) == entry.term]
        ids = {other.node_id for other in holding}
        for configuration in configurations:
            halves = [half for half in (configuration.voters, configuration.outgoing) if half]
            if all(len(ids.intersection(half)) > len(half) // 2 for half in halves):
                return
        on = ", ".join(other.name for other in holding) or "none"
        raise Violation(f"{node.name} committed entry {entry.index} of term {entry.term}, which is on the disks of {on} only")
