"""How a machine's state is written down: a stream of rows, cut into chunks.

    magic, then frames: 4 bytes of length (big-endian), then one msgpack record
    Header, Rows of "session", Rows of "attachment", Rows of each type of resource, mixed, Rows of "record", End

The sections come in this order, so that whoever reads finds every attachment before the first claim of it.  Rows say by their
`kind` what they are; which fields a row has is the business of who writes it (`sessions`, `locks`, `values`).

The form grows by the number in the magic, `FORMAT`.  Every format that a release ever wrote stays readable; a test opens one of
each.  What an older format lacks has a default, or is a section that is not there: a new kind of rows (of another resource, or the
names of records outside the machine) needs no more than its name.  A newer format is refused, never read as far as it goes: what
would be lost is lost on one node only.  So a release that knows a newer one writes it only where the machine's version says that
every member reads it.

Chunks are cut anywhere: a row may go through several.  Their size is the only bound here; how much is written at a time is decided
by `Snapshot.step`.
"""

from typing import Any, TypeAlias

import msgspec

from coord_core.errors import ReleaseTooOld, StorageCorrupt
from coord_core.machine.rolling import UNKNOWN
from coord_core.types import LogIndex

CHUNK_BYTES_MAX = 256 * 1024

#: Raised with every change that an older release would misread.  2: the header has the rolling hash.
FORMAT = 2

_MAGIC = b"COORDSM"
_LENGTH_BYTES = 4

#: Rows of one frame: what is decoded in one piece at restore.  A single larger row has a frame of its own.
_FRAME_ROWS_MAX = 256
_FRAME_BYTES_MAX = 16 * 1024


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Header(_Record, frozen=True, tag=1):
    """The machine's own numbers, at the index at which the snapshot stands."""

    version: int
    index: LogIndex
    time_ms: int
    #: The timers' next number: equal deadlines fire in the order of their numbers.
    next_timer: int
    #: Since format 2.
    rolling_hash: int = UNKNOWN


class Rows(_Record, frozen=True, tag=2):
    kind: str
    rows: msgspec.Raw


class End(_Record, frozen=True, tag=3):
    """The last record, with how many rows of each kind came before it."""

    counts: dict[str, int]


Record: TypeAlias = Header | Rows | End

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Cutter:
    """Takes rows, gives chunks."""

    def __init__(self, header: Header, chunk_bytes: int = CHUNK_BYTES_MAX) -> None:
        self._chunk_bytes = chunk_bytes
        self._buffer = bytearray((*_MAGIC, FORMAT))
        self._rows: dict[str, list[Any]] = {}
        # Bytes of the rows in `_rows`, about.
        self._sizes: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._put(header)

    @property
    def pending_bytes(self) -> int:
        """What `take` has not given yet, about."""
        return len(self._buffer) + sum(self._sizes.values())

    def add(self, kind: str, row: Any, size: int) -> None:
        """Add a row of about `size` bytes."""
        rows = self._rows.setdefault(kind, [])
        rows.append(row)
        self._sizes[kind] = total = self._sizes.get(kind, 0) + size
        if len(rows) >= _FRAME_ROWS_MAX or total >= _FRAME_BYTES_MAX:
            self._flush(kind)

    def end_section(self) -> None:
        """Whatever comes next comes behind all that was added."""
        for kind in list(self._rows):
            self._flush(kind)

    def finish(self) -> None:
        self.end_section()
        self._put(End(self._counts))

    def take(self, *, rest: bool = False) -> list[bytes]:
        """Return the chunks that are full; with `rest` also the last one."""
        buffer, chunks, size = self._buffer, [], self._chunk_bytes
        at = 0
        while len(buffer) - at >= size or (rest and at < len(buffer)):
            chunks.append(bytes(buffer[at : at + size]))
            at += size
        del buffer[:at]
        return chunks

    def _flush(self, kind: str) -> None:
        rows = self._rows.pop(kind)
        del self._sizes[kind]
        self._counts[kind] = self._counts.get(kind, 0) + len(rows)
        self._put(Rows(kind, msgspec.Raw(_encode(rows))))

    def _put(self, record: Record) -> None:
        data = _encode(record)
        self._buffer += len(data).to_bytes(_LENGTH_BYTES, "big")
        self._buffer += data


class Reader:
    """Takes chunks in order, gives records.  Raises `StorageCorrupt` where they are no snapshot, `ReleaseTooOld` where newer."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Where the next frame begins in it; None before the magic was read.
        self._at: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether everything fed has been given out."""
        return len(self._buffer) == (self._at or 0)

    def feed(self, chunk: bytes) -> None:
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += chunk

    def next(self) -> Record | None:
        """Return the next whole record, None where more must be fed first."""
        if self._at is None and not self._begin():
            return None
        at = self._at or 0
        begin = at + _LENGTH_BYTES
        end = begin + int.from_bytes(self._buffer[at:begin], "big")
        if begin > len(self._buffer) or end > len(self._buffer):
            return None
        self._at = end
        # Copied: the rows of a record refer to its bytes, and the buffer goes on growing.
        record: Record = decode(_decode, bytes(self._buffer[begin:end]))
        return record

    def _begin(self) -> bool:
        size = len(_MAGIC)
        if not _MAGIC.startswith(self._buffer[:size]):
            raise StorageCorrupt("this is no snapshot of a machine: it begins with something else")
        if len(self._buffer) <= size:
            return False
        found = self._buffer[size]
        if found > FORMAT:
            message = f"the machine's snapshot has format {found}, this release reads up to {FORMAT}: start a newer release"
            raise ReleaseTooOld(message, format=found)
        self._at = size + 1
        return True


def decode(decoder: Any, data: bytes | msgspec.Raw) -> Any:
    """Decode a part of a snapshot.  Raises `StorageCorrupt` where it is not what its kind says."""
    try:
        return decoder(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StorageCorrupt(f"a record of the machine's snapshot does not decode: {error}") from error
