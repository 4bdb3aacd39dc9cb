"""What goes into the replicated log.

An entry's bytes are `time_ms` (8 bytes, big-endian: the leader's cluster-time stamp) and then one encoded command; the machine
applies it as `apply(index, time_ms, command)`.
"""

from typing import TypeAlias

import msgspec

from coord_core.protocol.base import PATH_BYTES_MAX
from coord_core.protocol.operations import Operation, Owner
from coord_core.types import AttachmentId, RequestNumber, SessionId

SESSION_TTL_MS_MIN = 500
SESSION_TTL_MS_MAX = 24 * 3600 * 1000

#: Of a detached session: bytes of its name and of an attempt's instance, in UTF-8; of what an actor calls itself.
DETACHED_NAME_BYTES_MAX = PATH_BYTES_MAX
INSTANCE_BYTES_MAX = 128
ACTOR_BYTES_MAX = 16
#: How long a detached session can be held for whoever takes it up next: a week.
HOLD_MS_MAX = 7 * 24 * 3600 * 1000


class _Command(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class OpenSession(_Command, frozen=True, tag=1):
    """Open a session and its first attachment.  Answers `SessionOpened`.

    Not protected against being applied twice (there is no session yet to number it): the spare session holds nothing and expires.
    """

    ttl_ms: int
    owner: Owner


class CloseSession(_Command, frozen=True, tag=2):
    """Close a session; everything it holds is freed in this entry.  Answers `Done`, also where it is gone already."""

    session: SessionId
    #: Of a detached session: only where this is its present attachment; else nothing is done.  0: in any case.
    attachment: AttachmentId = AttachmentId(0)


class ExpireSession(_Command, frozen=True, tag=3):
    """Proposed by the leader when a lease ran out.  Does nothing where the session's generation has moved."""

    session: SessionId
    generation: int


class OpenAttachment(_Command, frozen=True, tag=4):
    """Open one more attachment of a session: a process of its own, with request numbers of its own.  Answers `AttachmentOpened`.

    Applied twice it leaves a spare attachment, which holds nothing and goes with the session.
    """

    session: SessionId
    owner: Owner


class CloseAttachment(_Command, frozen=True, tag=5):
    """Free what the attachment acquired and refuse its late commands.  Answers `Done`, also where it is gone already."""

    session: SessionId
    attachment: AttachmentId


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """Which try a detached session is of.  Of two, the one with the higher number is the later one, then the higher instance."""

    number: int
    #: What tells two tries of one number apart; ids that rise with time are compared as they should be.
    instance: str = ""


class OpenDetached(_Command, frozen=True, tag=9):
    """Take up the detached session of that name and attempt, or open it.  Answers `DetachedOpened`.

    Whoever had taken it up before is refused from this entry on.  A lower attempt's session is superseded: its lease is not renewed
    any more.  `Failed(Superseded)` where the attempt is lower than the last one, or where `actor` had taken the session up before
    and somebody else has since.  Safe to apply twice: the actor that has it gets the same answer again.
    """

    name: str
    attempt: Attempt
    ttl_ms: int
    owner: Owner
    #: Drawn by the process for this one use of the session: 1 to 16 bytes.
    actor: bytes


class HandOff(_Command, frozen=True, tag=10):
    """Leave a detached session to whoever takes it up next; without anybody for `hold_ms` of cluster time, it ends.

    What belongs to the process (subscriptions, memberships, consumer claims) ends here; locks, permits and candidacies stay.
    Answers `Done`, or `Superseded` where `attachment` is not the present one and did not hand it off itself.
    """

    session: SessionId
    attachment: AttachmentId
    hold_ms: int


class Tick(_Command, frozen=True, tag=6):
    """Proposed by the leader when a deadline of the machine has passed: its stamp moves cluster time."""


class SetMachineVersion(_Command, frozen=True, tag=8):
    """Proposed by the leader when every member knows that version of the machine: from this entry on it behaves accordingly.

    Does nothing where the machine has come as far already.  A node that does not know the version stops.
    """

    version: int


class Call(_Command, frozen=True, tag=7):
    """A session's command, applied exactly once however often it is sent (dissertation, 6.3)."""

    session: SessionId
    attachment: AttachmentId
    request: RequestNumber
    #: Every request up to and including this one has been answered to the client's satisfaction: forget the answers.
    low_water: RequestNumber
    #: Answered requests above `low_water`, as closed ranges, rising and apart.
    answered: tuple[tuple[int, int], ...]
    operation: Operation


Command: TypeAlias = (
    OpenSession
    | CloseSession
    | ExpireSession
    | OpenAttachment
    | CloseAttachment
    | Tick
    | SetMachineVersion
    | Call
    | OpenDetached
    | HandOff
)

#: What only a leader proposes; a client that sends one is refused.
LEADERS_OWN: frozenset[type] = frozenset({ExpireSession, Tick, SetMachineVersion})

#: Unanswered requests an attachment may have; one more is refused with `LimitExceeded`.
WINDOW_REQUESTS_MAX = 1024
