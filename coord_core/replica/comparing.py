"""Whether all nodes have one state: a hash of it, noted at fixed indexes by each node, compared by the leader.

Equal logs make equal states, unless memory or a disk has flipped a bit, or two nodes do not run the same code.  Then one of them
answers what is not so, and nothing in consensus notices.  So every node notes its machine's rolling hash at each index that
`COMPARE_EVERY` divides; followers report theirs, and the leader looks for a majority of voters (of both halves, in a joint
configuration) that has one and the same.

- Where there is a majority, whoever has another hash is suspect: it stops as soon as it knows.  Followers learn it from the leader.
  A leader in the minority stops at once: that is how it steps down, and soonest.  Its connections close, the others elect, and
  not one more answer comes out of a wrong state.
- Where there is none (too few have reported, or all differ), nobody can say who is right: nothing happens but a line in the log.
- Hashes of machines of different versions are not compared.

Bounded: the last `MARKS_KEPT` indexes of each node.  A node that is further behind is compared at a later one.
"""

from collections.abc import Iterable

from coord_core.errors import START_ANEW, NodeSuspect
from coord_core.raft.messages import Configuration
from coord_core.raft.quorum import active
from coord_core.replica.facts import Fact, StatesDiffer
from coord_core.replica.vitals import Mark
from coord_core.types import LogIndex, NodeId

COMPARE_EVERY = 4_096
MARKS_KEPT = 4


class Comparison:
    """What one node knows of the hashes.  `note` and `learn` raise `NodeSuspect` where its own is not the majority's."""

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self._own: dict[LogIndex, int] = {}
        #: On a leader, by node.
        self._others: dict[NodeId, dict[LogIndex, int]] = {}
        #: What a majority has.
        self._agreed: dict[LogIndex, int] = {}
        #: Indexes at which a difference was noted, decided or not.
        self._noted: dict[tuple[LogIndex, bool], None] = {}
        self._facts: list[Fact] = []

    @property
    def own(self) -> tuple[Mark, ...]:
        return tuple(self._own.items())

    @property
    def agreed(self) -> tuple[Mark, ...]:
        return tuple(self._agreed.items())

    @property
    def has_output(self) -> bool:
        return bool(self._facts)

    def note(self, index: LogIndex, state_hash: int) -> None:
        """This node has applied `index`."""
        self._own[index] = state_hash
        _forget_old(self._own)
        self._check(index)

    def heard(self, node: NodeId, marks: Iterable[Mark]) -> None:
        """On a leader: a node has reported."""
        self._others[node] = found = dict(marks)
        _forget_old(found)

    def learn(self, agreed: Iterable[Mark]) -> None:
        """A majority has these hashes."""
        for index, state_hash in agreed:
            self._agreed[index] = state_hash
            self._check(index)
        _forget_old(self._agreed)

    def role_changed(self) -> None:
        self._others.clear()

    def judge(self, configuration: Configuration) -> bool:
        """On a leader: compare what is known; whether a majority was found for another index.

        Raises `NodeSuspect` where that is not this node's.
        """
        before = len(self._agreed), max(self._agreed, default=0)
        reports = {**self._others, self._node_id: self._own}
        for index in sorted({index for marks in reports.values() for index in marks}):
            self._judge_at(index, {node: marks[index] for node, marks in reports.items() if index in marks}, configuration)
        _forget_old(self._agreed)
        return before != (len(self._agreed), max(self._agreed, default=0))

    def take_facts(self) -> list[Fact]:
        facts, self._facts = self._facts, []
        return facts

    def _judge_at(self, index: LogIndex, hashes: dict[NodeId, int], configuration: Configuration) -> None:
        for one in sorted(set(hashes.values())):
            having = [node for node, state_hash in hashes.items() if state_hash == one]
            if active(configuration.voters, configuration.outgoing, having):
                self._agreed[index] = one
        agreed = self._agreed.get(index)
        if len({*hashes.values()} | ({agreed} if agreed is not None else set())) > 1:
            self._note_difference(index, hashes, agreed)
        self._check(index)

    def _note_difference(self, index: LogIndex, hashes: dict[NodeId, int], agreed: int | None) -> None:
        key = (index, agreed is not None)
        if key in self._noted:
            return
        self._noted[key] = None
        while len(self._noted) > 2 * MARKS_KEPT:
            del self._noted[next(iter(self._noted))]
        others = tuple(sorted(node for node, state_hash in hashes.items() if state_hash != agreed))
        self._facts.append(StatesDiffer(index, others, decided=agreed is not None))

    def _check(self, index: LogIndex) -> None:
        own, agreed = self._own.get(index), self._agreed.get(index)
        if own is None or agreed is None or own == agreed:
            return
        raise NodeSuspect(
            f"this node's state diverged: at entry {index} its hash is {own:016x}, and a majority has {agreed:016x}. Its memory or"
            " disk has changed something, or it runs other code than they do. This node must not answer from these files: move its"
            f" data directory away and {START_ANEW}.",
            index=int(index),
            own=own,
            agreed=agreed,
        )


def _forget_old(marks: dict[LogIndex, int]) -> None:
    for index in sorted(marks)[:-MARKS_KEPT]:
        del marks[index]
