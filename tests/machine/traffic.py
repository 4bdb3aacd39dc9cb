"""Random clients: they send, resend, cancel, acknowledge, die and lag behind.  Every choice comes from one seeded generator."""

from dataclasses import dataclass, field
from random import Random

from coord_core.machine import Applied
from coord_core.protocol.commands import (
    Call,
    CloseAttachment,
    CloseSession,
    Command,
    ExpireSession,
    OpenAttachment,
    OpenSession,
    Tick,
)
from coord_core.protocol.elections import ElectionEnter, ElectionResign, ElectionTransfer
from coord_core.protocol.groups import GroupJoin, GroupLeave, GroupUpdate
from coord_core.protocol.limiters import RateAcquire
from coord_core.protocol.locks import LockBreak
from coord_core.protocol.operations import Cancel, LockAcquire, LockRelease, Operation, Owner, ValueDelete, ValueSet
from coord_core.protocol.parking import Park, ParkingClaim, ParkingCommit, ParkingRelease, Unpark
from coord_core.protocol.ranges import RequestRanges
from coord_core.protocol.results import AttachmentOpened, Granted, SessionOpened
from coord_core.protocol.semaphores import PermitsGranted, SemaphoreAcquire, SemaphoreRelease, SemaphoreSetLimit
from coord_core.protocol.streams import Subscribe, Unsubscribe
from coord_core.protocol.topics import (
    Retention,
    TopicClaim,
    TopicCommit,
    TopicConfigure,
    TopicCreate,
    TopicDelete,
    TopicGroupDelete,
    TopicPublish,
    TopicRelease,
)
from coord_core.types import (
    AttachmentId,
    CandidateId,
    Epoch,
    FencingToken,
    MemberId,
    RequestNumber,
    SessionId,
    SubscriptionId,
)

PATHS = ["/a", "/b", "/ç"]


@dataclass
class Process:
    session: SessionId
    attachment: AttachmentId
    last_request: int = 0
    #: What it has been answered, and so acknowledges; answers reach it late or never.
    answered: RequestRanges = field(default_factory=RequestRanges)
    tokens: list[tuple[str, FencingToken]] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)


