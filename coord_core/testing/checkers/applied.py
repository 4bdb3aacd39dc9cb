"""What entries do: the same on every node, once, in the order of the queue, and never for the dead.

Each node applies to an `ObservedMachine`, which reports every entry.  The first node to apply an index sets what all others
must do, in this life or any later one.  The rest is judged there and then, from the public queries.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from coord_core.machine import CHUNK_BYTES_MAX, Applied, Machine, Snapshot
from coord_core.protocol.commands import Call, CloseAttachment, Command
from coord_core.protocol.operations import LockAcquire, Operation, ValueSet
from coord_core.protocol.queries import LockInfo, LockParty, LockState
from coord_core.protocol.results import Granted, Result, ValueWritten
from coord_core.testing.node import Node
from coord_core.testing.simulator import Violation
from coord_core.types import AttachmentId, LogIndex, RequestNumber, SessionId

#: The whole state is compared at every index that this divides: its digest reads all of it.
DIGEST_EVERY = 64

Report = Callable[["ObservedMachine", int, int, Command, Applied], None]


class ObservedMachine(Machine):
    """A machine that reports what it applied, and its state where a snapshot begins and where it came out of one."""

    def __init__(self, node: Node, report: Report, compare: Callable[["ObservedMachine"], None], ring_records_max: int) -> None:
        super().__init__()
        self.streams.ring_records_max = ring_records_max
        self.node = node
        self._report = report
        self._compare = compare

    def begin_snapshot(self, chunk_bytes: int = CHUNK_BYTES_MAX) -> Snapshot:
        self._compare(self)
        return super().begin_snapshot(chunk_bytes)

    def restored(self) -> None:
        super().restored()
        self._compare(self)

    def apply(self, index: LogIndex, time_ms: int, command: Command) -> Applied:
        applied = super().apply(index, time_ms, command)
        self._report(self, index, time_ms, command, applied)
        return applied


@dataclass(frozen=True, slots=True)
class Step:
    """One entry and what it did."""

    time_ms: int
    command: Command
    applied: Applied


@dataclass(slots=True)
class Queue:
    """A lock after the last entry."""

    holder: LockParty | None = None
    waiters: tuple[LockParty, ...] = ()
    #: Highest token ever granted.
    token: int = 0


@dataclass
class AppliedChecks:
    """`locks` are the paths whose queues are watched, entry by entry."""

    locks: tuple[str, ...]
    #: Told of each entry's effect when it is applied for the first time anywhere.
    first_applied: Callable[["ObservedMachine", int, Command, Applied], None]
    #: Told whenever a node applies an entry.
    every_applied: Callable[[Node, Command, Applied], None]
    #: How many records the machines keep of what happened.
    ring_records_max: int
    steps: dict[int, Step] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    #: What took effect, by its unique name, and the index at which it did.
    effects: dict[bytes | str, int] = field(default_factory=dict)
    operations: dict[tuple[AttachmentId, RequestNumber], Operation] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    ended_sessions: set[SessionId] = field(default_factory=set)
    ended_attachments: set[AttachmentId] = field(default_factory=set)

    def machine_for(self, node: Node) -> Machine:
        return ObservedMachine(node, self._applied, self._compare, self.ring_records_max)

    def _compare(self, machine: ObservedMachine) -> None:
        """The state at an index is the same, whether it was made by applying or came out of a snapshot."""
        index, digest = int(machine.index), machine.digest() + machine.rolling_hash.to_bytes(8, "big")
        if self.digests.setdefault(index, digest) != digest:
            raise Violation(f"{machine.node.name} has another state after entry {index}")

    def acknowledged(self, name: bytes | str, index: int) -> None:
        """A client was told that the operation took effect at `index`."""
        if self.effects.get(name) != index:
            raise Violation(f"{name!r} was acknowledged at {index}, it took effect at {self.effects.get(name)}")

    def _applied(self, machine: ObservedMachine, index: int, time_ms: int, command: Command, applied: Applied) -> None:
        step = Step(time_ms, command, applied)
        first = self.steps.setdefault(index, step)
        if first is step:
            self._judge(machine, index, command, applied)
            self.first_applied(machine, index, command, applied)
        elif first != step:
            raise Violation(f"{machine.node.name} applied {step} at {index}, others {first}")
        self.every_applied(machine.node, command, applied)
        if index % DIGEST_EVERY == 0 or index in self.digests:
            self._compare(machine)

    def _judge(self, machine: ObservedMachine, index: int, command: Command, applied: Applied) -> None:
        if type(command) is Call:
            self.operations.setdefault((command.attachment, command.request), command.operation)
            if applied.result is not None:
                self._effect(command.attachment, command.request, applied.result, index)
        for attachment, request, result in applied.replies:
            self._effect(attachment, request, result, index)
        self.ended_sessions.update(applied.closed)
        if type(command) is CloseAttachment:
            self.ended_attachments.add(command.attachment)
        for path in self.locks:
            self._judge_queue(machine, path, index)

    def _effect(self, attachment: AttachmentId, request: RequestNumber, result: Result, index: int) -> None:
        """Exactly once: each named write or grant happens at one index at most."""
        operation = self.operations.get((attachment, request))
        match operation, result:
            case ValueSet(value=value), ValueWritten(version=version) if version == index:
                name: bytes | str = value
            case LockAcquire(owner=owner), Granted(token=token) if token == index:
                name = owner.label
            case _:
                return
        if name in self.effects:
            raise Violation(f"{name!r} took effect twice: at {self.effects[name]} and at {index}")
        self.effects[name] = index

    # --- queues -------------------------------------------------------------------------------------------------------------------

    def _judge_queue(self, machine: ObservedMachine, path: str, index: int) -> None:
        state = machine.query(LockInfo(path))
        if not isinstance(state, LockState):
            raise Violation(f"{path} cannot be looked at: {state}")
        before = self.queues.setdefault(path, Queue())
        for party in (*state.waiters, *(() if state.holder is None else (state.holder,))):
            self._judge_alive(machine, path, party)
        if state.holder is None and state.waiters:
            raise Violation(f"{path} is free and {state.waiters_total} wait for it")
        self._judge_holder(path, before, state, index)
        self._judge_order(path, before, state)
        before.holder, before.waiters = state.holder, state.waiters

    def _judge_alive(self, machine: ObservedMachine, path: str, party: LockParty) -> None:
        if machine.session(party.session) is None or party.session in self.ended_sessions:
            raise Violation(f"{path}: {party.owner.label} holds or waits, its session {party.session} has ended")
        if party.attachment in self.ended_attachments:
            raise Violation(f"{path}: {party.owner.label} holds or waits, its attachment {party.attachment} is closed")

    @staticmethod
    def _judge_holder(path: str, before: Queue, state: LockState, index: int) -> None:
        """Tokens rise, and who waited longest is next."""
        holder = state.holder
        if holder is None or (before.holder is not None and holder.token == before.holder.token):
            return
        if holder.token != index or holder.token <= before.token:
            raise Violation(f"{path}: token {holder.token} granted at {index} after token {before.token}")
        before.token = int(holder.token)
        names = [party.owner.label for party in before.waiters]
        if holder.owner.label in names:
            left = {party.owner.label for party in state.waiters}
            passed = [name for name in names[: names.index(holder.owner.label)] if name in left]
        else:
            passed = [party.owner.label for party in state.waiters]
        if passed:
            raise Violation(f"{path}: {holder.owner.label} was granted before {passed}, who waited longer")

    @staticmethod
    def _judge_order(path: str, before: Queue, state: LockState) -> None:
        """Waiters leave from anywhere and join at the end."""
        known = {party.owner.label: place for place, party in enumerate(before.waiters)}
        places = [known.get(party.owner.label, len(known)) for party in state.waiters]
        if places != sorted(places):
            raise Violation(f"{path}: the queue changed its order: {[party.owner.label for party in state.waiters]}")
