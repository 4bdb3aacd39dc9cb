"""RequestRanges behaves as the plain set of numbers that it stands for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coord_core.protocol.ranges import RequestRanges

numbers = st.integers(min_value=1, max_value=40)
ranges = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
additions = st.one_of(
    st.tuples(st.just("add"), numbers),
    st.tuples(st.just("add_range"), ranges),
    st.tuples(st.just("raise_low_water"), st.integers(min_value=0, max_value=20)),
)


def _both(steps: list[tuple[str, int | tuple[int, int]]]) -> tuple[RequestRanges, set[int]]:
    """Return the ranges and the plain set after these additions."""
    compact, plain = RequestRanges(), set[int]()
    for step in steps:
        match step:
            case ("add", int(number)):
                compact.add(number)
                plain.add(number)
            case ("add_range", (start, end)):
                compact.add_range(start, end)
                plain.update(range(start, end + 1))
            case ("raise_low_water", int(mark)):
                compact.raise_low_water(mark)
                plain.update(range(1, mark + 1))
    return compact, plain


def _expand(compact: RequestRanges) -> set[int]:
    found = set(range(1, compact.low_water + 1))
    for start, end in compact.ranges:
        found.update(range(start, end + 1))
    return found


@given(st.lists(additions, max_size=30))
def test_holds_the_numbers_that_were_added_and_no_other(steps: list[tuple[str, int | tuple[int, int]]]) -> None:
    """In whatever order and however often they are added."""
    compact, plain = _both(steps)
    assert {number for number in range(1, 60) if number in compact} == plain
    assert _expand(compact) == plain


@given(st.lists(additions, max_size=30))
def test_ranges_rise_do_not_touch_and_lie_above_the_mark(steps: list[tuple[str, int | tuple[int, int]]]) -> None:
    """One set has one form: equal sets are equal when they are compared or sent; and it is the shortest."""
    compact, _ = _both(steps)
    previous = compact.low_water
    for start, end in compact.ranges:
        assert previous + 1 < start <= end
        previous = end
    assert compact.range_count == len(compact.ranges)


@given(st.lists(additions, max_size=30))
def test_form_does_not_depend_on_the_order_of_additions(steps: list[tuple[str, int | tuple[int, int]]]) -> None:
    """Replicas and clients come to the same ranges on different ways."""
    forward, _ = _both(steps)
    backward, _ = _both(steps[::-1])
    assert (forward.low_water, forward.ranges) == (backward.low_water, backward.ranges)


@given(st.lists(additions, max_size=30))
def test_made_anew_from_what_it_says_of_itself_it_is_the_same(steps: list[tuple[str, int | tuple[int, int]]]) -> None:
    """This is how it travels in every Call, and in snapshots."""
    compact, _ = _both(steps)
    again = RequestRanges(compact.low_water, compact.ranges)
    assert (again.low_water, again.ranges) == (compact.low_water, compact.ranges)


@given(st.lists(additions, max_size=30), ranges)
def test_gaps_are_what_a_range_would_add(steps: list[tuple[str, int | tuple[int, int]]], asked: tuple[int, int]) -> None:
    """Rising, apart, and exactly the numbers that are missing."""
    compact, plain = _both(steps)
    gaps = compact.gaps(*asked)
    missing = [number for start, end in gaps for number in range(start, end + 1)]
    assert missing == sorted(set(range(asked[0], asked[1] + 1)) - plain)
    assert all(end + 1 < start for (_, end), (start, _) in pairwise(gaps))


@given(st.sets(numbers, max_size=20))
def test_n_missing_numbers_make_at_most_n_ranges(missing: set[int]) -> None:
    """This bounds what a Call carries: the window bounds what is missing."""
    compact = RequestRanges()
    for number in range(1, 41):
        if number not in missing:
            compact.add(number)
    assert compact.range_count <= len(missing)


def test_number_below_one_is_in_every_set() -> None:
    """Requests are numbered from 1: what lies below was never a request, and is refused like one that is forgotten."""
    assert 0 in RequestRanges()
    assert -5 in RequestRanges()
