"""Locks beyond taking and releasing: breaking one, a lock that is closed for a while, and lists of what is held.

A lock is *closed* where nobody holds it and nobody gets it yet: its last holder ended without a release and had asked for a delay,
or it was released with a quarantine.  It opens in cluster time, and then the first waiter has it.
"""

import msgspec

from coord_core.protocol.base import AnswerStruct, OperationStruct, Owner, QueryStruct, ResultStruct
from coord_core.types import AttachmentId, FencingToken, SessionId

#: How long a lock can be kept closed: a day.
CLOSED_MS_MAX = 24 * 3600 * 1000
#: Of the reason given for breaking a lock, in UTF-8.
REASON_BYTES_MAX = 512
#: Names in one answer to `LockList`, and sessions in one to `SessionList`: keeps it below CLIENT_FRAME_BYTES_MAX.
ROWS_MAX = 500


class LockParty(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One holder or waiter."""

    session: SessionId
    attachment: AttachmentId
    owner: Owner
    #: Milliseconds of cluster time since it was granted (holder) or began to wait.
    since_ms: int
    #: 0 for a waiter.
    token: FencingToken = FencingToken(0)


class LockClosure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why nobody has a lock that is not free."""

    #: "delay" (the last holder ended without a release) or "quarantine" (it was released so).
    reason: str
    #: Of the last holder; breaking the lock under it opens it.
    token: FencingToken
    #: The last holder.
    owner: Owner
    #: Milliseconds of cluster time until it opens; 0 or less: with the next entry.
    left_ms: int


class LockChanged(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """The lock has another holder, is closed, or is free."""

    holder: LockParty | None
    closed: LockClosure | None = None


class LockBreak(OperationStruct, frozen=True, tag=20):
    """Take a lock from whoever holds it under exactly `token`, or open one that is closed after it.

    For operators: the holder is not asked and may still believe that it holds the lock; only its token keeps it out.  The first
    waiter has the lock from this entry on.  Answers `LockBroken`, or `NotHolder` where it is not held, or closed, under `token`.
    """

    path: str
    token: FencingToken
    #: Told to the former holder, and written into the leader's log.  1 to 512 bytes.
    reason: str
    owner: Owner


class LockBroken(ResultStruct, frozen=True, tag=20):
    path: str
    token: FencingToken
    #: Who held it.
    holder: Owner
    #: Who broke it, and why.
    by: Owner
    reason: str


class ListCursor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far a list of names has come: the shard of the table of names, and the last name told of it."""

    shard: int = 0
    after: str = ""


class LockList(QueryStruct, frozen=True, tag=20):
    """Which locks and semaphores there are, or elections and groups, a part at a time.  Answers `LockRows`.

    Names come in no order that means anything.  What is there from the first part to the last is told once; what comes or goes
    meanwhile may be told or not.
    """

    prefix: str = ""
    rows_max: int = ROWS_MAX
    after: ListCursor = ListCursor()
    #: "lock", "semaphore", "election", "group"; others are passed over.
    kinds: tuple[str, ...] = ("lock", "semaphore")


class ListedLock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lock, semaphore, election or group in a list."""

    path: str
    kind: str
    #: Permits there are and permits taken; of a lock and an election 1, and 1 or 0; of a group its bound, and its members.
    limit: int
    taken: int
    #: Who holds it; of a semaphore who has held longest; of an election who leads, with its epoch as token; of a group nobody.
    holder: LockParty | None
    #: Who waits; of an election the candidates that do not lead.
    waiters_total: int
    closed: LockClosure | None = None


class LockRows(AnswerStruct, frozen=True, tag=120):
    rows: tuple[ListedLock, ...]
    #: Where to go on; None: that was all.  There may be more though no row was found.
    next: ListCursor | None


class SessionList(QueryStruct, frozen=True, tag=21):
    """Which sessions there are, in order of their numbers, a part at a time.  Answers `SessionRows`."""

    after: SessionId = SessionId(0)
    rows_max: int = ROWS_MAX


class ListedDetached(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a detached session is besides, in a list."""

    name: str
    attempt: int
    instance: str
    #: A later attempt waits for its end.
    superseded: bool
    #: Nobody has it; milliseconds of cluster time until it ends.  None: somebody has.
    held_ms: int | None


class ListedSession(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A session in a list."""

    session: SessionId
    #: Of its first attachment that still stands; None where it has none.
    owner: Owner | None
    attachments: int
    holdings: int
    ttl_ms: int
    #: As the leader reckons it: at least as long as its client may believe.
    lease_left_ms: int | None = None
    detached: ListedDetached | None = None


class SessionRows(AnswerStruct, frozen=True, tag=121):
    rows: tuple[ListedSession, ...]
    #: There are sessions behind the last row.
    more: bool
