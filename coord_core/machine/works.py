"""What processes ask of the members of groups: from asking to the result.

    scheduled --due--> told --begin--> begun --finish--> done --told to its submitter--> (forgotten)

Rules:
- Work belongs to a member, and is part of its group.  When the member ends, so does its work: what was not begun certainly was not
  done, what was begun may have been.  Only work that may be done twice (`retry`) goes to another member, one that has room for it.
- It is begun once: by the member, in an entry, before it calls anything.
- Whoever submitted it may be gone by then.  Scheduled work is done all the same, a call that has not begun is not.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from coord_core import errors
from coord_core.machine import refusals
from coord_core.machine.bounds import DURATION_MS_MAX, WORK_BYTES_PER_MEMBER_MAX, WORKS_PER_GROUP_MAX
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.names import Names
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.streams import Streams
from coord_core.machine.timers import Timer, TimerRow, Timers
from coord_core.protocol.results import Done, Failed, Result
from coord_core.protocol.works import (
    WORK_DATA_BYTES_MAX,
    WORK_MESSAGE_BYTES_MAX,
    WORK_NAME_BYTES_MAX,
    WorkAwait,
    WorkBegin,
    WorkCancel,
    WorkDone,
    WorkDue,
    WorkFinish,
    WorkScheduled,
    WorkState,
    WorkSubmit,
)
from coord_core.types import AttachmentId, MemberId, RequestNumber, WorkId

#: The kind of a member's stream; its path is the group's, an @ and the member's number.
KIND = "work"

_DONE = Done()
_NO_REQUEST = RequestNumber(0)
_ROW_BYTES = 64


class Work:
    __slots__ = ("arguments", "begun", "done", "id", "is_call", "member", "name", "request", "retry", "submitter", "timer")

    def __init__(self, number: WorkId, member: MemberId, name: str, arguments: bytes, *, is_call: bool, retry: bool) -> None:
        self.id = number
        self.member = member
        self.name = name
        self.arguments = arguments
        #: Its submitter waits from the beginning; else it was scheduled.
        self.is_call = is_call
        self.retry = retry
        #: None: gone, or it does not want to know any more.
        self.submitter: Attachment | None = None
        #: The submitter's request that waits; 0: none does.
        self.request = _NO_REQUEST
        #: Until it is due.
        self.timer: Timer | None = None
        self.begun = False
        #: What came of it, until its submitter asks.
        self.done: Result | None = None

    @property
    def size(self) -> int:
        return len(self.name) + len(self.arguments) + _ROW_BYTES

    def due(self) -> WorkDue:
        return WorkDue(self.id, self.name, self.arguments, self.retry)


class WorkRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Work in a snapshot, in its group's row."""

    id: WorkId
    member: MemberId
    name: str
    arguments: bytes
    is_call: bool
    retry: bool
    submitter: AttachmentId | None
    request: RequestNumber
    timer: TimerRow | None
    begun: bool
    done: WorkDone | Failed | None


class Works:
    """The work of one group, in the order in which it was submitted."""

    __slots__ = ("by_id",)

    def __init__(self) -> None:
        self.by_id: dict[WorkId, Work] = {}

    def of_member(self, member: MemberId) -> Iterator[Work]:
        return (work for work in self.by_id.values() if work.member == member and work.done is None)

    def bytes_of(self, member: MemberId) -> int:
        return sum(work.size for work in self.of_member(member))


