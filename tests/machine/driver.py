"""A log and its clients in a few lines: every entry goes through `Log.apply`, and after each the invariants are checked."""

from typing import Any

import msgspec

from coord_core.machine import Applied, Machine
from coord_core.machine.invariants import check
from coord_core.machine.streams import Record, Stretch
from coord_core.protocol.commands import (
    Attempt,
    Call,
    CloseAttachment,
    CloseSession,
    Command,
    ExpireSession,
    HandOff,
    OpenAttachment,
    OpenDetached,
    OpenSession,
    Tick,
)
from coord_core.protocol.elections import ElectionEnter, ElectionInfo, ElectionState, Entered
from coord_core.protocol.groups import GroupInfo, GroupJoin, GroupState
from coord_core.protocol.limiters import LimiterInfo, LimiterState, RateAcquire
from coord_core.protocol.locks import LockBreak
from coord_core.protocol.operations import Cancel, LockAcquire, LockRelease, Operation, Owner, ValueDelete, ValueSet
from coord_core.protocol.queries import LockInfo, LockState, SessionInfo, SessionState, ValueGet, ValueState
from coord_core.protocol.results import AttachmentOpened, DetachedOpened, Failed, Granted, Result, SessionOpened
from coord_core.protocol.semaphores import PermitsGranted, SemaphoreAcquire, SemaphoreInfo, SemaphoreRelease, SemaphoreState
from coord_core.protocol.streams import Change, Joined, Subscribe, Subscribed
from coord_core.types import AttachmentId, FencingToken, LogIndex, MemberId, RequestNumber, SessionId, SubscriptionId

_changes = msgspec.msgpack.Decoder(tuple[Change, ...])

OWNER = Owner("host-1", 100, "")


