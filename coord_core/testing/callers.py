"""Members that call each other: what is begun is begun once, and whoever is told that nothing was done can rely on it.

Each caller is also a member that takes calls.  Every call has a name of its own, so that it is known what became of it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from coord_core.client.session import CallId, Outcome, SessionState
from coord_core.client.subscriptions import Delivery, StateDelivered, SubscriptionEnded
from coord_core.errors import CoordError, NotFound
from coord_core.protocol.groups import GroupJoin, GroupLeave
from coord_core.protocol.operations import Owner
from coord_core.protocol.results import Done
from coord_core.protocol.streams import Joined, Subscribe, Subscribed
from coord_core.protocol.works import (
    WorkAwait,
    WorkBegin,
    WorkCancel,
    WorkDone,
    WorkDue,
    WorkFinish,
    WorkScheduled,
    WorkState,
    WorkSubmit,
)
from coord_core.testing.client import ClientProcess
from coord_core.testing.simulator import MILLISECOND, Violation
from coord_core.testing.workload import Books, Habits
from coord_core.types import MemberId, WorkId

CALLED = "/calls/a"
#: Calls of one caller at a time.
_UNDER_WAY_MAX = 3


@dataclass
class CallBooks:
    """What became of all calls."""

    #: Who takes calls, as far as they know themselves.
    members: list[MemberId] = field(default_factory=list)
    #: Who began each call, by its name.
    begun: dict[str, list[MemberId]] = field(default_factory=dict)
    #: Calls that may be done twice.
    retried: set[str] = field(default_factory=set)
    #: Calls of which somebody was told that they were not done, and never will be.
    denied: set[str] = field(default_factory=set)
    #: How many were "done", "scheduled", "denied", "unknown".
    seen: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1

    def begins(self, name: str, member: MemberId) -> None:
        if name in self.denied:
            raise Violation(f"{name} is begun by {member}, and somebody was told that it never would be")
        if name in self.begun and name not in self.retried:
            raise Violation(f"{name} is begun by {member}, and was by {self.begun[name]}")
        self.begun.setdefault(name, []).append(member)

    def deny(self, name: str) -> None:
        if name in self.begun and name not in self.retried:
            raise Violation(f"{name} was begun by {self.begun[name]}, and its caller is told that it was not")
        if name not in self.retried:
            self.denied.add(name)
        self.count("denied")


Works: TypeAlias = tuple[WorkDue, ...]


class Caller:
    """One thread of one process's life."""

    def __init__(self, process: ClientProcess, books: Books, calls: CallBooks, habits: Habits, rng: random.Random) -> None:
        self._process = process
        self._books = books
        self._calls = calls
        self._habits = habits
        self._rng = rng
        self._member: MemberId | None = None
        self._told: set[WorkId] = set()
        self._under_way: dict[str, CallId] = {}

    @property
    def doing(self) -> str:
        """What it waits for, for people; empty while it waits for nothing."""
        return f"calls {', '.join(self._under_way)}" if self._under_way else ""

    def start(self) -> None:
        self._later(self._join)
        self._later(self._act)

    def wind_up(self) -> None:
        """Give up all calls, and take none any more."""
        for call in list(self._under_way.values()):
            self._process.later(MILLISECOND, self._cancel, call)
        if self._member is not None:
            self._process.later(MILLISECOND, self._leave)

    def _later(self, action: Callable[[], None]) -> None:
        self._process.later(self._rng.randint(MILLISECOND, self._habits.think_us_max), action)

    def _over(self) -> bool:
        return self._books.winding_up or self._process.session.state is SessionState.CLOSED

    # --- the member --------------------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        if self._over():
            return
        try:
            self._process.call(GroupJoin(CALLED, b"", Owner("simulated", 1), 0, False, True), self._joined)
        except CoordError:
            return

    def _joined(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Joined):
            self._later(self._join)
            return
        self._member = member = outcome.member
        self._told = set()
        if self._books.winding_up:
            self._process.later(MILLISECOND, self._leave)
            return
        self._calls.members.append(member)
        self._process.later(MILLISECOND, self._subscribe, member)

    def _subscribe(self, member: MemberId) -> None:
        if member == self._member:
            try:
                self._process.call(Subscribe("work", f"{CALLED}@{member}"), lambda outcome: self._subscribed(member, outcome))
            except CoordError:
                self._gone(member)

    def _subscribed(self, member: MemberId, outcome: Outcome) -> None:
        if isinstance(outcome, Subscribed) and member == self._member:
            self._process.follow(outcome.subscription, 0, lambda delivery: self._heard(member, outcome, delivery))  # type: ignore[arg-type]
        elif member == self._member:
            self._process.later(50 * MILLISECOND, self._subscribe, member)

    def _heard(self, member: MemberId, subscribed: Subscribed, delivery: Delivery) -> None:
        if isinstance(delivery, SubscriptionEnded):
            self._gone(member)
            return
        if member != self._member:
            return
        if isinstance(delivery, StateDelivered):
            assert isinstance(delivery.state, WorkState)
            due: Works = delivery.state.due
        else:
            due = tuple(change for change in delivery.changes if isinstance(change, WorkDue))
        for work in due:
            if work.work not in self._told:
                self._told.add(work.work)
                self._process.later(self._rng.randint(1, 300) * MILLISECOND, self._begin, member, work)
        self._process.session.acknowledge(subscribed.subscription, delivery.revision)

    def _gone(self, member: MemberId) -> None:
        if self._member == member:
            self._member = None
            self._later(self._join)

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None and self._process.session.state is not SessionState.CLOSED:
            try:
                self._process.call(GroupLeave(CALLED, member), _noted)
            except CoordError:
                return

    def _begin(self, member: MemberId, due: WorkDue) -> None:
        if member != self._member:
            return

        def then(outcome: Outcome) -> None:
            if isinstance(outcome, Done):
                self._calls.begins(due.name, member)
                self._process.later(self._rng.randint(1, 600) * MILLISECOND, self._finish, member, due)

        try:
            self._process.call(WorkBegin(CALLED, member, due.work), then)
        except CoordError:
            return

    def _finish(self, member: MemberId, due: WorkDue) -> None:
        try:
            self._process.call(WorkFinish(CALLED, member, due.work, msgspec.msgpack.encode(due.name)), _noted)
        except CoordError:
            return

    # --- the caller --------------------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        if self._over():
            return
        if self._calls.members and len(self._under_way) < _UNDER_WAY_MAX:
            self._submit(self._rng.choice(self._calls.members[-6:]))
        self._later(self._act)

    def _submit(self, member: MemberId) -> None:
        name, retry = self._books.name(self._process), self._rng.random() < 0.3
        if retry:
            self._calls.retried.add(name)
        delay_ms = self._rng.choice((None, None, 0, 700))
        try:
            call = self._process.call(
                WorkSubmit(CALLED, member, name, b"", delay_ms, retry), lambda told: self._answered(name, told)
            )
        except CoordError:
            return
        self._under_way[name] = call
        if self._rng.random() < self._habits.cancels:
            self._process.later(self._rng.randint(1, 800) * MILLISECOND, self._cancel, call)

    def _cancel(self, call: CallId) -> None:
        self._process.session.cancel(call, self._process.now_ms())

    def _answered(self, name: str, outcome: Outcome) -> None:
        self._under_way.pop(name, None)
        match outcome:
            case WorkDone(result=result):
                if msgspec.msgpack.decode(result) != name or name not in self._calls.begun:
                    raise Violation(f"{name} is said to be done: {outcome}; it was begun by {self._calls.begun.get(name)}")
                self._calls.count("done")
            case WorkScheduled(work=work):
                self._calls.count("scheduled")
                self._process.later(self._rng.randint(1, 900) * MILLISECOND, self._await_or_cancel, name, work)
            case NotFound():
                self._calls.deny(name)
            case CoordError():
                self._calls.count("unknown")
            case _:
                raise Violation(f"{self._process.name}: {name} came back as {outcome}")

    def _await_or_cancel(self, name: str, work: WorkId) -> None:
        try:
            if self._rng.random() < 0.3:
                self._process.call(WorkCancel(CALLED, work), lambda told: self._cancelled(name, told))
            elif not self._books.winding_up:
                self._under_way[name] = self._process.call(WorkAwait(CALLED, work), lambda told: self._waited(name, told))
        except CoordError:
            self._under_way.pop(name, None)

    def _cancelled(self, name: str, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            self._calls.retried.discard(name)
            if name not in self._calls.begun:
                self._calls.deny(name)

    def _waited(self, name: str, outcome: Outcome) -> None:
        """`NotFound` says nothing here: the result may have gone with a session, or with the group."""
        self._under_way.pop(name, None)
        if isinstance(outcome, WorkDone):
            self._answered(name, outcome)


def _noted(outcome: Outcome) -> None:
    """Nobody waits for that."""
