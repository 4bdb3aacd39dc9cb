"""A round serves only what arrived before it began, in order, and not before the machine has got there."""

from coord_core.protocol.queries import ValueGet
from coord_core.replica.reads import ExpiryCheck, Question, Reads, Renewal
from coord_core.types import LogIndex, SessionId

FIRST, SECOND = Question((1, 1), ValueGet("/a")), Renewal((1, 2), SessionId(5), 1)


def test_what_arrives_during_a_round_waits_for_the_next():
    """It might depend on something that was committed by another leader after this round began."""
    reads = Reads()
    reads.add(FIRST)
    number = reads.begin()
    assert number is not None
    reads.add(SECOND)
    assert reads.begin() is None
    reads.confirm(number, LogIndex(3))
    assert reads.take(LogIndex(3)) == [FIRST]
    assert reads.begin() == number + 1


def test_a_confirmed_round_waits_until_its_index_is_applied():
    reads = Reads()
    reads.add(FIRST)
    number = reads.begin()
    assert number is not None
    reads.confirm(number, LogIndex(7))
    assert reads.take(LogIndex(6)) == []
    assert reads.take(LogIndex(7)) == [FIRST]


def test_an_old_rounds_confirmation_does_not_confirm_the_next():
    reads = Reads()
    reads.add(FIRST)
    old = reads.begin()
    assert old is not None
    reads.drain()
    reads.add(SECOND)
    reads.begin()
    reads.confirm(old, LogIndex(1))
    assert reads.take(LogIndex(9)) == []


def test_an_expiry_check_is_served_after_the_keep_alive_that_came_before_it():
    reads = Reads()
    check = ExpiryCheck(SessionId(5), 1_000)
    reads.add(SECOND)
    reads.add(check)
    number = reads.begin()
    assert number is not None
    reads.confirm(number, LogIndex(1))
    assert reads.take(LogIndex(1)) == [SECOND, check]


def test_drain_names_everybody_once():
    reads = Reads()
    reads.add(FIRST)
    reads.begin()
    reads.add(SECOND)
    assert reads.drain() == [FIRST, SECOND]
    assert len(reads) == 0
