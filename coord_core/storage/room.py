"""How much more a node's disk can take: in three levels, so that who acts on it need not know of bytes.

    AMPLE   all is well
    LOW     new commands are refused; what gives things back, and what keeps the cluster alive, goes on
    FULL    no entry is taken, not even from a leader: what is left is for votes and terms, a few pages at a time

Pure; who measures is `reserve`.
"""

from dataclasses import dataclass, field
from enum import IntEnum

_MIB = 1024 * 1024


class Level(IntEnum):
    """Higher is worse.  The numbers travel between nodes."""

    AMPLE = 0
    LOW = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Room:
    """What was measured last."""

    level: Level
    #: Of the file system, or of the quota where that is less; the reserve is not among them.  -1: not known.
    free_bytes: int
    #: So many must be free until it is ample again; -1: not known.  For people: nothing is decided by it.
    needed_bytes: int = field(default=-1, compare=False)


#: Of a storage that does not measure.
UNMEASURED = Room(Level.AMPLE, -1)


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """When room counts as low, and what is set aside for then.

    What may be on its way to the disk when a level is reached must still fit: one batch of entries has at most a few MiB.
    """

    #: Held in a file of its own, and given up when everything else is used; the write-ahead log has as much of its own.
    reserve_bytes: int = 8 * _MIB
    #: With less than this free (besides the reserve) room is low.
    low_bytes: int = 64 * _MIB
    #: What the data directory may have altogether, the reserve too; 0: the file system decides alone.
    quota_bytes: int = 0

    @property
    def give_up_bytes(self) -> int:
        """With less free than this the reserve is given up: SQLite needs it now."""
        return self.reserve_bytes // 4

    @property
    def full_bytes(self) -> int:
        """With less left than this, the reserve included, the node takes no more."""
        return self.reserve_bytes // 2

    @property
    def ample_again_bytes(self) -> int:
        """With so many left, the reserve included, room that was low is ample again.

        It comes back later than it went: a level that flickers would depose leaders and fill logs.
        """
        low_bytes = self.low_bytes + self.reserve_bytes
        return low_bytes + low_bytes // 4

    def level(self, left_bytes: int, before: Level) -> Level:
        """Return the level where so many bytes are left, the reserve included."""
        if left_bytes < (self.full_bytes if before is not Level.FULL else self.reserve_bytes):
            return Level.FULL
        if left_bytes < (self.low_bytes + self.reserve_bytes if before is Level.AMPLE else self.ample_again_bytes):
            return Level.LOW
        return Level.AMPLE
