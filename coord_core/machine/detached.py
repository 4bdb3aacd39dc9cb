"""What a detached session is besides a session: a name, an attempt, and actors, one after the other.

A detached session outlives the process that opened it: a worker hands it to a trigger, the trigger to another worker.  Whoever
takes it up next finds all that it holds, and from that entry on nobody before can do anything with it.
"""

from typing import TYPE_CHECKING

import msgspec

from coord_core.protocol.commands import Attempt
from coord_core.types import AttachmentId

if TYPE_CHECKING:
    from coord_core.machine.sessions import Attachment

#: Actors of one session that are told from a new one by what they call themselves; of those before, a copy of their first command
#: that arrives this late would take the session from the present one.
ACTORS_KEPT = 16


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


class Detached:
    __slots__ = ("actors", "attempt", "former", "held_until_ms", "line", "name", "superseded", "ttl_ms")

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
        #: The attachments of this name's sessions, in order of their attempts.  One list for all of them.
        self.line: list[Attachment] = []

    @property
    def is_attended(self) -> bool:
        return self.held_until_ms is None

    def is_later_than(self, other: "Detached | None") -> bool:
        """Whether that is a lower attempt of the same name."""
        return other is not None and other.line is self.line and other.attempt < self.attempt

    def row(self, number: AttachmentId) -> DetachedRow:
        actors = tuple(self.actors)
        return DetachedRow(number, self.ttl_ms, self.name, self.attempt, actors, self.superseded, self.former, self.held_until_ms)

    @classmethod
    def restored(cls, row: DetachedRow) -> "Detached":
        detached = cls(row.name, row.attempt, row.ttl_ms)
        detached.actors = list(row.actors)
        detached.superseded, detached.former, detached.held_until_ms = row.superseded, row.former, row.held_until_ms
        return detached
