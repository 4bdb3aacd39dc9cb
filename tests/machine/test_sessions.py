"""Sessions and attachments, and what goes with them (spec: resources, Sessions)."""

from collections.abc import Callable

import pytest

from coord_core.machine import Applied
from coord_core.protocol.commands import (
    SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN,
    Call,
    CloseAttachment,
    CloseSession,
    ExpireSession,
    OpenAttachment,
    OpenSession,
)
from coord_core.protocol.operations import LockAcquire, LockRelease
from coord_core.protocol.results import Done, Granted, SessionOpened
from coord_core.types import AttachmentId, FencingToken, RequestNumber, SessionId
from tests.machine.driver import OWNER, Log, Process, code


@pytest.fixture
def log() -> Log:
    return Log()


ENDS: list[Callable[[Process], Applied]] = [Process.expire, Process.close, Process.close_attachment]
every_end = pytest.mark.parametrize("end", ENDS, ids=["expire", "close", "close_attachment"])


def test_session_and_its_first_attachment_bear_the_index_of_their_entry(log: Log) -> None:
    """Log indexes are never reused, so neither is a session's id."""
    applied = log.apply(OpenSession(5_000, OWNER))
    assert applied.result == SessionOpened(SessionId(log.index), AttachmentId(log.index), 1, 5_000)
    assert applied.leased == [SessionId(log.index)]
    assert applied.closed == []


@pytest.mark.parametrize("ttl_ms", [-1, 0, SESSION_TTL_MS_MIN - 1, SESSION_TTL_MS_MAX + 1])
def test_session_with_a_ttl_out_of_range_is_refused(log: Log, ttl_ms: int) -> None:
    """A lease too short to renew or too long to wait for is a mistake of the caller."""
    applied = log.apply(OpenSession(ttl_ms, OWNER))
    assert code(applied.result) == "InvalidRequest"
    assert not applied.leased
    assert log.machine.session_count() == 0


@every_end
def test_everything_a_dead_holder_held_goes_to_the_next_in_the_same_entry(log: Log, end: Callable[[Process], Applied]) -> None:
    """The bug to be without: a holder that died and kept its lock."""
    dying, heir = log.open(), log.open()
    paths = [f"/l{number}" for number in range(5)]
    for path in paths:
        dying.hold(path)
        assert heir.acquire(path) is None
    applied = end(dying)
    assert applied.replies == [(heir.attachment, request, Granted(FencingToken(log.index))) for request in range(1, 6)]
    for path in paths:
        holder = log.lock(path).holder
        assert holder is not None
        assert holder.attachment == heir.attachment


@every_end
def test_waiters_of_the_dead_leave_their_queues_and_are_told_why(log: Log, end: Callable[[Process], Applied]) -> None:
    """A place in a queue is held like a lock; the request that waited is answered, so that nobody keeps it pending."""
    holder, dying, last = log.open(), log.open(), log.open()
    token = holder.hold()
    dying.acquire()
    dying.acquire(wait_ms=50)
    last.acquire()
    applied = end(dying)
    reason = {"expire": "SessionExpired", "close": "SessionClosed", "close_attachment": "AttachmentClosed"}[end.__name__]
    assert [(attachment, request, code(answer)) for attachment, request, answer in applied.replies] == [
        (dying.attachment, 1, reason),
        (dying.attachment, 2, reason),
    ]
    assert log.machine.next_deadline_ms() is None
    (reply,) = holder.release(token).replies
    assert reply[0] == last.attachment


def test_lock_passes_over_waiters_who_die_in_the_same_entry(log: Log) -> None:
    """Holder and the next two waiters are one session: its end grants once, to a survivor."""
    dying, survivor = log.open(), log.open()
    sibling = dying.attach()
    dying.hold()
    sibling.acquire()
    dying.acquire()
    survivor.acquire()
    sibling.acquire()
    applied = dying.expire()
    grants = [reply for reply in applied.replies if isinstance(reply[2], Granted)]
    assert grants == [(survivor.attachment, 1, Granted(FencingToken(log.index)))]
    assert log.lock("/l").waiters_total == 0


def test_closing_an_attachment_frees_what_it_acquired_and_not_what_its_session_holds_elsewhere(log: Log) -> None:
    """A main process closes its dead child's attachment; the other children go on."""
    parent, heir = log.open(), log.open()
    child = parent.attach()
    parent.hold("/parent")
    child.hold("/child")
    heir.acquire("/child")
    assert child.close_attachment().replies == [(heir.attachment, 1, Granted(FencingToken(log.index)))]
    held = log.lock("/parent").holder
    assert held is not None
    assert held.attachment == parent.attachment
    assert log.session(parent.session).attachments == 1


