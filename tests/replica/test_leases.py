"""Leases end late rather than early: a stall, a renewal, a new leader each give time, and nothing takes it away."""

from coord_core.replica.leases import STALL_MS, LeaseClock, Leases
from coord_core.types import SessionId

ONE, TWO = SessionId(1), SessionId(2)


def test_lease_is_due_only_when_its_ttl_has_passed_since_the_last_renewal():
    leases = Leases()
    leases.grant(ONE, 1_000, 0)
    assert leases.renew(ONE, 600) == 1_000
    assert leases.due(1_599, 10) == []
    assert leases.due(1_600, 10) == [ONE]


def test_due_names_a_session_once_until_it_is_watched_again():
    """The expiry check is on its way; a second one would only repeat it."""
    leases = Leases()
    leases.grant(ONE, 1_000, 0)
    assert leases.due(1_000, 10) == [ONE]
    assert leases.due(2_000, 10) == []
    leases.watch_again(ONE)
    assert leases.due(2_000, 10) == [ONE]


def test_due_returns_no_more_than_asked_and_the_rest_next_time():
    leases = Leases()
    leases.grant(ONE, 1_000, 0)
    leases.grant(TWO, 1_000, 0)
    assert leases.due(5_000, 1) == [ONE]
    assert leases.due(5_000, 1) == [TWO]


def test_an_ended_session_has_no_lease_to_renew_or_to_run_out():
    leases = Leases()
    leases.grant(ONE, 1_000, 0)
    leases.end(ONE)
    assert leases.renew(ONE, 10) is None
    assert leases.due(10_000, 10) == []


def test_leases_of_sessions_that_ended_do_not_pile_up_until_they_would_have_run_out():
    """A script that opens a session of an hour, many times a second, must not fill the leader's memory."""
    leases = Leases()
    leases.grant(ONE, 5_000, 0)
    for number in range(10, 10_000):
        leases.grant(SessionId(number), 3_600_000, 0)
        leases.end(SessionId(number))
    assert len(leases._heap) < 2_000
    assert leases.due(5_000, 10) == [ONE]


def test_a_stall_is_left_out_of_the_lease_clock():
    """A process that was stopped has not read the keep-alives that were sent to it."""
    clock = LeaseClock(1_000)
    assert clock.advance(1_050) == 1_050
    assert clock.advance(31_050) == 1_050 + STALL_MS
    assert clock.advance(31_100) == 1_100 + STALL_MS


def test_a_loop_whose_every_turn_is_long_still_ends_leases():
    """An overloaded leader must not keep dead holders' locks for ever."""
    clock = LeaseClock(0)
    for turn in range(1, 101):
        lease_ms = clock.advance(turn * (STALL_MS + 10))
    assert lease_ms == 100 * STALL_MS


def test_a_healthy_gap_counts_as_time():
    clock = LeaseClock(0)
    assert clock.advance(STALL_MS) == STALL_MS
