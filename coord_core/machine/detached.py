"""What a detached session is besides a session: a name, an attempt, and actors, one after the other.

A detached session outlives the process that opened it: a worker hands it to a trigger, the trigger to another worker.  Whoever
takes it up next finds all that it holds, and from that entry on nobody before can do anything with it.
"""

from typing import TYPE_CHECKING

import msgspec

from coord_core.protocol.commands import Attempt
from coord_core.types import AttachmentId, LogIndex, RequestNumber

if TYPE_CHECKING:
    from coord_core.machine.sessions import Attachment

#: Actors of one session that are told from a new one by what they call themselves; of those before, a copy of their first command
#: that arrives this late would take the session from the present one.
ACTORS_KEPT = 16

#: Sessions of one name that have not ended: a work that is tried again and again faster than leases run out has many.
ATTEMPTS_PER_NAME_MAX = 256


class Replaced(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A process that had a session until another took it up, without a hand-off: it believes in what it held as long as its lease.

    Its last keep-alive may have been answered after the entry that replaced it was stamped, but not after that was applied; and the
    next process does nothing before that.  So the TTL counts from what that one does first, and not from the entry's stamp.
    """

    #: 0: several, of which none can say that it has stopped.
    number: AttachmentId
    #: What was granted in this entry or later it never heard of.
    index: LogIndex
    ttl_ms: int
    #: In cluster time; None: nothing was done yet by those after it.
    until_ms: int | None = None

    def counted(self, time_ms: int) -> "Replaced":
        return self if self.until_ms is not None else msgspec.structs.replace(self, until_ms=time_ms + self.ttl_ms)

    def and_later(self, later: "Replaced") -> "Replaced":
        """Return what stands for both: it believes in no less, and no shorter."""
        known = self.until_ms is not None and later.until_ms is not None
        until_ms = max(self.until_ms or 0, later.until_ms or 0) if known else None
        return Replaced(AttachmentId(0), later.index, max(self.ttl_ms, later.ttl_ms), until_ms)


class DetachedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an attachment in a snapshot has besides, where its session is detached."""

    number: AttachmentId
    ttl_ms: int
    name: str
    attempt: Attempt
    actors: tuple[bytes, ...]
    superseded: bool
    former: AttachmentId
    held_until_ms: int | None
    inherited: RequestNumber
    replaced: tuple[Replaced, ...]


class Detached:
    __slots__ = ("actors", "attempt", "former", "held_until_ms", "inherited", "line", "name", "replaced", "superseded", "ttl_ms")

    def __init__(self, name: str, attempt: Attempt, ttl_ms: int) -> None:
        self.name = name
        self.attempt = attempt
        self.ttl_ms = ttl_ms
        #: What those who took it up called themselves, the last one last; at most ACTORS_KEPT.
        self.actors: list[bytes] = []
        #: There is a later attempt: its lease is not renewed, and it gets nothing more.
        self.superseded = False
        #: By which number the one was known that handed it off last; 0: nobody has.
        self.former = AttachmentId(0)
        #: Nobody has it, and when cluster time comes to this, the leader ends it.  None: somebody has, and there is a lease.
        self.held_until_ms: int | None = None
        #: Requests up to this are those of earlier processes: what they got or wait for is there for the present one's requests.
        self.inherited = RequestNumber(0)
        #: Who may believe in what the session holds besides the one that has it, the last one last; at most ACTORS_KEPT.
        self.replaced: tuple[Replaced, ...] = ()
        #: The attachments of this name's sessions, in order of their attempts.  One list for all of them.
        self.line: list[Attachment] = []

    @property
    def is_attended(self) -> bool:
        return self.held_until_ms is None

    def is_later_than(self, other: "Detached | None") -> bool:
        """Whether that is a lower attempt of the same name."""
        return other is not None and other.line is self.line and other.attempt < self.attempt

    def replace(self, number: AttachmentId, index: LogIndex, time_ms: int) -> None:
        """Whoever has it, under that number, is replaced in entry `index`, and has not said that it has stopped."""
        left = [it for it in self.replaced if it.until_ms is None or it.until_ms > time_ms]
        if len(left) == ACTORS_KEPT:
            left[:2] = [left[0].and_later(left[1])]
        self.replaced = (*left, Replaced(number, index, self.ttl_ms))

    def stopped(self, number: AttachmentId) -> None:
        """One that was replaced says that it has stopped."""
        self.replaced = tuple(it for it in self.replaced if it.number != number)

    def acts(self, time_ms: int) -> None:
        """Something is done under its present number."""
        if self.replaced:
            self.replaced = tuple(it.counted(time_ms) for it in self.replaced)

    def believed_ms(self, token: int, time_ms: int) -> int:
        """Return for how long a process that was replaced may still believe in what was granted under a token."""
        untils_ms = (it.counted(time_ms).until_ms or 0 for it in self.replaced if token < it.index)
        return max(0, max(untils_ms, default=0) - time_ms)

    def row(self, number: AttachmentId) -> DetachedRow:
        said = number, self.ttl_ms, self.name, self.attempt, tuple(self.actors)
        return DetachedRow(*said, self.superseded, self.former, self.held_until_ms, self.inherited, self.replaced)

    @classmethod
    def restored(cls, row: DetachedRow) -> "Detached":
        detached = cls(row.name, row.attempt, row.ttl_ms)
        detached.actors = list(row.actors)
        detached.superseded, detached.former, detached.held_until_ms = row.superseded, row.former, row.held_until_ms
        detached.inherited, detached.replaced = row.inherited, row.replaced
        return detached
