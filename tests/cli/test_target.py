"""Durations, and the URL that the global options make."""

from pathlib import Path

import pytest

from coord_core.cli.durations import parse_duration, show_duration
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.settings import Settings
from coord_core.cli.target import DEFAULT_URL, default_hint, format_url, target_of
from coord_core.client.url import parse_url
from coord_core.errors import InvalidUrl


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("15s", 15), ("2m", 120), ("1h30m", 5400), ("7", 7), ("0.25", 0.25), (" 1S ", 1)]
)
def test_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 parsecs", "-1s", "1s2", "1,5s", "nan", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_duration_is_shown_in_the_units_that_matter() -> None:
    assert [show_duration(s) for s in (0.42, 3.0, 12.3, 185, 7800)] == ["0.4 s", "3 s", "12 s", "3 m 5 s", "2 h 10 m"]


@pytest.mark.parametrize(
    "text",
    [
        "coord://h1:7401,h2:7402/ns/inner?ttl=5s",
        "coord://se%2Fcret%40@[::1]:7400",
        "coord+embedded:///var/my%20app%3F?namespace=/a/b%26&ttl=5s",
        "coords://h/n%20s?ca=/etc/c%20a.pem&cert=a.pem&key=b.pem&timeout=2m",
    ],
)
def test_written_url_reads_as_the_same(text: str) -> None:
    assert parse_url(format_url(parse_url(text))) == parse_url(text)


def test_options_win_over_the_url(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" s3cret/?\n")
    settings = Settings(
        url="coords://old@h/ns?ttl=5s", namespace="other", token_file=str(tmp_path / "token"), cacert="ca.pem", timeout=3
    )
    target = target_of(settings, ttl=7)
    assert target.url == parse_url("coords://s3cret%2F%3F@h/other?ttl=7s&ca=ca.pem&timeout=3s")
    assert parse_url(target.text) == target.url


def test_without_url_the_local_node_is_meant() -> None:
    assert target_of(Settings()).url.addresses == parse_url(DEFAULT_URL).addresses


def test_option_is_held_to_the_rules_of_the_url() -> None:
    with pytest.raises(InvalidUrl):
        target_of(Settings(namespace="a//b"))
    with pytest.raises(InvalidUrl):
        target_of(Settings(), ttl=0.001)


def test_empty_token_file_is_refused(tmp_path: Path) -> None:
    """An empty secret must not turn into none."""
    (tmp_path / "token").write_text("\n")
    with pytest.raises(CommandFailed) as refused:
        target_of(Settings(token_file=str(tmp_path / "token")))
    assert refused.value.code == Exit.AUTH


def test_token_reaches_a_command_only_where_its_environment_had_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COORD_URL", raising=False)
    assert "s3cret" not in target_of(Settings(url="coord://s3cret@h")).environment()["COORD_URL"]
    monkeypatch.setenv("COORD_URL", "coord://s3cret@h")
    assert "s3cret" in target_of(Settings(url="coord://s3cret@h")).environment()["COORD_URL"]
    (tmp_path / "token").write_text("0ther")
    environment = target_of(Settings(url="coord://s3cret@h", token_file=str(tmp_path / "token"))).environment()
    assert "@" not in environment["COORD_URL"]
    assert environment["COORD_TOKEN_FILE"] == str(tmp_path / "token")


def test_who_named_no_cluster_is_told_which_one_was_asked() -> None:
    """And how to have one to try things on; who named his own needs no other."""
    assert "coord://127.0.0.1:7400 was asked: `coord dev`" in default_hint(Settings())
    assert default_hint(Settings(url="coord://h:1")) == ""
