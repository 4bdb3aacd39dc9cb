"""The command line without a cluster: help, usage, exit codes, one line an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from coord_core import errors
from coord_core.cli import main
from coord_core.cli.exits import Exit, exit_of
from coord_core.cli.main import NOUNS, coord, run
from coord_core.cli.server import KEYS, SECRETS
from coord_core.config import OPTIONS

#: Nobody listens here: port 1 needs privileges that no test server has.
NOBODY = "coord://127.0.0.1:1"


def test_coord_alone_shows_the_help_as_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == Exit.USAGE
    assert "\nCommands:\n" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["lock", "/a", "echo", "--hello"], ["dev", "echo", "--hello"]])
def test_option_of_the_command_before_the_dashes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == Exit.USAGE
    assert "Options of COMMAND come after `--`" in capsys.readouterr().err


def test_flag_out_of_bounds_says_so_without_talk_of_urls(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["lock", "/a", "--ttl", "0", "--", "true"]) == Exit.USAGE
    shown = capfd.readouterr().err
    assert "must be from 500ms to 24h" in shown
    assert "looks like" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "coords://h", "--cacert", "nope.pem", "status"],
        ["--token-file", "nope.pem", "status"],
        ["server", "--name", "n", "--data-dir", "d", "--init", "--token-file", "nope.pem"],
    ],
)
def test_file_that_is_not_there_is_named(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) in (Exit.USAGE, Exit.AUTH)
    shown = capfd.readouterr().err
    assert "nope.pem" in shown
    assert "Errno" not in shown


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_every_command_has_help_with_an_example(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([noun, "--help"]) == Exit.OK
    assert "Example" in capsys.readouterr().out


HELP_AND_COUNT = """
import sys
from coord_core.cli.main import run
run(["--help"])
heavy = {"asyncio", "msgspec", "rich", "sqlalchemy", "uvloop", "coord_core.client", "coord_core.server"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""


def test_help_loads_none_of_the_heavy_rooms() -> None:
    """`coord --help` and shell completion must be quick."""
    found = subprocess.run([sys.executable, "-c", HELP_AND_COUNT], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["lock", "/a"],
        ["lock", "/a", "--wait", "1s", "--no-wait", "--", "true"],
        ["--timeout", "5 parsecs", "status"],
        ["--url", "http://127.0.0.1", "status"],
        ["--url", "coord://h", "--cacert", "ca.pem", "status"],
        ["--url", "coord://h?ttl=1ms", "status"],
        ["dev", "--nodes", "20"],
        ["server"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == Exit.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(line.startswith("coord: ") for line in shown.err.splitlines())
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("arguments", [["status"], ["lock", "/a", "--no-wait", "--", "true"]])
def test_unreachable_cluster_is_exit_code_3_in_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """capfd: `lock` forks, and what its children say counts too."""
    found = subprocess.run(
        [sys.executable, "-m", "coord_core.cli.main", "-q", "--url", NOBODY, "--timeout", "500ms", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == Exit.UNAVAILABLE, found.stderr
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1
    assert found.stderr.startswith("coord: ")


def test_missing_token_file_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--token-file", "/nonexistent/token", "status"]) == Exit.AUTH
    assert "/nonexistent/token" in capsys.readouterr().err


def test_output_option_is_accepted_after_the_noun_too(capsys: pytest.CaptureFixture[str]) -> None:
    run(["-o", "json", "config", "check", "--name", "n1", "--data-dir", "/tmp/x"])
    before = capsys.readouterr().out
    run(["config", "check", "--name", "n1", "--data-dir", "/tmp/x", "-o", "json"])
    assert capsys.readouterr().out == before != ""


def test_traceback_is_shown_under_vv_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(coord, "main", broken)
    assert run(["status"]) == Exit.FAILED
    assert capsys.readouterr().err == (
        "coord: unexpected RuntimeError: a defect; run it again with -vv for the traceback and please report it\n"
    )
    run(["-vv", "status"])
    assert "Traceback" in capsys.readouterr().err
    run(["lock", "/a", "--", "x", "-vv"])
    assert "Traceback" not in capsys.readouterr().err


def test_every_error_of_the_package_has_an_exit_code_that_scripts_can_tell() -> None:
    assert exit_of(errors.Unavailable("x")) == Exit.UNAVAILABLE
    assert exit_of(errors.NotLeader("x")) == Exit.UNAVAILABLE
    assert exit_of(errors.Busy("x")) == Exit.FAILED
    assert exit_of(errors.AuthenticationFailed("x")) == Exit.AUTH
    assert exit_of(errors.InvalidUrl("x")) == Exit.USAGE
    assert exit_of(errors.SessionExpired("x")) == Exit.LEASE_LOST
    assert exit_of(errors.WrongType("x")) == Exit.CONFLICT
    assert exit_of(errors.StorageFailed("x")) == Exit.FAILED
    assert exit_of(errors.StorageCorrupt("x")) == exit_of(errors.NodeSuspect("x")) == Exit.UNUSABLE_DATA


def test_every_key_of_the_configuration_is_a_flag_or_a_secret() -> None:
    """The flags are written down by hand so that `coord --help` need not load the configuration."""
    assert set(KEYS) | SECRETS == set(OPTIONS)


def test_config_show_names_where_each_value_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setenv("COORD_RAFT__HEARTBEAT", "60ms")
    monkeypatch.setenv("COORD_RAFT__TICK", "20ms")
    code = run(["config", "show", "--origin", "--name", "n1", "--data-dir", "/tmp/x", "-o", "plain"])
    shown = capsys.readouterr()
    assert code == Exit.OK, shown.err
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert ["name", "n1", "--name"] in rows
    assert ["raft.heartbeat", "60ms", "COORD_RAFT__HEARTBEAT"] in rows
    assert ["listen", "127.0.0.1:7400", "default"] in rows


def test_config_check_reports_all_faults_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", "--listen", "0.0.0.0:1"]) == Exit.USAGE
    assert len(capsys.readouterr().err.splitlines()) > 2


def test_config_check_opens_the_files_that_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would otherwise come up when the node is started, on another day."""
    words = ["config", "check", "--name", "n1", "--data-dir", str(tmp_path / "n1")]
    (tmp_path / "token").touch()
    named = {name: str(tmp_path / name) for name in ("token", "cert", "key", "ca")}
    words += ["--token-file", named["token"], "--tls.cert", named["cert"], "--tls.key", named["key"], "--tls.ca", named["ca"]]
    assert run(words) == Exit.USAGE
    assert capsys.readouterr().err.splitlines() == [
        f"coord: configuration: token_file {named['token']} is empty",
        *(
            f"coord: configuration: tls.{name} {named[name]} cannot be read: No such file or directory"
            for name in ("cert", "key", "ca")
        ),
    ]
    (tmp_path / "token").write_text("s3cret")
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_text("nothing")
    assert run(words) == Exit.USAGE
    said = capsys.readouterr().err
    assert f"tls.cert {named['cert']} and tls.key {named['key']}: no certificate and its key without a password (PEM)" in said
    assert f"tls.ca {named['ca']} is no file of certificates (PEM)" in said


def test_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.coord, "main", interrupted)
    assert run(["status"]) == Exit.INTERRUPTED
