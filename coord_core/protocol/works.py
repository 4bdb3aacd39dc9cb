"""Work that one process asks of a member of a group: a call by name, with arguments, whose result comes back.

Names and data stand in the log, never code.  A member that is told of work says that it begins before it calls anything, so that
nothing is begun twice; when it has finished it says what came of it.
"""

import msgspec

from coord_core.protocol.base import AnswerStruct, OperationStruct, ResultStruct
from coord_core.types import MemberId, WorkId

#: Of the name of a callback, in UTF-8.
WORK_NAME_BYTES_MAX = 255
#: Of the arguments, and of a result.
WORK_DATA_BYTES_MAX = 16 * 1024
#: Of the message of an error; it is cut.
WORK_MESSAGE_BYTES_MAX = 1024


class WorkSubmit(OperationStruct, frozen=True, tag=50):
    """Have a member call what it has registered under a name.

    Without `delay_ms` the answer is `WorkDone`, when it has; with it, `WorkScheduled` at once.  `Failed(NotFound)` where there is
    no such member, or it leaves before it begins; `Failed(OutcomeUnknown)` where it ends between beginning and finishing.
    """

    path: str
    member: MemberId
    name: str
    #: Opaque here; clients put msgpack into it.
    arguments: bytes
    #: None: now, and the caller waits.
    delay_ms: int | None = None
    #: Where the member ends before it has finished, the next one that takes calls does it, perhaps for the second time.
    retry: bool = False


class WorkBegin(OperationStruct, frozen=True, tag=51):
    """Said by the member before it calls.  Answers `Done`, or `NotFound` where it must not: cancelled, begun, another's by now."""

    path: str
    member: MemberId
    work: WorkId


class WorkFinish(OperationStruct, frozen=True, tag=52):
    """Said by the member when it has called.  Answers `Done`, also where nobody wants to know."""

    path: str
    member: MemberId
    work: WorkId
    result: bytes
    #: Name of the exception's class; empty: there was none.
    error: str = ""
    message: str = ""


class WorkCancel(OperationStruct, frozen=True, tag=53):
    """Withdraw scheduled work.  Answers `Done`, or `NotFound` where it has begun, or is gone."""

    path: str
    work: WorkId


class WorkAwait(OperationStruct, frozen=True, tag=54):
    """Wait for what comes of scheduled work of this process.  Answers `WorkDone`, once; else as `WorkSubmit`."""

    path: str
    work: WorkId


class WorkScheduled(ResultStruct, frozen=True, tag=50):
    work: WorkId


class WorkDone(ResultStruct, frozen=True, tag=51):
    work: WorkId
    result: bytes
    error: str
    message: str


class WorkDue(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=50):
    """Told to the member that is to do it."""

    work: WorkId
    name: str
    arguments: bytes
    retry: bool


class WorkState(AnswerStruct, frozen=True, tag=150):
    """What a member is to do and has not begun."""

    due: tuple[WorkDue, ...]
