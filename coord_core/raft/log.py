"""The replicated log as this node holds it in memory, and the marks on it.

    first_index - 1        the point before the first entry: a snapshot's index, or the founding one
      <= applied           the driver has applied it
      <= handed            given to the driver to apply
      <= commit            a quorum has it (as far as this node knows)
      <= last_index
    durable                on this node's disk, and what is there equals memory
      <= persisting        given to the driver to write
      <= last_index

`commit` and `durable` know nothing of each other: a quorum of others may have what this node's disk does not have yet.

The rule of this file: entries at or below `commit` are never replaced, and entries are contiguous.  Who may append what, and
when commit moves, is decided in `replication.py`.  Entries stay in one list with a parallel list of running byte totals, so
that every size question is one bisection and no entry needs an object beside itself.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter

from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.messages import Entry, EntryKind, SnapshotMetadata
from coord_core.raft.zero import NO_TERM
from coord_core.types import LogIndex, Term

#: Bytes that an entry costs besides its data, in memory and on the wire; makes empty entries count against the bounds.
ENTRY_OVERHEAD_BYTES = 32

_term_of = attrgetter("term")


class RaftLog:
    """Entries after a point in the log, with the marks described above."""

    __slots__ = (
        "_configurations",
        "_ends",
        "_entries",
        "_offset",
        "_offset_end",
        "_offset_term",
        "_slice",
        "_slice_bounds",
        "applied",
        "commit",
        "cut_short",
        "durable",
        "handed",
        "installing",
        "last_index",
        "persisting",
        "snapshot",
    )

    def __init__(
        self,
        snapshot: SnapshotMetadata,
        entries: Sequence[Entry],
        commit: LogIndex,
        applied: LogIndex,
        begin: tuple[LogIndex, Term] | None = None,
    ) -> None:
        #: The newest snapshot that the driver can offer to a follower.  Invariant: at or after `first_index - 1`.
        self.snapshot = snapshot
        #: A snapshot received from the leader, until the driver has made it durable.
        self.installing: SnapshotMetadata | None = None
        self._offset: LogIndex
        self._offset_term: Term
        self._offset, self._offset_term = (snapshot.index, snapshot.term) if begin is None else begin
        #: Invariant: `_offset + len(_entries)`.
        self.last_index: LogIndex = self._offset
        #: Invariant: `_entries[i].index == _offset + 1 + i`.
        self._entries: list[Entry] = []
        #: `_ends[i]` is the running byte total up to and including `_entries[i]`; `_offset_end` the total before the first.
        self._ends: list[int] = []
        self._offset_end = 0
        #: Indexes of the CONFIGURATION entries held, rising.  Few: they answer "is a membership change pending" without a scan.
        self._configurations: list[LogIndex] = []
        #: The last slice made: the same entries go to every follower and to the disk.
        self._slice: tuple[Entry, ...] = ()
        self._slice_bounds = (0, 0)
        self.commit: LogIndex = snapshot.index
        self.handed: LogIndex = snapshot.index
        self.applied: LogIndex = snapshot.index
        self.append(entries)
        #: What was loaded from the disk is on the disk.
        self.persisting: LogIndex = self.last_index
        self.durable: LogIndex = self.last_index
        if self.term(snapshot.index) != snapshot.term:
            raise InvariantViolation(f"restored snapshot at {snapshot.index}, term {snapshot.term} does not fit {self!r}")
        if not snapshot.index <= applied <= max(commit, snapshot.index) <= self.last_index:
            raise InvariantViolation(f"restored applied {applied}, commit {commit} do not fit {self!r}")
        self.commit = LogIndex(max(commit, snapshot.index))
        self.handed = self.applied = applied
        #: `take_applicable` handed out less than there was; nothing more until something is applied.
        self.cut_short = False

    # -- what is there

    @property
    def first_index(self) -> LogIndex:
        return LogIndex(self._offset + 1)

    @property
    def last_term(self) -> Term:
        return self._entries[-1].term if self._entries else self._offset_term

    def term(self, index: LogIndex) -> Term | None:
        """Return the term of the entry at `index`; None where it is compacted away or not there yet."""
        position = index - self._offset - 1
        if position == -1:
            return self._offset_term
        if 0 <= position < len(self._entries):
            return self._entries[position].term
        return None

    def matches(self, index: LogIndex, term: Term) -> bool:
        """Tell whether this log has an entry of `term` at `index`, and so equals the sender's up to there (Raft, 5.3)."""
        return self.term(index) == term

    def is_up_to_date(self, last_index: LogIndex, last_term: Term) -> bool:
        """Tell whether a log that ends so is at least as up to date as this one: the later term, then the longer (Raft, 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def slice(self, low: LogIndex, high: LogIndex) -> tuple[Entry, ...]:
        """Return the entries of [low, high)."""
        if self._slice_bounds != (low, high):
            self._slice = tuple(self._entries[low - self._offset - 1 : high - self._offset - 1])
            self._slice_bounds = (low, high)
        return self._slice

    def limit(self, low: LogIndex, high: LogIndex, max_bytes: int) -> LogIndex:
        """Return the `high` of the longest slice from `low` that fits `max_bytes`; at least one entry where there is one."""
        ends = self._ends
        last = high - self._offset - 2
        if last < 0 or ends[last] - self._end(low - 1) <= max_bytes:
            return high
        first = low - self._offset - 1
        position = bisect_right(ends, self._end(low - 1) + max_bytes, first, last + 1)
        return LogIndex(self._offset + 1 + max(position, first + 1))

    def bytes_between(self, low: int, high: int) -> int:
        """Return the size of the entries of [low, high)."""
        return self._end(high - 1) - self._end(low - 1)

    @property
    def uncommitted_bytes(self) -> int:
        return self._end(self.last_index) - self._end(self.commit)

    def has_unapplied_configuration(self) -> bool:
        """Tell whether a committed membership change waits to be applied."""
        changes = self._configurations
        position = bisect_right(changes, self.applied)
        return position < len(changes) and changes[position] <= self.commit

    def configurations(self, low: LogIndex, high: LogIndex) -> list[Entry]:
        """Return the membership changes at indexes in [low, high)."""
        return [self._entries[index - self._offset - 1] for index in self._configurations if low <= index < high]

    def trailing(self, index: LogIndex, max_entries: int, max_bytes: int) -> LogIndex:
        """Return the lowest point behind which, up to `index`, lie no more than so many entries of so many bytes together."""
        low = max(self._offset, index - max_entries)
        floor = self._end(index) - max_bytes
        if self._end(low) >= floor:
            return LogIndex(low)
        return LogIndex(self._offset + 1 + bisect_left(self._ends, floor, low - self._offset, index - self._offset))

    def agreement(self, index: LogIndex, term: Term) -> tuple[LogIndex, Term]:
        """Return the highest position at or below `index` whose term is not above `term`, with the term it has (0: unknown).

        Nothing between it and `index` can agree with a log that has `term` at `index`, so a probe there would be wasted.  Both
        sides use it: the follower for its hint, the leader on the hint.
        """
        if index > self.last_index:
            return index, NO_TERM
        position = bisect_right(self._entries, term, 0, max(index - self._offset, 0), key=_term_of)
        if position > 0:
            return LogIndex(self._offset + position), self._entries[position - 1].term
        below = min(index, self._offset)
        if below == self._offset and self._offset_term > term:
            below = LogIndex(max(below - 1, 0))
        return below, self.term(below) or NO_TERM

    # -- what changes it

    def append(self, entries: Sequence[Entry]) -> None:
        """Put `entries` behind the last one."""
        if not entries:
            return
        if entries[0].index != self.last_index + 1:
            raise InvariantViolation(f"append at {entries[0].index} leaves a gap or an overlap: {self!r}")
        start = self._ends[-1] if self._ends else self._offset_end
        totals = accumulate([len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries], initial=start)
        next(totals)
        self._ends.extend(totals)
        self._entries.extend(entries)
        self.last_index = LogIndex(self._offset + len(self._entries))
        for entry in entries:
            if entry.kind == EntryKind.CONFIGURATION:
                self._configurations.append(entry.index)

    def conflict(self, entries: Sequence[Entry]) -> int:
        """Return how many of `entries`, which follow a matching position, this log has already."""
        if not entries or entries[0].index > self.last_index:
            return 0
        held = self._entries
        position = entries[0].index - self._offset - 1
        for count, entry in enumerate(entries):
            if position + count >= len(held) or held[position + count].term != entry.term:
                return count
        return len(entries)

    def replace(self, entries: Sequence[Entry]) -> None:
        """Drop everything from `entries[0].index` on, and append `entries` (Raft, figure 2: AppendEntries 3 and 4)."""
        index = entries[0].index
        if index <= self.last_index:
            self._truncate(index)
        self.append(entries)

    def _truncate(self, index: LogIndex) -> None:
        if index <= self.commit:
            raise InvariantViolation(f"truncating at {index} would drop committed entries: {self!r}")
        keep = index - self._offset - 1
        del self._entries[keep:]
        del self._ends[keep:]
        self.last_index = LogIndex(index - 1)
        del self._configurations[bisect_left(self._configurations, index) :]
        self._slice_bounds = (0, 0)
        # What is on the disk, or on its way there, beyond this point is not what memory will have.
        self.persisting = LogIndex(min(self.persisting, index - 1))
        self.durable = LogIndex(min(self.durable, index - 1))

    def commit_to(self, index: LogIndex) -> bool:
        """Raise `commit` to `index`; tell whether it moved."""
        if index <= self.commit:
            return False
        if index > self.last_index:
            raise InvariantViolation(f"commit {index} is beyond the end: {self!r}")
        self.commit = index
        return True

    def take_committed(self, max_bytes: int) -> list[Entry]:
        """Hand out what is committed and was not handed out before."""
        if self.handed >= self.commit or self.installing is not None:
            return []
        low = LogIndex(self.handed + 1)
        high = self.limit(low, LogIndex(self.commit + 1), max_bytes)
        self.handed = LogIndex(high - 1)
        return self._entries[low - self._offset - 1 : high - self._offset - 1]

    def take_applicable(self, max_bytes: int) -> list[Entry]:
        """Hand out what is committed and on this node's disk, as long as no more than `max_bytes` of it are unapplied."""
        end = min(self.commit, self.durable)
        unapplied = self.bytes_between(self.applied + 1, self.handed + 1)
        if self.handed >= end or self.installing is not None or unapplied >= max_bytes or self.cut_short:
            return []
        low = LogIndex(self.handed + 1)
        high = self.limit(low, LogIndex(end + 1), max_bytes - unapplied)
        self.handed = LogIndex(high - 1)
        self.cut_short = self.handed < end
        return self._entries[low - self._offset - 1 : high - self._offset - 1]

    def applied_to(self, index: LogIndex) -> None:
        """The driver has applied everything up to `index`."""
        if not self.applied <= index <= self.handed:
            raise InvariantViolation(f"applied {index} was not handed out, or falls: {self!r}")
        self.applied = index
        self.cut_short = False

    def take_unpersisted(self) -> tuple[Entry, ...]:
        """Hand out what is not on the disk and not on its way there."""
        low, high = LogIndex(self.persisting + 1), LogIndex(self.last_index + 1)
        self.persisting = self.last_index
        return self.slice(low, high) if low < high else ()

    def persisted(self) -> None:
        """What was on its way is on the disk, except for what was replaced meanwhile (`_truncate` has lowered `persisting`)."""
        self.durable = self.persisting

    def stable_to(self, index: LogIndex, term: Term) -> None:
        """The disk has this log up to `index`, if the entry there is still of `term`."""
        if index > self.durable and self.term(index) == term:
            self.durable = index

    def compact(self, index: LogIndex) -> None:
        """Forget the entries up to and including `index`; a snapshot has them."""
        if index <= self._offset:
            return
        if index > self.applied or index > self.snapshot.index or index > self.durable:
            raise InvariantViolation(f"compacting to {index}, which no snapshot covers: {self!r}")
        count = index - self._offset
        self._offset_term = self._entries[count - 1].term
        self._offset_end = self._ends[count - 1]
        del self._entries[:count]
        del self._ends[:count]
        del self._configurations[: bisect_right(self._configurations, index)]
        self._offset = index

    def install(self, snapshot: SnapshotMetadata) -> None:
        """Begin anew after `snapshot`, which the leader sent because this log cannot be joined to its own (Raft, 7)."""
        if snapshot.index <= self.commit:
            raise InvariantViolation(f"snapshot at {snapshot.index} lies below the commit index: {self!r}")
        self._entries, self._ends, self._configurations = [], [], []
        self._slice_bounds = (0, 0)
        self._offset, self._offset_term, self._offset_end = snapshot.index, snapshot.term, 0
        self.snapshot = self.installing = snapshot
        self.commit = self.handed = self.persisting = self.durable = self.last_index = snapshot.index

    def _end(self, index: int) -> int:
        position = index - self._offset - 1
        return self._ends[position] if position >= 0 else self._offset_end

    def __repr__(self) -> str:
        return (
            f"RaftLog(first={self.first_index}, applied={self.applied}, handed={self.handed}, commit={self.commit}, "
            f"durable={self.durable}, persisting={self.persisting}, last={self.last_index})"
        )
