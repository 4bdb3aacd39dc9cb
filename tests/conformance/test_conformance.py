"""The core does what etcd/raft's scenarios tell, and what ours tell; and the runner that says so can also say no."""

from pathlib import Path

import pytest

from tests.conformance.__main__ import main
from tests.conformance.datadriven import Malformed, parse
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


_THREADED = (
    "2->2 MsgAppResp",
    "AppendThread->4 MsgStorageAppendResp",
    "ApplyThread->2",
    "Responses:[",
    "no append work",
    "Commit:7 Vote:2",
)


@pytest.mark.parametrize("wrong", _THREADED)
def test_runner_notices_one_wrong_word_about_storage_threads(tmp_path: Path, wrong: str):
    """What a node says to its own threads is compared like what it says to others."""
    text = (OWN / "interaction" / "storage_threads.txt").read_text()
    assert wrong in text
    (tmp_path / "altered.txt").write_text(text.replace(wrong, "altered", 1))
    assert "altered" in run_file(tmp_path / "altered.txt", KINDS["interaction"]).difference


def test_runner_fails_what_it_does_not_model(tmp_path: Path):
    """Passing over a command or an option in silence would pass the file."""
    (tmp_path / "odd.txt").write_text("add-nodes 1 voters=(1) index=2\n----\nok\n\nlevitate 1\n----\nok\n")
    assert "not modelled: the command levitate" in run_file(tmp_path / "odd.txt", KINDS["interaction"]).difference
    (tmp_path / "odder.txt").write_text("add-nodes 1 voters=(1) index=2 antigravity=true\n----\nok\n")
    assert "not modelled: the option antigravity" in run_file(tmp_path / "odder.txt", KINDS["interaction"]).difference


_NODES = "add-nodes 2 voters=(1,2) index=2\n----\nok\n\n"
_UNREADABLE = {
    "without dashes": ("quorum", "vote cfg=(1,2) votes=(y,y)\nVoteWon\n", "line 1: malformed: no line of dashes"),
    "with an open parenthesis": ("quorum", "vote cfg=(1,2 votes=(y,y)\n----\nVoteWon\n", "a parenthesis is not closed"),
    "with a value that has no name": ("quorum", "vote =(1,2)\n----\nVoteWon\n", "an argument without a name"),
    "with open blank-line dashes": ("quorum", "vote cfg=(1) votes=(y)\n----\n----\nVoteWon\n", "do not close"),
    "with an unknown vote": ("quorum", "vote cfg=(1) votes=(perhaps)\n----\nVoteWon\n", "unknown vote: perhaps"),
    "with a word for a number": ("quorum", "vote cfg=(one) votes=(y)\n----\nVoteWon\n", "not a number: 'one'"),
    "with nothing in it": ("quorum", "# nothing\n\n", "there is no directive"),
    "with input where none can be": ("confchange", "leave-joint\nv1\n----\nok\n", "takes no input"),
    "with an unknown node": ("interaction", _NODES + "campaign 3\n----\nok\n", "there is no node 3"),
    "without a node": ("interaction", _NODES + "campaign\n----\nok\n", "expected a node"),
    "with a word too many": ("interaction", _NODES + "campaign 1 2\n----\nok\n", "expected a node"),
    "with neither true nor false": ("interaction", "add-nodes 1 prevote=maybe\n----\nok\n", "neither true nor false"),
    "without a count": ("interaction", "add-nodes voters=(1) index=2\n----\nok\n", "how many nodes"),
    "with an unknown kind": ("interaction", _NODES + "deliver-msgs 1 type=MsgGossip\n----\nok\n", "unknown message type"),
    "that delivers and drops": ("interaction", _NODES + "deliver-msgs 1 drop=1\n----\nok\n", "both delivered and dropped"),
    "with a change among commands": ("interaction", _NODES + "raft-state\npropose-conf-change 1\n----\nok\n", "stands alone"),
    "that compacts what is not there": ("interaction", _NODES + "compact 1 9\n----\nok\n", "does not reach 9"),
    "that never draws a timeout": ("interaction", _NODES + "set-randomized-election-timeout 1\n----\nok\n", "timeout=TICKS"),
}


@pytest.mark.parametrize("case", _UNREADABLE)
def test_runner_fails_a_file(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]):
    """One line that says what is wrong and where; never a traceback, and never a pass."""
    kind, text, wrong = _UNREADABLE[case]
    (tmp_path / kind).mkdir()
    (tmp_path / kind / "odd.txt").write_text(text)
    assert main([str(tmp_path)]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1
    assert shown[0].startswith(f"FAIL {kind}/odd.txt: ")
    assert wrong in shown[0]


def test_runner_fails_a_file_that_is_no_text(tmp_path: Path):
    (tmp_path / "noise.txt").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in run_file(tmp_path / "noise.txt", KINDS["quorum"]).difference


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


def test_parser_reads_wrapped_lines_inner_parentheses_and_subtests():
    """What the form has besides, as few files use it."""
    (found,) = parse("subtest first\n\nadd \\\n  a=(f(1, 2),3) b= c=()\n----\nok\n")
    assert found.arguments == [("a", ["f(1, 2)", "3"]), ("b", [""]), ("c", [""])]
    assert (found.values("b"), found.values("c"), found.has("c")) == ([], [], True)


def test_parser_names_the_line_that_it_cannot_read():
    with pytest.raises(Malformed) as malformed:
        list(parse("one\n----\nok\n\ntwo a=(\n----\nok\n"))
    assert malformed.value.line == 5
