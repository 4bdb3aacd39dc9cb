"""The machine as one would write it without thinking of speed: plain lists, searched from end to end.

It shares no code with `coord_core.machine`, only the vocabulary.  It knows nothing of ill-formed commands and of most bounds: the
random test sends none of those.
"""

from dataclasses import dataclass, field
from typing import Any

from coord_core.protocol.commands import Call, CloseAttachment, CloseSession, Command, ExpireSession, OpenAttachment, OpenSession
from coord_core.protocol.operations import Cancel, LockAcquire, LockRelease, Owner, ValueDelete, ValueSet
from coord_core.protocol.results import (
    AttachmentOpened,
    Done,
    Granted,
    NotGranted,
    Result,
    SessionOpened,
    ValueConflict,
    ValueWritten,
)
from coord_core.types import AttachmentId, FencingToken, RequestNumber


@dataclass
class Claim:
    attachment: int
    request: int
    owner: Owner
    deadline: int | None
    arrived: int
    token: int = 0


@dataclass
class Value:
    version: int
    content: bytes
    deadline: int | None


@dataclass
class Model:
    window: int
    window_control: int
    index: int = 0
    time_ms: int = 0
    # session -> its attachments
    sessions: dict[int, list[int]] = field(default_factory=dict)
    ttls: dict[int, int] = field(default_factory=dict)
    # path -> claims; the first one holds.
    locks: dict[str, list[Claim]] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    # (attachment, request) -> answer; None: it waits.
    answers: dict[tuple[int, int], Result | None] = field(default_factory=dict)
    forgotten: dict[int, set[int]] = field(default_factory=dict)
    replies: list[tuple[int, int, Any]] = field(default_factory=list)

    def apply(self, index: int, time_ms: int, command: Command) -> Any:
        """Return a result, or the code of a refusal; what it answers to earlier requests is in `replies`."""
        self.index = index
        self.time_ms = max(self.time_ms, time_ms)
        self.replies = []
        self.pass_time()
        match command:
            case OpenSession(ttl_ms=ttl_ms):
                self.sessions[index] = [index]
                self.ttls[index] = ttl_ms
                self.forgotten[index] = set()
                return SessionOpened(index, index, 1, ttl_ms)  # type: ignore[arg-type]
            case OpenAttachment(session=session):
                if session not in self.sessions:
                    return "SessionExpired"
                self.sessions[session].append(index)
                self.forgotten[index] = set()
                return AttachmentOpened(AttachmentId(index), self.ttls[session])
            case CloseSession(session=session):
                self.end(self.sessions.pop(session, []), "SessionClosed")
                return Done()
            case ExpireSession(session=session, generation=generation):
                if generation == 1:
                    self.end(self.sessions.pop(session, []), "SessionExpired")
                return None
            case CloseAttachment(session=session, attachment=attachment):
                if attachment in self.sessions.get(session, []):
                    self.sessions[session].remove(attachment)
                    self.end([attachment], "AttachmentClosed")
                return Done()
            case Call():
                return self.call(command)
        return None

    def pass_time(self) -> None:
        due: list[tuple[int, int, str, Claim | None]] = []
        for path, claims in self.locks.items():
            due += [(claim.deadline, claim.arrived, path, claim) for claim in claims[1:] if claim.deadline is not None]
        due += [(value.deadline, value.version, path, None) for path, value in self.values.items() if value.deadline is not None]
        for deadline, _, path, claim in sorted(due, key=lambda item: item[:2]):
            if deadline > self.time_ms:
                return
            if claim is None:
                del self.values[path]
            else:
                self.locks[path].remove(claim)
                self.reply(claim, self.refusal("timeout", path))

    def refusal(self, reason: str, path: str) -> NotGranted:
        holder, *waiters = self.locks[path]
        return NotGranted(reason, holder.owner, FencingToken(holder.token), len(waiters))

    def reply(self, claim: Claim, answer: Any) -> None:
        self.settle(claim.attachment, claim.request, answer)
        self.replies.append((claim.attachment, claim.request, answer))

    def settle(self, attachment: int, request: int, answer: Any) -> None:
        self.answers.pop((attachment, request), None)
        if request not in self.forgotten[attachment]:
            self.answers[attachment, request] = answer

    def end(self, attachments: list[int], why: str) -> None:
        for attachment in attachments:
            waits = [claim for claims in self.locks.values() for claim in claims[1:] if claim.attachment == attachment]
            for claim in sorted(waits, key=lambda claim: claim.request):
                self.reply(claim, why)
        old = {path: list(claims) for path, claims in self.locks.items()}
        self.locks = {path: [claim for claim in claims if claim.attachment not in attachments] for path, claims in old.items()}
        for attachment in attachments:
            lost = [(claims[0].request, path) for path, claims in old.items() if claims[0].attachment == attachment]
            for _, path in sorted(lost):
                self.promote(path)
        for attachment in attachments:
            self.answers = {key: answer for key, answer in self.answers.items() if key[0] != attachment}

    def promote(self, path: str) -> None:
        """The holder is gone from the list."""
        if not self.locks[path]:
            del self.locks[path]
            return
        heir = self.locks[path][0]
        heir.token = self.index
        heir.deadline = None
        self.reply(heir, Granted(FencingToken(self.index)))

    def call(self, call: Call) -> Any:
        attachment, request = call.attachment, call.request
        if call.session not in self.sessions:
            return "SessionExpired"
        if attachment not in self.sessions[call.session]:
            return "AttachmentClosed"
        if request <= call.low_water:
            return "StaleRequest"
        forgotten = self.forgotten[attachment]
        forgotten.update(range(1, call.low_water + 1))
        for start, end in call.answered:
            forgotten.update(range(start, end + 1))
        for key, answer in list(self.answers.items()):
            if key[0] == attachment and key[1] in forgotten and answer is not None:
                del self.answers[key]
        if (attachment, request) in self.answers:
            return self.answers[attachment, request]
        if request in forgotten:
            return "StaleRequest"
        control = isinstance(call.operation, LockRelease | Cancel)
        if self.unanswered(attachment) >= (self.window_control if control else self.window):
            forgotten.add(request)
            return "LimitExceeded"
        answer = self.operate(attachment, request, call.operation)
        self.answers[attachment, request] = answer
        return answer

    def unanswered(self, attachment: int) -> int:
        return sum(1 for key in self.answers if key[0] == attachment)

    def operate(self, attachment: int, request: int, operation: Any) -> Any:
        match operation:
            case LockAcquire(path=path, wait_ms=wait_ms, owner=owner):
                return self.acquire(path, wait_ms, Claim(attachment, request, owner, None, self.index))
            case LockRelease(path=path, token=token):
                claims = self.locks.get(path, [])
                if path in self.values:
                    return "WrongType"
                if not claims or claims[0].attachment != attachment or claims[0].token != token:
                    return "NotHolder"
                claims.pop(0)
                self.promote(path)
                return Done()
            case Cancel(request=target):
                return self.cancel(attachment, request, target)
            case ValueSet(path=path, value=content, ttl_ms=ttl_ms, expected=expected):
                if path in self.locks:
                    return "WrongType"
                if expected is not None and expected != self.version(path):
                    return self.conflict(path)
                self.values[path] = Value(self.index, content, None if ttl_ms is None else self.time_ms + ttl_ms)
                return ValueWritten(self.index)
            case ValueDelete(path=path, expected=expected):
                if path in self.locks:
                    return "WrongType"
                if expected is not None and expected != self.version(path):
                    return self.conflict(path)
                self.values.pop(path, None)
                return Done()
        raise AssertionError(operation)

    def acquire(self, path: str, wait_ms: int | None, claim: Claim) -> Any:
        if path in self.values:
            return "WrongType"
        if path not in self.locks:
            claim.token = self.index
            self.locks[path] = [claim]
            return Granted(FencingToken(self.index))
        if wait_ms == 0:
            return self.refusal("busy", path)
        claim.deadline = None if wait_ms is None else self.time_ms + wait_ms
        self.locks[path].append(claim)
        return None

    def cancel(self, attachment: int, request: int, target: int) -> Any:
        if target == request:
            return "InvalidRequest"
        for path, claims in self.locks.items():
            for position, claim in enumerate(claims):
                if (claim.attachment, claim.request) != (attachment, target):
                    continue
                del claims[position]
                if position > 0:
                    self.reply(claim, NotGranted("cancelled"))
                else:
                    self.settle(attachment, target, NotGranted("cancelled"))
                    self.promote(path)
                return Done()
        if (attachment, target) not in self.answers and target not in self.forgotten[attachment]:
            if self.unanswered(attachment) >= self.window_control - 1:
                return "LimitExceeded"
            self.answers[attachment, RequestNumber(target)] = NotGranted("cancelled")
        return Done()

    def version(self, path: str) -> int:
        return self.values[path].version if path in self.values else 0

    def conflict(self, path: str) -> ValueConflict:
        value = self.values.get(path)
        return ValueConflict(0, b"") if value is None else ValueConflict(value.version, value.content)
