"""Detached sessions: whoever had one before can do nothing with it, a lower attempt never comes back, and no hold ends early.

Judged from the log alone, entry by entry, with a model of its own: the number under which each session is known.
"""

from dataclasses import dataclass, field

from coord_core.machine import Applied
from coord_core.protocol.commands import Attempt, Call, CloseSession, Command, ExpireSession, HandOff, OpenDetached
from coord_core.protocol.results import DetachedOpened, Done, Failed
from coord_core.testing.simulator import Violation
from coord_core.types import AttachmentId, SessionId


@dataclass(slots=True)
class Known:
    """One detached session after the last entry."""

    name: str
    attempt: Attempt
    number: AttachmentId
    #: Nobody has it, until then; None: somebody has.
    held_until_ms: int | None = None
    #: There is, or was, a later attempt: it need not be held so long.
    superseded: bool = False


@dataclass
class RelayChecks:
    sessions: dict[SessionId, Known] = field(default_factory=dict)
    #: How often sessions were "opened", "taken up", "handed off", "superseded", "refused" and "expired".
    seen: dict[str, int] = field(default_factory=dict)

    def applied(self, index: int, time_ms: int, command: Command, applied: Applied) -> None:
        """An entry was applied for the first time anywhere."""
        match command:
            case OpenDetached():
                self._opened(index, command, applied)
            case HandOff() if command.session in self.sessions:
                self._handed_off(index, time_ms, command, applied)
            case Call() if command.session in self.sessions:
                self._called(index, command, applied)
            case CloseSession() if command.attachment and command.session in self.sessions:
                if applied.closed and command.attachment != self.sessions[command.session].number:
                    raise Violation(f"{command} closed at {index} what another process has")
            case ExpireSession() if command.session in self.sessions and applied.closed:
                self._expired(index, time_ms, command)
        for session in applied.closed:
            self.sessions.pop(session, None)

    def _opened(self, index: int, command: OpenDetached, applied: Applied) -> None:
        result = applied.result
        last = max((it.attempt for it in self.sessions.values() if it.name == command.name), default=None)
        if isinstance(result, Failed):
            self._count("refused")
            return
        if not isinstance(result, DetachedOpened):
            raise Violation(f"{command} was answered with {result}")
        if last is not None and command.attempt < last:
            raise Violation(f"attempt {command.attempt} of {command.name} came back at {index} after {last}")
        known = self.sessions.get(result.session)
        if known is None:
            self._count("opened" if last is None else "superseded")
            for earlier in self.sessions.values():
                earlier.superseded |= earlier.name == command.name
            self.sessions[result.session] = Known(command.name, command.attempt, result.attachment)
            return
        if (known.name, known.attempt) != (command.name, command.attempt):
            raise Violation(f"{command} was given session {result.session} of {known}")
        if result.attachment not in (index, known.number):
            raise Violation(f"session {result.session} was taken up at {index} under the number {result.attachment}")
        self._count("taken up" if result.attachment == index else "taken up again")
        known.number, known.held_until_ms = result.attachment, None

    def _handed_off(self, index: int, time_ms: int, command: HandOff, applied: Applied) -> None:
        known = self.sessions[command.session]
        if command.attachment == known.number and applied.result == Done():
            self._count("handed off")
            known.number, known.held_until_ms = AttachmentId(index), time_ms + command.hold_ms

    def _called(self, index: int, command: Call, applied: Applied) -> None:
        known = self.sessions[command.session]
        if command.attachment == known.number:
            return
        if not isinstance(applied.result, Failed) or applied.result.code != "Superseded":
            raise Violation(f"{command} was answered at {index} with {applied.result}, though {known} is another's by now")
        self._count("refused")

    def _expired(self, index: int, time_ms: int, command: ExpireSession) -> None:
        known = self.sessions[command.session]
        self._count("expired")
        if command.generation != known.number:
            raise Violation(f"{command} ended at {index} what {known} is by now")
        if known.held_until_ms is not None and time_ms < known.held_until_ms and not known.superseded:
            raise Violation(f"session {command.session} was to be held until {known.held_until_ms}, it ended at {time_ms}")

    def _count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1
