"""Linearizable reads without a log entry (ReadIndex: dissertation, 6.4).

A read may be answered from the machine once (a) this node has shown, after the read was asked for, that it is still the leader,
and (b) the machine has applied everything that was committed when it was asked for.  (a) is a *round*: a number that rides on
heartbeats, confirmed when a quorum has answered it.  All reads asked for before a round begins share it, and an answer to a
later round confirms the earlier ones too, so a lost heartbeat is made good by the next.

No round begins before an entry of the leader's own term is committed: until then it may not know the newest commit index.
Leases of the clock are deliberately not offered: they would make correctness depend on clocks (etcd#7331 is what that looks
like).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coord_core.raft.messages import Configuration
from coord_core.raft.quorum import joint_index
from coord_core.raft.refusals import ReadsBusy
from coord_core.types import LogIndex, NodeId

if TYPE_CHECKING:
    from coord_core.raft.state import State


@dataclass(frozen=True, slots=True)
class ReadState:
    """The read asked for with `context` may be answered once `index` is applied."""

    context: int
    index: LogIndex


@dataclass(slots=True)
class _Round:
    number: int
    #: The commit index when the round began: at least that of every read in it when it was asked for.
    index: LogIndex
    contexts: list[int]


@dataclass(slots=True)
class ReadRounds:
    """The reads of one leadership.  Made anew with every role change: what waited then gets no answer."""

    #: Asked for since the last round began.  Bounded by `max_waiting_reads` together with those in rounds.
    waiting: list[int] = field(default_factory=list)
    #: Begun and not confirmed, by rising number.
    rounds: deque[_Round] = field(default_factory=deque)
    #: Number of the last round begun.  Numbers mean something within one term only, as do the messages that carry them.
    last_number: int = 0
    #: The highest round each peer has answered.
    answered: dict[NodeId, int] = field(default_factory=dict)
    #: Reads in `rounds`.
    in_rounds: int = 0
    #: Confirmed, for the next Ready.
    confirmed: list[ReadState] = field(default_factory=list)

    def begin(self, index: LogIndex) -> int:
        """Put the waiting reads into a round, to be confirmed from now on; return its number."""
        self.last_number += 1
        self.rounds.append(_Round(self.last_number, index, self.waiting))
        self.in_rounds += len(self.waiting)
        self.waiting = []
        return self.last_number

    def take_confirmed(self) -> list[ReadState]:
        """Return what has been confirmed since the last call."""
        # Never the list itself: the caller keeps what it gets, and further reads are confirmed while it does.
        if not self.confirmed:
            return []
        confirmed, self.confirmed = self.confirmed, []
        return confirmed

    @property
    def pending_number(self) -> int:
        """The newest round that waits for answers; 0 for none."""
        return self.rounds[-1].number if self.rounds else 0

    def answer(self, peer: NodeId, number: int, configuration: Configuration) -> None:
        """`peer` has answered a heartbeat of round `number`; release what a quorum has answered."""
        if not self.rounds or number <= self.answered.get(peer, 0):
            return
        self.answered[peer] = number
        self.release(configuration)

    def release(self, configuration: Configuration) -> None:
        """Confirm what a quorum of `configuration` has answered; called for each answer, and when the configuration changes."""
        if not self.rounds:
            return
        # A round is reached like a log index: the highest number that both majorities have.
        reached = joint_index(configuration.voters, configuration.outgoing, self.answered)
        while self.rounds and self.rounds[0].number <= reached:
            done = self.rounds.popleft()
            self.in_rounds -= len(done.contexts)
            self.confirmed.extend([ReadState(context, done.index) for context in done.contexts])


def read_index(state: "State", context: int) -> None:
    """Ask for a read.  The caller has made sure that this node leads."""
    reads = state.reads
    waiting = len(reads.waiting) + reads.in_rounds
    if waiting >= state.config.max_waiting_reads:
        raise ReadsBusy(f"{waiting} reads wait for a quorum already", waiting=waiting)
    reads.waiting.append(context)


def begin_round(state: "State") -> int:
    """Begin a round with the reads that wait, where one may begin; return its number, 0 where no heartbeat needs to be sent."""
    reads = state.reads
    if not reads.waiting or not state.own_term_committed:
        return 0
    number = reads.begin(state.log.commit)
    reads.answer(state.node_id, number, state.configuration)
    return reads.pending_number