class Errands:
    """What happens to the work of all groups.  `groups` looks after whose it is."""

    __slots__ = ("_entry", "_names", "_sessions", "_streams", "_submitted", "_timers")

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, timers: Timers, streams: Streams) -> None:
        self._entry = entry
        self._names = names
        self._sessions = sessions
        self._timers = timers
        self._streams = streams
        # By whoever submitted it and may want to know; with the path of its group.
        self._submitted: dict[AttachmentId, dict[WorkId, tuple[str, Work]]] = {}

    # --- operations: the group is there, and is about to change ------------------------------------------------------------------

    def submit(self, attachment: Attachment, request: RequestNumber, operation: WorkSubmit, works: Works) -> Result | None:
        fault = _check(operation) or _check_room(works, operation)
        if fault is not None:
            return fault
        is_call = operation.delay_ms is None
        number = WorkId(self._entry.index)
        work = Work(number, operation.member, operation.name, operation.arguments, is_call=is_call, retry=operation.retry)
        works.by_id[work.id] = work
        self._belongs_to(operation.path, work, attachment)
        if operation.delay_ms:
            on_due = partial(self._due_now, operation.path, work)
            work.timer = self._timers.set(self._entry.time_ms + operation.delay_ms, on_due)
        else:
            self._tell(operation.path, work)
        if not is_call:
            return WorkScheduled(work.id)
        work.request = request
        return None

    def begin(self, operation: WorkBegin, works: Works) -> Result:
        work = works.by_id.get(operation.work)
        if work is None or work.member != operation.member or work.done is not None or (work.begun and not work.retry):
            return _not_found(operation.path, operation.work, "is not to be begun: it was cancelled, or begun before")
        work.begun = True
        return _DONE

    def finish(self, operation: WorkFinish, works: Works) -> Result:
        work = works.by_id.get(operation.work)
        if work is not None and work.member == operation.member and work.begun:
            self._over(operation.path, works, work, WorkDone(work.id, operation.result, operation.error, operation.message))
        return _DONE

    def cancel(self, operation: WorkCancel, works: Works) -> Result:
        work = works.by_id.get(operation.work)
        if work is None or work.begun or work.done is not None:
            return _not_found(operation.path, operation.work, "has begun, or is over")
        self._over(operation.path, works, work, _not_found(operation.path, work.id, "was cancelled"))
        return _DONE

    def wait(self, attachment: Attachment, request: RequestNumber, operation: WorkAwait, works: Works) -> Result | None:
        work = works.by_id.get(operation.work)
        if work is None or work.submitter is not attachment or work.request:
            return _not_found(operation.path, operation.work, "is not this process's, is over, or is waited for already")
        if work.done is not None:
            done = work.done
            self._forget(works, work)
            return done
        work.request = request
        return None

    # --- what happens to it ------------------------------------------------------------------------------------------------------

    def member_ended(self, path: str, works: Works, member: MemberId, heirs: Sequence[MemberId]) -> None:
        """A member is gone: what it has not begun fails, what it has may have been done; `heirs` do what may be done twice."""
        room = {heir: WORK_BYTES_PER_MEMBER_MAX - works.bytes_of(heir) for heir in heirs}
        for work in list(works.of_member(member)):
            heir = next((heir for heir in heirs if room[heir] >= work.size), None) if work.retry else None
            if heir is not None:
                room[heir] -= work.size
                work.member, work.begun = heir, False
                if work.timer is None:
                    self._tell(path, work)
            elif work.begun:
                message = f"member {member} of {path} ended after it had begun {work.name}: it may or may not have been done"
                self._over(path, works, work, refusals.refuse(errors.OutcomeUnknown, message, path=path, member=member))
            else:
                message = f"member {member} of {path} is gone; {work.name} was not begun"
                self._over(path, works, work, refusals.refuse(errors.NotFound, message, path=path, member=member))

    def group_ended(self, works: Works) -> None:
        """Its last member is gone: results that nobody has asked for go with it."""
        for work in list(works.by_id.values()):
            assert work.done is not None, "work that is not over ended with its member"
            self._forget(works, work)

    def submitter_ended(self, path: str, works: Works, work: Work) -> None:
        """Nobody wants to know what comes of it: a call that has not begun need not be done, scheduled work is."""
        if work.done is not None or (work.is_call and not work.begun):
            self._forget(works, work)
        else:
            self._belongs_to_nobody(work)

    def stop_waiting(self, work: Work, answer: Result) -> None:
        """Its submitter does not wait any more, and may ask again."""
        assert work.submitter is not None
        request, work.request = work.request, _NO_REQUEST
        self._entry.reply(work.submitter, request, answer)

    def submitted(self, attachment: Attachment) -> list[tuple[str, Work]]:
        """Return the work that an attachment may want to know of, with the paths of its groups, in order."""
        return list(self._submitted.get(attachment.id, {}).values())

    def _due_now(self, path: str, work: Work) -> None:
        self._names.get(path)  # it changes
        work.timer = None
        self._tell(path, work)

    def _tell(self, path: str, work: Work) -> None:
        self._streams.emit((KIND, stream_path(path, work.member)), work.due())

    def _over(self, path: str, works: Works, work: Work, done: Result) -> None:
        submitter, request = work.submitter, work.request
        if submitter is None:
            self._forget(works, work)
        elif request:
            self._forget(works, work)
            self._entry.reply(submitter, request, done)
        else:
            self._stop_timer(work)
            work.done = done

    def _forget(self, works: Works, work: Work) -> None:
        self._stop_timer(work)
        self._belongs_to_nobody(work)
        del works.by_id[work.id]

    def _stop_timer(self, work: Work) -> None:
        if work.timer is not None:
            self._timers.cancel(work.timer)
            work.timer = None

    def _belongs_to(self, path: str, work: Work, attachment: Attachment) -> None:
        work.submitter = attachment
        self._submitted.setdefault(attachment.id, {})[work.id] = (path, work)

    def _belongs_to_nobody(self, work: Work) -> None:
        submitter, work.submitter, work.request = work.submitter, None, _NO_REQUEST
        if submitter is not None:
            submitted = self._submitted[submitter.id]
            del submitted[work.id]
            if not submitted:
                del self._submitted[submitter.id]

    # --- snapshots ---------------------------------------------------------------------------------------------------------------

    def restore(self, path: str, works: Works, rows: list[WorkRow]) -> None:
        """Raises KeyError where a submitter is missing."""
        for row in rows:
            work = Work(row.id, row.member, row.name, row.arguments, is_call=row.is_call, retry=row.retry)
            work.begun, work.done = row.begun, row.done
            if row.submitter is not None:
                self._belongs_to(path, work, self._sessions.attachment(row.submitter))
            work.request = row.request
            if row.timer is not None:
                work.timer = self._timers.restore(row.timer, partial(self._due_now, path, work))
            works.by_id[work.id] = work


