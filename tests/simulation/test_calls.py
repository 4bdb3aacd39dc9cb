"""Calls of members under faults: begun once, and never where somebody was told that they were not."""

from collections import Counter

import pytest

from coord_core.testing.drills import CALLS
from coord_core.testing.run import run


@pytest.mark.parametrize("first", range(1, 9, 2))
def test_calls_are_begun_once_and_answered_truly(first: int) -> None:
    """Members die between asking and the result, callers give up, leaders change, and what may be done twice moves on."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + 2):
        seen += Counter(run(seed, mix=CALLS).calls)
    for what in ("done", "scheduled", "denied", "unknown"):
        assert seen[what] > 10, seen
