"""What is promised of parking lots, judged entry by entry, and at the end: nothing waits for nothing, all in order, none lost.

The checker keeps each key's line as it was after the last entry, from public queries, and compares what became of it.  Besides it
keeps what no cluster knows: the broker's messages, which tasks there are, and which of them are over.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from coord_core.machine import Applied
from coord_core.protocol.commands import Call, Command
from coord_core.protocol.parking import (
    Delivery,
    Park,
    ParkedList,
    ParkedListing,
    ParkingCommit,
    ParkingFetch,
    ParkingInfo,
    ParkingState,
    Unpark,
    Unparked,
)
from coord_core.protocol.queries import LockInfo, LockState
from coord_core.protocol.topics import Committed
from coord_core.testing.checkers.applied import ObservedMachine
from coord_core.testing.simulator import Violation
from coord_core.types import AttachmentId, RequestNumber

LOT = "/parked/lot"
KEYS = ("a", "b")


def gate_of(key: str) -> str:
    return f"/parked/{key}"


@dataclass(slots=True)
class Message:
    """A task in the broker; delivered again when whoever took it is gone."""

    key: str
    id: str
    #: Whether somebody works on it at the moment.
    is_taken: Callable[[], bool] = bool


@dataclass
class Broker:
    """At least once, in about the order in which messages came."""

    messages: dict[int, Message] = field(default_factory=dict)
    sent: int = 0

    def send(self, key: str, name: str) -> None:
        self.sent += 1
        self.messages[self.sent] = Message(key, name)

    def take(self, rng: random.Random, is_taken: Callable[[], bool]) -> int | None:
        free = [number for number, message in self.messages.items() if not message.is_taken()]
        if not free:
            return None
        number = rng.choice(free[:3])
        self.messages[number].is_taken = is_taken
        return number

    def give_back(self, number: int) -> None:
        if number in self.messages:
            self.messages[number].is_taken = bool

    def acknowledge(self, number: int) -> None:
        self.messages.pop(number, None)


@dataclass
class ParkingChecks:
    """See the module's text."""

    broker: Broker = field(default_factory=Broker)
    #: Tasks that there are; those that have run, expired or were revoked; and those that may have been revoked.
    made: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    #: Who waits, by key, after the last entry.
    lines: dict[str, list[str]] = field(default_factory=lambda: {key: [] for key in KEYS})
    #: Pieces that are kept.
    pieces: int = 0
    _lot: int = 0
    _end: int = 0
    _committed: int = 0
    #: When each piece was parked first, as long as its seat is kept.
    _tickets: dict[str, dict[str, int]] = field(default_factory=lambda: {key: {} for key in KEYS})
    _commits: set[tuple[AttachmentId, RequestNumber]] = field(default_factory=set)
    #: How often each thing happened, so that a run that proves nothing can be told.
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def is_drained(self) -> bool:
        return not self.broker.messages and not self.pieces

    def note(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1

    # --- entry by entry -----------------------------------------------------------------------------------------------------------

    def applied(self, machine: ObservedMachine, index: int, command: Command, applied: Applied) -> None:
        """An entry was applied for the first time anywhere."""
        state = machine.query(ParkingInfo(LOT))
        if not isinstance(state, ParkingState):
            raise Violation(f"{LOT} cannot be looked at: {state}")
        if state.lot != self._lot:
            self._lot, self._end, self._committed = state.lot, 0, 0
        self.pieces = state.pieces
        self._commit(command, applied)
        deliveries = self._deliveries(machine, index)
        called = {key.key: key.called for key in state.keys}
        self._forget_seats(command, applied, deliveries)
        for key in KEYS:
            if key not in called:
                self._tickets[key].clear()
            self._judge_line(machine, key, index, command, deliveries)
            self._judge_wakefulness(machine, key, index, called.get(key, 0))

    def _commit(self, command: Command, applied: Applied) -> None:
        if type(command) is Call and isinstance(command.operation, ParkingCommit) and isinstance(applied.result, Committed):
            request = command.attachment, command.request
            # One that comes again is answered again, also of a lot that is gone meanwhile.
            if request not in self._commits:
                self._commits.add(request)
                self._committed = max(self._committed, applied.result.offset)

    def _deliveries(self, machine: ObservedMachine, index: int) -> list[Delivery]:
        """Return what the entry called; what is committed must not be there any more."""
        found = machine.parking.place(ParkingFetch(LOT, 0))
        if not isinstance(found, tuple):
            raise Violation(f"{LOT} cannot be fetched from: {found}")
        all_of_it = [placed.delivery for placed in found[1]]
        if all_of_it and all_of_it[0].offset < self._committed:
            raise Violation(f"entry {index}: {all_of_it[0]} is handed out, and was committed up to {self._committed}")
        new = [delivery for delivery in all_of_it if delivery.offset >= self._end]
        self._end = found[0].end
        for delivery in new:
            self.note("expired" if delivery.expired else "called")
        return new

    def _forget_seats(self, command: Command, applied: Applied, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.expired:
                self._tickets[delivery.key].pop(delivery.id, None)
        if type(command) is Call and isinstance(command.operation, Unpark) and applied.result != Unparked(""):
            self._tickets[command.operation.key].pop(command.operation.id, None)

    def _judge_line(self, machine: ObservedMachine, key: str, index: int, command: Command, deliveries: list[Delivery]) -> None:
        listing = machine.query(ParkedList(LOT, key, 1_000))
        if not isinstance(listing, ParkedListing):
            raise Violation(f"{LOT} cannot be listed: {listing}")
        before, now = self.lines[key], [piece.id for piece in listing.pieces]
        stayed = [name for name in now if name in before]
        if stayed != [name for name in before if name in now]:
            raise Violation(f"entry {index}: the line of {key} was {before} and is {now}")
        for name in now:
            if name not in before and not self._may_come(name, key, command):
                raise Violation(f"entry {index}: {name} is in the line of {key}, and nobody parked it")
            if name not in before:
                self.note("came back" if name in self._tickets[key] else "new")
                self._tickets[key].setdefault(name, index)
        if now != sorted(now, key=self._tickets[key].__getitem__):
            raise Violation(f"entry {index}: the line of {key} is {now}, their tickets are {self._tickets[key]}")
        for delivery in deliveries:
            if delivery.key != key or delivery.expired:
                continue
            ticket = self._tickets[key].setdefault(delivery.id, index)
            passed = [name for name in now if self._tickets[key][name] < ticket]
            if passed:
                raise Violation(f"entry {index}: {delivery.id} was called before {passed}")
        self.lines[key] = now

    @staticmethod
    def _may_come(name: str, key: str, command: Command) -> bool:
        operation = command.operation if type(command) is Call else None
        return isinstance(operation, Park) and (operation.key, operation.id) == (key, name)

    def _judge_wakefulness(self, machine: ObservedMachine, key: str, index: int, called: int) -> None:
        lock = machine.query(LockInfo(gate_of(key)))
        if not isinstance(lock, LockState):
            raise Violation(f"{gate_of(key)} cannot be looked at: {lock}")
        if self.lines[key] and not called and lock.holder is None and lock.closed is None:
            raise Violation(f"entry {index}: {self.lines[key]} wait for {gate_of(key)}, which is free")

    # --- what clients were told ---------------------------------------------------------------------------------------------------

    def fetched(self, delivery: Delivery) -> None:
        if delivery.message.rstrip(b".") != message_of(delivery.key, delivery.id):
            raise Violation(f"{delivery.id} of {delivery.key} was handed out as {delivery.message!r}")
        self.note("handed out")

    # --- the end ------------------------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Everything has come to rest."""
        lost = self.made - self.over - self.doubtful
        if lost:
            raise Violation(f"{sorted(lost)} were parked or sent, and never ran")


def message_of(key: str, name: str) -> bytes:
    return f"{key}/{name}".encode()