class Traffic:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.processes: list[Process] = []
        self.sent: list[Command] = []
        self.time_ms = 0

    def next(self) -> tuple[int, Command]:
        """Return the stamp and the command of the next entry."""
        draw = self.random
        self.time_ms += draw.choice([0, 0, 1, 5, 20])
        stamp = self.time_ms - draw.choice([0, 0, 0, 15])
        command = self._resend() if self.sent and draw.random() < 0.15 else self._new()
        self.sent.append(command)
        return stamp, command

    def _resend(self) -> Command:
        """Any command may come again, however old: proposed twice, or by two leaders."""
        recent = self.sent[-20:] if self.random.random() < 0.8 else self.sent
        return self.random.choice(recent)

    def _new(self) -> Command:
        draw = self.random
        if len(self.processes) < 2 or draw.random() < 0.04:
            return OpenSession(draw.choice([1_000, 5_000]), Owner(f"host-{draw.randrange(3)}", 1))
        process = draw.choice(self.processes)
        chance = draw.random()
        if chance < 0.03:
            return OpenAttachment(process.session, Owner("host", 2))
        if chance < 0.06:
            # Some of the dead go on sending.
            if draw.random() < 0.7:
                self.processes.remove(process)
            ends: list[Command] = [CloseSession(process.session), CloseAttachment(process.session, process.attachment)]
            ends.append(ExpireSession(process.session, draw.choice([1, 1, 1, 2])))
            return draw.choice(ends)
        if chance < 0.12:
            return Tick()
        return self._call(process)

    def _call(self, process: Process) -> Call:
        draw = self.random
        operation = self._operation(process)
        request = process.last_request + draw.choice([1, 1, 1, 1, 2])
        process.last_request = request
        if isinstance(operation, LockAcquire | SemaphoreAcquire):
            process.paths[request] = operation.path
        acknowledged = process.answered if draw.random() < 0.7 else RequestRanges()
        if draw.random() < 0.01:
            # A broken client: acknowledges what it never was answered.
            process.answered.add(draw.randint(1, request))
        low_water = RequestNumber(acknowledged.low_water)
        return Call(process.session, process.attachment, RequestNumber(request), low_water, acknowledged.ranges, operation)

    def _operation(self, process: Process) -> Operation:
        draw = self.random
        path = draw.choice(PATHS)
        chance = draw.random()
        if chance < 0.4:
            return LockAcquire(path, draw.choice([None, None, 0, 3, 30, 100]), Owner("host", 1, f"task-{draw.randrange(3)}"))
        if chance < 0.7 and process.tokens:
            held = draw.choice(process.tokens)
            if draw.random() < 0.9:
                process.tokens.remove(held)
            return LockRelease(*held)
        if chance < 0.8:
            return Cancel(RequestNumber(max(1, process.last_request + draw.choice([-3, -2, -1, 0, 1, 2, 3]))))
        if chance < 0.9:
            return ValueSet(path, draw.randbytes(2), draw.choice([None, 10, 50]), draw.choice([None, None, 0, len(self.sent)]))
        return ValueDelete(draw.choice(PATHS), draw.choice([None, None, None, 0]))

    def hear(self, command: Command, applied: Applied) -> None:
        """Let the clients hear of most of what was answered."""
        match applied.result:
            case SessionOpened(session=session, attachment=attachment):
                self.processes.append(Process(session, attachment))
            case AttachmentOpened(attachment=attachment):
                assert isinstance(command, OpenAttachment)
                self.processes.append(Process(command.session, attachment))
        answers = list(applied.replies)
        if isinstance(command, Call) and applied.result is not None:
            answers.append((command.attachment, command.request, applied.result))
        for process in self.processes:
            for attachment, request, answer in answers:
                if attachment != process.attachment or self.random.random() < 0.2:
                    continue
                process.answered.add(request)
                if isinstance(answer, Granted | PermitsGranted) and request in process.paths:
                    process.tokens.append((process.paths[request], answer.token))


KINDS = ["value", "election", "group", "lock"]


class StreamTraffic(Traffic):
    """The same clients; half of what they do concerns streams, elections and groups."""

    def _operation(self, process: Process) -> Operation:
        draw = self.random
        chance = draw.random()
        path = draw.choice(PATHS) if draw.random() < 0.2 else "/g" if chance > 0.4 else "/e"
        # What was given out lately, mostly to others.
        number = max(1, len(self.sent) - draw.choice([1, 2, 5, 10, 40]))
        if chance < 0.15:
            return Subscribe(draw.choice(KINDS), path) if draw.random() < 0.5 else Unsubscribe(SubscriptionId(number))
        if chance < 0.3:
            return ElectionEnter(path, Owner("host", 1, f"task-{draw.randrange(3)}"))
        if chance < 0.35:
            return ElectionResign(path, CandidateId(number))
        if chance < 0.4:
            return ElectionTransfer(path, Epoch(number), CandidateId(draw.choice([0, number + 1])))
        if chance < 0.55:
            return GroupJoin(path, draw.randbytes(2), Owner("host", 1), draw.choice([0, 1_000]), draw.random() < 0.5)
        if chance < 0.6:
            return GroupLeave(path, MemberId(number))
        if chance < 0.65:
            return GroupUpdate(path, MemberId(number), draw.randbytes(3))
        return super()._operation(process)


