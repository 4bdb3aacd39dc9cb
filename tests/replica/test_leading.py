"""What a leader decides of sessions: a check ends the lease that it was queued for, and no other."""

from coord_core.machine import Machine
from coord_core.protocol.commands import Attempt, ExpireSession, HandOff, OpenDetached, OpenSession
from coord_core.protocol.results import DetachedOpened, Failed
from coord_core.replica.leading import Leading
from coord_core.replica.reads import ExpiryCheck, Item, Reads
from coord_core.types import AttachmentId, LogIndex, SessionId, Term
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


def taken_up(machine: Machine, index: int, actor: bytes, attempt: int = 1) -> SessionId:
    command = OpenDetached("job", Attempt(attempt), TTL_MS, OWNER, actor)
    result = machine.apply(LogIndex(index), 0, command).result
    assert isinstance(result, DetachedOpened)
    return result.session


def test_session_that_nobody_has_ends_by_cluster_time_and_not_by_a_lease():
    """Held for 5,000 ms: no lease runs out meanwhile, and then its end is proposed, for the generation of the hand-off."""
    machine = Machine()
    session = taken_up(machine, 1, b"a")
    leading = Leading(Term(1), machine, Reads(), 0, 0)
    machine.apply(LogIndex(2), 0, HandOff(session, AttachmentId(1), 5_000))
    leading.leased(session, 0)
    leading.check_expiries(10 * TTL_MS)
    assert leading.own_commands([], 4_999, 1) == []
    assert leading.own_commands([], 5_000, 1) == [ExpireSession(session, 2)]
    assert leading.own_commands([], 5_001, 1) == []


def test_new_leader_knows_what_nobody_has():
    """Of a session that is held it keeps no lease; it ends it when the time has come."""
    machine = Machine()
    session = taken_up(machine, 1, b"a")
    machine.apply(LogIndex(2), 0, HandOff(session, AttachmentId(1), 5_000))
    leading = Leading(Term(2), machine, Reads(), 70_000, 70_000)
    leading.check_expiries(70_000 + 2 * TTL_MS)
    assert leading.own_commands([], 70_000 + 4_999, 1) == []
    assert leading.own_commands([], 70_000 + 5_000, 1) == [ExpireSession(session, 2)]


def test_who_takes_a_session_up_while_its_expiry_is_under_way_keeps_it_alive():
    """The expiry was meant for the process before, and does nothing; the new one's keep-alives must be answered."""
    machine, reads = Machine(), Reads()
    session = taken_up(machine, 1, b"a")
    leading = Leading(Term(1), machine, reads, 0, 0)
    leading.check_expiries(TTL_MS)
    [check] = confirmed(reads, reads.begin())
    assert isinstance(check, ExpiryCheck)
    assert leading.still_due(check)
    taken_up(machine, 2, b"b")
    leading.leased(session, TTL_MS)
    assert leading.renew(session, 2, TTL_MS) == TTL_MS
    assert leading.own_commands([session], TTL_MS, 1) == [], "found dead before, proposed after"


def test_lease_is_not_renewed_for_a_process_before_or_a_superseded_attempt():
    machine = Machine()
    session = taken_up(machine, 1, b"a")
    leading = Leading(Term(1), machine, Reads(), 0, 0)
    taken_up(machine, 2, b"b")
    leading.leased(session, 0)
    for generation, by in ((1, "process"), (2, "attempt")):
        if by == "attempt":
            taken_up(machine, 3, b"c", attempt=2)
        refused = leading.renew(session, generation, 0)
        assert isinstance(refused, Failed)
        assert (refused.code, refused.details["by"]) == ("Superseded", by)
