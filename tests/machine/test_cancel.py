"""Cancel: it leaves the queue, releases a grant already made, or tombstones a request not yet seen (spec: resources)."""

import pytest

from coord_core.machine.bounds import NUMBER_MAX
from coord_core.protocol.operations import Cancel, LockAcquire, ValueSet
from coord_core.protocol.results import Done, Granted, NotGranted, ValueWritten
from coord_core.types import FencingToken, RequestNumber
from tests.machine.driver import OWNER, Log, code

CANCELLED = NotGranted("cancelled")


@pytest.fixture
def log() -> Log:
    return Log()


def test_cancelled_waiter_leaves_the_queue_and_is_answered(log: Log) -> None:
    """Whoever waits for the request at the leader is told; the others keep their order."""
    holder, quitter, last = log.open(), log.open(), log.open()
    token = holder.hold()
    quitter.acquire(wait_ms=500)
    last.acquire()
    applied = quitter.cancel(1)
    assert applied.result == Done()
    assert applied.replies == [(quitter.attachment, 1, CANCELLED)]
    assert log.machine.next_deadline_ms() is None
    (reply,) = holder.release(token).replies
    assert reply[0] == last.attachment


def test_cancelled_request_sent_again_gets_no_new_place(log: Log) -> None:
    """The cancelled request's own answer is final."""
    holder, quitter = log.open(), log.open()
    token = holder.hold()
    quitter.acquire()
    quitter.cancel(1)
    assert quitter.send(1, LockAcquire("/l", None, OWNER)).result == CANCELLED
    assert holder.release(token).replies == []


def test_grant_that_came_before_its_cancel_is_released_to_the_next(log: Log) -> None:
    """The client's timeout raced the grant: the server decides, and nobody holds what nobody wants."""
    holder, quitter, heir = log.open(), log.open(), log.open()
    token = holder.hold()
    quitter.acquire()
    heir.acquire()
    holder.release(token)
    applied = quitter.cancel(1)
    assert applied.result == Done()
    assert applied.replies == [(heir.attachment, 1, Granted(FencingToken(log.index)))]
    assert quitter.send(1, LockAcquire("/l", None, OWNER)).result == CANCELLED


def test_grant_that_was_acknowledged_is_released_by_cancel_all_the_same(log: Log) -> None:
    """A late cancel still names the request that holds; its answer is forgotten and stays so."""
    process = log.open()
    process.hold()
    process.call(ValueSet("/v", b"x"), low_water=1)
    assert process.cancel(1).result == Done()
    assert log.lock("/l").holder is None
    assert code(process.send(1, LockAcquire("/l", None, OWNER)).result) == "StaleRequest"


def test_request_not_seen_yet_is_refused_when_it_arrives(log: Log) -> None:
    """The cancel overtook its request: the tombstone stands where it would have queued."""
    process = log.open()
    assert process.send(2, Cancel(RequestNumber(1))).result == Done()
    assert process.send(1, LockAcquire("/l", None, OWNER)).result == CANCELLED
    assert log.lock("/l").holder is None


def test_write_not_seen_yet_is_tombstoned_too(log: Log) -> None:
    """The machine does not know what the request would have been; that it never takes effect holds for all."""
    process = log.open()
    process.send(2, Cancel(RequestNumber(1)))
    assert process.send(1, ValueSet("/v", b"x")).result == CANCELLED
    assert log.value("/v").version == 0


def test_tombstone_is_forgotten_with_its_acknowledgement_and_the_request_is_stale(log: Log) -> None:
    """The client counts a cancelled request as answered: the tombstone must not outlive that."""
    process = log.open()
    process.send(2, Cancel(RequestNumber(1)))
    process.send(3, ValueSet("/v", b"x"), low_water=2)
    assert code(process.send(1, LockAcquire("/l", None, OWNER)).result) == "StaleRequest"


def test_cancel_of_an_answered_write_does_nothing(log: Log) -> None:
    """Others may have read it; its answer stays what it was."""
    process = log.open()
    written = process.set("/v", b"x")
    applied = process.cancel(1)
    assert (applied.result, applied.replies) == (Done(), [])
    assert log.value("/v").value == b"x"
    assert process.send(1, ValueSet("/v", b"x")).result == written
    assert isinstance(written, ValueWritten)


def test_cancel_after_the_release_does_nothing(log: Log) -> None:
    """The lock went on to another: cancelling the request that once held it must not free it."""
    process, heir = log.open(), log.open()
    token = process.hold()
    heir.acquire()
    process.release(token)
    assert process.cancel(1).result == Done()
    held = log.lock("/l").holder
    assert held is not None
    assert held.attachment == heir.attachment


def test_cancel_of_a_wait_that_timed_out_keeps_its_answer(log: Log) -> None:
    """Answered is answered: the reason does not change afterwards."""
    holder, waiter = log.open(), log.open()
    holder.hold()
    waiter.acquire(wait_ms=5)
    ((_, _, answer),) = log.wait(5).replies
    assert waiter.cancel(1).result == Done()
    assert waiter.send(1, LockAcquire("/l", 5, OWNER)).result == answer


def test_cancel_reaches_only_requests_of_its_own_attachment(log: Log) -> None:
    """Numbers are an attachment's own: number 1 of the sibling is another request."""
    process = log.open()
    sibling = process.attach()
    process.hold()
    sibling.send(7, Cancel(RequestNumber(1)))
    assert log.lock("/l").holder is not None


def test_cancel_sent_again_is_done_and_releases_nothing_new(log: Log) -> None:
    """Retried until answered, it acts once."""
    process = log.open()
    process.hold()
    process.send(2, Cancel(RequestNumber(1)))
    process.send(3, LockAcquire("/l", None, OWNER))
    assert process.send(2, Cancel(RequestNumber(1))).result == Done()
    assert log.lock("/l").holder is not None


@pytest.mark.parametrize("target", [0, -3, 5, NUMBER_MAX + 1])
def test_cancel_of_itself_or_of_no_request_is_refused(log: Log, target: int) -> None:
    """Number 5 is the cancel itself."""
    assert code(log.open().send(5, Cancel(RequestNumber(target))).result) == "InvalidRequest"
