"""The judge finds what it is there to find: each of these histories has one thing wrong, and a sound one has nothing."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.torture.actor import ONE_LOCK
from tests.torture.judge import Evidence, judge_evidence
from tests.torture.records import Believed, Called, Record, Recorder, Returned

REGISTER, LOCK, COUNTER = "/registers/0/0", "/locks/0/0", "/counters/a"


class Script:
    """A history written by hand: every call and return takes the next moment."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._at = 0
        self._number = 0

    def call(self, client: str, key: str, action: str, *, value: str = "", expected: int | None = None, token: int = 0) -> int:
        self._number += 1
        self.records.append(Called(self._now(), self._number, client, key, action, value, expected, token))
        return self._number

    def returned(self, number: int, result: str, *, version: int = 0, value: str = "", token: int = 0) -> None:
        self.records.append(Returned(self._now(), number, result, version, value, token))

    def wrote(self, value: str, version: int, *, key: str = REGISTER, action: str = "set", expected: int | None = None) -> None:
        self.returned(self.call("a", key, action, value=value, expected=expected), "written", version=version)

    def saw(self, value: str, version: int, *, key: str = REGISTER) -> None:
        self.returned(self.call("b", key, "get"), "seen", version=version, value=value)

    def counted(self, count: int, version: int) -> None:
        self.wrote(str(count), version, key=COUNTER, action="add", expected=version - 1)

    def held(self, client: str, token: int, *, key: str = LOCK, released: bool = True) -> None:
        self.returned(self.call(client, key, "acquire", value=f"{client}/{token}"), "holds", token=token)
        self.believed(client, token, key=key)
        if released:
            self.returned(self.call(client, key, "release", token=token), "released")

    def believed(self, client: str, token: int, *, key: str = LOCK, began: int | None = None, until: int | None = None) -> None:
        start = self._now() if began is None else began
        end = self._now() if until is None else until
        self.records.append(Believed(end, client, key, token, start, end))

    def _now(self) -> int:
        self._at += 1
        return self._at


@pytest.fixture
def script() -> Script:
    return Script()


def violations(script: Script, tmp_path: Path) -> list[str]:
    write(tmp_path / "clients.jsonl", script.records)
    verdicts = judge_evidence(Evidence.of(tmp_path))
    assert verdicts.undecided == []
    return verdicts.violations


def write(path: Path, records: Iterable[Record]) -> None:
    recorder = Recorder(path)
    for record in records:
        recorder.write(record)


def test_a_sound_history_has_nothing_wrong(script: Script, tmp_path: Path):
    """Otherwise the others would show nothing.  One write of unknown outcome was seen, another was not."""
    script.wrote("one", 1)
    script.returned(script.call("c", REGISTER, "set", value="two"), "unknown")
    script.call("d", REGISTER, "set", value="three")
    script.saw("two", 2)
    script.held("a", 5)
    script.held("b", 6)
    script.counted(1, 7)
    script.saw("1", 7, key=COUNTER)
    assert violations(script, tmp_path) == []


def test_a_lost_write_is_found(script: Script, tmp_path: Path):
    """Acknowledged, and then the old value is there."""
    script.wrote("one", 1)
    script.wrote("two", 2)
    script.saw("one", 1)
    assert "not linearizable" in violations(script, tmp_path)[0]


def test_a_write_that_was_applied_twice_is_found(script: Script, tmp_path: Path):
    """A request sent again after its first application, with another write between."""
    script.wrote("one", 1)
    script.wrote("two", 2)
    script.saw("one", 3)
    assert "not linearizable" in violations(script, tmp_path)[0]


def test_a_refused_write_that_took_effect_is_found(script: Script, tmp_path: Path):
    script.returned(script.call("a", REGISTER, "set", value="one"), "denied", value="Unavailable")
    script.saw("one", 1)
    assert any("took effect" in one for one in violations(script, tmp_path))


def test_a_lock_granted_to_two_is_found(script: Script, tmp_path: Path):
    """The first was not released, its session did not end before the second: its belief goes on."""
    script.held("a", 5, released=False)
    script.believed("a", 5, began=2, until=50)
    script.held("b", 6, released=False)
    assert any("two believed" in one for one in violations(script, tmp_path))


def test_a_token_that_falls_is_found_also_on_the_lock_that_is_never_ordered(script: Script, tmp_path: Path):
    script.held("a", 6, key=ONE_LOCK)
    script.held("b", 5, key=ONE_LOCK)
    assert any("a token does not rise" in one for one in violations(script, tmp_path))


def test_a_grant_while_the_holder_is_told_that_it_still_held_is_found(script: Script, tmp_path: Path):
    """A release that succeeds proves that nobody else was granted the lock before it."""
    first = script.call("a", LOCK, "acquire", value="a/5")
    script.returned(first, "holds", token=5)
    script.held("b", 6, released=False)
    script.returned(script.call("a", LOCK, "release", token=5), "released")
    assert any("not linearizable" in one for one in violations(script, tmp_path))


@pytest.mark.parametrize(("seen", "what"), [(1, "2 were acknowledged"), (3, "it counted to 3")])
def test_a_count_that_was_lost_or_made_twice_is_found(script: Script, tmp_path: Path, seen: int, what: str):
    script.counted(1, 1)
    script.counted(2, 2)
    script.saw(str(seen), seen, key=COUNTER)
    assert any(what in one for one in violations(script, tmp_path))


def test_an_unknown_count_may_have_been_made_or_not(script: Script, tmp_path: Path):
    script.counted(1, 1)
    script.returned(script.call("b", COUNTER, "add", value="2", expected=1), "unknown")
    script.saw("2", 2, key=COUNTER)
    assert violations(script, tmp_path) == []


def test_an_error_that_no_client_should_see_is_found(script: Script, tmp_path: Path):
    """The workload asks for nothing that could be refused for its own sake."""
    script.returned(script.call("a", REGISTER, "set", value="one"), "denied", value="StaleRequest")
    assert any("nobody should get" in one for one in violations(script, tmp_path))


def test_half_a_line_of_a_killed_client_is_left_out(script: Script, tmp_path: Path):
    script.wrote("one", 1)
    write(tmp_path / "clients.jsonl", script.records)
    with (tmp_path / "clients.jsonl").open("ab") as file:
        file.write(b'{"is":"call","at":9,"num')
    assert len(Evidence.of(tmp_path).operations) == 1
