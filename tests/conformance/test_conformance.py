"""The core does what etcd/raft's scenarios tell, and what ours tell; and the runner that says so can also say no."""

from pathlib import Path

import pytest

from tests.conformance.__main__ import main
from tests.conformance.datadriven import parse
from tests.conformance.runner import KINDS, run_file, run_folder

HERE = Path(__file__).resolve().parent
OWN = HERE / "own"
#: Scenario data that lies beside a checkout, where there is any; it is not part of this project.
SHARED = HERE.parent.parent.parent / "shared" / "conformance" / "etcd-raft"


def _scenarios(folder: Path) -> list[Path]:
    return [path for kind in KINDS for path in sorted((folder / kind).glob("*.txt"))]


@pytest.mark.parametrize("path", _scenarios(OWN), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_core_does_what_our_scenarios_tell(path: Path):
    """Stories that the shared scenarios do not tell, in the same form."""
    assert run_file(path, KINDS[path.parent.name]).difference == ""


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no scenario data of etcd/raft at {SHARED}")
def test_core_does_what_the_scenarios_of_etcd_raft_tell():
    """Quorum and membership arithmetic exactly, interactions by what is visible outside."""
    outcomes = list(run_folder(SHARED))
    assert outcomes
    assert [str(outcome) for outcome in outcomes if outcome.difference] == []


def test_runner_names_the_first_difference_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A runner that cannot say no says nothing."""
    (tmp_path / "quorum").mkdir()
    (tmp_path / "quorum" / "right.txt").write_text("vote cfg=(1,2,3) votes=(y,y,_)\n----\nVoteWon\n")
    (tmp_path / "quorum" / "wrong.txt").write_text("# comment\nvote cfg=(1,2,3) votes=(y,_,_)\n----\nVoteWon\n")
    assert main([str(tmp_path)]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "pass quorum/right.txt"
    assert shown[1] == "FAIL quorum/wrong.txt: line 2, vote: expected 'VoteWon', got 'VotePending'"


_WORDS = ("Commit:7", 'EntryNormal "missed"', "MsgTimeoutNow", "2->1 MsgAppResp", "State:StateCandidate")


@pytest.mark.parametrize("wrong", _WORDS)
def test_runner_notices_one_wrong_word_anywhere(tmp_path: Path, wrong: str):
    """Messages, log, commit and roles are all compared: a scenario with one of them altered fails."""
    text = (OWN / "interaction" / "handover.txt").read_text()
    (tmp_path / "altered.txt").write_text(text.replace(wrong, "altered", 1))
    assert "altered" in run_file(tmp_path / "altered.txt", KINDS["interaction"]).difference


def test_runner_fails_what_it_does_not_model(tmp_path: Path):
    """Passing over a command in silence would pass the file."""
    (tmp_path / "odd.txt").write_text("add-nodes 1 voters=(1) index=2\n----\nok\n\nlevitate 1\n----\nok\n")
    assert "not modelled" in run_file(tmp_path / "odd.txt", KINDS["interaction"]).difference


def test_runner_without_scenarios_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path)]) == 2
    assert "no scenarios" in capsys.readouterr().err


def test_parser_reads_arguments_input_and_expected_text():
    """The form: words, options with one or several values, input lines, comments, and output with blank lines between dashes."""
    text = "# note\nadd 2 voters=(1, 2) x=y\nv1\n----\none\ntwo\n\nsay\n----\n----\na\n\nb\n----\n----\n"
    add, say = parse(text)
    assert (add.command, add.arguments) == ("add", [("2", None), ("voters", ["1", "2"]), ("x", ["y"])])
    assert (add.input, add.expected) == ("v1", ["one", "two"])
    assert say.expected == ["a", "", "b"]
