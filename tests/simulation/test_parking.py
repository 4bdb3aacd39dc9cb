"""Parking under kills and crashes: nothing waits for nothing, all in order, none lost (ADR 14)."""

from dataclasses import replace

import pytest

from coord_core.replica import records as bounds
from coord_core.testing.drills import MEMBERSHIP, PARKING
from coord_core.testing.run import run


@pytest.fixture(params=["in memory", "from the disk"])
def _tail(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the seeds read nothing from memory that is stored."""
    if request.param == "from the disk":
        monkeypatch.setattr(bounds, "TAIL_RECORDS_MAX", 0)


@pytest.mark.usefixtures("_tail")
@pytest.mark.parametrize("first", range(1, 17, 4))
def test_every_task_runs_expires_or_is_revoked_whoever_dies(first: int) -> None:
    """Between being parked, called, handed out, sent on, committed and run; and each key's line moves in order."""
    parked = called = 0
    for seed in range(first, first + 4):
        report = run(seed, mix=PARKING)
        parked += report.parking.get("parked", 0)
        called += report.parking.get("called", 0)
    assert min(parked, called) > 20, "too little for a verdict"


@pytest.mark.parametrize("seed", range(1, 5))
def test_nodes_that_come_and_go_have_all_messages(seed: int) -> None:
    """A new one has nothing and gets everything; a lost disk is replaced."""
    assert run(seed, mix=replace(MEMBERSHIP, habits=PARKING.habits)).parking["ran"] > 0
