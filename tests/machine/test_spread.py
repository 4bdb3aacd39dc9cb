"""A table that grows a part at a time answers as a dict would."""

from random import Random

import pytest

from coord_core.machine import Machine, claims
from coord_core.machine.invariants import check
from coord_core.machine.spread import Spread, spread
from coord_core.types import LogIndex
from tests.machine.test_snapshot import restored, written
from tests.machine.traffic import Traffic


@pytest.mark.parametrize("seed", range(5))
def test_it_does_what_a_dict_does(seed: int) -> None:
    """Except for the order."""
    draw = Random(seed)
    plain = {draw.randrange(2_000): draw.random() for _ in range(500)}
    table = Spread(plain)
    for _ in range(2_000):
        key = draw.randrange(2_000)
        if draw.random() < 0.5:
            plain[key] = table[key] = draw.random()
        elif key in plain:
            del plain[key], table[key]
        assert (key in table) == (key in plain)
        assert table.get(key) == plain.get(key)
        assert len(table) == len(plain)
    assert dict(table) == plain
    while table:
        key, value = table.popitem()
        assert plain.pop(key) == value
    assert not plain
    for gone in (lambda: table.popitem(), lambda: table[1]):
        with pytest.raises(KeyError):
            gone()


def test_a_table_is_spread_once() -> None:
    """It may come to the same number of items again and again."""
    table = spread({1: 2})
    assert isinstance(table, Spread)
    assert spread(table) is table


@pytest.mark.parametrize("seed", range(10))
def test_holders_of_much_are_served_as_all_others(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines, one of which takes two claims for many: the same answers, states and snapshots."""
    traffic, machine, other = Traffic(seed), Machine(), Machine()
    for index in range(1, 500):
        time_ms, command = traffic.next()
        applied = machine.apply(LogIndex(index), time_ms, command)
        with monkeypatch.context() as patched:
            patched.setattr(claims, "SPREAD_AT", 2)
            assert other.apply(LogIndex(index), time_ms, command) == applied
        traffic.hear(command, applied)
        check(other)
    assert machine.digest() == other.digest() == restored(written(other)).digest()
