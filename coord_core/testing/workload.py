"""What the clients of a seed do all day: take locks, hold them, give them back or die; write, compare and read values.

Every process runs a few *workers*, each with one thing to do at a time.  Workers record what they called and what came back
in the histories that are judged at the end, and begin and end beliefs.  Values and labels are unique, so that an effect has a
name.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from coord_core.client.session import CallId, ClientSession, Outcome, SessionState
from coord_core.errors import CoordError, OutcomeUnknown
from coord_core.machine.streams import StreamName
from coord_core.protocol.operations import LockAcquire, LockRelease, Operation, Owner, ValueDelete, ValueSet
from coord_core.protocol.queries import LockInfo, LockState, ValueGet, ValueState
from coord_core.protocol.results import Done, Granted, NotGranted, ValueConflict, ValueWritten
from coord_core.testing import models
from coord_core.testing.checkers.beliefs import Belief, BeliefChecks
from coord_core.testing.checkers.parking import ParkingChecks
from coord_core.testing.checkers.records import RecordChecks
from coord_core.testing.checkers.streams import StreamChecks
from coord_core.testing.client import ClientProcess
from coord_core.testing.history import History
from coord_core.testing.messages import Messages
from coord_core.testing.simulator import MILLISECOND, Violation
from coord_core.types import FencingToken, SessionId

Registers: TypeAlias = History[models.RegisterAction, models.RegisterOutcome]
Locks: TypeAlias = History[models.LockAction, models.LockOutcome]

LOCKS = ("/locks/a", "/locks/b", "/locks/c")
VALUES = ("/values/x", "/values/y", "/values/z")
ELECTIONS = ("/elections/a", "/elections/b")
GROUPS = ("/groups/a", "/groups/b")
#: Locks that are broken, and that stay closed after some of their holders.
CLOSING_LOCKS = ("/closing/a", "/closing/b")
SEMAPHORES = ("/semaphores/a",)
LIMITERS = ("/limiters/a",)
#: Locks of work that passes from process to process.
RELAYS = ("/relays/a", "/relays/b")

#: All that anybody subscribes to.
STREAMS: tuple[StreamName, ...] = (
    *(("value", path) for path in VALUES),
    *(("election", path) for path in ELECTIONS),
    *(("group", path) for path in GROUPS),
)


@dataclass
class Books:
    """What all workers write into, and the checkers read."""

    #: Told of each named effect that a client was assured of: its name and index.
    acknowledged: Callable[[bytes | str, int], None]
    beliefs: BeliefChecks
    streams: StreamChecks
    records: RecordChecks = field(default_factory=RecordChecks)
    parking: ParkingChecks = field(default_factory=ParkingChecks)
    registers: Registers = field(default_factory=History)
    locks: Locks = field(default_factory=History)
    #: Named operations whose clients were told that they were surely not applied.
    denied: set[bytes | str] = field(default_factory=set)
    #: The names of each worker's writes, in the order in which they were called.
    sequences: list[list[bytes]] = field(default_factory=list)
    #: No new work: give back what is held.
    winding_up: bool = False
    names: int = 0

    def name(self, process: ClientProcess) -> str:
        self.names += 1
        return f"{process.name}.{process.life}/{self.names}"


@dataclass(frozen=True, slots=True)
class Habits:
    """How the workers of one seed behave."""

    #: Between two things to do.
    think_us_max: int = 300 * MILLISECOND
    #: How long a lock is held.
    hold_us_max: int = 500 * MILLISECOND
    #: Of all things to do, how many are about locks.
    locks: float = 0.5
    #: Of the acquires, how many are withdrawn while they wait.
    cancels: float = 0.1
    #: How many paths of each kind are used.
    paths: int = 2
    #: How long the cluster keeps a session that it does not hear of.
    ttl_ms: int = 2_000
    #: Of each keeper: how many of its threads watch, stand for election and are members; how long until they do, and for how long.
    participants: int = 1
    pause_us_max: int = 4_500 * MILLISECOND
    part_us_max: int = 6_000 * MILLISECOND
    #: Of each keeper: how many of its threads take permits, break locks, and the like.
    claimants: int = 1
    #: How long a join waits for the others, at most.
    announce_ms_max: int = 2_000
    #: Of all things to do, how many are about topics.
    topics: float = 0.0
    #: Of each keeper: how many of its threads run tasks, and park those that find their lock taken.
    parkers: int = 0
    #: Pieces of work that pass from process to process.
    relays: int = 0
    #: Threads of a process that call members of a group, and are called.
    callers: int = 0


def draw_habits(rng: random.Random) -> Habits:
    return Habits(
        think_us_max=rng.choice((250, 600, 1_500)) * MILLISECOND,
        hold_us_max=rng.choice((20, 200, 1_500)) * MILLISECOND,
        locks=rng.choice((0.2, 0.5, 0.8)),
        cancels=rng.choice((0.0, 0.2)),
        paths=rng.choice((1, 2, 3)),
        ttl_ms=rng.choice((1_000, 2_000, 4_000)),
        topics=rng.choice((0.0, 0.0, 0.2)),
        relays=rng.choice((0, 0, 1)),
        parkers=rng.choice((0, 0, 1)),
        callers=rng.choice((0, 0, 1)),
    )


class Worker:
    """One thread of one process's life."""

    def __init__(self, process: ClientProcess, books: Books, habits: Habits, rng: random.Random) -> None:
        self._process = process
        self._books = books
        self._habits = habits
        self._rng = rng
        #: The version of each value as last seen: what to compare with.
        self._versions: dict[str, int] = {}
        #: What it waits for or holds, for people; empty while it has nothing to do.
        self.doing = ""
        self._release_now: Callable[[], None] | None = None
        self._writes: list[bytes] = []
        books.sequences.append(self._writes)
        self._messages = Messages(process, books.records, rng, self._rest)

    def start(self) -> None:
        self._rest()

    def wind_up(self) -> None:
        """Give back what is held, without waiting for the end of the holding time."""
        if self._release_now is not None:
            self._release_now()

    def _rest(self) -> None:
        self.doing = ""
        self._process.later(self._rng.randint(MILLISECOND, self._habits.think_us_max), self._act)

    def _act(self) -> None:
        if self._books.winding_up or self.doing or self._process.session.state is SessionState.CLOSED:
            return
        try:
            # Where there are none, nothing is drawn: the seeds stay what they were.
            if self._habits.topics and self._rng.random() < self._habits.topics:
                self.doing = self._messages.act(self._books.name(self._process))
            elif self._rng.random() < self._habits.locks:
                self._use_lock(self._rng.choice(LOCKS[: self._habits.paths]))
            else:
                self._use_value(self._rng.choice(VALUES[: self._habits.paths]))
        except CoordError as error:
            # An attached process whose session is over takes no more calls.
            self.doing = ""
            self._process.note(f"can do no more: {error}")

    # --- values -------------------------------------------------------------------------------------------------------------------

    def _use_value(self, path: str) -> None:
        choice = self._rng.random()
        if choice < 0.4:
            self._get(path)
        elif choice < 0.65:
            self._set(path, None)
        elif choice < 0.95:
            self._set(path, self._versions.get(path, 0))
        else:
            self._delete(path, self._versions.get(path) if self._rng.random() < 0.5 else None)

    def _get(self, path: str) -> None:
        operation = self._books.registers.call(self._process.name, path, models.Read())
        self.doing = f"get {path}"
        self._process.ask(ValueGet(path), lambda outcome: self._told_value(path, operation, outcome))

    def _set(self, path: str, expected: int | None) -> None:
        value = self._books.name(self._process).encode()
        self._writes.append(value)
        operation = self._books.registers.call(self._process.name, path, models.Write(value, expected))
        self._change(path, ValueSet(path, value, expected=expected), operation)

    def _delete(self, path: str, expected: int | None) -> None:
        operation = self._books.registers.call(self._process.name, path, models.Delete(expected))
        self._change(path, ValueDelete(path, expected), operation)

    def _change(self, path: str, operation: Operation, record: models.RegisterOperation) -> None:
        self.doing = f"{record.action} {path}"
        timeout_ms = self._rng.choice((None, 300, 3_000))
        self._process.call(operation, lambda outcome: self._told_value(path, record, outcome), timeout_ms=timeout_ms)

    def _told_value(self, path: str, record: models.RegisterOperation, outcome: Outcome) -> None:
        registers = self._books.registers
        match outcome:
            case ValueWritten(version=version):
                assert isinstance(record.action, models.Write)
                self._versions[path] = version
                self._books.acknowledged(record.action.value, version)
                registers.returns(record, models.Written(version))
            case ValueConflict(version=version, value=value) | ValueState(version=version, value=value):
                self._versions[path] = version
                registers.returns(record, models.Seen(version, value))
            case Done():
                registers.returns(record, models.Deleted())
            case OutcomeUnknown():
                pass
            case CoordError():
                registers.discard(record)
                if isinstance(record.action, models.Write):
                    self._books.denied.add(record.action.value)
            case _:
                raise Violation(f"{self._process.name}: {record} came back as {outcome}")
        self._rest()

    # --- locks --------------------------------------------------------------------------------------------------------------------

    def _use_lock(self, path: str) -> None:
        if self._rng.random() < 0.15:
            self._look(path)
        else:
            self._acquire(path)

    def _look(self, path: str) -> None:
        record = self._books.locks.call(self._process.name, path, models.Look())
        self.doing = f"look at {path}"
        self._process.ask(LockInfo(path), lambda outcome: self._told_look(record, outcome))

    def _told_look(self, record: models.LockOperation, outcome: Outcome) -> None:
        match outcome:
            case LockState(holder=None):
                self._books.locks.returns(record, models.HeldBy(0, ""))
            case LockState(holder=holder) if holder is not None:
                self._books.locks.returns(record, models.HeldBy(int(holder.token), holder.owner.label))
            case CoordError():
                self._books.locks.discard(record)
            case _:
                raise Violation(f"{self._process.name}: {record} came back as {outcome}")
        self._rest()

    def _acquire(self, path: str) -> None:
        label = self._books.name(self._process)
        wait_ms = self._rng.choice((0, 200, 2_000, None))
        record = self._books.locks.call(self._process.name, path, models.Acquire(label))
        self.doing = f"acquire {path} as {label}, wait {wait_ms}"
        operation = LockAcquire(path, wait_ms, Owner("simulated", 1, label))
        asked_us = self._process.simulator.now_us

        def then(outcome: Outcome) -> None:
            if isinstance(outcome, NotGranted) and outcome.reason == "timeout" and outcome.holder is not None:
                self._judge_patience(label, wait_ms, asked_us)
            self._told_acquire(path, record, outcome)

        call = self._process.call(operation, then)
        if wait_ms != 0 and self._rng.random() < self._habits.cancels:
            self._process.later(self._rng.randint(1, 1_000) * MILLISECOND, self._cancel, call)

    def _judge_patience(self, label: str, wait_ms: int | None, asked_us: int) -> None:
        """The cluster's clock may stand still while nobody leads; it never runs ahead."""
        waited_us = self._process.simulator.now_us - asked_us
        if wait_ms is None or waited_us < wait_ms * MILLISECOND * 0.99:
            raise Violation(f"{label} would wait {wait_ms} ms and was turned away after {waited_us / MILLISECOND:.0f} ms")

    def _cancel(self, call: CallId) -> None:
        self._process.session.cancel(call, self._process.now_ms())

    def _told_acquire(self, path: str, record: models.LockOperation, outcome: Outcome) -> None:
        assert isinstance(record.action, models.Acquire)
        label, locks = record.action.label, self._books.locks
        match outcome:
            case Granted(token=token):
                self._books.acknowledged(label, token)
                locks.returns(record, models.Holds(token))
                self._hold(path, label, token)
                return
            case NotGranted(holder=holder, holder_token=token) if holder is not None:
                locks.returns(record, models.HeldBy(token, holder.label))
            case NotGranted() | OutcomeUnknown():
                # Given up here: what the cluster made of it is not known.
                pass
            case CoordError():
                locks.discard(record)
                self._books.denied.add(label)
            case _:
                raise Violation(f"{self._process.name}: {record} came back as {outcome}")
        self._rest()

    def _hold(self, path: str, label: str, token: FencingToken) -> None:
        process, session = self._process, self._process.session
        process.note(f"holds {path} as {label}, token {token}")
        life = process.life
        self.doing = f"hold {path} as {label}"
        belief = Belief(label, token, lambda: _believes(process, life, session, path, token))
        self._books.beliefs.begins(path, belief)
        session_id = session.session_id
        self._release_now = lambda: self._release(path, token, session_id)
        if self._books.winding_up:
            # Not from within the session's own callback.
            process.later(MILLISECOND, self.wind_up)
        else:
            process.later(self._rng.randint(MILLISECOND, self._habits.hold_us_max), self._let_go, token)
        self._holding = token

    def _let_go(self, token: FencingToken) -> None:
        if self._release_now is not None and self._holding == token:
            self._release_now()

    def _release(self, path: str, token: FencingToken, session_id: SessionId | None) -> None:
        self._release_now = None
        process, session = self._process, self._process.session
        believed = session.believes_held(path, token, process.now_ms())
        self._books.beliefs.ends(path, token)
        # None: the session was lost or closed in the turn in which the grant came.
        if session_id is None or session.session_id != session_id:
            self._rest()
            return
        if not believed and session.lease_deadline_ms is not None and process.now_ms() < session.lease_deadline_ms:
            raise Violation(f"{process.name} forgot that it holds {path} under token {token}")
        self.doing = f"release {path}, token {token}"
        record = self._books.locks.call(process.name, path, models.Release(token))
        process.call(LockRelease(path, token), lambda outcome: self._told_release(record, outcome))

    def _told_release(self, record: models.LockOperation, outcome: Outcome) -> None:
        match outcome:
            case Done():
                self._books.locks.returns(record, models.Released())
            case CoordError(code="NotHolder"):
                self._books.locks.returns(record, models.NotHeld())
            case OutcomeUnknown():
                pass
            case CoordError():
                self._books.locks.discard(record)
            case _:
                raise Violation(f"{self._process.name}: {record} came back as {outcome}")
        self._rest()


def _believes(process: ClientProcess, life: int, session: ClientSession, path: str, token: FencingToken) -> bool:
    alive = process.up and process.life == life
    return alive and session.believes_held(path, token, process.now_ms())
