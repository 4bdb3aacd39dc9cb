"""What else clients do: watch resources, stand for election, be members of groups; and be told of it all.

Every process has a few *participants*, each with one part to play at a time, and a `Feed` of what happens to it.
"""

import random
from collections.abc import Callable

from coord_core.client.session import CallId, Outcome, SessionState
from coord_core.client.subscriptions import StateDelivered
from coord_core.errors import CoordError
from coord_core.machine.streams import StreamName
from coord_core.protocol.elections import (
    Candidate,
    ElectionEnter,
    ElectionResign,
    ElectionState,
    ElectionTransfer,
    Entered,
    LeaderElected,
)
from coord_core.protocol.groups import GroupJoin, GroupLeave, GroupUpdate
from coord_core.protocol.operations import Operation, Owner
from coord_core.protocol.results import Done
from coord_core.protocol.streams import Joined, Subscribe, Subscribed, Unsubscribe
from coord_core.testing.checkers.beliefs import Belief
from coord_core.testing.client import ClientProcess
from coord_core.testing.feed import Feed, Item
from coord_core.testing.simulator import MILLISECOND, Violation
from coord_core.testing.workload import ELECTIONS, GROUPS, VALUES, Books, Habits
from coord_core.types import CandidateId, Epoch, SubscriptionId

#: Kinds and paths, each as often as it is in here: what others do to values costs nothing.
WATCHED = (("group", GROUPS), ("group", GROUPS), ("election", ELECTIONS), ("value", VALUES), ("value", VALUES))


