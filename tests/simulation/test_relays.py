"""Detached sessions under faults: attempts never overlap, and whoever had a session before can do nothing with it."""

from collections import Counter

import pytest

from coord_core.testing.drills import RELAYS
from coord_core.testing.run import run


@pytest.mark.parametrize("first", range(1, 11, 5))
def test_work_passes_from_process_to_process(first: int) -> None:
    """Actors are killed, stopped, and succeeded while they run; leaders change; machines come out of snapshots."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + 5):
        seen += Counter(run(seed, mix=RELAYS).relays)
    for what in ("opened", "superseded", "taken up", "handed off", "refused", "expired"):
        assert seen[what] > 10, seen
