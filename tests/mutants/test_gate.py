"""The gate must not take for caught what is not: a mutant of nothing, or one that is no running program."""

from pathlib import Path

import pytest

from tests.mutants.catching import Verdict, judge, seeds_of
from tests.mutants.table import Edit, Mutant
from tests.mutants.trees import Misplaced, edited


def example(*replacements: tuple[str, str]) -> Mutant:
    return Mutant(1, "example", "", tuple(Edit("log.py", old, new) for old, new in replacements), ("sim 1..2",))


@pytest.mark.parametrize(("old", "times"), [("index", 0), ("term", 2)])
def test_old_text_that_is_not_there_exactly_once_is_an_error(tmp_path: Path, old: str, times: int) -> None:
    """The sources have moved on: the table must follow, loudly."""
    (tmp_path / "log.py").write_text("term = vote\nterm += 1\n")
    with pytest.raises(Misplaced, match=f"{times} times in log.py, not once"):
        edited(example(("vote", "0"), (old, "new")), tmp_path)


def test_edits_of_one_file_add_up(tmp_path: Path) -> None:
    """A bug may have two places in it.  The file itself stays as it is."""
    (tmp_path / "log.py").write_text("term = vote\nterm += 1\n")
    assert edited(example(("vote", "0"), ("+= 1", "+= 2")), tmp_path) == {"log.py": "term = 0\nterm += 2\n"}
    assert (tmp_path / "log.py").read_text() == "term = vote\nterm += 1\n"


@pytest.mark.parametrize(
    ("code", "output", "verdict"),
    [
        (0, "1 passed", Verdict.PASSED),
        (1, "FAILED tests/a.py::test_a - assert 2 == 1", Verdict.FAILED),
        (1, "FAILED seed 7 - Violation: n1 voted twice in term 3", Verdict.FAILED),
        (1, "FAILED tests/a.py::test_a - NameError: name 'x' is not defined", Verdict.BROKEN),
        (1, "FAILED seed 1 - AttributeError: 'NoneType' object has no attribute 'term'", Verdict.BROKEN),
        (1, "FAILED tests/a.py::test_a - Failed: Timeout (>120.0s) from pytest-timeout.", Verdict.BROKEN),
        (1, "Traceback (most recent call last):", Verdict.BROKEN),
        (2, "ERROR tests/a.py - SyntaxError: invalid syntax", Verdict.BROKEN),
        (4, "ERROR: not found: tests/a.py::test_a", Verdict.BROKEN),
        (-9, "", Verdict.BROKEN),
    ],
)
def test_only_a_failing_test_has_caught_something(code: int, output: str, verdict: Verdict) -> None:
    """A mutant that does not even start would pass for caught by anything."""
    assert judge(code, output)[0] is verdict


def test_seed_range_is_no_node_id() -> None:
    """And the other way round."""
    assert seeds_of("sim 1..40") == (1, 40, "")
    assert seeds_of("sim small appends 3..9") == (3, 9, "small appends")
    assert seeds_of("tests/raft/test_log.py::test_sim") is None
