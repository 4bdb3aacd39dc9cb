"""A machine on its way out of a snapshot, in slices: at the start of a node, and while a leader's snapshot arrives."""

from collections import deque

from coord_core.machine import Machine


class Build:
    """`machine` is new; it may be used after `finish`."""

    __slots__ = ("_chunks", "_reading", "_restoring", "machine", "read")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        #: Chunks that were wholly read.
        self.read = 0
        self._restoring = machine.begin_restore()
        self._chunks: deque[bytes] = deque()
        self._reading = False

    @property
    def has_work(self) -> bool:
        return self._reading or bool(self._chunks)

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def step(self, items: int) -> None:
        """Read about so many rows.  Raises `StorageCorrupt` where this release cannot."""
        if not self._reading:
            self._restoring.feed(self._chunks.popleft())
            self._reading = True
        if not self._restoring.step(items):
            self._reading = False
            self.read += 1

    def finish(self) -> Machine:
        """Return the machine when all is read.  Raises `StorageCorrupt` where something is missing."""
        self._restoring.finish()
        return self.machine
