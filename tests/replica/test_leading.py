"""What a leader decides of sessions: a check ends the lease that it was queued for, and no other."""

from coord_core.machine import Machine
from coord_core.protocol.commands import OpenSession
from coord_core.replica.leading import Leading
from coord_core.replica.reads import ExpiryCheck, Item, Reads
from coord_core.types import LogIndex, SessionId, Term
from tests.replica.harness import OWNER

SESSION, TTL_MS = SessionId(1), 1_000


def begun() -> tuple[Leading, Reads]:
    machine, reads = Machine(), Reads()
    machine.apply(LogIndex(1), 0, OpenSession(TTL_MS, OWNER))
    return Leading(Term(1), machine, reads, 0, 0), reads


def confirmed(reads: Reads, number: int | None) -> list[Item]:
    assert number is not None
    reads.confirm(number, LogIndex(1))
    return reads.take(LogIndex(1))


def test_a_lease_that_nothing_renewed_is_over():
    leading, reads = begun()
    leading.check_expiries(TTL_MS)
    [check] = confirmed(reads, reads.begin())
    assert isinstance(check, ExpiryCheck)
    assert leading.still_due(check)


def test_a_check_does_not_end_a_lease_that_was_renewed_since_even_if_that_has_run_out_too():
    """The keep-alives that have come since wait in a round behind it: they go first (found by the model: stale_check)."""
    leading, reads = begun()
    leading.check_expiries(TTL_MS)
    number = reads.begin()
    assert leading.renew(SESSION, 1, TTL_MS) == TTL_MS
    [check] = confirmed(reads, number)
    assert isinstance(check, ExpiryCheck)
    assert not leading.still_due(check)
    leading.check_expiries(2 * TTL_MS)
    [own] = confirmed(reads, reads.begin())
    assert isinstance(own, ExpiryCheck)
    assert leading.still_due(own)
