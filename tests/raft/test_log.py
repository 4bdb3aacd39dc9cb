"""The log by itself: positions, sizes, marks (Raft, 5.3), against a plain list where that says it best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog
from coord_core.raft.messages import Configuration, Entry, EntryKind, SnapshotMetadata
from coord_core.types import LogIndex, NodeId, Term


def log(*terms: int, offset: int = 4, offset_term: int = 1, size: int = 0, commit: int | None = None) -> RaftLog:
    start = SnapshotMetadata(LogIndex(offset), Term(offset_term), Configuration(voters=(NodeId(1),)))
    held = entries(offset + 1, *terms, size=size)
    return RaftLog(start, held, LogIndex(offset if commit is None else commit), LogIndex(offset))


def entries(first: int, *terms: int, size: int = 0) -> list[Entry]:
    return [Entry(LogIndex(i), Term(t), EntryKind.COMMAND, b"x" * size) for i, t in enumerate(terms, first)]


def test_terms_are_known_from_the_offset_to_the_end():
    """The point before the first entry counts: an Append may stand on it."""
    held = log(2, 2, 3)
    assert [held.term(LogIndex(i)) for i in range(2, 10)] == [None, None, 1, 2, 2, 3, None, None]


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [
        (9, 9, (9, 5)),
        (9, 4, (8, 3)),
        (9, 2, (6, 2)),
        (7, 3, (7, 3)),
        (9, 1, (4, 1)),
        (9, 0, (3, 0)),
        (4, 1, (4, 1)),
        (2, 5, (2, 0)),
        (12, 5, (12, 0)),
    ],
)
def test_agreement_passes_over_whole_terms(index: int, term: int, found: tuple[int, int]):
    """Where two logs can agree at all: not at an entry whose term is above the other's there."""
    held = log(2, 2, 3, 3, 5)
    assert held.agreement(LogIndex(index), Term(term)) == found


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30), st.integers(0, 400), st.data())
def test_slice_within_a_size_is_the_longest_that_fits(sizes: list[int], budget: int, data: st.DataObject):
    """As a plain loop would cut it, with at least one entry."""
    held = log()
    held.append([Entry(LogIndex(5 + i), Term(1), 0, b"x" * n) for i, n in enumerate(sizes)])
    low = data.draw(st.integers(5, 4 + len(sizes)))
    expected, used = low, 0
    for n in sizes[low - 5 :]:
        used += n + ENTRY_OVERHEAD_BYTES
        if used > budget and expected > low:
            break
        expected += 1
        if used > budget:
            break
    assert held.limit(LogIndex(low), LogIndex(5 + len(sizes)), budget) == expected


@given(st.lists(st.integers(0, 99), min_size=3, max_size=40), st.data())
def test_sizes_stay_right_through_truncation_and_compaction(sizes: list[int], data: st.DataObject):
    """The running totals are kept, never counted anew."""
    held = log()
    held.append([Entry(LogIndex(5 + i), Term(1), 0, b"x" * n) for i, n in enumerate(sizes)])
    cut = data.draw(st.integers(6, 4 + len(sizes)))
    held.replace([Entry(LogIndex(cut), Term(2), 0, b"y" * 7)])
    held.take_unpersisted()
    held.persisted()
    held.commit_to(LogIndex(cut - 1))
    held.take_committed(2**40)
    held.applied_to(LogIndex(cut - 1))
    held.snapshot = SnapshotMetadata(LogIndex(cut - 1), Term(1), held.snapshot.configuration)
    held.compact(LogIndex(data.draw(st.integers(5, cut - 1))))
    for low in range(held.first_index, held.last_index + 2):
        actual = sum(len(e.data) + ENTRY_OVERHEAD_BYTES for e in held.slice(LogIndex(low), LogIndex(held.last_index + 1)))
        assert held.bytes_between(low, held.last_index + 1) == actual
    assert held.uncommitted_bytes == 7 + ENTRY_OVERHEAD_BYTES


def test_replacing_takes_back_what_was_durable():
    """What the disk has beyond the cut is not what memory will have."""
    held = log(1, 1, 1)
    assert (held.durable, held.persisting) == (7, 7)
    held.replace(entries(6, 2))
    assert (held.durable, held.persisting, held.last_index) == (5, 5, 6)
    assert [e.index for e in held.take_unpersisted()] == [6]
    held.persisted()
    assert held.durable == 6


