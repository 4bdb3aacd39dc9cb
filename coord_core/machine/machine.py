"""The face of the state machine: an entry in, its answer and the answers it caused out.

An entry is applied in this order: the cluster time rises to its stamp; timers that are due fire; its command is applied; locks
that those timers opened are granted; pieces that wait for what moved are called.  Which command does what to sessions is decided
here; what a session's operation does is the resources' matter.

The duties of the caller (replica):
1. Apply every committed command once, in order of the log.  `apply` raises only where an invariant is broken, and `ReleaseTooOld`
   where the log has come to a version that this code does not know: stop the node then.
2. Give the answers out after the entry is applied: `Applied.result` to whoever proposed the entry, `Applied.replies` to whoever
   waits for those requests, if anyone does here.
3. Propose a `Tick` when cluster time reaches `next_deadline_ms()`.  It may have passed already: one entry fires a bounded number.
4. Query only what a quorum has confirmed (dissertation, 6.4).
5. Propose `SetMachineVersion` only when every member knows that version (`versions`).
6. `end_snapshot` when a snapshot is done or given up; `dismantle` a machine that another replaces.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from coord_core.machine import refusals
from coord_core.machine.bounds import NUMBER_MAX, WINDOW_CONTROL_MAX
from coord_core.machine.elections import Election, Elections
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.groups import Group, Groups
from coord_core.machine.limiters import Limiters
from coord_core.machine.lists import Listed, list_locks, list_sessions
from coord_core.machine.locks import Lock, Locks
from coord_core.machine.logs import Logs
from coord_core.machine.names import Names
from coord_core.machine.parking import Bays, Parking
from coord_core.machine.relays import Relays
from coord_core.machine.resources import OperationHandler, QueryHandler, Registry, Resource
from coord_core.machine.restoring import Restoring
from coord_core.machine.rolling import RollingHash
from coord_core.machine.semaphores import Semaphore, Semaphores
from coord_core.machine.sessions import Attachment, Session, Sessions, SessionView
from coord_core.machine.snapshot import Snapshot
from coord_core.machine.stream import CHUNK_BYTES_MAX, Cutter, Header
from coord_core.machine.streams import RECORD, StreamName, Streams
from coord_core.machine.timers import Timers
from coord_core.machine.topics import Topics
from coord_core.machine.values import Values
from coord_core.machine.versions import VERSION_MAX, check_known
from coord_core.protocol.commands import (
    WINDOW_REQUESTS_MAX,
    Call,
    CloseAttachment,
    CloseSession,
    Command,
    ExpireSession,
    HandOff,
    OpenAttachment,
    OpenDetached,
    OpenSession,
    SetMachineVersion,
    Tick,
)
from coord_core.protocol.locks import LockList, LockRows, SessionList, SessionRows
from coord_core.protocol.operations import FREEING, Cancel
from coord_core.protocol.queries import Answer, PathInfo, PathState, Query, SessionInfo, SessionState
from coord_core.protocol.results import AttachmentOpened, Done, Failed, NotGranted, Result, SessionOpened
from coord_core.protocol.topics import TopicRecord
from coord_core.types import AttachmentId, LogIndex, RequestNumber, SessionId, SubscriptionId, TopicNumber

_DONE = Done()
_CANCELLED = NotGranted("cancelled")

_canonical = msgspec.msgpack.Encoder(order="deterministic")


@dataclass(slots=True)
class Applied:
    """What came of an entry."""

    #: The answer to the entry's own command.  None: a request that now waits, or an entry nobody waits for (the leader's own).
    result: Result | None
    #: Answers that this entry (its timers, releases, expiries) made for earlier requests, in the order in which they were made.
    replies: list[tuple[AttachmentId, RequestNumber, Result]]
    #: The sessions opened (taken up, handed off: look at them again), and those closed or expired, by this entry.
    leased: Sequence[SessionId]
    closed: list[SessionId]
    #: The streams that have a record of this entry, and the subscriptions that it ended.
    emitted: Sequence[StreamName]
    unsubscribed: Sequence[SubscriptionId]
    #: What it published or parked, to be stored; and the logs of which nothing below an offset is kept any more (None: nothing).
    records: Sequence[tuple[TopicNumber, TopicRecord]]
    trimmed: Sequence[tuple[TopicNumber, int | None]]


class Machine:
    #: The newest version that this code knows.
    VERSION_MAX = VERSION_MAX

    def __init__(self) -> None:
        self._entry = CurrentEntry()
        self._rolling = RollingHash()
        self._timers = Timers()
        self._names = Names()
        self._sessions = Sessions()
        self._streams = Streams(self._entry, self._sessions, self._names)
        self._locks = Locks(self._entry, self._sessions, self._names, self._timers, self._streams)
        self._semaphores = Semaphores(self._entry, self._sessions, self._names, self._timers)
        self._limiters = Limiters(self._entry, self._sessions, self._names, self._timers)
        self._values = Values(self._entry, self._names, self._timers, self._streams)
        self._elections = Elections(self._entry, self._sessions, self._names, self._streams)
        self._groups = Groups(self._entry, self._sessions, self._names, self._timers, self._streams)
        #: Which records there must be beside the machine: only to read.
        self.logs = Logs()
        beside = (self._streams, self.logs)
        self._topics = Topics(self._entry, self._sessions, self._names, self._timers, *beside)
        self._parking = Parking(self._entry, self._sessions, self._names, self._timers, *beside)
        self._registry = Registry()
        # Streams first: who ends in an entry is told no more of what that entry does.
        resources: tuple[Resource, ...] = (
            self._streams,
            self._locks,
            self._values,
            self._elections,
            self._groups,
            self._semaphores,
            self._limiters,
            self._topics,
            self._parking,
            Bays(self._parking),
        )
        for resource in resources:
            self._registry.register(resource)
        self._streams.watchable = self._registry.watched
        self._relays = Relays(self._entry, self._sessions, self._registry)
        # What an operation does, by its type: those of the resources, and Cancel, which concerns them all.
        self._operations: dict[type[Any], OperationHandler] = {**self._registry.operations, Cancel: self._cancel}
        # Unanswered requests that may be there already when one of this type comes: see WINDOW_CONTROL_MAX.
        self._requests_max = dict.fromkeys(self._operations, WINDOW_REQUESTS_MAX)
        self._requests_max.update(dict.fromkeys(FREEING, WINDOW_CONTROL_MAX))
        self._commands: dict[type[Any], Callable[[Any], Result | None]] = {
            Call: self._call,
            OpenSession: self._open_session,
            CloseSession: self._close_session,
            ExpireSession: self._expire_session,
            OpenAttachment: self._open_attachment,
            CloseAttachment: self._close_attachment,
            OpenDetached: self._relays.open,
            HandOff: self._relays.hand_off,
            Tick: self._tick,
            SetMachineVersion: self._set_version,
        }
        # How many were begun.
        self._snapshots = 0
        self._queries: dict[type[Any], QueryHandler] = {
            **self._registry.queries,
            SessionInfo: self._session_info,
            SessionList: self._session_list,
            LockList: self._lock_list,
            PathInfo: self._path_info,
        }

    @property
    def time_ms(self) -> int:
        """Cluster time: the highest stamp applied.  Never falls."""
        return self._entry.time_ms

    @property
    def index(self) -> LogIndex:
        """The last entry applied; 0 before the first."""
        return self._entry.index

    @property
    def version(self) -> int:
        """Which behaviour the log has come to, from 1 to VERSION_MAX."""
        return self._entry.version

    @property
    def rolling_hash(self) -> int:
        """64 bits that follow from every entry so far and what it did: differing at one index, two machines are not replicas.

        0 says nothing: this machine came out of a snapshot of a release that kept none.
        """
        return self._rolling.value

    def apply(self, index: LogIndex, time_ms: int, command: Command) -> Applied:
        """Apply the committed entry `index`, stamped `time_ms` by its leader; return what came of it."""
        entry = self._entry
        entry.begin(index, time_ms)
        self._timers.fire(entry.time_ms)
        result = self._commands[type(command)](command)
        if entry.closures_due:
            self._locks.open_due()
        if entry.gates.due:
            self._parking.gates_moved()
        self._rolling.add(entry, result)
        return Applied(
            result,
            entry.replies,
            entry.leased or (),
            entry.closed,
            entry.emitted or (),
            entry.unsubscribed or (),
            entry.records or (),
            entry.trimmed or (),
        )

    def query(self, query: Query) -> Answer:
        """Answer from the state as it is: call it when a quorum has confirmed the leader."""
        return self._queries[type(query)](query)

    def next_deadline_ms(self) -> int | None:
        """Return the cluster time of the earliest timer, past or to come; None where there is none."""
        return self._timers.next_deadline_ms()

    def sessions(self) -> Iterator[SessionView]:
        """Yield every live session, for a new leader's leases."""
        return (_view(session) for session in self._sessions)

    def session(self, session: SessionId) -> SessionView | None:
        found = self._sessions.get(session)
        return None if found is None else _view(found)

    def session_count(self) -> int:
        return len(self._sessions)

    @property
    def streams(self) -> Streams:
        """What happened to resources, for those who subscribed: only to read."""
        return self._streams

    @property
    def topics(self) -> Topics:
        """What was published: only to read."""
        return self._topics

    @property
    def parking(self) -> Parking:
        """What was parked: only to read."""
        return self._parking

    def digest(self) -> bytes:
        """Return 32 bytes that are equal for equal states, however they came about; for comparing replicas."""
        entry = self._entry
        state = (entry.version, entry.index, entry.time_ms, self._timers.state(), self._sessions.state())
        resources = [resource.state() for resource in self._registry.resources]
        return sha256(_canonical.encode((state, resources))).digest()

    # --- snapshots ---------------------------------------------------------------------------------------------------------------

    def begin_snapshot(self, chunk_bytes: int = CHUNK_BYTES_MAX) -> Snapshot:
        """Begin to write down the state as it is now, while entries go on being applied.  One at a time."""
        assert self._entry.snapshot is None, "one snapshot at a time"
        entry = self._entry
        header = Header(entry.version, entry.index, entry.time_ms, self._timers.next_id, self._rolling.value)
        self._snapshots += 1
        cutter = Cutter(header, chunk_bytes)
        snapshot = Snapshot(self._snapshots, header.index, cutter, self._sessions, self._names, self._registry, self._streams)
        entry.snapshot = self._names.snapshot = snapshot
        return snapshot

    def end_snapshot(self) -> None:
        """Forget the snapshot being written: it is done, or nobody wants it any more.  Idempotent."""
        self._entry.snapshot = self._names.snapshot = None

    def begin_restore(self) -> Restoring:
        """Begin to take up a snapshot.  The machine is new and must not be used before `Restoring.finish`."""
        assert self._entry.index == 0, "a machine that has applied something cannot become another"
        restoring = Restoring(self._entry, self._rolling, self._timers, self._sessions, self._registry, self.restored)
        restoring.add_section(RECORD, self._streams.restore_records)
        return restoring

    def restored(self) -> None:
        """All of the snapshot was taken up: from here on this is a machine like any other.  Call it before more is done."""
        self._relays.restored()

    @classmethod
    def restore(cls, chunks: Iterable[bytes]) -> "Machine":
        """Return a machine in the state of a snapshot.  Raises `StorageCorrupt`."""
        machine = cls()
        restoring = machine.begin_restore()
        for chunk in chunks:
            restoring.feed(chunk)
        restoring.finish()
        return machine

    # --- sessions' own commands --------------------------------------------------------------------------------------------------

    def _open_session(self, command: OpenSession) -> Result:
        session = self._sessions.open(self._entry.index, command.ttl_ms, command.owner)
        if isinstance(session, Failed):
            return session
        self._entry.leased.append(session.id)
        return SessionOpened(session.id, AttachmentId(session.id), session.generation, session.ttl_ms)

    def _close_session(self, command: CloseSession) -> Result:
        session = self._sessions.get(command.session)
        if session is not None:
            self._relays.closing(session, command.attachment)
        if session is not None and (not command.attachment or command.attachment in session.attachments):
            self._end_session(session, refusals.session_closed(session.id))
        return _DONE

    def _expire_session(self, command: ExpireSession) -> None:
        session = self._sessions.get(command.session)
        if session is not None and session.generation == command.generation:
            self._relays.expiring(session)
            self._end_session(session, refusals.session_expired(session.id))

    def _end_session(self, session: Session, answer: Failed) -> None:
        self._before_end(session.attachments.values())
        self._relays.ended(session)
        self._registry.attachments_ended(self._sessions.end(session), answer)
        self._entry.closed.append(session.id)

    def _before_end(self, attachments: Iterable[Attachment]) -> None:
        if self._entry.snapshot is not None:
            for attachment in attachments:
                self._entry.snapshot.before_attachment(attachment)

    def _open_attachment(self, command: OpenAttachment) -> Result:
        session = self._sessions.get(command.session)
        if session is None:
            return refusals.session_expired(command.session)
        if self._relays.gone(session) is not None:
            return refusals.invalid("session", "is detached, and has one process at a time: take it up by its name")
        attachment = self._sessions.attach(session, self._entry.index, command.owner)
        if isinstance(attachment, Failed):
            return attachment
        return AttachmentOpened(attachment.id, session.ttl_ms)

    def _close_attachment(self, command: CloseAttachment) -> Result:
        session = self._sessions.get(command.session)
        attachment = None if session is None else session.attachments.get(command.attachment)
        if attachment is not None and attachment.detached is not None:
            return refusals.invalid("session", "is detached, and has one attachment: close the session")
        if session is not None and attachment is not None:
            self._before_end([attachment])
            answer = refusals.attachment_closed(session.id, attachment.id)
            self._registry.attachments_ended([self._sessions.detach(session, attachment)], answer)
        return _DONE

    def _tick(self, command: Tick) -> None:
        """Its stamp has done all there is to do."""

    def _set_version(self, command: SetMachineVersion) -> None:
        check_known(command.version, f"entry {self._entry.index}")
        # Two leaders may have proposed the same.
        if command.version > self._entry.version:
            self._entry.version = command.version
            self._rolling.begin_anew()

    # --- requests of an attachment -----------------------------------------------------------------------------------------------

    def _call(self, call: Call) -> Result | None:
        session = self._sessions.get(call.session)
        if session is None:
            return refusals.session_expired(call.session)
        attachment = session.attachments.get(call.attachment)
        if attachment is None:
            return self._relays.gone(session) or refusals.attachment_closed(call.session, call.attachment)
        if self._entry.snapshot is not None:
            self._entry.snapshot.before_attachment(attachment)
        request = call.request
        # Before anything is acknowledged, so that no mark goes beyond a request and so beyond NUMBER_MAX.
        if request <= call.low_water:
            return refusals.stale_request(request)
        if request > NUMBER_MAX:
            return refusals.invalid("request", f"must be at most {NUMBER_MAX}")
        window = attachment.window
        kind = type(call.operation)
        if attachment.detached is not None:
            refusal = self._relays.check(attachment.detached, kind)
            if refusal is not None:
                return refusal
        refusal = window.acknowledge(call.low_water, call.answered)
        if refusal is not None:
            return refusal
        if request in window.answers:
            return window.answers[request]
        refusal = window.admit(request, self._requests_max[kind])
        if refusal is not None:
            return refusal
        answer = self._operations[kind](attachment, request, call.operation)
        window.record(request, answer)
        return answer

    def _cancel(self, attachment: Attachment, request: RequestNumber, operation: Cancel) -> Result:
        target = operation.request
        if target == request or not 1 <= target <= NUMBER_MAX:
            return refusals.invalid("request", "must be another request of this attachment")
        window = attachment.window
        if self._registry.withdraw(attachment, target, _CANCELLED) or not window.is_unseen(target):
            return _DONE
        if len(window.answers) >= WINDOW_CONTROL_MAX - 1:
            return refusals.over_limit("unanswered requests of an attachment", WINDOW_CONTROL_MAX, WINDOW_CONTROL_MAX + 1)
        # Its tombstone: should it still arrive, it finds that it was answered.
        window.record(target, _CANCELLED)
        return _DONE

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def _path_info(self, query: PathInfo) -> PathState | Failed:
        fault = refusals.check_path(query.path)
        if fault is not None:
            return fault
        found = self._names.look_up(query.path)
        return PathState("" if found is None else found.kind)

    def _session_info(self, query: SessionInfo) -> SessionState:
        session = self._sessions.get(query.session)
        if session is None:
            return SessionState(False, 0, 0)
        holdings = sum(self._registry.holdings(attachment) for attachment in session.attachments.values())
        return SessionState(True, len(session.attachments), holdings)

    def _session_list(self, query: SessionList) -> SessionRows:
        return list_sessions(self._sessions, self._registry, query, self._entry.time_ms)

    def _lock_list(self, query: LockList) -> LockRows:
        listed: Listed = {
            Lock: self._locks.listed,
            Semaphore: self._semaphores.listed,
            Election: self._elections.listed,
            Group: self._groups.listed,
        }
        return list_locks(self._names, listed, query)


def _view(session: Session) -> SessionView:
    detached = next((attachment.detached for attachment in session.attachments.values()), None)
    return SessionView(session.id, session.generation, session.ttl_ms, detached)
