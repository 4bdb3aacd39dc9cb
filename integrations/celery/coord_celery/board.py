"""The board: what a worker's main process and its pool children tell each other without a message.

A small shared file, mapped by the main process, every pool child and the watchdog.  The main process writes the session and how
long its lease stands; each child has a slot in which it writes what must be known of it when it cannot speak any more.

Rules
-----
- Every field is one aligned 64-bit integer, written and read whole, by one store or load.
- A field has one writer at a time: the header and the freeing of a slot are the main process's, a claimed slot is its child's.
- A child's slot says what it is about to do *before* it does it: its attachment before its first acquire, its fence before each
  acquire.  So whoever finds it dead knows what may have been granted to it.
- Where two fields belong together, the reader reads the first again and starts over if it has moved.

Deadlines are nanoseconds of CLOCK_BOOTTIME, which counts while the machine sleeps and reads the same in all processes.

Enforcing the deadlines is `fence.py`; who looks when is `warden.py` (main process) and `watchdog.py` (the process beside it).
"""

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

#: Where children (forked or spawned) find the board.
BOARD_VARIABLE = "COORD_CELERY_BOARD"

SLOTS_MAX = 1024
_MAGIC = 0x636F6F72645F3031  # "coord_01"
_FILE_NAME = "board"


class _Header(IntEnum):
    MAGIC = 0
    OWNER_PID = 1
    SESSION = 2
    LEASE_END_NS = 3
    MARGIN_NS = 4
    #: Slots at and above this number have never been claimed.
    SLOTS_USED = 5
    LENGTH = 8


class _Slot(IntEnum):
    #: 0: free.  Written last when claimed, first when freed.
    PID = 0
    #: Start time of the process, which tells it from a later one with its pid.
    STARTED = 1
    SESSION = 2
    #: 0: nothing was ever acquired.
    ATTACHMENT = 3
    FENCE = 4
    LENGTH = 8


class Fence(IntEnum):
    """What is to happen to a child that still holds a lock when its lease is about to end; the harder, the greater."""

    NONE = 0
    #: A signal whose handler raises LockLost in the task.
    RAISE = 1
    #: SIGKILL.
    ABORT = 2


@dataclass(frozen=True, slots=True)
class Lease:
    """The main process's session as the board has it."""

    #: 0: there is none.
    session: int
    #: When the cluster may grant to others what this session holds.
    end_ns: int
    #: Children are fenced this long before.
    margin_ns: int

    @property
    def fence_at_ns(self) -> int:
        return self.end_ns - self.margin_ns


def boottime_ns() -> int:
    """Return the clock of all deadlines on the board."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def process_started(pid: int) -> int:
    """Return when the process started (clock ticks since boot), 0 where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[19])


class Board:
    """The mapped file.  Made once by the main process, opened by everyone else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._words = memoryview(self._map).cast("q")
        if self._words[_Header.MAGIC] != _MAGIC:
            raise ValueError(f"{path} is not a board of this version")

    @classmethod
    def create(cls, directory: Path, *, margin_ns: int) -> "Board":
        """Make the board of the calling process."""
        path = directory / _FILE_NAME
        path.write_bytes(_MAGIC.to_bytes(8, "little") + bytes(8 * (_Header.LENGTH - 1 + SLOTS_MAX * _Slot.LENGTH)))
        board = cls(path)
        board._words[_Header.OWNER_PID] = os.getpid()
        board._words[_Header.MARGIN_NS] = margin_ns
        return board

    @property
    def owner_pid(self) -> int:
        return self._words[_Header.OWNER_PID]

    def lease(self) -> Lease:
        words = self._words
        while True:
            session, end_ns = words[_Header.SESSION], words[_Header.LEASE_END_NS]
            if words[_Header.SESSION] == session:
                return Lease(session, end_ns, words[_Header.MARGIN_NS])

    def publish_lease(self, session: int, end_ns: int) -> None:
        """Main process: the lease of `session` stands until `end_ns`."""
        words = self._words
        if words[_Header.SESSION] != session:
            words[_Header.LEASE_END_NS] = 0  # never the new session's end beside the old session's number
            words[_Header.SESSION] = session
        words[_Header.LEASE_END_NS] = end_ns

    def claim(self) -> "Slot":
        """Child: take a free slot for the calling process."""
        with (self.path.parent / "claims").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # between children; freed by the kernel if one dies here
            index = next((i for i in range(SLOTS_MAX) if not self._slot(i).pid), None)
            if index is None:
                raise RuntimeError(f"a worker can have at most {SLOTS_MAX} pool processes with singleton tasks")
            self._words[_Header.SLOTS_USED] = max(self._words[_Header.SLOTS_USED], index + 1)
            slot = self._slot(index)
            slot.occupy(os.getpid())
            return slot

    def occupied(self) -> Iterator["Slot"]:
        """Every slot that a process has, dead or alive."""
        for index in range(self._words[_Header.SLOTS_USED]):
            slot = self._slot(index)
            if slot.pid:
                yield slot

    def close(self) -> None:
        self._words.release()
        self._map.close()

    def _slot(self, index: int) -> "Slot":
        start = _Header.LENGTH + index * _Slot.LENGTH
        return Slot(index, self._words[start : start + _Slot.LENGTH])


class Slot:
    """What is known of one pool child."""

    __slots__ = ("_words", "index")

    def __init__(self, index: int, words: "memoryview[int]") -> None:
        self.index = index
        self._words = words

    @property
    def pid(self) -> int:
        return self._words[_Slot.PID]

    @property
    def started(self) -> int:
        return self._words[_Slot.STARTED]

    @property
    def session(self) -> int:
        return self._words[_Slot.SESSION]

    @property
    def attachment(self) -> int:
        return self._words[_Slot.ATTACHMENT]

    @property
    def fence(self) -> Fence:
        return Fence(self._words[_Slot.FENCE])

    def occupy(self, pid: int) -> None:
        """Child: make the slot this process's own; the pid last, because with it the slot counts."""
        for field in (_Slot.SESSION, _Slot.ATTACHMENT, _Slot.FENCE):
            self._words[field] = 0
        self._words[_Slot.STARTED] = process_started(pid)
        self._words[_Slot.PID] = pid

    def attach(self, session: int, attachment: int) -> None:
        """Child: from here on, locks may be granted to this attachment."""
        self._words[_Slot.ATTACHMENT] = 0
        self._words[_Slot.SESSION] = session
        self._words[_Slot.ATTACHMENT] = attachment

    def set_fence(self, fence: Fence) -> None:
        """Child: before it asks for a lock, and with NONE when nothing is left to protect."""
        self._words[_Slot.FENCE] = fence

    def free(self) -> None:
        """Main process: the child is dead and what it held is free."""
        self._words[_Slot.FENCE] = 0
        self._words[_Slot.PID] = 0

    def fence_at_ns(self, lease: Lease) -> int:
        """When this child is to be fenced: at once (0) where its session is not the present one any more."""
        return lease.fence_at_ns if self.session == lease.session else 0
