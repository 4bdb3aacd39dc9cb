"""What the leader believes of one follower, and how fast it may send to it.

    PROBE       where the logs agree is not known: one Append at a time, the next when it is answered or a heartbeat is
    REPLICATE   it is known: Appends go out ahead of the answers, within a window of counts and bytes
    SNAPSHOT    what it needs is compacted: nothing is sent until the driver reports, or the follower acknowledges beyond it

    PROBE --accepted--> REPLICATE --rejected, unreachable--> PROBE
    PROBE, REPLICATE --needs compacted entries--> SNAPSHOT --reported--> PROBE,  SNAPSHOT --acknowledged--> REPLICATE

All transitions live here; when they happen is decided in `replication.py`.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from coord_core.raft.zero import START
from coord_core.types import LogIndex


class Sending(Enum):
    """How the leader sends to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflight:
    """The Appends on the way to one follower: last index and size of each, in order.  Bounded by count and by bytes."""

    __slots__ = ("_appends", "_bytes", "_max_appends", "_max_bytes")

    def __init__(self, max_appends: int, max_bytes: int) -> None:
        self._appends: deque[tuple[LogIndex, int]] = deque()
        self._bytes = 0
        self._max_appends = max_appends
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._appends)

    @property
    def is_full(self) -> bool:
        """The byte bound may be passed by the Append that reaches it: an entry larger than the window must be able to travel."""
        return len(self._appends) >= self._max_appends or self._bytes >= self._max_bytes

    def add(self, last_index: LogIndex, size: int) -> None:
        self._appends.append((last_index, size))
        self._bytes += size

    def acknowledge(self, index: LogIndex) -> None:
        """Free the Appends that end at or before `index`."""
        appends = self._appends
        while appends and appends[0][0] <= index:
            self._bytes -= appends.popleft()[1]

    def clear(self) -> None:
        self._appends.clear()
        self._bytes = 0


@dataclass(slots=True)
class Progress:
    """One follower, or the leader itself (always REPLICATE, its match being what its own disk has)."""

    #: Next entry to send.  Invariant: match < next.
    next: LogIndex
    inflight: Inflight
    #: Highest index known to equal the leader's log (Raft, figure 2).  Only rises within a term.
    match: LogIndex = START
    state: Sending = Sending.PROBE
    #: PROBE: an Append is unanswered.  REPLICATE: the window is full.  Cleared by any answer, a heartbeat's too.
    paused: bool = False
    #: SNAPSHOT: the index of the snapshot offered; else 0.
    pending_snapshot: LogIndex = START
    #: Highest commit index sent: sending it again would tell the follower nothing.
    sent_commit: LogIndex = START
    #: Answered since the leader last counted (check quorum).
    recent_active: bool = False
    #: Answered in the election timeout before that.
    was_active: bool = False
    #: The driver could not reach it, and it has not answered since.
    unreachable: bool = False
    #: Follows from the configuration; kept here so that a status needs no look-up.
    is_learner: bool = field(default=False)

    @property
    def is_active(self) -> bool:
        """Whether it answered within the last election timeout or two, and can be reached as far as is known."""
        return (self.recent_active or self.was_active) and not self.unreachable

    @property
    def is_paused(self) -> bool:
        return self.paused or self.state is Sending.SNAPSHOT

    def _enter(self, state: Sending) -> None:
        self.state = state
        self.paused = False
        self.pending_snapshot = START
        self.inflight.clear()

    def become_probe(self) -> None:
        """Find out anew where the logs agree; a snapshot believed to have arrived counts as the first guess."""
        guess = max(self.match, self.pending_snapshot) if self.state is Sending.SNAPSHOT else self.match
        self._enter(Sending.PROBE)
        self.next = LogIndex(guess + 1)
        self.sent_commit = LogIndex(min(self.sent_commit, self.next - 1))

    def become_replicate(self) -> None:
        self._enter(Sending.REPLICATE)
        self.next = LogIndex(self.match + 1)

    def become_snapshot(self, index: LogIndex) -> None:
        self._enter(Sending.SNAPSHOT)
        self.pending_snapshot = index
        self.next = LogIndex(index + 1)
        self.sent_commit = index

    def sent(self, last_index: LogIndex, count: int, size: int) -> None:
        """An Append of `count` entries ending at `last_index` left."""
        if self.state is Sending.REPLICATE:
            if count:
                self.next = LogIndex(last_index + 1)
                self.inflight.add(last_index, size)
            self.paused = self.inflight.is_full
        elif count:
            self.paused = True

    def would_learn(self, commit: LogIndex) -> bool:
        """Tell whether sending `commit` could move the follower's commit index."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def accepted(self, index: LogIndex) -> bool:
        """The follower has everything up to `index`; tell whether that is news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = LogIndex(max(self.next, index + 1))
        self.paused = False
        return True

    def rejected(self, prev_index: LogIndex, guess: LogIndex) -> bool:
        """The follower has nothing that matches `prev_index`; go back to `guess`.  False where the rejection is an old one."""
        if self.state is Sending.REPLICATE:
            if prev_index <= self.match:
                return False
            self.next = LogIndex(self.match + 1)
        else:
            # A probing leader has one question open, so a rejection of another is late.
            if self.next - 1 != prev_index:
                return False
            self.next = LogIndex(max(min(prev_index, guess + 1), self.match + 1))
            self.paused = False
        self.sent_commit = LogIndex(min(self.sent_commit, self.next - 1))
        return True
