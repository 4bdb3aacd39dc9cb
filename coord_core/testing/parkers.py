"""What a Celery worker does with a parking lot: run tasks under a lock, park those that find it taken, send on what is called.

Every keeper has some *parkers*; each takes a message from the broker, or is the lot's consumer for a moment, one thing at a time.
A process that dies leaves its message to be delivered again.  `checkers.parking` judges what comes of it.
"""

import random
from collections.abc import Callable

from coord_core.client.session import Outcome, SessionState
from coord_core.errors import CoordError, NotHolder, OutcomeUnknown
from coord_core.protocol.operations import LockAcquire, LockRelease, Operation, Owner
from coord_core.protocol.parking import (
    Park,
    Parked,
    ParkingClaim,
    ParkingCommit,
    ParkingFetch,
    ParkingFetched,
    ParkingFull,
    Unpark,
    Unparked,
)
from coord_core.protocol.results import Done, Granted, NotGranted
from coord_core.protocol.topics import Claimed, ClaimRefused, Committed
from coord_core.testing.checkers.parking import KEYS, LOT, ParkingChecks, gate_of, message_of
from coord_core.testing.client import ClientProcess
from coord_core.testing.simulator import MILLISECOND, Violation
from coord_core.testing.workload import Books, Habits
from coord_core.types import FencingToken

#: Tasks of a run: all of them must be over soon after everything is healed.
TASKS_MAX = 60
GRACE_MS = 1_500
#: How soon the next thing is done where everything is to come to an end.
HURRY_US = 40 * MILLISECOND


