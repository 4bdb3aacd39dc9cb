"""What a session's command does to a resource.

Paths name resources inside a namespace: `/jobs/nightly`.  A path is 1 to 512 bytes of UTF-8, begins with a slash and is bound to
the type of the resource that first used it for as long as that resource has a holder, waiter or data.

Durations are milliseconds of cluster time.
"""

from typing import TypeAlias

from coord_core.protocol.base import LABEL_BYTES_MAX, PATH_BYTES_MAX, VALUE_BYTES_MAX, OperationStruct, Owner
from coord_core.protocol.elections import ElectionEnter, ElectionResign, ElectionTransfer
from coord_core.protocol.groups import GroupJoin, GroupLeave, GroupUpdate
from coord_core.protocol.limiters import RateAcquire
from coord_core.protocol.locks import LockBreak
from coord_core.protocol.parking import Park, ParkingClaim, ParkingCommit, ParkingRelease, Unpark
from coord_core.protocol.semaphores import SemaphoreAcquire, SemaphoreRelease, SemaphoreSetLimit
from coord_core.protocol.streams import Subscribe, Unsubscribe
from coord_core.protocol.topics import (
    TopicClaim,
    TopicCommit,
    TopicConfigure,
    TopicCreate,
    TopicDelete,
    TopicGroupDelete,
    TopicPublish,
    TopicRelease,
)
from coord_core.protocol.works import WorkAwait, WorkBegin, WorkCancel, WorkFinish, WorkSubmit
from coord_core.types import FencingToken, RequestNumber

__all__ = [
    "FREEING",
    "LABEL_BYTES_MAX",
    "PATH_BYTES_MAX",
    "VALUE_BYTES_MAX",
    "Announcing",
    "Cancel",
    "LockAcquire",
    "LockRelease",
    "Operation",
    "Owner",
    "ValueDelete",
    "ValueSet",
    "Waiting",
]


class LockAcquire(OperationStruct, frozen=True, tag=1):
    """Take the lock, or wait for it in order of arrival.

    Answers `Granted` or `NotGranted`; a waiting call answers when it is granted or its time is over.
    """

    path: str
    #: None: wait for as long as it takes.  0: do not wait.
    wait_ms: int | None
    owner: Owner
    #: Should the holder end without a release, the lock stays closed for so long before the next one has it.
    delay_ms: int = 0
    #: Of a detached session: take the lock from a lower attempt at once, though that may still believe that it holds it.
    fences: bool = False


class LockRelease(OperationStruct, frozen=True, tag=2):
    """Give the lock back; the first waiter gets it in the same log entry.

    Answers `Done`, or `NotHolder` where `token` is not the present grant of this attachment.
    """

    path: str
    token: FencingToken
    #: The lock stays closed for so long before the next one has it.
    quarantine_ms: int = 0


class Cancel(OperationStruct, frozen=True, tag=3):
    """Withdraw an earlier request of this attachment.

    A waiter leaves its queue; a grant that was already made is released; a request not seen yet is refused when it arrives.  The
    cancelled request's own answer is then final.  Answers `Done`.
    """

    request: RequestNumber


class ValueSet(OperationStruct, frozen=True, tag=4):
    """Write a value.  Answers `ValueWritten`, or `ValueConflict` where `expected` does not match."""

    path: str
    value: bytes
    #: Gone after this long without another write.  None: stays.
    ttl_ms: int | None = None
    #: Write only where the present version is this one; 0: only where there is no value.  None: in any case.
    expected: int | None = None


class ValueDelete(OperationStruct, frozen=True, tag=5):
    """Delete a value.  Answers `Done` (also where there was none), or `ValueConflict` where `expected` does not match."""

    path: str
    expected: int | None = None


Operation: TypeAlias = (
    LockAcquire
    | LockRelease
    | Cancel
    | ValueSet
    | ValueDelete
    | Subscribe
    | Unsubscribe
    | ElectionEnter
    | ElectionResign
    | ElectionTransfer
    | GroupJoin
    | GroupLeave
    | GroupUpdate
    | LockBreak
    | SemaphoreAcquire
    | SemaphoreRelease
    | SemaphoreSetLimit
    | RateAcquire
    | TopicCreate
    | TopicConfigure
    | TopicPublish
    | TopicDelete
    | TopicCommit
    | TopicClaim
    | TopicRelease
    | TopicGroupDelete
    | WorkSubmit
    | WorkBegin
    | WorkFinish
    | WorkCancel
    | WorkAwait
    | Park
    | Unpark
    | ParkingClaim
    | ParkingCommit
    | ParkingRelease
)

#: What gives something back: it goes before everything else, and is admitted where other operations are not any more.
FREEING: frozenset[type] = frozenset(
    {LockRelease, Cancel, Unsubscribe, ElectionResign, GroupLeave, LockBreak, SemaphoreRelease, TopicRelease}
    | {Unpark, ParkingCommit, ParkingRelease, WorkFinish, WorkCancel}
)
#: What waits in a queue by the cluster's clock, and can be withdrawn from it without a trace.
Waiting: TypeAlias = LockAcquire | SemaphoreAcquire | RateAcquire
#: What waits for another process, or must be known to have been applied: only its answer or the session's end ends it.
Patient: TypeAlias = WorkBegin | WorkAwait
#: What may be announced: its answer waits for its audience, for `announce_ms`.
Announcing: TypeAlias = GroupJoin | TopicPublish
