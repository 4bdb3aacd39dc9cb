"""Semaphores: a number of permits, taken and given back in order of arrival.

The *token* of what is held is the log index of the entry that asked for it.  Grants are in order of arrival, so tokens rise from
grant to grant, as a lock's do; they name one holding and do not fence: several are valid at a time.
"""

import msgspec

from coord_core.protocol.base import AnswerStruct, OperationStruct, Owner, QueryStruct, ResultStruct
from coord_core.types import AttachmentId, FencingToken, SessionId

#: Permits of one semaphore.
PERMITS_MAX = 10_000
#: Holders, and those who wait, in one answer: keeps it below CLIENT_FRAME_BYTES_MAX.
PARTIES_NAMED_MAX = 500


class SemaphoreAcquire(OperationStruct, frozen=True, tag=21):
    """Take permits, or wait for them in order of arrival: whoever wants many is not passed by those who want few.

    Answers `PermitsGranted`, or `NotGranted` as a lock does.
    """

    path: str
    #: None: wait for as long as it takes.  0: do not wait.
    wait_ms: int | None
    owner: Owner
    permits: int
    #: How many there are, where this is the first to ask; else what was said first, or set, stands.  At least `permits`.
    limit: int


class PermitsGranted(ResultStruct, frozen=True, tag=23):
    """The permits are this attachment's until released, or its attachment or session ends."""

    token: FencingToken


class SemaphoreRelease(OperationStruct, frozen=True, tag=22):
    """Give back all that was granted under `token`; whoever can go on goes on in the same entry.

    Answers `Done`, or `NotHolder` where this attachment holds nothing under it.
    """

    path: str
    token: FencingToken


class SemaphoreSetLimit(OperationStruct, frozen=True, tag=23):
    """Set how many permits there are, and keep the semaphore for it.  Answers `Done`.

    Fewer than are taken: nobody loses any, and nothing is granted until enough came back.  0: nobody gets any.  None: no longer
    set; the limit stays what it is for as long as somebody holds or waits.
    """

    path: str
    limit: int | None


class SemaphoreInfo(QueryStruct, frozen=True, tag=22):
    """Who holds permits and who waits.  Answers `SemaphoreState`; at most so many of each are named."""

    path: str
    holders_max: int = 100
    waiters_max: int = 100
    #: Not 0: of the holders, name only the one under this token.
    token: FencingToken = FencingToken(0)


class SemaphoreParty(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One holding or one who waits."""

    session: SessionId
    attachment: AttachmentId
    owner: Owner
    #: Milliseconds of cluster time since it was granted, or began to wait.
    since_ms: int
    token: FencingToken
    permits: int


class SemaphoreState(AnswerStruct, frozen=True, tag=122):
    #: None: there is no such semaphore now; the first acquire says how many permits it has.
    limit: int | None
    #: The limit was set, and stays.
    set: bool
    #: Permits taken.
    taken: int
    #: In order of their grants.
    holders: tuple[SemaphoreParty, ...]
    holders_total: int
    #: In order of arrival.
    waiters: tuple[SemaphoreParty, ...]
    waiters_total: int
