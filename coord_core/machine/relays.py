"""Detached sessions: taken up, handed off, superseded.

Rules:
- A name has one session an attempt, and at most one of them is not superseded: the last.
- A session's number for the outside, which is its generation too, is the index of the entry in which it was last taken up or handed
  off.  So a command, a keep-alive or an expiry that was meant for an earlier actor finds nobody of that number.
- Nobody who had taken a session up gets it back once another has: an actor is known by what it calls itself.
- What a session holds passes from actor to actor.  What belongs to a process does not (`Resource.actor_left`).
- Without an actor there is no lease: when cluster time has come to `held_until_ms`, the leader expires the session.  That is an
  entry of its own, as every end of a session is: no entry may take back what it gave.
"""

from coord_core.machine import refusals
from coord_core.machine.bounds import NUMBER_MAX
from coord_core.machine.detached import ACTORS_KEPT, Detached
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.resources import Registry
from coord_core.machine.sessions import Attachment, Session, Sessions
from coord_core.protocol.commands import (
    ACTOR_BYTES_MAX,
    DETACHED_NAME_BYTES_MAX,
    HOLD_MS_MAX,
    INSTANCE_BYTES_MAX,
    SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN,
    HandOff,
    OpenDetached,
)
from coord_core.protocol.operations import FREEING
from coord_core.protocol.results import DetachedOpened, Done, Failed, Result
from coord_core.types import AttachmentId

_DONE = Done()


class Relays:
    __slots__ = ("_entry", "_lines", "_registry", "_sessions")

    def __init__(self, entry: CurrentEntry, sessions: Sessions, registry: Registry) -> None:
        self._entry = entry
        self._sessions = sessions
        self._registry = registry
        # The attachments of each name's sessions, in order of attempts; none is empty.
        self._lines: dict[str, list[Attachment]] = {}

    # --- commands ----------------------------------------------------------------------------------------------------------------

    def open(self, command: OpenDetached) -> Result:
        fault = _check(command) or refusals.check_owner(command.owner)
        if fault is not None:
            return fault
        line = self._lines.get(command.name, [])
        last = line[-1].detached if line else None
        if last is None or last.attempt < command.attempt:
            return self._begin(command, line)
        if command.attempt < last.attempt:
            return refusals.superseded(command.name, "attempt")
        return self._take_up(command, line[-1], last)

    def hand_off(self, command: HandOff) -> Result:
        session = self._sessions.get(command.session)
        if session is None:
            return refusals.session_expired(command.session)
        attachment = next(iter(session.attachments.values()), None)
        detached = None if attachment is None else attachment.detached
        if attachment is None or detached is None:
            return refusals.invalid("session", "is not detached: it ends with its process")
        if attachment.number != command.attachment:
            return _DONE if detached.former == command.attachment else refusals.superseded(detached.name, "process")
        if not 1 <= command.hold_ms <= HOLD_MS_MAX:
            return refusals.invalid("hold_ms", f"must be between 1 and {HOLD_MS_MAX} ms")
        self._change(attachment)
        self._registry.actor_left(attachment, refusals.actor_left(detached.name))
        detached.former = attachment.number
        self._sessions.renumber(session, attachment, AttachmentId(self._entry.index))
        # There is a later attempt already: it waits for this one's end.
        hold_ms = min(command.hold_ms, detached.ttl_ms) if detached.superseded else command.hold_ms
        detached.held_until_ms = self._entry.time_ms + hold_ms
        self._entry.leased.append(session.id)
        return _DONE

    # --- what others ask ---------------------------------------------------------------------------------------------------------

    def gone(self, session: Session) -> Failed | None:
        """Return what to answer whoever asks under a number that a session does not have; None: it is not detached."""
        detached = _detached(session)
        return None if detached is None else refusals.superseded(detached.name, "process")

    def check(self, attachment: Attachment, kind: type) -> Failed | None:
        """Return why a detached session's operation must not be applied, or None."""
        detached = attachment.detached
        if detached is not None and detached.superseded and kind not in FREEING:
            return refusals.superseded(detached.name, "attempt")
        return None

    def ended(self, session: Session) -> None:
        """A session is about to end."""
        for attachment in session.attachments.values():
            detached = attachment.detached
            if detached is not None:
                detached.line.remove(attachment)
                if not detached.line:
                    del self._lines[detached.name]

    # --- what happens to a session -----------------------------------------------------------------------------------------------

    def _begin(self, command: OpenDetached, line: list[Attachment]) -> Result:
        session = self._sessions.open(self._entry.index, command.ttl_ms, command.owner)
        if isinstance(session, Failed):
            return session
        for elder in line:
            self._supersede(elder)
        attachment = session.attachments[AttachmentId(session.id)]
        session.generation = attachment.number
        attachment.detached = detached = Detached(command.name, command.attempt, command.ttl_ms)
        detached.actors.append(command.actor)
        detached.line = self._lines.setdefault(command.name, line)
        detached.line.append(attachment)
        return self._opened(session, attachment, resumed=False)

    def _supersede(self, elder: Attachment) -> None:
        detached = elder.detached
        assert detached is not None
        if detached.superseded:
            return
        self._change(elder)
        detached.superseded = True
        if detached.held_until_ms is not None:
            # Nobody will take it up any more; so long the later attempt has to say that it wants what it holds.
            detached.held_until_ms = min(detached.held_until_ms, self._entry.time_ms + detached.ttl_ms)
            self._entry.leased.append(elder.session)

    def _take_up(self, command: OpenDetached, attachment: Attachment, detached: Detached) -> Result:
        session = self._sessions.get(attachment.session)
        assert session is not None, "the attachments of a line are alive"
        if detached.actors[-1] == command.actor and detached.is_attended:
            return self._opened(session, attachment, resumed=True)
        if command.actor in detached.actors:
            return refusals.superseded(detached.name, "process")
        self._change(attachment)
        if detached.is_attended:
            self._registry.actor_left(attachment, refusals.actor_left(detached.name))
        detached.held_until_ms = None
        self._sessions.renumber(session, attachment, AttachmentId(self._entry.index))
        attachment.owner = command.owner
        session.ttl_ms = detached.ttl_ms = command.ttl_ms
        detached.actors = [*detached.actors[1 - ACTORS_KEPT :], command.actor]
        attachment.window.acknowledge(attachment.window.last, ())
        return self._opened(session, attachment, resumed=True)

    def _opened(self, session: Session, attachment: Attachment, *, resumed: bool) -> DetachedOpened:
        self._entry.leased.append(session.id)
        return DetachedOpened(session.id, attachment.number, session.ttl_ms, attachment.window.last, resumed)

    def _change(self, attachment: Attachment) -> None:
        if self._entry.snapshot is not None:
            self._entry.snapshot.before_attachment(attachment)

    # --- snapshots ---------------------------------------------------------------------------------------------------------------

    def restored(self) -> None:
        """All sessions were taken up from a snapshot: draw up the lines."""
        for session in self._sessions:
            for attachment in session.attachments.values():
                detached = attachment.detached
                if detached is not None:
                    detached.line = self._lines.setdefault(detached.name, [])
                    detached.line.append(attachment)
        for line in self._lines.values():
            line.sort(key=_attempt)


