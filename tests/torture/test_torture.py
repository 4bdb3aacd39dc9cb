"""The torture itself, for a few seconds: that it runs, hurts, and ends.  `make torture` is the real thing."""

from pathlib import Path

import pytest

from tests.torture.run import Plan, run
from tests.torture.summary import summary

pytestmark = pytest.mark.xdist_group("cluster")


@pytest.mark.parametrize("network", ["auto", "proxy"])
def test_a_few_seconds_of_torture_find_nothing(tmp_path: Path, network: str):
    said: list[str] = []
    outcome = run(Plan(8, seed=1, nodes=3, clients=6, processes=3, network=network), tmp_path / "torture", said.append)
    text = "\n".join([*said, summary(outcome)])
    assert not outcome.violations, text
    assert outcome.faults, text
    assert len(outcome.evidence.operations) > 50, text
    assert len([name for name in outcome.evidence.proved if name]) >= 6, text
