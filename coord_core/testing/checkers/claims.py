"""What is promised of semaphores, rate limiters, and locks that are closed or broken, judged entry by entry.

The checker reckons for itself, from operations and their answers alone, until when a lock must stay closed, which tokens are void,
and how full a bucket is; what the machine says is compared with that.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

from coord_core.machine import Applied
from coord_core.protocol.commands import Call, CloseAttachment, Command
from coord_core.protocol.limiters import RateAcquire, RateGranted
from coord_core.protocol.locks import LockBroken, LockParty
from coord_core.protocol.operations import LockAcquire, LockRelease, Operation
from coord_core.protocol.queries import LockInfo, LockState
from coord_core.protocol.results import Done, Result
from coord_core.protocol.semaphores import SemaphoreInfo, SemaphoreParty, SemaphoreState
from coord_core.testing.checkers.applied import ObservedMachine
from coord_core.testing.simulator import Violation
from coord_core.types import AttachmentId, RequestNumber, SessionId

#: Whose request was answered how.
Answers: TypeAlias = list[tuple[AttachmentId, RequestNumber, Result]]


@dataclass(slots=True)
class Closing:
    """A lock as it must be after the last entry."""

    holder: LockParty | None = None
    #: In cluster time: not granted before.
    closed_until_ms: int = 0
    #: The delay that the holder asked for.
    delay_ms: int = 0


@dataclass(slots=True)
class Bucket:
    """A rate limiter as reckoned here, exactly."""

    level: Fraction
    as_of_ms: int


@dataclass
class ClaimChecks:
    """`locks`, `semaphores` and `limiters` are the paths that are watched."""

    locks: tuple[str, ...]
    semaphores: tuple[str, ...]
    limiters: tuple[str, ...]
    operations: dict[tuple[AttachmentId, RequestNumber], Operation] = field(default_factory=dict)
    closing: dict[str, Closing] = field(default_factory=dict)
    #: Tokens that were broken: never valid again.
    void: set[tuple[str, int]] = field(default_factory=set)
    #: The highest token of each semaphore that was ever granted.
    granted: dict[str, int] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    #: Requests that were let through.
    spent: set[tuple[AttachmentId, RequestNumber]] = field(default_factory=set)
    #: Whose attachments and sessions have ended.
    ended: set[SessionId | AttachmentId] = field(default_factory=set)
    #: How often each thing happened, so that a run that proves nothing can be told.
    seen: dict[str, int] = field(default_factory=dict)

    def applied(self, machine: ObservedMachine, index: int, command: Command, applied: Applied) -> None:
        """An entry was applied for the first time anywhere."""
        self.ended.update(applied.closed)
        if type(command) is CloseAttachment:
            self.ended.add(command.attachment)
        answers = list(applied.replies)
        if type(command) is Call:
            self.operations.setdefault((command.attachment, command.request), command.operation)
            if applied.result is not None:
                answers.append((command.attachment, command.request, applied.result))
        for path in self.locks:
            self._judge_lock(machine, path, index, answers)
        for path in self.semaphores:
            self._judge_semaphore(machine, path)
        self._judge_limiters(machine, answers)

    # --- locks --------------------------------------------------------------------------------------------------------------------

    def _judge_lock(self, machine: ObservedMachine, path: str, index: int, answers: Answers) -> None:
        state = machine.query(LockInfo(path))
        if not isinstance(state, LockState):
            raise Violation(f"{path} cannot be looked at: {state}")
        lock = self.closing.setdefault(path, Closing())
        former, holder = lock.holder, state.holder
        if former is not None and (holder is None or holder.token != former.token):
            self._ends(machine, path, lock, former, answers)
        self._opened_by_operator(path, lock, answers)
        if holder is not None and (former is None or holder.token != former.token):
            self._begins(machine, path, lock, holder, index)
        self._judge_closed(machine, path, lock, state)
        lock.holder = holder

    def _ends(
        self,
        machine: ObservedMachine,
        path: str,
        lock: Closing,
        former: LockParty,
        answers: Answers,
    ) -> None:
        """How did it end, and does that close the lock?"""
        for attachment, request, result in answers:
            operation = self.operations.get((attachment, request))
            is_release = isinstance(operation, LockRelease) and (operation.path, operation.token) == (path, former.token)
            if is_release and isinstance(result, Done) and operation.quarantine_ms:  # type: ignore[union-attr]
                lock.closed_until_ms = machine.time_ms + operation.quarantine_ms  # type: ignore[union-attr]
                self._note("quarantine")
        if former.session in self.ended or former.attachment in self.ended:
            lock.closed_until_ms = machine.time_ms + lock.delay_ms
            self._note("delay" if lock.delay_ms else "end without delay")

    def _opened_by_operator(self, path: str, lock: Closing, answers: Answers) -> None:
        for _, _, result in answers:
            # Also where it is the cached answer of an earlier entry, which then changes nothing that is not so already.
            if isinstance(result, LockBroken) and result.path == path and (path, int(result.token)) not in self.void:
                self.void.add((path, int(result.token)))
                lock.closed_until_ms = 0
                self._note("broken")

    def _begins(self, machine: ObservedMachine, path: str, lock: Closing, holder: LockParty, index: int) -> None:
        if machine.time_ms < lock.closed_until_ms:
            raise Violation(
                f"{path}: {holder.owner.label} was granted at {machine.time_ms} ms, it is closed until {lock.closed_until_ms} ms"
            )
        if holder.token != index:
            raise Violation(f"{path}: token {holder.token} granted at {index}")
        for (attachment, _), operation in reversed(self.operations.items()):
            if attachment == holder.attachment and isinstance(operation, LockAcquire) and operation.owner == holder.owner:
                lock.delay_ms = operation.delay_ms
                return
        raise Violation(f"{path}: nobody asked as {holder.owner.label}")

    def _judge_closed(self, machine: ObservedMachine, path: str, lock: Closing, state: LockState) -> None:
        if state.holder is not None and (path, int(state.holder.token)) in self.void:
            raise Violation(f"{path} is held under token {state.holder.token}, which was broken")
        must = state.holder is None and machine.time_ms < lock.closed_until_ms
        if must != (state.closed is not None):
            raise Violation(f"{path} at {machine.time_ms} ms: {state}, it must be closed until {lock.closed_until_ms} ms")
        if state.closed is not None and state.closed.left_ms != lock.closed_until_ms - machine.time_ms:
            raise Violation(f"{path} says that it opens in {state.closed.left_ms} ms; it is closed until {lock.closed_until_ms} ms")
        if state.holder is None and state.closed is None and state.waiters:
            raise Violation(f"{path} is free and {state.waiters_total} wait for it")
        for party in (*state.waiters, *(() if state.holder is None else (state.holder,))):
            self._judge_alive(path, party)

    # --- semaphores ---------------------------------------------------------------------------------------------------------------

    def _judge_semaphore(self, machine: ObservedMachine, path: str) -> None:
        state = machine.query(SemaphoreInfo(path))
        if not isinstance(state, SemaphoreState):
            raise Violation(f"{path} cannot be looked at: {state}")
        for party in (*state.holders, *state.waiters):
            self._judge_alive(path, party)
        if state.limit is None:
            return
        taken = sum(party.permits for party in state.holders)
        if taken != state.taken:
            raise Violation(f"{path}: {state.taken} permits are said to be taken, {taken} are")
        newest = max((int(party.token) for party in state.holders), default=0)
        before = self.granted.get(path, 0)
        if newest > before:
            self.granted[path] = newest
            self._note("permits")
            if taken > state.limit:
                raise Violation(f"{path}: {taken} permits were held when one more was granted, there are {state.limit}")
        late = [party for party in state.waiters if party.token <= self.granted.get(path, 0)]
        if late:
            raise Violation(f"{path}: {late[0].owner.label} waits and was passed")
        if state.waiters and taken + state.waiters[0].permits <= state.limit:
            raise Violation(f"{path}: {state.waiters[0].owner.label} waits for permits that are there")

    def _judge_alive(self, path: str, party: LockParty | SemaphoreParty) -> None:
        if party.session in self.ended or party.attachment in self.ended:
            raise Violation(f"{path}: {party.owner.label} holds or waits, its session {party.session} has ended")

    # --- rate limiters ------------------------------------------------------------------------------------------------------------

    def _judge_limiters(self, machine: ObservedMachine, answers: Answers) -> None:
        for attachment, request, result in answers:
            key = attachment, request
            # A request that comes again is answered again, and spends nothing.
            if isinstance(result, RateGranted) and key not in self.spent:
                self.spent.add(key)
                self._spend(machine, self.operations[key])

    def _spend(self, machine: ObservedMachine, operation: Operation) -> None:
        assert isinstance(operation, RateAcquire)
        now_ms = machine.time_ms
        bucket = self.buckets.setdefault(operation.path, Bucket(Fraction(operation.burst), now_ms))
        gained = Fraction((now_ms - bucket.as_of_ms) * operation.permits, operation.per_ms)
        bucket.level, bucket.as_of_ms = min(Fraction(operation.burst), bucket.level + gained), now_ms
        if bucket.level < operation.amount:
            raise Violation(
                f"{operation.path}: {operation.amount} let through at {now_ms} ms, {float(bucket.level):.3f} were there"
            )
        bucket.level -= operation.amount
        self._note("let through")

    def _note(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1
