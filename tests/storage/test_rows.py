"""Packing: the bounds of a row, and that nothing is lost between two rows (LogCabin #160, openraft #1795)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord_core.raft.messages import Entry
from coord_core.storage.rows import ROW_BYTES_MAX, ROW_ENTRIES_MAX, DamagedRow, LogRow, follows, pack, unpack
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
    assert [entry for row in rows for entry in unpack(row)] == batch
    for previous, row in zip([LINK, *(row.chain for row in rows)], rows, strict=False):
        assert follows(row, previous)
        assert not follows(row, bytes(15) + b"\1")


def test_entries_of_another_range_than_the_row_names_are_found() -> None:
    """The checksum covers both, so only a fault of ours could write such a row; it is found all the same."""
    [row] = pack(entries(2, 3), LINK)
    [longer] = pack(entries(2, 4), LINK)
    with pytest.raises(DamagedRow, match="checksum"):
        unpack(row._replace(data=longer.data))
    with pytest.raises(DamagedRow, match="checksum"):
        unpack(row._replace(first_index=3, last_index=5))