def stream_path(path: str, member: MemberId) -> str:
    return f"{path}@{member}"


def due_state(works: Works, member: MemberId) -> WorkState:
    return WorkState(tuple(work.due() for work in works.of_member(member) if work.timer is None and not work.begun))


def rows(works: Works) -> list[WorkRow]:
    return [_row(work) for work in works.by_id.values()]


def size(works: Works) -> int:
    return sum(work.size for work in works.by_id.values())


def state(works: Works) -> list[Any]:
    return [msgspec.structs.astuple(row) for row in rows(works)]


def _row(work: Work) -> WorkRow:
    assert work.done is None or isinstance(work.done, WorkDone | Failed)
    return WorkRow(
        work.id,
        work.member,
        work.name,
        work.arguments,
        work.is_call,
        work.retry,
        None if work.submitter is None else work.submitter.id,
        work.request,
        None if work.timer is None else work.timer.row(),
        work.begun,
        work.done,
    )


def _check(operation: WorkSubmit) -> Failed | None:
    if not 1 <= refusals.utf8_length(operation.name) <= WORK_NAME_BYTES_MAX:
        return refusals.invalid("name", f"must be UTF-8 of 1 to {WORK_NAME_BYTES_MAX} bytes")
    if len(operation.arguments) > WORK_DATA_BYTES_MAX:
        return refusals.over_limit("bytes of arguments", WORK_DATA_BYTES_MAX, len(operation.arguments))
    if operation.delay_ms is not None and not 0 <= operation.delay_ms <= DURATION_MS_MAX:
        return refusals.invalid("delay_ms", f"must be between 0 and {DURATION_MS_MAX} ms")
    return None


def check_finish(operation: WorkFinish) -> Failed | None:
    if len(operation.result) > WORK_DATA_BYTES_MAX:
        return refusals.over_limit("bytes of a result", WORK_DATA_BYTES_MAX, len(operation.result))
    if not 0 <= refusals.utf8_length(operation.error) <= WORK_NAME_BYTES_MAX:
        return refusals.invalid("error", f"must be UTF-8 of at most {WORK_NAME_BYTES_MAX} bytes")
    if not 0 <= refusals.utf8_length(operation.message) <= WORK_MESSAGE_BYTES_MAX:
        return refusals.invalid("message", f"must be UTF-8 of at most {WORK_MESSAGE_BYTES_MAX} bytes")
    return None


def _check_room(works: Works, operation: WorkSubmit) -> Failed | None:
    if len(works.by_id) >= WORKS_PER_GROUP_MAX:
        return refusals.over_limit("calls of a group's members", WORKS_PER_GROUP_MAX, WORKS_PER_GROUP_MAX + 1)
    wanted = _ROW_BYTES + len(operation.name) + len(operation.arguments)
    taken = works.bytes_of(operation.member) + wanted
    if taken > WORK_BYTES_PER_MEMBER_MAX:
        return refusals.over_limit("bytes of a member's calls", WORK_BYTES_PER_MEMBER_MAX, taken)
    return None


def _not_found(path: str, work: WorkId, why: str) -> Failed:
    return refusals.refuse(errors.NotFound, f"work {work} of {path} {why}", path=path, work=work)