class ClaimTraffic(Traffic):
    """The same clients; most of what they do concerns semaphores, rate limiters, and locks that are broken or closed."""

    def _operation(self, process: Process) -> Operation:
        draw = self.random
        chance = draw.random()
        path = draw.choice(PATHS) if draw.random() < 0.1 else "/s" if chance < 0.4 else "/r" if chance < 0.55 else "/l"
        owner = Owner("host", 1, f"task-{draw.randrange(3)}")
        wait_ms = draw.choice([None, None, 0, 3, 30, 100])
        number = FencingToken(max(1, len(self.sent) - draw.choice([1, 2, 5, 10, 40])))
        if chance < 0.25:
            limit = draw.randint(2, 5)
            return SemaphoreAcquire(path, wait_ms, owner, draw.randint(1, limit), limit)
        if chance < 0.35:
            held = [token for of, token in process.tokens if of == path]
            return SemaphoreRelease(path, draw.choice(held) if held else number)
        if chance < 0.4:
            return SemaphoreSetLimit(path, draw.choice([None, None, 0, 2, 4, 8]))
        if chance < 0.55:
            burst = draw.choice([1, 5, 10])
            return RateAcquire(path, wait_ms, draw.randint(1, burst), draw.choice([1, 3]), draw.choice([7, 10]), burst)
        if chance < 0.65:
            return LockAcquire(path, wait_ms, owner, draw.choice([0, 5, 40]))
        if chance < 0.75:
            held = [token for of, token in process.tokens if of == path]
            return LockRelease(path, draw.choice(held) if held else number, draw.choice([0, 0, 10]))
        if chance < 0.8:
            tokens = [token for other in self.processes for of, token in other.tokens if of == path]
            return LockBreak(path, draw.choice(tokens) if tokens else number, "it hangs", owner)
        return super()._operation(process)


class TopicTraffic(Traffic):
    """The same clients; most of what they do concerns topics, small ones that age fast."""

    def _operation(self, process: Process) -> Operation:
        draw = self.random
        chance = draw.random()
        path = draw.choice(["/t", "/u", "/a"])
        group = draw.choice(["one", "two", "three"])
        if chance < 0.45:
            return TopicPublish(path, draw.randbytes(draw.choice([0, 5, 200])), draw.choice([None, b"k"]))
        if chance < 0.5:
            return TopicCreate(path, self._retention()) if draw.random() < 0.5 else TopicConfigure(path, self._retention())
        if chance < 0.52:
            return TopicDelete(path)
        if chance < 0.65:
            return TopicCommit(path, group, draw.choice([0, 1, 5, 20, 60]), draw.random() < 0.3)
        if chance < 0.75:
            return TopicClaim(path, group, Owner("host", 1), draw.random() < 0.3)
        if chance < 0.8:
            return TopicRelease(path, group) if draw.random() < 0.5 else TopicGroupDelete(path, group)
        return super()._operation(process)

    def _retention(self) -> Retention:
        draw = self.random
        return Retention(draw.choice([1, 500, 3_000]), draw.choice([None, 1, 10, 100]), draw.choice([None, 1_000, 1_500]))


#: Key, gate, permits.
KEYS = [("one", "/l", 1), ("two", "/l", 1), ("three", "/s", 1), ("four", "/s", 2), ("five", "/a", 1)]


class ParkingTraffic(ClaimTraffic):
    """The same clients; half of what they do is to park pieces for a lock or a semaphore, and to consume what is called."""

    def _operation(self, process: Process) -> Operation:
        draw = self.random
        chance = draw.random()
        path = "/a" if draw.random() < 0.1 else "/p"
        key, gate, permits = draw.choice(KEYS)
        name = f"piece {draw.randrange(12)}"
        if chance < 0.35:
            times = draw.choice([None, None, 10, 40]), draw.choice([3, 3, 10_000]), draw.choice([10, 100])
            return Park(path, key, name, draw.randbytes(draw.choice([1, 90_000])), gate, permits, *times, draw.random() < 0.3)
        if chance < 0.4:
            return Unpark(path, key, name)
        if chance < 0.5:
            return ParkingClaim(path, Owner("host", 1), draw.random() < 0.3)
        if chance < 0.6:
            return ParkingCommit(path, draw.choice([0, 1, 2, 5, 10, 20, 40]))
        if chance < 0.63:
            return ParkingRelease(path)
        return super()._operation(process)