def test_configuration_entries_are_found_without_a_scan():
    """Pending changes are asked for with every campaign and every applied entry."""
    held = log(1, 1)
    held.append([Entry(LogIndex(7), Term(1), EntryKind.CONFIGURATION, b""), *entries(8, 1)])
    assert not held.has_unapplied_configuration()
    held.commit_to(LogIndex(7))
    assert held.has_unapplied_configuration()
    assert [e.index for e in held.configurations(LogIndex(5), LogIndex(9))] == [7]
    held.take_committed(2**40)
    held.applied_to(LogIndex(7))
    assert not held.has_unapplied_configuration()


def test_configuration_entries_are_forgotten_with_their_suffix():
    held = log(1)
    held.append([Entry(LogIndex(6), Term(1), EntryKind.CONFIGURATION, b"")])
    held.replace(entries(6, 2))
    held.commit_to(LogIndex(6))
    assert not held.has_unapplied_configuration()


def test_log_refuses_gaps_and_overlaps():
    held = log(1)
    for first in (4, 5, 7):
        with pytest.raises(InvariantViolation):
            held.append(entries(first, 1))


def test_log_refuses_to_replace_what_is_committed():
    """5.4: what is committed stays; whoever asks for it is wrong, or this node is."""
    held = log(1, 1, 1)
    held.commit_to(LogIndex(6))
    for first in (5, 6):
        with pytest.raises(InvariantViolation):
            held.replace(entries(first, 2))
    held.replace(entries(7, 2))


def test_log_refuses_marks_that_are_out_of_order():
    held = log(1, 1)
    with pytest.raises(InvariantViolation):
        held.commit_to(LogIndex(9))
    with pytest.raises(InvariantViolation):
        held.applied_to(LogIndex(5))
    held.commit_to(LogIndex(6))
    held.take_committed(2**40)
    held.applied_to(LogIndex(6))
    with pytest.raises(InvariantViolation):
        held.applied_to(LogIndex(5))
    with pytest.raises(InvariantViolation):
        held.install(SnapshotMetadata(LogIndex(6), Term(1), held.snapshot.configuration))


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(0, 40), st.integers(0, 800), st.data())
def test_trailing_point_keeps_no_more_than_was_asked_for_and_as_much_as_it_can(
    sizes: list[int], most: int, most_bytes: int, data: st.DataObject
):
    """As a plain loop from the end would find it; never below what is held."""
    held = log()
    held.append([Entry(LogIndex(5 + i), Term(1), 0, b"x" * n) for i, n in enumerate(sizes)])
    index = data.draw(st.integers(4, 4 + len(sizes)))
    expected, used = index, 0
    while expected > 4 and index - expected < most and used + sizes[expected - 5] + ENTRY_OVERHEAD_BYTES <= most_bytes:
        used += sizes[expected - 5] + ENTRY_OVERHEAD_BYTES
        expected -= 1
    assert held.trailing(LogIndex(index), most, most_bytes) == expected


def test_log_that_begins_before_its_snapshot_serves_what_lies_between():
    """What is kept for followers that lag survives a restart; the snapshot's index is applied."""
    snapshot = SnapshotMetadata(LogIndex(7), Term(2), Configuration(voters=(NodeId(1),)))
    held = RaftLog(snapshot, entries(5, 1, 2, 2, 3), LogIndex(7), LogIndex(7), (LogIndex(4), Term(1)))
    assert (held.first_index, held.applied, held.handed, held.commit, held.last_index) == (5, 7, 7, 7, 8)
    assert [held.term(LogIndex(i)) for i in (4, 5, 7, 8)] == [1, 1, 2, 3]


@pytest.mark.parametrize(("begin", "first", "terms"), [(4, 5, (1, 2, 3, 3)), (4, 5, (1, 2)), (8, 9, (3,))])
def test_snapshot_that_its_log_does_not_hold_is_refused(begin: int, first: int, terms: tuple[int, ...]):
    """Another term at its index, a log that ends before it, one that begins behind it: parts of different nodes or times."""
    snapshot = SnapshotMetadata(LogIndex(7), Term(2), Configuration(voters=(NodeId(1),)))
    with pytest.raises(InvariantViolation, match="restored"):
        RaftLog(snapshot, entries(first, *terms), LogIndex(7), LogIndex(7), (LogIndex(begin), Term(1)))
