"""Topics under crashes at every boundary: each message once, in its place, on every node, whichever way it came there."""

from dataclasses import replace

import pytest

from coord_core.replica import records as bounds
from coord_core.testing.drills import MEMBERSHIP, TOPICS
from coord_core.testing.run import run


@pytest.fixture(params=["in memory", "from the disk"])
def _tail(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the seeds read nothing from memory that is stored."""
    if request.param == "from the disk":
        monkeypatch.setattr(bounds, "TAIL_RECORDS_MAX", 0)


@pytest.mark.usefixtures("_tail")
@pytest.mark.parametrize("first", range(1, 9, 4))
def test_messages_are_there_once_and_in_their_places(first: int) -> None:
    """Power is lost with records in memory, in a write, on the disk and not acknowledged, and while a snapshot brings them."""
    for seed in range(first, first + 4):
        report = run(seed, mix=TOPICS)
        assert report.messages["acknowledged"] > 20, report
        assert report.messages["fetched"] > 20, report


@pytest.mark.parametrize("seed", range(1, 7))
def test_nodes_that_come_and_go_have_all_messages(seed: int) -> None:
    """A new one has nothing and gets everything; a lost disk is replaced."""
    report = run(seed, mix=replace(MEMBERSHIP, habits=TOPICS.habits))
    assert report.messages["kept"] >= 0
    assert report.messages["acknowledged"] > 20, report
