"""The rate limiter: a token bucket in cluster time, in integers (spec: resources, RateLimiter)."""

import random

import pytest

from coord_core.machine.bounds import DURATION_MS_MAX
from coord_core.protocol.limiters import BURST_MAX, RATE_PER_MS_MAX, RATE_PERMITS_MAX, RateGranted, RateRefused
from coord_core.protocol.results import NotGranted, Result
from tests.machine.driver import Log, code
from tests.machine.test_snapshot import restored, written

GO = RateGranted()


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_burst_goes_through_at_once_and_then_the_rate_counts(log: Log) -> None:
    """The bucket begins full: 3 at once, then one every 100 ms."""
    process = log.open()
    assert [process.spend() for _ in range(3)] == [GO] * 3
    assert process.spend() == RateRefused("busy", 100)
    log.wait(99)
    assert process.spend() == RateRefused("busy", 1)
    log.wait(1)
    assert [process.spend(), process.spend()] == [GO, RateRefused("busy", 100)]


def test_parts_of_a_permit_are_not_lost(log: Log) -> None:
    """7 permits in 10 ms, asked for at odd moments: never more than that, and in the end exactly that."""
    process, rate, draw = log.open(), (7, 10, 5), random.Random(1)
    assert process.spend(5, rate) == GO
    begun_ms, spent = log.time_ms, 0
    for _ in range(200):
        log.wait(draw.choice([0, 0, 1]))
        while process.spend(1, rate) == GO:
            spent += 1
        assert spent == (log.time_ms - begun_ms) * 7 // 10


def test_who_waits_goes_on_in_order_when_the_bucket_has_what_he_wants(log: Log) -> None:
    """FIFO by timers in cluster time: who wants much is not passed by who wants little."""
    first, second, visitor = log.open(), log.open(), log.open()
    first.spend(3)
    assert first.spend(2, wait_ms=None) is None
    assert second.spend(1, wait_ms=None) is None
    assert visitor.spend(1) == RateRefused("busy", 400, 2)
    assert log.wait(100).replies == []
    assert log.wait(100).replies == [(first.attachment, 2, GO)]
    assert log.machine.next_deadline_ms() == log.time_ms + 100
    assert log.wait(100).replies == [(second.attachment, 1, GO)]


def test_a_wait_that_times_out_spends_nothing_and_lets_the_next_go_on(log: Log) -> None:
    """It stood in front of permits that were there."""
    greedy, modest = log.open(), log.open()
    greedy.spend(3)
    greedy.spend(3, wait_ms=100)
    modest.spend(1, wait_ms=None)
    assert log.wait(100).replies == [(greedy.attachment, 2, RateRefused("timeout", 300, 1)), (modest.attachment, 1, GO)]


@pytest.mark.parametrize("leave", ["cancel", "expire"])
def test_who_is_withdrawn_or_ends_leaves_the_queue(log: Log, leave: str) -> None:
    """As with locks; and what he wanted counts no more for how long others would wait."""
    greedy, modest = log.open(), log.open()
    greedy.spend(3)
    greedy.spend(3, wait_ms=None)
    modest.spend(1, wait_ms=None)
    log.wait(100)
    replies = (greedy.cancel(2) if leave == "cancel" else greedy.expire()).replies
    assert replies[-1] == (modest.attachment, 1, GO)
    if leave == "cancel":
        assert replies[0] == (greedy.attachment, 2, NotGranted("cancelled"))


def test_what_was_taken_is_spent_also_when_the_request_is_cancelled(log: Log) -> None:
    """Nobody can tell whether the caller went ahead."""
    process = log.open()
    process.spend(3)
    process.cancel(1)
    assert process.spend() == RateRefused("busy", 100)


