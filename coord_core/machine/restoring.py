"""A machine made from a snapshot, in slices.

Chunks are fed in order; each step reads some of what they hold into an empty machine.  Bytes that cannot be a snapshot raise
`StorageCorrupt`, those of a newer release `ReleaseTooOld`; whether they are the right ones, somebody else has checked by their sum.
"""

from collections.abc import Callable

import msgspec

from coord_core.errors import StorageCorrupt
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.resources import Registry
from coord_core.machine.rolling import RollingHash
from coord_core.machine.sessions import ATTACHMENT, SESSION, AttachmentRow, SessionRow, Sessions
from coord_core.machine.stream import End, Header, Reader, Rows, decode
from coord_core.machine.timers import Timers
from coord_core.machine.versions import VERSION_FIRST, check_known

_sessions = msgspec.msgpack.Decoder(list[SessionRow]).decode
_attachments = msgspec.msgpack.Decoder(list[AttachmentRow]).decode


class Restoring:
    """One machine on its way out of a snapshot.  Made by `Machine.begin_restore`."""

    def __init__(
        self,
        entry: CurrentEntry,
        rolling: RollingHash,
        timers: Timers,
        sessions: Sessions,
        registry: Registry,
        restored: Callable[[], None],
    ) -> None:
        self._entry = entry
        self._rolling = rolling
        self._timers = timers
        self._sessions = sessions
        self._registry = registry
        self._restored = restored
        self._reader = Reader()
        self._counts: dict[str, int] = {}
        self._header: Header | None = None
        self._ended = False
        # Rows that are no resources', by their kind.
        self._kinds: dict[str, Callable[[msgspec.Raw], int]] = {SESSION: self._take_sessions, ATTACHMENT: self._take_attachments}

    def add_section(self, kind: str, take: Callable[[msgspec.Raw], int]) -> None:
        """Have rows of that kind, which are no resources', taken up by `take`; it returns how many there were."""
        self._kinds[kind] = take

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk; it is read by `step`."""
        self._reader.feed(chunk)

    def step(self, budget: int) -> bool:
        """Read about `budget` rows; return whether there is more to read of what was fed.  Raises `StorageCorrupt`."""
        while budget > 0:
            record = self._reader.next()
            if record is None:
                return False
            budget -= self._take(record)
        return True

    def finish(self) -> None:
        """Everything was fed: read the rest; the machine may be used then.  Raises `StorageCorrupt` where something is missing."""
        while self.step(1_000_000):
            pass
        if not self._ended or not self._reader.is_empty:
            raise StorageCorrupt("the machine's snapshot ends too early")
        self._restored()

    def _take(self, record: Header | Rows | End) -> int:
        if self._ended or isinstance(record, Header) != (self._header is None):
            raise StorageCorrupt("the records of the machine's snapshot are out of order")
        if isinstance(record, Rows):
            return self._take_rows(record)
        if isinstance(record, Header):
            self._begin(record)
        else:
            self._check_counts(record.counts)
            self._ended = True
        return 1

    def _begin(self, header: Header) -> None:
        check_known(header.version, "the snapshot")
        if header.version < VERSION_FIRST:
            raise StorageCorrupt(f"the snapshot is of a machine of version {header.version}, which there never was")
        self._header = header
        self._entry.version = header.version
        self._entry.index, self._entry.time_ms = header.index, header.time_ms
        self._rolling.restore(header.rolling_hash)
        self._timers.next_id = header.next_timer

    def _take_rows(self, record: Rows) -> int:
        take = self._kinds.get(record.kind)
        count = take(record.rows) if take is not None else self._take_resources(record)
        self._counts[record.kind] = self._counts.get(record.kind, 0) + count
        return count

    def _take_resources(self, record: Rows) -> int:
        resource = self._registry.by_kind.get(record.kind)
        if resource is None:
            raise StorageCorrupt(f"the snapshot has rows of {record.kind!r}, which this release does not know")
        try:
            return resource.restore(record.rows)
        except KeyError as error:
            raise StorageCorrupt(f"a {record.kind} belongs to attachment {error}, which the snapshot does not have") from error

    def _take_sessions(self, rows: msgspec.Raw) -> int:
        found: list[SessionRow] = decode(_sessions, rows)
        for row in found:
            self._sessions.restore(row)
        return len(found)

    def _take_attachments(self, rows: msgspec.Raw) -> int:
        found: list[AttachmentRow] = decode(_attachments, rows)
        try:
            for row in found:
                self._sessions.restore_attachment(row)
        except KeyError as error:
            raise StorageCorrupt(f"an attachment belongs to session {error}, which the snapshot does not have") from error
        return len(found)

    def _check_counts(self, counts: dict[str, int]) -> None:
        if counts != self._counts:
            raise StorageCorrupt(f"the snapshot has {self._counts} rows and says that it has {counts}")
