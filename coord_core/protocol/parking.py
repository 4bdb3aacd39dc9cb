"""Parking: pieces of work that wait durably for a lock or a semaphore, and are handed to a consumer when there is room.

A *piece* is a message under a key and an id, parked in a *lot*.  The pieces of one key wait in order for one lock or semaphore,
their *gate*.  When it has room the first is *called*: it becomes a *delivery* of its lot, numbered 0, 1, 2, ... in the order of the
calls, and the lot's one consumer is handed it, until it has committed it (ADR 14).  Times are cluster time.
"""

import msgspec

from coord_core.protocol.base import AnswerStruct, OperationStruct, Owner, QueryStruct, ResultStruct
from coord_core.protocol.topics import FETCH_BYTES_MAX
from coord_core.types import LogIndex, TopicNumber

MESSAGE_BYTES_MAX = 256 * 1024
PIECE_KEY_BYTES_MAX = 512
PIECE_ID_BYTES_MAX = 255

#: Pieces that may wait for one key.
WAITING_MAX = 10_000
#: How long a called piece may take to come, once it is committed: a day at most.
GRACE_MS_DEFAULT = 60_000
GRACE_MS_MAX = 24 * 3600 * 1000

#: Deliveries that one fetch may ask for, and one commit may cover.
DELIVERIES_FETCHED_MAX = 100
DELIVERIES_COMMITTED_MAX = 1_000
#: Waiting pieces, and keys, named in one answer.
PIECES_NAMED_MAX = 1_000


# --- operations ------------------------------------------------------------------------------------------------------------------


class Park(OperationStruct, frozen=True, tag=40):
    """Keep a piece until its gate has room.  Answers `Parked`, or `ParkingFull` where `waiting_max` wait already.

    What waits already under this id stays where it is, with its message unless `replace` says otherwise.  What was called under
    this id is back, in its old place; a delivery of it that is not committed is withdrawn.
    """

    path: str
    key: str
    id: str
    message: bytes
    #: The lock or semaphore that the pieces of this key wait for; the same for all of them that are there.
    gate: str
    #: What a piece takes of a semaphore; of a lock 1.
    permits: int = 1
    #: Handed out as expired after so long.  None: it waits for as long as it takes.
    wait_ms: int | None = None
    #: At most so many wait for this key.  Who was called before is let in beyond it.
    waiting_max: int = WAITING_MAX
    #: A piece that was called, committed and has not come in this time is waited for no more.
    grace_ms: int = GRACE_MS_DEFAULT
    replace: bool = False


class Unpark(OperationStruct, frozen=True, tag=41):
    """Take a piece away: nobody is handed it any more, and the next is called where this one was in the way.

    Answers `Unparked`, also where there is no such piece.
    """

    path: str
    key: str
    id: str


class ParkingClaim(OperationStruct, frozen=True, tag=42):
    """Become the one consumer of a lot.  Answers `Claimed` or `ClaimRefused`, as for a topic's group."""

    path: str
    owner: Owner
    takeover: bool = False


class ParkingCommit(OperationStruct, frozen=True, tag=43):
    """Note that every delivery below `offset` was worked off.  Answers `Committed`; `NotHolder` where another is the consumer."""

    path: str
    offset: int


class ParkingRelease(OperationStruct, frozen=True, tag=44):
    """Be the consumer no more.  Answers `Done`, also where this attachment is not."""

    path: str


# --- results ---------------------------------------------------------------------------------------------------------------------


class Parked(ResultStruct, frozen=True, tag=40):
    #: How many of this key are called before it; 0 where it is called already.
    position: int
    #: The gate had room.
    called: bool
    #: False: it was waiting under this id before.
    is_new: bool


class Unparked(ResultStruct, frozen=True, tag=41):
    #: "waiting"; "called": a consumer may have it already; "": there was none.
    was: str


class ParkingFull(ResultStruct, frozen=True, tag=42):
    """As many as may wait for this key.  Expected, so not an error."""

    waiting: int


# --- queries ---------------------------------------------------------------------------------------------------------------------


class ParkingInfo(QueryStruct, frozen=True, tag=40):
    """Answers `ParkingState`; names keys in order, those after `after`."""

    path: str
    after: str = ""
    keys_max: int = 100


class ParkedList(QueryStruct, frozen=True, tag=41):
    """The pieces of one key that wait, first the next to be called.  Answers `ParkedListing`."""

    path: str
    key: str
    pieces_max: int = 100


class ParkingFetch(QueryStruct, frozen=True, tag=42):
    """Deliveries that are not committed, with their messages, from an offset on.  Answers `ParkingFetched`."""

    path: str
    start: int
    deliveries_max: int = DELIVERIES_FETCHED_MAX
    #: One is given in any case, however large, if there is one.
    bytes_max: int = FETCH_BYTES_MAX


class ParkedKey(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key of a lot."""

    key: str
    gate: str
    waiting: int
    #: Called, and not both committed and come.
    called: int
    #: Milliseconds since the first of those that wait was parked; 0 where none waits.
    oldest_ms: int


class ParkingState(AnswerStruct, frozen=True, tag=140):
    #: 0: there is no such lot.
    lot: TopicNumber
    #: Pieces whose messages are kept: waiting, or called and not committed; and their bytes.
    pieces: int
    bytes: int
    #: Deliveries that are not committed.
    uncommitted: int
    #: Of the next delivery.
    end: int
    keys_total: int
    keys: tuple[ParkedKey, ...]
    consumer: Owner | None = None


class WaitingPiece(msgspec.Struct, frozen=True, array_like=True, gc=False):
    id: str
    #: Milliseconds since it was parked.
    since_ms: int
    #: Milliseconds until it expires; None: never.
    left_ms: int | None


class ParkedListing(AnswerStruct, frozen=True, tag=141):
    pieces: tuple[WaitingPiece, ...]
    total: int


class Delivery(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A piece that was called, as its consumer is handed it."""

    offset: int
    key: str
    id: str
    message: bytes
    #: It was not called: it has waited for as long as it would.
    expired: bool
    #: Milliseconds since it was parked.
    since_ms: int
    #: Index of the entry that parked it, first: orders the pieces of a key.
    ticket: LogIndex


class ParkingFetched(AnswerStruct, frozen=True, tag=142):
    #: 0: there is no such lot.
    lot: TopicNumber
    deliveries: tuple[Delivery, ...]
    #: Where to go on.
    next: int
    end: int