def _detached(session: Session) -> Detached | None:
    return next((attachment.detached for attachment in session.attachments.values()), None)


def _attempt(attachment: Attachment) -> tuple[int, str]:
    assert attachment.detached is not None
    return attachment.detached.attempt.number, attachment.detached.attempt.instance


def _check(command: OpenDetached) -> Failed | None:
    if not 1 <= refusals.utf8_length(command.name) <= DETACHED_NAME_BYTES_MAX:
        return refusals.invalid("name", f"must be UTF-8 of 1 to {DETACHED_NAME_BYTES_MAX} bytes")
    if not 0 <= command.attempt.number <= NUMBER_MAX:
        return refusals.invalid("attempt", f"must be between 0 and {NUMBER_MAX}")
    if not 0 <= refusals.utf8_length(command.attempt.instance) <= INSTANCE_BYTES_MAX:
        return refusals.invalid("instance", f"must be UTF-8 of at most {INSTANCE_BYTES_MAX} bytes")
    if not 1 <= len(command.actor) <= ACTOR_BYTES_MAX:
        return refusals.invalid("actor", f"must be 1 to {ACTOR_BYTES_MAX} bytes")
    if not SESSION_TTL_MS_MIN <= command.ttl_ms <= SESSION_TTL_MS_MAX:
        return refusals.invalid("ttl_ms", f"must be between {SESSION_TTL_MS_MIN} and {SESSION_TTL_MS_MAX} ms")
    return None
