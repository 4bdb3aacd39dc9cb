"""What a command answers."""

from typing import TypeAlias, final

from coord_core.protocol.base import Owner, ResultStruct
from coord_core.protocol.elections import Entered
from coord_core.protocol.limiters import RateGranted, RateRefused
from coord_core.protocol.locks import LockBroken
from coord_core.protocol.parking import Parked, ParkingFull, Unparked
from coord_core.protocol.semaphores import PermitsGranted
from coord_core.protocol.streams import Announced, Joined, Subscribed
from coord_core.protocol.topics import Claimed, ClaimRefused, Committed, Published, TopicCreated
from coord_core.protocol.works import WorkDone, WorkScheduled
from coord_core.types import AttachmentId, FencingToken, RequestNumber, SessionId


class Done(ResultStruct, frozen=True, tag=1):
    """Applied; there is nothing more to say."""


@final
class Failed(ResultStruct, frozen=True, tag=2):
    """Refused: an error of `coord_core.errors`, by class name."""

    code: str
    message: str
    details: dict[str, str | int]


class SessionOpened(ResultStruct, frozen=True, tag=3):
    session: SessionId
    attachment: AttachmentId
    generation: int
    ttl_ms: int


class AttachmentOpened(ResultStruct, frozen=True, tag=4):
    attachment: AttachmentId
    ttl_ms: int


class Granted(ResultStruct, frozen=True, tag=5):
    """The lock is held by this attachment until released, or its attachment or session ends."""

    token: FencingToken


class NotGranted(ResultStruct, frozen=True, tag=6):
    """The lock was busy for as long as the caller would wait.  Expected, so not an error."""

    #: "busy" or "closed" (would not wait), "timeout" or "cancelled"; "moved": a later request of a detached session has the place.
    reason: str
    holder: Owner | None = None
    holder_token: FencingToken = FencingToken(0)
    #: How many wait ahead of a new caller.
    waiters: int = 0


class ValueWritten(ResultStruct, frozen=True, tag=7):
    #: The log index of the write; pass it as `expected` to write only if nobody else did.
    version: int


class ValueConflict(ResultStruct, frozen=True, tag=8):
    """`expected` did not match; here is what is there (version 0: nothing)."""

    version: int
    value: bytes


class DetachedOpened(ResultStruct, frozen=True, tag=9):
    """The session is the caller's, who keeps it alive, with the attachment's number as generation, until another takes it up."""

    session: SessionId
    #: Another one each time it is taken up, rising.
    attachment: AttachmentId
    ttl_ms: int
    #: The caller's request numbers begin above this.
    request_last: RequestNumber
    #: Somebody of the same attempt had it before: there may be something that it holds.
    resumed: bool


Result: TypeAlias = (
    Done
    | Failed
    | SessionOpened
    | AttachmentOpened
    | DetachedOpened
    | Granted
    | NotGranted
    | ValueWritten
    | ValueConflict
    | Subscribed
    | Entered
    | Joined
    | Announced
    | LockBroken
    | RateGranted
    | RateRefused
    | PermitsGranted
    | Published
    | TopicCreated
    | Committed
    | Claimed
    | ClaimRefused
    | WorkScheduled
    | WorkDone
    | Parked
    | Unparked
    | ParkingFull
)
