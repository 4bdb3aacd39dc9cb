"""Cluster time and its deadlines (spec: resources, Time)."""

from functools import partial
from random import Random

import pytest

from coord_core.machine import Machine
from coord_core.machine import timers as timers_module
from coord_core.machine.bounds import TIMERS_FIRED_MAX
from coord_core.machine.timers import Timer, Timers
from coord_core.protocol.commands import Call, OpenSession, Tick
from coord_core.protocol.operations import ValueSet
from coord_core.types import AttachmentId, LogIndex, RequestNumber, SessionId
from tests.machine.driver import OWNER, Log


@pytest.fixture
def timers() -> Timers:
    return Timers()


def test_cluster_time_never_falls() -> None:
    """A new leader's clock may stand behind the old one's last stamp: apply clamps it."""
    log = Log()
    log.time_ms = 5_000
    log.apply(Tick())
    log.time_ms = 4_000
    log.apply(Tick())
    assert log.machine.time_ms == 5_000
    log.time_ms = 5_001
    log.apply(Tick())
    assert log.machine.time_ms == 5_001


def test_deadlines_count_from_the_clamped_time() -> None:
    """A wait that begins under a stamp from the past lasts as long as it says."""
    log = Log()
    holder, waiter = log.open(), log.open()
    log.time_ms = 5_000
    holder.hold()
    log.time_ms = 1_000
    waiter.acquire(wait_ms=100)
    assert log.machine.next_deadline_ms() == 5_100


def test_entries_come_in_order_of_the_log() -> None:
    """An entry applied twice, or an old one, is a broken invariant: the node stops."""
    log = Log()
    log.apply(Tick())
    with pytest.raises(AssertionError):
        log.machine.apply(log.index, 0, Tick())
    with pytest.raises(AssertionError):
        log.machine.apply(LogIndex(log.index - 1), 0, Tick())


def test_waits_end_in_order_of_deadline_and_then_of_arrival() -> None:
    """All replicas give the answers in the same order."""
    log = Log()
    holder, waiter = log.open(), log.open()
    holder.hold()
    for wait_ms in (50, 30, 50, 10, 30):
        waiter.acquire(wait_ms=wait_ms)
    assert [request for _, request, _ in log.wait(50).replies] == [4, 2, 5, 1, 3]


def test_one_entry_fires_at_most_1000_timers_and_the_next_goes_on() -> None:
    """No entry takes long; the deadline that is still past tells the leader to tick again."""
    machine = Machine()
    count = 2 * TIMERS_FIRED_MAX + 500
    machine.apply(LogIndex(1), 1_000, OpenSession(10_000, OWNER))
    for number in range(1, count + 1):
        operation = ValueSet(f"/v{number}", b"x", ttl_ms=10)
        call = Call(SessionId(1), AttachmentId(1), RequestNumber(number), RequestNumber(number - 1), (), operation)
        machine.apply(LogIndex(1 + number), 1_000, call)
    left: list[int] = []
    for _ in range(4):
        assert machine.next_deadline_ms() == (None if left and left[-1] == 0 else 1_010)
        machine.apply(LogIndex(2 + count + len(left)), 5_000, Tick())
        left.append(len(machine._timers))
    assert left == [1_500, 500, 0, 0]


def test_fired_in_order_of_deadline_then_id(timers: Timers) -> None:
    """The order in which they were set decides between equal deadlines."""
    fired: list[str] = []
    for name, deadline in (("c", 20), ("a", 10), ("d", 20), ("b", 10)):
        timers.set(deadline, lambda name=name: fired.append(name))  # type: ignore[misc]
    assert timers.fire(20) == 4
    assert fired == ["a", "b", "c", "d"]


def test_timer_is_due_at_its_deadline_and_not_before(timers: Timers) -> None:
    """A deadline is the first moment at which it is over."""
    fired: list[int] = []
    timers.set(10, lambda: fired.append(1))
    assert (timers.fire(9), timers.fire(10), timers.fire(11)) == (0, 1, 0)
    assert fired == [1]


def test_cancelled_timer_does_not_fire_nor_count_as_next(timers: Timers) -> None:
    """The leader must not tick for what is over."""
    first = timers.set(10, lambda: pytest.fail("cancelled"))
    timers.set(20, lambda: None)
    timers.cancel(first)
    assert timers.next_deadline_ms() == 20
    assert len(timers) == 1
    assert timers.fire(15) == 0


def test_timer_may_cancel_another_that_is_due_in_the_same_entry(timers: Timers) -> None:
    """What one deadline does can make the next one moot."""
    later: list[Timer] = []
    timers.set(10, lambda: timers.cancel(later[0]))
    later.append(timers.set(10, lambda: pytest.fail("cancelled")))
    assert timers.fire(10) == 1
    assert timers.next_deadline_ms() is None


def test_cancelled_timers_do_not_pile_up(timers: Timers) -> None:
    """Most waits end before their time; a day-long limit must not keep each of them for a day."""
    keeper = timers.set(10**9, lambda: None)
    timers.set(5, lambda: None)
    for _ in range(10_000):
        timers.cancel(timers.set(10**8, lambda: None))
    assert sum(map(len, timers._blocks)) == 2
    assert len(timers) == 2
    assert timers.fire(5) == 1
    assert timers.next_deadline_ms() == 10**9
    timers.cancel(keeper)
    assert timers.next_deadline_ms() is None


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_cancelled_in_between_the_rest_fires_in_order(
    timers: Timers, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a plain sorted list; also where blocks are split and go again and again."""
    monkeypatch.setattr(timers_module, "_BLOCK_MAX", 4)
    random, fired = Random(seed), list[tuple[int, int]]()
    live: dict[tuple[int, int], Timer] = {}

    def fire(key: tuple[int, int]) -> None:
        fired.append(key)
        del live[key]

    for now in range(400):
        for place in range(random.randrange(10)):
            key = (now + random.randrange(1, 500), now * 10 + place)
            live[key] = timers.set(key[0], partial(fire, key))
        for key in random.sample(sorted(live), min(len(live), random.randrange(9))):
            timers.cancel(live.pop(key))
        expected = sorted(key for key in live if key[0] <= now)
        fired.clear()
        timers.fire(now)
        assert fired == expected
        assert timers.next_deadline_ms() == (min(live)[0] if live else None)
        assert len(timers) == len(live)


def test_timer_is_cancelled_once_and_not_after_it_fired(timers: Timers) -> None:
    """Whoever holds a timer lets go of it when it is over: anything else is a mistake to hear of."""
    timer = timers.set(1, lambda: None)
    timers.fire(1)
    with pytest.raises(AssertionError):
        timers.cancel(timer)
