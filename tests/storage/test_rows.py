"""Packing: the bounds of a row, and that nothing is lost between two rows (LogCabin #160, openraft #1795)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord_core.raft.messages import Entry
from coord_core.storage.integrity import seal_row
from coord_core.storage.rows import ROW_BYTES_MAX, ROW_ENTRIES_MAX, DamagedRow, LogRow, pack, unpack
from coord_core.types import LogIndex, Term
from tests.storage.building import entries

LINK = bytes(16)


def sized(*sizes: int) -> list[Entry]:
    return [Entry(LogIndex(10 + number), Term(1), 0, bytes(size)) for number, size in enumerate(sizes)]


def ranges(rows: list[LogRow]) -> list[tuple[int, int]]:
    return [(row.first_index, row.last_index) for row in rows]


def test_a_batch_is_one_row() -> None:
    """Up to and with the bound: one row is twice as fast as one an entry."""
    assert ranges(pack(entries(2, ROW_ENTRIES_MAX), LINK)) == [(2, ROW_ENTRIES_MAX + 1)]


def test_a_row_has_a_bound_on_its_entries() -> None:
    assert ranges(pack(entries(2, ROW_ENTRIES_MAX + 1), LINK)) == [(2, ROW_ENTRIES_MAX + 1), (ROW_ENTRIES_MAX + 2,) * 2]


def test_a_row_has_a_bound_on_its_bytes() -> None:
    """An entry that is larger by itself has a row of its own."""
    half = ROW_BYTES_MAX // 2
    rows = pack(sized(half - 100, half - 100, 10_000, 2 * ROW_BYTES_MAX, 5, 5), LINK)
    assert ranges(rows) == [(10, 11), (12, 12), (13, 13), (14, 15)]
    assert all(len(row.data) <= ROW_BYTES_MAX for row in rows if row.first_index != 13)


@given(st.lists(st.one_of(st.integers(0, 300), st.integers(0, ROW_BYTES_MAX + 5)), min_size=1, max_size=12))
def test_rows_hold_the_entries_in_one_chain(sizes: list[int]) -> None:
    """Every entry once, in order, and each row follows the one before it and no other."""
    batch = sized(*sizes)
    rows = pack(batch, LINK)
    links = [LINK, *(row.chain for row in rows)]
    assert [entry for row, link in zip(rows, links, strict=False) for entry in unpack(row, link)] == batch
    for row in rows:
        with pytest.raises(DamagedRow, match="breaks the hash chain"):
            unpack(row, bytes(15) + b"\1")


def test_a_range_that_the_entries_do_not_have_is_found() -> None:
    """The checksum covers the range as well as the bytes."""
    [row] = pack(entries(2, 3), LINK)
    with pytest.raises(DamagedRow, match="checksum"):
        unpack(row._replace(first_index=3, last_index=5), LINK)


def test_a_row_sealed_over_a_wrong_range_is_found() -> None:
    """Only a fault of ours could write it, with a checksum and a link that fit."""
    [row] = pack(entries(2, 3), LINK)
    crc, link = seal_row(LINK, 2, 5, row.data)
    with pytest.raises(DamagedRow, match="does not hold the entries"):
        unpack(LogRow(2, 5, crc, link, row.data), LINK)
