"""Sessions and attachments: who there is to hold something.

A session is what a lease keeps alive; the lease itself is the leader's (replica.leases), the machine only learns that it ran out.
An attachment is one process of the session, with request numbers and a window of its own.  Everything held is held by an
attachment; what happens to it when the attachment ends is each resource's matter (`resources`).

Rule: an attachment that ended is never alive again, and its number, a log index, is never used again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from coord_core.machine import refusals
from coord_core.machine.bounds import ATTACHMENTS_MAX, ATTACHMENTS_PER_SESSION_MAX, SESSIONS_MAX
from coord_core.machine.detached import Detached, DetachedRow
from coord_core.machine.windows import RequestWindow, WindowRow
from coord_core.protocol.commands import SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN
from coord_core.protocol.operations import Owner
from coord_core.protocol.results import Failed
from coord_core.types import AttachmentId, LogIndex, SessionId

#: The kinds of their rows in a snapshot.
SESSION = "session"
ATTACHMENT = "attachment"

#: A session is born with this generation.
GENERATION_FIRST = 1

_SHARDS = 64

#: About what a row takes besides its answers.
_ROW_BYTES = 48


class SessionRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A session in a snapshot."""

    id: SessionId
    generation: int
    ttl_ms: int


class AttachmentRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attachment in a snapshot, with all that it must answer again."""

    id: AttachmentId
    session: SessionId
    owner: Owner
    window: WindowRow
    detached: DetachedRow | None = None


class Attachment:
    __slots__ = ("alive", "detached", "id", "number", "owner", "session", "window", "written")

    def __init__(self, attachment: AttachmentId, session: SessionId, owner: Owner) -> None:
        #: What it is known by in this package, for as long as it lives.
        self.id = attachment
        #: What it is known by to everybody else: the same, but that of a detached session has another one for each of its actors.
        self.number = attachment
        #: None: it belongs to one process, as nearly all do.
        self.detached: Detached | None = None
        self.session = session
        self.owner = owner
        self.window = RequestWindow()
        #: Cleared before any resource hears of the end: nothing is granted to the dead.
        self.alive = True
        #: Number of the snapshot that has it already.
        self.written = 0

    def row(self) -> tuple[AttachmentRow, int]:
        """Return it as a snapshot has it, and about how many bytes that is."""
        window, size = self.window.row()
        detached = None if self.detached is None else self.detached.row(self.number)
        return AttachmentRow(self.id, self.session, self.owner, window, detached), size + _ROW_BYTES


class Session:
    __slots__ = ("attachments", "generation", "id", "ttl_ms")

    def __init__(self, session: SessionId, ttl_ms: int) -> None:
        self.id = session
        self.ttl_ms = ttl_ms
        #: An expiry proposed for another generation does nothing.
        self.generation = GENERATION_FIRST
        #: By number, in rising order: an attachment's number is its entry's index.
        self.attachments: dict[AttachmentId, Attachment] = {}

    def row(self) -> tuple[SessionRow, int]:
        """Return it as a snapshot has it, and about how many bytes that is."""
        return SessionRow(self.id, self.generation, self.ttl_ms), _ROW_BYTES


@dataclass(frozen=True, slots=True)
class SessionView:
    """What the leader needs to keep a lease."""

    session: SessionId
    generation: int
    ttl_ms: int
    #: Of a detached session; None of others, and once nobody has it: then cluster time decides when it ends, and there is no lease.
    detached: Detached | None = None

    @property
    def is_leased(self) -> bool:
        return self.detached is None or self.detached.is_attended


class Sessions:
    __slots__ = ("_attachment_count", "_attachments", "_sessions")

    def __init__(self) -> None:
        self._sessions: dict[SessionId, Session] = {}
        # Those of all sessions, in shards by number: so none of these tables takes long to grow.
        self._attachments: tuple[dict[AttachmentId, Attachment], ...] = tuple({} for _ in range(_SHARDS))
        self._attachment_count = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, session: SessionId) -> Session | None:
        return self._sessions.get(session)

    def attachment(self, attachment: AttachmentId) -> Attachment:
        """Raises KeyError where there is no such attachment."""
        return self._attachments[attachment % _SHARDS][attachment]

    def open(self, index: LogIndex, ttl_ms: int, owner: Owner) -> Session | Failed:
        """Open a session with its first attachment, which bears the session's number."""
        if not SESSION_TTL_MS_MIN <= ttl_ms <= SESSION_TTL_MS_MAX:
            return refusals.invalid("ttl_ms", f"must be between {SESSION_TTL_MS_MIN} and {SESSION_TTL_MS_MAX} ms")
        if len(self._sessions) >= SESSIONS_MAX:
            return refusals.over_limit("sessions", SESSIONS_MAX, len(self._sessions) + 1)
        session = Session(SessionId(index), ttl_ms)
        attachment = self.attach(session, index, owner)
        if isinstance(attachment, Failed):
            return attachment
        self._sessions[session.id] = session
        return session

    def attach(self, session: Session, index: LogIndex, owner: Owner) -> Attachment | Failed:
        fault = refusals.check_owner(owner)
        if fault is not None:
            return fault
        if len(session.attachments) >= ATTACHMENTS_PER_SESSION_MAX:
            return refusals.over_limit("attachments of a session", ATTACHMENTS_PER_SESSION_MAX, len(session.attachments) + 1)
        if self._attachment_count >= ATTACHMENTS_MAX:
            return refusals.over_limit("attachments", ATTACHMENTS_MAX, self._attachment_count + 1)
        attachment = Attachment(AttachmentId(index), session.id, owner)
        self._add(session, attachment)
        return attachment

    def end(self, session: Session) -> list[Attachment]:
        """Forget the session; return its attachments, all dead now, for the resources to clear up after."""
        del self._sessions[session.id]
        return [self.detach(session, attachment) for attachment in list(session.attachments.values())]

    def detach(self, session: Session, attachment: Attachment) -> Attachment:
        del session.attachments[attachment.number]
        del self._attachments[attachment.id % _SHARDS][attachment.id]
        self._attachment_count -= 1
        attachment.alive = False
        return attachment

    def restore(self, row: SessionRow) -> None:
        """Take up a session from a snapshot."""
        session = Session(row.id, row.ttl_ms)
        session.generation = row.generation
        self._sessions[session.id] = session

    def restore_attachment(self, row: AttachmentRow) -> None:
        """Take up an attachment from a snapshot, after its session.  Raises KeyError where that is missing."""
        session = self._sessions[row.session]
        attachment = Attachment(row.id, row.session, row.owner)
        attachment.window = RequestWindow.restored(row.window)
        if row.detached is not None:
            attachment.number, attachment.detached = row.detached.number, Detached.restored(row.detached)
            # The session's own row may have been written when somebody else had it.
            session.generation, session.ttl_ms = attachment.number, row.detached.ttl_ms
        comes_late = bool(session.attachments) and next(reversed(session.attachments)) > row.id
        self._add(session, attachment)
        if comes_late:
            # One that changed while the snapshot was written comes before its turn.
            session.attachments = dict(sorted(session.attachments.items()))

    def renumber(self, session: Session, attachment: Attachment, number: AttachmentId) -> None:
        """Let the only attachment of a detached session be known by another number, and by no other."""
        del session.attachments[attachment.number]
        session.attachments[number] = attachment
        session.generation = attachment.number = number

    def _add(self, session: Session, attachment: Attachment) -> None:
        session.attachments[attachment.number] = self._attachments[attachment.id % _SHARDS][attachment.id] = attachment
        self._attachment_count += 1

    def state(self) -> list[Any]:
        """Return the state as plain data, equal for equal states."""
        return [_session_state(self._sessions[number]) for number in sorted(self._sessions)]


def _session_state(session: Session) -> tuple[Any, ...]:
    attachments = [_attachment_state(session.attachments[number]) for number in sorted(session.attachments)]
    return session.id, session.generation, session.ttl_ms, attachments


def _attachment_state(attachment: Attachment) -> tuple[Any, ...]:
    window = attachment.window
    answers = sorted(window.answers.items(), key=lambda item: item[0])
    owner = msgspec.structs.astuple(attachment.owner)
    state = (attachment.id, owner, window.forgotten.low_water, window.forgotten.ranges, answers)
    return state if attachment.detached is None else (*state, msgspec.structs.astuple(attachment.detached.row(attachment.number)))
