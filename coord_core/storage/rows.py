"""Packs entries into log rows and back.

A row holds the entries of one batch as one msgpack array: encoded in one call, without a Python step per entry.  A very large
batch is split, so that no row grows past what SQLite and a later reader handle with ease; the rows of one batch are still written
in one transaction.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from coord_core.raft.messages import Entry
from coord_core.storage.integrity import seal_row

#: Bounds of a row.  An entry larger than the first has a row of its own.
ROW_BYTES_MAX = 1 << 20
ROW_ENTRIES_MAX = 4096

#: What msgpack adds to an entry's bytes, at most: index, term, kind, the array's and the bytes' headers.
_ENTRY_OVERHEAD_BYTES = 32

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


class LogRow(NamedTuple):
    """A row of the log table, in the order of its columns."""

    first_index: int
    last_index: int
    #: Over the range and the data.
    crc: int
    #: The link of the hash chain that this row adds.
    chain: bytes
    data: bytes


class DamagedRow(Exception):
    """The row is not what was written; the message says how that shows, as a predicate of "the log row"."""


def pack(entries: Sequence[Entry], previous_link: bytes) -> list[LogRow]:
    """Return the rows that hold `entries` (contiguous, not empty), chained to `previous_link`."""
    if len(entries) <= ROW_ENTRIES_MAX:
        data = _encode(list(entries))
        if len(data) <= ROW_BYTES_MAX:
            return [_seal(entries, data, previous_link)]
    rows: list[LogRow] = []
    for part in _split(entries):
        rows.append(_seal(part, _encode(part), previous_link))
        previous_link = rows[-1].chain
    return rows


def unpack(row: LogRow, previous_link: bytes) -> list[Entry]:
    """Return the entries of the row; raise `DamagedRow` where it is not, byte for byte, the one written after `previous_link`."""
    first_index, last_index, row_crc, chain, data = row
    crc, link = seal_row(previous_link, first_index, last_index, data)
    if crc != row_crc:
        raise DamagedRow("is damaged: its checksum does not fit its data")
    if link != chain:
        raise DamagedRow("breaks the hash chain: it or the row before it was replaced")
    entries = _decode(data)
    if entries[0].index != first_index or len(entries) != last_index - first_index + 1:
        raise DamagedRow("does not hold the entries that its range names")
    return entries


def _seal(entries: Sequence[Entry], data: bytes, previous_link: bytes) -> LogRow:
    first_index, last_index = entries[0].index, entries[-1].index
    crc, link = seal_row(previous_link, first_index, last_index, data)
    return LogRow(first_index, last_index, crc, link, data)


def _split(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    size = 0
    for entry in entries:
        entry_size = len(entry.data) + _ENTRY_OVERHEAD_BYTES
        if part and (size + entry_size > ROW_BYTES_MAX or len(part) == ROW_ENTRIES_MAX):
            yield part
            part, size = [], 0
        part.append(entry)
        size += entry_size
    if part:
        yield part
