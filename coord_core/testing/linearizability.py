"""Is there an order of these operations, each within its own call and return, that one plain object could have gone through?

The search is Wing and Gong's ("Testing and Verifying Concurrent Objects", 1993) with Lowe's memory of (set of operations,
state) pairs already tried ("Testing for linearizability", 2016).  An operation that only observes is no choice: where it fits, it
may as well stand, so it is put there at once and never tried elsewhere; without that, a hundred reads that wait at a leader which
has fallen silent would be tried in all their subsets.  The search is exponential in the worst case all the same, so histories are
cut by key and every search has a bound on its steps; over it the verdict is UNDECIDED, never a silent yes.

Models of what we check live in `models`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from coord_core.testing.history import Observed

State = TypeVar("State", bound=Hashable)

STEPS_MAX = 200_000


class Model(Protocol[State]):
    """A sequential object."""

    def initial(self) -> State: ...

    def step(self, state: State, operation: Observed[Any, Any]) -> State | None:
        """Return the state after `operation`, or None where its outcome is impossible in `state`.

        An open operation has no outcome to compare: say only what it would do.
        """

    def observes(self, operation: Observed[Any, Any]) -> bool:
        """Return whether `operation`, by its outcome, changes no state that it is possible in."""


class Verdict(Enum):
    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    #: The search was given up at its bound.
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    #: Operations in the longest order found; on failure, where to begin to look.
    longest: tuple[Observed[Any, Any], ...]
    #: Where it failed: the completed operations that fit after none of the orders tried at that length.
    stuck: tuple[Observed[Any, Any], ...] = ()


class _Event:
    """A call or a return in the doubly linked list of events not yet linearized."""

    __slots__ = ("after", "before", "bit", "operation", "returns")

    def __init__(self, operation: Observed[Any, Any] | None, bit: int) -> None:
        #: None marks a return event and the head of the list.
        self.operation = operation
        self.bit = bit
        #: Of a call: its return event; None where it is open.
        self.returns: _Event | None = None
        self.before: _Event | None = None
        self.after: _Event | None = None

    def take_out(self) -> None:
        assert self.before is not None
        self.before.after = self.after
        if self.after is not None:
            self.after.before = self.before

    def put_back(self) -> None:
        assert self.before is not None
        self.before.after = self
        if self.after is not None:
            self.after.before = self


def judge(model: Model[State], operations: Sequence[Observed[Any, Any]], *, steps_max: int = STEPS_MAX) -> Judgement:
    """Return whether `operations` (of one key) are linearizable with regard to `model`."""
    return _Search(model, operations, steps_max).run()


class _Search(Generic[State]):
    def __init__(self, model: Model[State], operations: Sequence[Observed[Any, Any]], steps_max: int) -> None:
        self._model = model
        self._operations = operations
        self._steps_left = steps_max
        self._state = model.initial()
        self._head = _linked(operations)
        #: Bits of the operations linearized so far.
        self._done = 0
        self._completed_left = sum(operation.returned is not None for operation in operations)
        self._order: list[tuple[_Event, State]] = []
        self._tried: set[tuple[int, State]] = set()
        self._longest: tuple[Observed[Any, Any], ...] = ()

    def run(self) -> Judgement:
        self._observe()
        event = self._head.after
        while self._completed_left:
            self._steps_left -= 1
            if self._steps_left < 0:
                return Judgement(Verdict.UNDECIDED, self._longest)
            if event is not None and event.operation is not None:
                if self._linearize(event):
                    self._observe()
                    event = self._head.after
                else:
                    event = event.after
            elif (choice := self._backtrack()) is not None:
                event = choice.after
            else:
                return Judgement(Verdict.NOT_LINEARIZABLE, self._longest, self._stuck())
        return Judgement(Verdict.LINEARIZABLE, self._in_order())

    def _observe(self) -> None:
        """Put next in the order whatever only observes and fits here."""
        event = self._head.after
        while event is not None and event.operation is not None:
            after = event.after
            if self._model.observes(event.operation) and self._linearize(event):
                # Its return is gone too, and behind that may be more calls that can be placed.
                self._steps_left -= 1
                after = event.before.after if event.before is not None else None
            event = after

    def _linearize(self, event: _Event) -> bool:
        """Try to put this call next in the order; say whether that was possible and new."""
        assert event.operation is not None
        state = self._model.step(self._state, event.operation)
        if state is None or (self._done | event.bit, state) in self._tried:
            return False
        self._done |= event.bit
        self._tried.add((self._done, state))
        self._order.append((event, self._state))
        self._state = state
        event.take_out()
        if event.returns is not None:
            event.returns.take_out()
            self._completed_left -= 1
        if len(self._order) > len(self._longest):
            self._longest = self._in_order()
        return True

    def _backtrack(self) -> _Event | None:
        """A return was reached whose call could not be placed: take the last choice back, and what was observed after it.

        Returns None where there was no choice.
        """
        while self._order:
            event, self._state = self._order.pop()
            self._done &= ~event.bit
            if event.returns is not None:
                event.returns.put_back()
                self._completed_left += 1
            event.put_back()
            assert event.operation is not None
            if not self._model.observes(event.operation):
                return event
        return None

    def _in_order(self) -> tuple[Observed[Any, Any], ...]:
        return tuple(event.operation for event, _ in self._order if event.operation is not None)

    def _stuck(self) -> tuple[Observed[Any, Any], ...]:
        placed = {id(operation) for operation in self._longest}
        left = [operation for operation in self._operations if id(operation) not in placed and operation.returned is not None]
        return tuple(left[:5])


def _linked(operations: Sequence[Observed[Any, Any]]) -> _Event:
    """Return the head of the list of all calls and returns in the order of the history."""
    events: list[tuple[int, _Event]] = []
    for number, operation in enumerate(operations):
        call = _Event(operation, 1 << number)
        events.append((operation.called, call))
        if operation.returned is not None:
            call.returns = _Event(None, 0)
            events.append((operation.returned, call.returns))
    head = last = _Event(None, 0)
    for _, event in sorted(events, key=lambda pair: pair[0]):
        last.after, event.before = event, last
        last = event
    return head