def test_late_commands_of_a_closed_attachment_are_refused(log: Log) -> None:
    """What a dead child sent before it died may arrive after it was cleared up: it must not acquire anything."""
    parent = log.open()
    child = parent.attach()
    child.close_attachment()
    assert code(child.acquire()) == "AttachmentClosed"
    assert log.lock("/l").holder is None


def test_first_attachment_may_be_closed_and_the_session_goes_on(log: Log) -> None:
    """Attachments are processes, the session is the lease: the first process is not special."""
    first = log.open()
    second = first.attach()
    first.close_attachment()
    assert isinstance(second.acquire(), Granted)
    assert log.session(first.session).alive


@pytest.mark.parametrize("end", [Process.expire, Process.close], ids=["expire", "close"])
def test_commands_of_an_ended_session_are_refused(log: Log, end: Callable[[Process], Applied]) -> None:
    """A session that ended never comes back, whatever of it is still on its way."""
    process = log.open()
    assert end(process).closed == [process.session]
    assert code(process.acquire()) == "SessionExpired"
    assert code(log.apply(OpenAttachment(process.session, OWNER)).result) == "SessionExpired"
    assert log.machine.session(process.session) is None


def test_command_of_a_session_that_never_was_is_refused(log: Log) -> None:
    """An unknown session is an expired one: nobody can tell the difference."""
    call = Call(SessionId(3), AttachmentId(3), RequestNumber(1), RequestNumber(0), (), LockAcquire("/l", None, OWNER))
    assert code(log.apply(call).result) == "SessionExpired"


def test_attachment_of_another_session_is_unknown(log: Log) -> None:
    """An attachment's commands come under its own session only."""
    one, other = log.open(), log.open()
    call = Call(one.session, other.attachment, RequestNumber(1), RequestNumber(0), (), LockAcquire("/l", None, OWNER))
    assert code(log.apply(call).result) == "AttachmentClosed"


def test_expiry_of_another_generation_does_nothing(log: Log) -> None:
    """The leader proposed it for a session that has moved on since."""
    process = log.open()
    process.hold()
    for generation in (0, 2):
        applied = log.apply(ExpireSession(process.session, generation))
        assert (applied.result, applied.replies, applied.closed) == (None, [], [])
    assert log.lock("/l").holder is not None
    assert log.machine.session(process.session) is not None


def test_expiry_of_a_session_that_is_gone_does_nothing(log: Log) -> None:
    """Two leaders may both propose it."""
    process = log.open()
    process.expire()
    applied = process.expire()
    assert (applied.result, applied.replies, applied.closed) == (None, [], [])


def test_closing_what_is_gone_already_is_done(log: Log) -> None:
    """A close sent again after a lost answer is answered like the first."""
    process = log.open()
    child = process.attach()
    assert child.close_attachment().result == Done()
    assert child.close_attachment().result == Done()
    assert process.close().result == Done()
    closed_again = process.close()
    assert (closed_again.result, closed_again.closed) == (Done(), [])
    assert log.apply(CloseAttachment(process.session, child.attachment)).result == Done()
    assert log.apply(CloseSession(SessionId(1))).result == Done()


def test_machine_names_its_sessions_for_the_leases_of_a_new_leader(log: Log) -> None:
    """A new leader grants every session a full TTL, so it must find them all."""
    first, second = log.open(1_000), log.open(2_000)
    assert [(view.session, view.generation, view.ttl_ms) for view in log.machine.sessions()] == [
        (first.session, 1, 1_000),
        (second.session, 1, 2_000),
    ]
    view = log.machine.session(second.session)
    assert view is not None
    assert view.ttl_ms == 2_000
    assert log.machine.session_count() == 2


def test_session_info_counts_attachments_and_holdings(log: Log) -> None:
    """Waiting is not holding; values are nobody's."""
    process, other = log.open(), log.open()
    child = process.attach()
    other.hold("/other")
    process.hold("/a")
    child.hold("/b")
    child.acquire("/other")
    child.set("/v", b"x")
    state = log.session(process.session)
    assert (state.alive, state.attachments, state.holdings) == (True, 2, 2)
    process.expire()
    assert log.session(process.session).alive is False


def test_release_by_a_sibling_attachment_after_close_finds_the_next_holder(log: Log) -> None:
    """A late release must not free what was granted to somebody else meanwhile."""
    dying, heir = log.open(), log.open()
    token = dying.hold()
    heir.acquire()
    dying.close_attachment()
    late = Call(dying.session, dying.attachment, RequestNumber(9), RequestNumber(0), (), LockRelease("/l", token))
    assert code(log.apply(late).result) == "AttachmentClosed"
    held = log.lock("/l").holder
    assert held is not None
    assert held.attachment == heir.attachment