class Participant:
    """One thread of one process's life that plays one part after the other."""

    def __init__(self, process: ClientProcess, books: Books, habits: Habits, rng: random.Random) -> None:
        self._process = process
        self._books = books
        self._habits = habits
        self._rng = rng
        #: What it waits for or is, for people; empty while it has nothing to do, or only watches.
        self.doing = ""
        self._feed: Feed | None = None
        # Ends the present part; None while there is none, or it is ending.
        self._end_now: Callable[[], None] | None = None
        # Counts parts: a timer of an earlier one means nothing.
        self._part = 0
        self._epoch = 0

    def start(self) -> None:
        self._rest()

    def wind_up(self) -> None:
        """Leave elections and groups; go on watching."""
        if self._end_now is not None and self.doing:
            self._end_now()

    def _rest(self) -> None:
        self._part += 1
        self._feed = self._end_now = None
        self.doing = ""
        self._process.later(self._rng.randint(MILLISECOND, self._habits.pause_us_max), self._act)

    def _act(self) -> None:
        if self._books.winding_up or self.doing or self._process.session.state is SessionState.CLOSED:
            return
        paths, choice = self._habits.paths, self._rng.random()
        try:
            if choice < 0.4:
                self._join(self._rng.choice(GROUPS[:paths]))
            elif choice < 0.7:
                self._stand(self._rng.choice(ELECTIONS[:paths]))
            else:
                self._watch(self._any(paths))
        except CoordError as error:
            # An attached process whose session is over takes no more calls.
            self.doing = ""
            self._process.note(f"can do no more: {error}")

    def _any(self, paths: int) -> StreamName:
        kind, names = self._rng.choice(WATCHED)
        return kind, self._rng.choice(names[:paths])

    def _plays(self, end: Callable[[], None]) -> None:
        """A part has begun: it ends some time later, or when everything does."""
        self._end_now = end
        self._later(self._rng.randint(MILLISECOND, self._habits.part_us_max), end)
        if self._books.winding_up and self.doing:
            # Not from within the session's own callback.
            self._later(MILLISECOND, end)

    def _later(self, delay_us: int, action: Callable[[], None]) -> None:
        part = self._part

        def if_still() -> None:
            if part == self._part and self._end_now is not None:
                action()

        self._process.later(delay_us, if_still)

    def _follow(self, subscription: int, after: int, on_item: Callable[[Item], None]) -> None:
        self._feed = Feed(self._process, self._books, self._rng, subscription, after, on_item, self._ended)

    def _ended(self) -> None:
        """The session is over, and with it whatever part was played: another begins."""
        if self._end_now is not None:
            self._rest()

    def _asks(self, operation: Operation, then: Callable[[Outcome], None]) -> None:
        """Ask for a part, and sometimes think better of it."""
        part = self._part
        call = self._process.call(operation, then)
        if self._rng.random() < self._habits.cancels:
            self._process.later(self._rng.randint(1, 1_000) * MILLISECOND, self._think_better, part, call)

    def _think_better(self, part: int, call: CallId) -> None:
        if part == self._part and self._end_now is None:
            self._process.session.cancel(call, self._process.now_ms())

    def _leave(self, what: str, operation: Operation) -> None:
        """Give up a part: nothing of it is followed any more, and the cluster is told."""
        assert self._feed is not None
        self._feed.close()
        self._feed = self._end_now = None
        self.doing = what
        try:
            self._process.call(operation, self._told_left)
        except CoordError as error:
            self.doing = ""
            self._process.note(f"can do no more: {error}")

    def _told_left(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Done | CoordError) or getattr(outcome, "code", "") == "NotHolder":
            raise Violation(f"{self._process.name}: {self.doing} came back as {outcome}")
        self._rest()

    def _refused(self, outcome: Outcome) -> None:
        if not isinstance(outcome, CoordError):
            raise Violation(f"{self._process.name}: {self.doing} came back as {outcome}")
        self._rest()

    # --- watching -----------------------------------------------------------------------------------------------------------------

    def _watch(self, name: StreamName) -> None:
        self.doing = f"subscribe to {name}"
        self._asks(Subscribe(*name), self._told_subscribed)

    def _told_subscribed(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Subscribed):
            self._refused(outcome)
            return
        subscription = outcome.subscription
        self.doing = ""
        self._follow(subscription, 0, _nothing)
        self._plays(lambda: self._stop_watching(subscription))

    def _stop_watching(self, subscription: SubscriptionId) -> None:
        if not self._books.winding_up:
            self._leave(f"unsubscribe {subscription}", Unsubscribe(subscription))

    # --- groups -------------------------------------------------------------------------------------------------------------------

    def _join(self, path: str) -> None:
        label = self._books.name(self._process)
        wait_ms = self._rng.choice((0, self._habits.announce_ms_max // 4, self._habits.announce_ms_max))
        self.doing = f"join {path} as {label}, announced for {wait_ms} ms"
        operation = GroupJoin(path, label.encode(), Owner("simulated", 1, label), wait_ms, self._rng.random() < 0.2)
        self._asks(operation, lambda outcome: self._told_joined(path, label, outcome))

    def _told_joined(self, path: str, label: str, outcome: Outcome) -> None:
        if not isinstance(outcome, Joined):
            self._refused(outcome)
            return
        member = outcome.member
        self._process.note(f"is member {member} of {path}, told to all but {outcome.unacknowledged}")
        self.doing = f"is member {member} of {path}"
        self._follow(member, member, _nothing)
        self._plays(lambda: self._leave(f"leave {path}", GroupLeave(path, member)))
        if self._rng.random() < 0.3:
            update = GroupUpdate(path, member, f"{label} again".encode())
            self._later(self._rng.randint(1, 1_000) * MILLISECOND, lambda: self._says(update))

    def _says(self, operation: Operation) -> None:
        try:
            self._process.call(operation, _noted)
        except CoordError as error:
            self._process.note(f"cannot say {operation}: {error}")

    # --- elections ----------------------------------------------------------------------------------------------------------------

    def _stand(self, path: str) -> None:
        label = self._books.name(self._process)
        self.doing = f"stand for {path} as {label}"
        operation = ElectionEnter(path, Owner("simulated", 1, label))
        self._asks(operation, lambda outcome: self._told_entered(path, label, outcome))

    def _told_entered(self, path: str, label: str, outcome: Outcome) -> None:
        if not isinstance(outcome, Entered):
            self._refused(outcome)
            return
        candidate = outcome.candidate
        self.doing = f"stands for {path} as {label}, candidate {candidate}"
        self._epoch = 0
        self._leads(path, label, outcome.epoch)
        self._follow(candidate, candidate, lambda item: self._told_leader(path, label, candidate, item))
        self._plays(lambda: self._resign(path, candidate))

    def _told_leader(self, path: str, label: str, candidate: CandidateId, item: Item) -> None:
        if isinstance(item, StateDelivered):
            assert isinstance(item.state, ElectionState)
            self._led_by(path, label, candidate, item.state.leader)
            return
        for change in item.changes:
            self._led_by(path, label, candidate, change.leader if isinstance(change, LeaderElected) else None)

    def _led_by(self, path: str, label: str, candidate: CandidateId, leader: Candidate | None) -> None:
        self._leads(path, label, leader.epoch if leader is not None and leader.candidate == candidate else 0)

    def _leads(self, path: str, label: str, epoch: int) -> None:
        """It was told that it leads under an epoch; 0: that it does not."""
        if epoch == self._epoch:
            return
        if self._epoch:
            self._books.beliefs.ends(path, self._epoch)
        self._epoch = epoch
        if not epoch:
            return
        process, session, life, streams = self._process, self._process.session, self._process.life, self._books.streams
        process.note(f"leads {path} as {label}, epoch {epoch}")
        session_id = session.session_id

        def believes() -> bool:
            alive = process.up and process.life == life and session_id is not None and session.session_id == session_id
            deadline_ms = session.lease_deadline_ms
            return alive and deadline_ms is not None and process.now_ms() < deadline_ms and streams.leads(path, epoch)

        self._books.beliefs.begins(path, Belief(label, epoch, believes))
        if self._rng.random() < 0.3:
            hand_on = ElectionTransfer(path, Epoch(epoch), CandidateId(0))
            self._later_leading(epoch, hand_on)

    def _later_leading(self, epoch: int, hand_on: ElectionTransfer) -> None:
        def if_leading() -> None:
            if self._epoch == epoch and self._end_now is not None and not self._books.winding_up:
                self._says(hand_on)

        self._process.later(self._rng.randint(1, 2_000) * MILLISECOND, if_leading)

    def _resign(self, path: str, candidate: CandidateId) -> None:
        if self._epoch:
            self._books.beliefs.ends(path, self._epoch)
            self._epoch = 0
        self._leave(f"resign from {path}", ElectionResign(path, candidate))


def _nothing(item: Item) -> None:
    """Who only watches does nothing with it."""


def _noted(outcome: Outcome) -> None:
    """It may have come too late."""
    if not isinstance(outcome, Done | CoordError):
        raise Violation(f"came back as {outcome}")