class Log:
    """The entries of one machine, each at the next index and at the present time."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.index = LogIndex(10)
        self.time_ms = 1_000
        self.entries: list[tuple[LogIndex, int, Command]] = []

    def apply(self, command: Command) -> Applied:
        self.index = LogIndex(self.index + 1)
        self.entries.append((self.index, self.time_ms, command))
        applied = self.machine.apply(self.index, self.time_ms, command)
        check(self.machine)
        return applied

    def wait(self, duration_ms: int) -> Applied:
        """Let cluster time pass, as the leader does it: with a Tick."""
        self.time_ms += duration_ms
        return self.apply(Tick())

    def open(self, ttl_ms: int = 10_000, owner: Owner = OWNER) -> "Process":
        opened = self.apply(OpenSession(ttl_ms, owner)).result
        assert isinstance(opened, SessionOpened)
        return Process(self, opened.session, opened.attachment)

    def take_up(
        self, actor: bytes, attempt: int = 1, instance: str = "", name: str = "job", ttl_ms: int = 10_000, owner: Owner = OWNER
    ) -> "Process":
        """Open or take up a detached session; its requests go on where those before ended."""
        opened = self.try_take_up(actor, attempt, instance, name, ttl_ms, owner)
        assert isinstance(opened, DetachedOpened)
        process = Process(self, opened.session, opened.attachment)
        process.last_request = opened.request_last
        return process

    def try_take_up(
        self, actor: bytes, attempt: int = 1, instance: str = "", name: str = "job", ttl_ms: int = 10_000, owner: Owner = OWNER
    ) -> Result | None:
        return self.apply(OpenDetached(name, Attempt(attempt, instance), ttl_ms, owner, actor)).result

    def lock(self, path: str) -> LockState:
        state = self.machine.query(LockInfo(path))
        assert isinstance(state, LockState)
        return state

    def semaphore(self, path: str = "/s", token: int = 0) -> SemaphoreState:
        state = self.machine.query(SemaphoreInfo(path, token=FencingToken(token)))
        assert isinstance(state, SemaphoreState)
        return state

    def limiter(self, path: str = "/r") -> LimiterState:
        state = self.machine.query(LimiterInfo(path))
        assert isinstance(state, LimiterState)
        return state

    def value(self, path: str) -> ValueState:
        state = self.machine.query(ValueGet(path))
        assert isinstance(state, ValueState)
        return state

    def election(self, path: str = "/e") -> ElectionState:
        state = self.machine.query(ElectionInfo(path))
        assert isinstance(state, ElectionState)
        return state

    def members(self, path: str = "/g") -> list[MemberId]:
        state = self.machine.query(GroupInfo(path))
        assert isinstance(state, GroupState)
        return [member.member for member in state.members]

    def read(self, kind: str, path: str, after: int = 0) -> list[tuple[int, int, tuple[Change, ...]]]:
        """Return what a stream still has after a revision: revision, the one before, changes."""
        found = self.machine.streams.read((kind, path), LogIndex(after), 1 << 30, 1 << 30)
        assert isinstance(found, Stretch), "the ring has moved on"
        return [(record.revision, record.previous, changes(record)) for record in found.records]

    def session(self, session: SessionId) -> SessionState:
        state = self.machine.query(SessionInfo(session))
        assert isinstance(state, SessionState)
        return state


def changes(record: Record) -> tuple[Change, ...]:
    """Return what a record says."""
    return _changes.decode(msgspec.msgpack.encode(record.changes))


class Process:
    """One attachment: numbers its requests; acknowledges only what a test says."""

    def __init__(self, log: Log, session: SessionId, attachment: AttachmentId) -> None:
        self.log = log
        self.session = session
        self.attachment = attachment
        self.last_request = 0

    def send(self, request: int, operation: Operation, low_water: int = 0, answered: Any = ()) -> Applied:
        self.last_request = max(self.last_request, request)
        call = Call(self.session, self.attachment, RequestNumber(request), RequestNumber(low_water), answered, operation)
        return self.log.apply(call)

    def call(self, operation: Operation, low_water: int = 0, answered: Any = ()) -> Applied:
        """Send under the next number."""
        return self.send(self.last_request + 1, operation, low_water, answered)

    def acquire(self, path: str = "/l", wait_ms: int | None = None, owner: Owner = OWNER, delay_ms: int = 0) -> Result | None:
        return self.call(LockAcquire(path, wait_ms, owner, delay_ms)).result

    def hold(self, path: str = "/l", delay_ms: int = 0) -> FencingToken:
        """Acquire a free lock; return its token."""
        granted = self.acquire(path, delay_ms=delay_ms)
        assert isinstance(granted, Granted)
        return granted.token

    def release(self, token: int, path: str = "/l") -> Applied:
        return self.call(LockRelease(path, FencingToken(token)))

    def take(self, permits: int = 1, limit: int = 2, wait_ms: int | None = None, path: str = "/s") -> Result | None:
        """Acquire permits of a semaphore."""
        return self.call(SemaphoreAcquire(path, wait_ms, OWNER, permits, limit)).result

    def taken(self, permits: int = 1, limit: int = 2, path: str = "/s") -> FencingToken:
        """Acquire permits that are there; return the token."""
        granted = self.take(permits, limit, path=path)
        assert isinstance(granted, PermitsGranted)
        return granted.token

    def give(self, token: int, path: str = "/s") -> Applied:
        return self.call(SemaphoreRelease(path, FencingToken(token)))

    def spend(
        self, amount: int = 1, rate: tuple[int, int, int] = (1, 100, 3), wait_ms: int | None = 0, path: str = "/r"
    ) -> Result | None:
        """Ask a rate limiter; `rate`: permits, milliseconds, burst."""
        return self.call(RateAcquire(path, wait_ms, amount, *rate)).result

    def break_lock(self, token: int, reason: str = "it hangs", path: str = "/l") -> Applied:
        return self.call(LockBreak(path, FencingToken(token), reason, OWNER))

    def cancel(self, request: int) -> Applied:
        return self.call(Cancel(RequestNumber(request)))

    def set(self, path: str, value: bytes, ttl_ms: int | None = None, expected: int | None = None) -> Result | None:
        return self.call(ValueSet(path, value, ttl_ms, expected)).result

    def delete(self, path: str, expected: int | None = None) -> Result | None:
        return self.call(ValueDelete(path, expected)).result

    def enter(self, path: str = "/e") -> Entered:
        """Become a candidate."""
        entered = self.call(ElectionEnter(path, OWNER)).result
        assert isinstance(entered, Entered)
        return entered

    def join(self, path: str = "/g", metadata: bytes = b"", announce_ms: int = 0, *, from_listener: bool = False) -> Joined:
        """Become a member."""
        joined = self.call(GroupJoin(path, metadata, OWNER, announce_ms, from_listener)).result
        assert isinstance(joined, Joined)
        return joined

    def subscribe(self, kind: str, path: str) -> SubscriptionId:
        subscribed = self.call(Subscribe(kind, path)).result
        assert isinstance(subscribed, Subscribed)
        return subscribed.subscription

    def attach(self) -> "Process":
        opened = self.log.apply(OpenAttachment(self.session, OWNER)).result
        assert isinstance(opened, AttachmentOpened)
        return Process(self.log, self.session, opened.attachment)

    def expire(self, generation: int = 1) -> Applied:
        return self.log.apply(ExpireSession(self.session, generation))

    def close(self) -> Applied:
        return self.log.apply(CloseSession(self.session))

    def hand_off(self, hold_ms: int = 60_000) -> Result | None:
        """Leave a detached session to whoever takes it up next."""
        return self.log.apply(HandOff(self.session, self.attachment, hold_ms)).result

    def exit(self) -> Applied:
        """Close a detached session, as the process that has it."""
        return self.log.apply(CloseSession(self.session, self.attachment))

    def close_attachment(self) -> Applied:
        return self.log.apply(CloseAttachment(self.session, self.attachment))


def code(result: Result | None) -> str:
    """Return the error that a refusal names."""
    assert isinstance(result, Failed), f"not refused: {result}"
    return result.code