def test_the_last_written_rate_counts_and_what_is_in_the_bucket_stays(log: Log) -> None:
    """Configuration comes with each call; a new release of a program brings a new rate."""
    process = log.open()
    process.spend(1)
    assert (log.limiter().level, log.limiter().burst) == (2, 3)
    assert process.spend(1, rate=(1, 1_000, 10)) == GO
    state = log.limiter()
    assert (state.permits, state.per_ms, state.burst, state.level) == (1, 1_000, 10, 1)


def test_who_waits_for_more_than_the_bucket_holds_by_now_goes_on_when_it_is_full(log: Log) -> None:
    """The burst was lowered behind him: he goes on, and the bucket below zero."""
    first, other = log.open(), log.open()
    first.spend(10, rate=(1, 100, 10))
    first.spend(10, rate=(1, 100, 10), wait_ms=None)
    other.spend(1, rate=(1, 100, 2))
    assert log.wait(200).replies == [(first.attachment, 2, GO)]
    assert log.limiter().level == -8


def test_a_full_bucket_that_nobody_waits_for_is_forgotten(log: Log) -> None:
    """One a task name must not pile up."""
    process = log.open()
    process.spend(2)
    assert len(log.machine._names) == 1
    for _ in range(3):
        deadline_ms = log.machine.next_deadline_ms()
        if deadline_ms is None:
            break
        log.wait(deadline_ms - log.time_ms)
    assert log.time_ms == 1_200
    assert (len(log.machine._names), log.machine.next_deadline_ms()) == (0, None)
    assert log.limiter().burst == 0


@pytest.mark.parametrize(
    ("amount", "rate"),
    [
        (0, (1, 1, 1)),
        (2, (1, 1, 1)),
        (1, (0, 1, 1)),
        (1, (1, 0, 1)),
        (1, (1, 1, 0)),
        (1, (RATE_PERMITS_MAX + 1, 1, 1)),
        (1, (1, RATE_PER_MS_MAX + 1, 1)),
        (1, (1, 1, BURST_MAX + 1)),
    ],
)
def test_numbers_that_make_no_sense_are_refused(log: Log, amount: int, rate: tuple[int, int, int]) -> None:
    """Who wants more than the bucket holds would wait for ever."""
    answer: Result | None = log.open().spend(amount, rate)
    assert code(answer) == "InvalidRequest"
    assert len(log.machine._names) == 0


def test_the_longest_wait_and_the_deepest_debt_can_be_told_and_written_down(log: Log) -> None:
    """Numbers on the wire and in snapshots have 64 bits: a queue for centuries at the slowest rate still fits, also when the
    bucket shrinks under it; a node that could not write them would stop, and so would all others.
    """
    slow, first, second = (1, RATE_PER_MS_MAX, BURST_MAX), log.open(), log.open()
    first.spend(BURST_MAX, slow)
    first.spend(BURST_MAX, slow, wait_ms=None)
    second.spend(BURST_MAX, slow, wait_ms=None)
    assert log.open().spend(BURST_MAX, slow) == RateRefused("busy", DURATION_MS_MAX, 2)
    log.wait(RATE_PER_MS_MAX)
    second.spend(1, (1, RATE_PER_MS_MAX, 1), wait_ms=None)
    assert log.limiter().level < -BURST_MAX // 2
    assert restored(written(log.machine)).digest() == log.machine.digest()


@pytest.mark.parametrize(
    "rate", [(1, RATE_PER_MS_MAX, 1), (RATE_PERMITS_MAX, 1, 1), (RATE_PERMITS_MAX, RATE_PER_MS_MAX, BURST_MAX)]
)
def test_the_largest_numbers_do_what_the_small_ones_do(log: Log, rate: tuple[int, int, int]) -> None:
    """No overflow, no float that rounds, and a row that a snapshot can hold."""
    process = log.open()
    assert process.spend(rate[2], rate) == GO
    answer = process.spend(rate[2], rate)
    wait_ms = -(-rate[2] * rate[1] // rate[0])
    assert answer == RateRefused("busy", wait_ms)
    snapshot = log.machine.begin_snapshot()
    while not snapshot.done:
        snapshot.step(100)