class Parker:
    """One thread of one process's life."""

    def __init__(self, process: ClientProcess, books: Books, habits: Habits, rng: random.Random) -> None:
        self._process = process
        self._books = books
        self._checks: ParkingChecks = books.parking
        self._habits = habits
        self._rng = rng
        self._doing = ""
        #: Whether it believes to be the lot's consumer.
        self._consumes = False
        # The message that it has taken from the broker.
        self._message: int | None = None

    @property
    def doing(self) -> str:
        """For people; empty while it has nothing to do."""
        if self._books.winding_up and not self._checks.is_drained:
            return self._doing or f"drain: {len(self._checks.broker.messages)} messages, {self._checks.pieces} pieces"
        return self._doing

    def start(self) -> None:
        self._rest()

    def wind_up(self) -> None:
        """Nothing new comes; it goes on until everything is over."""

    def _rest(self) -> None:
        self._doing = ""
        if self._message is not None:
            self._checks.broker.give_back(self._message)
            self._message = None
        pause_us = HURRY_US if self._books.winding_up else self._habits.think_us_max
        self._process.later(self._rng.randint(MILLISECOND, pause_us), self._act)

    def _act(self) -> None:
        if self._process.session.state is SessionState.CLOSED or (self._books.winding_up and self._checks.is_drained):
            return
        try:
            choice = self._rng.random()
            if choice < 0.35:
                self._consume()
            elif choice < 0.5 and not self._books.winding_up and len(self._checks.made) < TASKS_MAX:
                self._make()
            elif choice < 0.501 and not self._books.winding_up:
                self._revoke()
            else:
                self._work()
        except CoordError as error:
            self._process.note(f"can do no more: {error}")

    def _call(self, operation: Operation, then: Callable[[Outcome], None]) -> None:
        """Not from within the session's own callback."""
        self._doing = f"{operation}"

        def call() -> None:
            try:
                self._process.call(operation, then)
            except CoordError:
                self._rest()

        self._process.later(MILLISECOND, call)

    # --- tasks --------------------------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        name = self._books.name(self._process)
        self._checks.made.add(name)
        self._checks.broker.send(self._rng.choice(KEYS), name)
        self._rest()

    def _work(self) -> None:
        process, life = self._process, self._process.life
        number = self._checks.broker.take(self._rng, lambda: process.up and process.life == life)
        if number is None:
            self._rest()
            return
        self._message = number
        message = self._checks.broker.messages[number]
        owner = Owner("simulated", 1, self._books.name(process))

        def then(outcome: Outcome) -> None:
            match outcome:
                case Granted(token=token):
                    hold_us = HURRY_US if self._books.winding_up else self._habits.hold_us_max
                    process.later(self._rng.randint(MILLISECOND, hold_us), self._ran, message.key, message.id, token)
                case NotGranted():
                    self._park(message.key, message.id)
                case CoordError():
                    self._rest()
                case _:
                    raise Violation(f"{process.name}: {owner.label} came back as {outcome}")

        self._call(LockAcquire(gate_of(message.key), 0, owner), then)

    def _ran(self, key: str, name: str, token: FencingToken) -> None:
        self._checks.over.add(name)
        self._checks.note("ran")
        self._acknowledge()
        self._call(LockRelease(gate_of(key), token), self._done)

    def _park(self, key: str, name: str) -> None:
        wait_ms = None if self._books.winding_up else self._rng.choice((None, None, 2_000))
        message = message_of(key, name).ljust(self._rng.choice((0, 0, 400)), b".")

        def then(outcome: Outcome) -> None:
            match outcome:
                case Parked(is_new=is_new):
                    self._checks.note("parked" if is_new else "parked twice")
                    self._acknowledge()
                case ParkingFull() | CoordError():
                    pass
                case _:
                    raise Violation(f"{self._process.name}: parking {name} came back as {outcome}")
            self._rest()

        most = self._rng.choice((3, 10_000))
        self._call(Park(LOT, key, name, message, gate_of(key), 1, wait_ms, most, GRACE_MS), then)

    def _revoke(self) -> None:
        key = self._rng.choice(KEYS)
        line = self._checks.lines[key]
        if not line:
            self._rest()
            return
        name = self._rng.choice(line)
        # It may be gone from there by then, and on its way, or have been: who revokes does not want it run.
        self._checks.doubtful.add(name)

        def then(outcome: Outcome) -> None:
            if not isinstance(outcome, Unparked | CoordError):
                raise Violation(f"{self._process.name}: unparking {name} came back as {outcome}")
            self._checks.note("revoked")
            self._rest()

        self._call(Unpark(LOT, key, name), then)

    def _acknowledge(self) -> None:
        """The broker may forget the message."""
        if self._message is not None:
            self._checks.broker.acknowledge(self._message)
            self._message = None

    # --- the consumer -------------------------------------------------------------------------------------------------------------

    def _consume(self) -> None:
        if self._consumes:
            self._fetch()
        else:
            self._call(ParkingClaim(LOT, Owner("simulated", 1)), self._claimed)

    def _claimed(self, outcome: Outcome) -> None:
        match outcome:
            case Claimed():
                self._consumes = True
            case ClaimRefused() | CoordError():
                pass
            case _:
                raise Violation(f"{self._process.name}: a claim came back as {outcome}")
        self._rest()

    def _fetch(self) -> None:
        self._doing = "fetch what is called"
        query = ParkingFetch(LOT, 0, self._rng.choice((1, 3, 100)), self._rng.choice((1, 100_000)))
        self._process.ask(query, self._fetched)

    def _fetched(self, outcome: Outcome) -> None:
        match outcome:
            case ParkingFetched(deliveries=deliveries) if deliveries:
                for delivery in deliveries:
                    self._checks.fetched(delivery)
                    if delivery.expired:
                        self._checks.over.add(delivery.id)
                    else:
                        self._checks.broker.send(delivery.key, delivery.id)
                # What was sent on may have come, and be back, by the time of the commit.
                commit = ParkingCommit(LOT, deliveries[-1].offset + 1)
                pause_us = HURRY_US if self._books.winding_up else self._habits.hold_us_max
                self._process.later(self._rng.randint(MILLISECOND, pause_us), self._call, commit, self._committed)
                return
            case ParkingFetched() | CoordError():
                pass
            case _:
                raise Violation(f"{self._process.name}: a fetch came back as {outcome}")
        self._rest()

    def _committed(self, outcome: Outcome) -> None:
        match outcome:
            case NotHolder() | OutcomeUnknown():
                # Another process has it; or another session of this one will have to ask for it.
                self._consumes = False
            case Committed() | CoordError():
                pass
            case _:
                raise Violation(f"{self._process.name}: a commit came back as {outcome}")
        self._rest()

    def _done(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Done | CoordError):
            raise Violation(f"{self._process.name}: {self._doing} came back as {outcome}")
        self._rest()
