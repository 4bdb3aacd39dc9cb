"""`make sim`: what it prints, and how it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from coord_core.testing import __main__ as command
from coord_core.testing.mix import draw_mix
from coord_core.testing.run import Failure, Report
from coord_core.testing.simulator import Simulator, Violation

ROOT = Path(__file__).resolve().parents[2]


def fails_in_seven(seed: int, **_: object) -> Report:
    """A run that is over at once; seed 7 breaks something."""
    mix = draw_mix(Simulator(seed).stream("mix"))
    if seed == 7:
        raise Failure(seed, mix, Violation("two leaders in term 3"), ["the last event"])
    return Report(seed, mix, "", 1, 20.0, 10, 1, 5, 0, 0, 0, 0, 0, {}, {})


@pytest.mark.parametrize("seeds", ["1", "20"])
def test_failed_seed_is_printed_with_its_replay_command(seeds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed or many: the cause, the last events, the command, and an exit code that a build sees."""
    monkeypatch.setattr(command, "run", fails_in_seven)
    result = CliRunner().invoke(command.main, ["--seed", "7" if seeds == "1" else "1", "--seeds", seeds])
    assert result.exit_code == 1
    for expected in ("the last event", "seed 7: Violation: two leaders in term 3", "replay: make sim SEED=7"):
        assert expected in result.output


def test_many_seeds_end_with_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run", fails_in_seven)
    result = CliRunner().invoke(command.main, ["--seed", "10", "--seeds", "30"])
    assert result.exit_code == 0
    assert "30 seeds from 10" in result.output
    assert "0 failed" in result.output


def test_interrupted_run_says_how_far_it_came_and_leaves_nothing_behind() -> None:
    """Ctrl-C goes to the whole group, as a terminal sends it; no traceback, no process that stays."""
    arguments = [sys.executable, "-m", "coord_core.testing", "--seeds", "100000", "--verbose"]
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has it ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("seed 1: ")
        os.killpg(process.pid, signal.SIGINT)
        output = process.stdout.read()
    assert process.returncode == 130
    assert "interrupted: " in output
    assert "Traceback" not in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
