"""Locks that are taken from their holders, and locks that nobody gets for a while (spec: resources, DistributedLock)."""

import pytest

from coord_core.machine import Machine
from coord_core.machine.invariants import check
from coord_core.protocol.locks import CLOSED_MS_MAX, LockBroken, LockClosure
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.protocol.results import Done, Failed, Granted, NotGranted, Result
from coord_core.types import FencingToken
from tests.machine.driver import OWNER, Log, Process, code


@pytest.fixture
def log() -> Log:
    return Log()


def quarantined(process: Process, token: int, duration_ms: int) -> Result | None:
    return process.call(LockRelease("/l", FencingToken(token), duration_ms)).result


def again(log: Log) -> None:
    """Go on with a machine made of a snapshot."""
    snapshot = log.machine.begin_snapshot()
    chunks = []
    while not snapshot.done:
        chunks += snapshot.step(100)
    digest = log.machine.digest()
    log.machine = Machine.restore(chunks)
    check(log.machine)
    assert log.machine.digest() == digest


def test_a_broken_lock_is_the_first_waiters_in_the_same_entry(log: Log) -> None:
    """The operator does not take part in the race: the queue is what it was."""
    holder, waiter, operator = log.open(), log.open(), log.open(owner=Owner("host-7", 3, "alice"))
    token = holder.hold()
    waiter.acquire()
    broken = operator.break_lock(token)
    assert broken.result == LockBroken("/l", token, OWNER, OWNER, "it hangs")
    assert broken.replies == [(waiter.attachment, 1, Granted(FencingToken(log.index)))]


def test_a_broken_lock_that_nobody_waits_for_is_free(log: Log) -> None:
    """Nothing is left of it: the next acquire has it at once."""
    token = log.open().hold()
    log.open().break_lock(token)
    assert len(log.machine._names) == 0
    assert isinstance(log.open().acquire(wait_ms=0), Granted)


def test_only_the_token_that_the_operator_saw_is_broken(log: Log) -> None:
    """Between looking and breaking the lock may have gone to somebody who does nothing wrong."""
    holder, waiter, operator = log.open(), log.open(), log.open()
    token = holder.hold()
    waiter.acquire()
    holder.release(token)
    assert code(operator.break_lock(token).result) == "NotHolder"
    assert code(operator.break_lock(token + 100).result) == "NotHolder"
    assert code(operator.break_lock(token, path="/never").result) == "NotHolder"
    state = log.lock("/l")
    assert state.holder is not None
    assert state.holder.attachment == waiter.attachment


@pytest.mark.parametrize("restored", [False, True])
def test_the_former_holders_release_says_who_broke_it_and_why(log: Log, restored: bool) -> None:
    """The first question of whoever lost a lock; and it releases nothing of the new holder's."""
    holder, waiter, operator = log.open(), log.open(), log.open()
    token = holder.hold()
    waiter.acquire()
    operator.break_lock(token, "node h1 is gone")
    if restored:
        again(log)
    answer = holder.release(token).result
    assert isinstance(answer, Failed)
    assert (answer.code, answer.details["reason"], answer.details["broken_by"]) == ("NotHolder", "node h1 is gone", "host-1:100")
    assert "node h1 is gone" in answer.message
    assert log.lock("/l").holder is not None


def test_a_reason_is_required_and_bounded(log: Log) -> None:
    """It goes into logs and answers."""
    holder, operator = log.open(), log.open()
    token = holder.hold()
    assert code(operator.break_lock(token, "").result) == "InvalidRequest"
    assert code(operator.break_lock(token, "ü" * 257).result) == "LimitExceeded"
    assert code(operator.break_lock(token, "\ud800").result) == "InvalidRequest"
    assert isinstance(operator.break_lock(token, "ü" * 256).result, LockBroken)


@pytest.mark.parametrize("end", ["expire", "close", "close_attachment"])
def test_after_a_holder_with_a_delay_ended_nobody_gets_the_lock_for_so_long(log: Log, end: str) -> None:
    """What the dead holder had sent before may still arrive where it worked: Consul's lock-delay."""
    holder, waiter = log.open(), log.open()
    token = holder.hold(delay_ms=500)
    waiter.acquire()
    ended = getattr(holder, end)()
    assert ended.replies == []
    state = log.lock("/l")
    assert (state.holder, state.closed) == (None, LockClosure("delay", token, OWNER, 500))
    assert log.wait(499).replies == []
    assert log.machine.next_deadline_ms() == log.time_ms + 1
    assert log.wait(1).replies == [(waiter.attachment, 1, Granted(FencingToken(log.index)))]
    assert log.lock("/l").closed is None


def test_a_delay_does_not_apply_where_the_lock_was_given_back(log: Log) -> None:
    """Release, cancel and break are deliberate: the next one has it in the same entry."""
    holder, waiters = log.open(), [log.open() for _ in range(3)]
    token = holder.hold(delay_ms=500)
    for waiter in waiters:
        waiter.acquire(delay_ms=500)
    assert holder.release(token).replies
    assert waiters[0].cancel(1).replies
    party = log.lock("/l").holder
    assert party is not None
    assert log.open().break_lock(party.token).replies


def test_a_delay_belongs_to_the_holder_that_asked_for_it(log: Log) -> None:
    """It is given per acquire: one without passes the lock on at once."""
    holder, waiter, last = log.open(), log.open(), log.open()
    holder.hold()
    waiter.acquire(delay_ms=500)
    last.acquire()
    assert holder.expire().replies
    assert waiter.expire().replies == []


def test_a_closed_lock_without_waiters_is_bound_and_then_forgotten(log: Log) -> None:
    """Whoever comes meanwhile waits or hears that it is closed; after it nothing is left."""
    holder = log.open()
    holder.hold(delay_ms=100)
    holder.expire()
    assert log.open().acquire(wait_ms=0) == NotGranted("closed")
    log.wait(100)
    assert len(log.machine._names) == 0


def test_a_release_with_quarantine_keeps_the_lock_closed_for_so_long(log: Log) -> None:
    """The holder knows that what it did needs time to settle."""
    holder, waiter = log.open(), log.open()
    token = holder.hold()
    waiter.acquire()
    assert quarantined(holder, token, 200) == Done()
    closed = log.lock("/l").closed
    assert closed == LockClosure("quarantine", token, OWNER, 200)
    assert log.session(holder.session).holdings == 0
    assert log.wait(200).replies == [(waiter.attachment, 1, Granted(FencingToken(log.index)))]


def test_who_waits_for_a_closed_lock_times_out_and_is_withdrawn_as_ever(log: Log) -> None:
    """A closed lock has a queue like any other."""
    holder, hasty, fickle, patient = (log.open() for _ in range(4))
    quarantined(holder, holder.hold(), 200)
    hasty.acquire(wait_ms=50)
    fickle.acquire()
    patient.acquire()
    assert log.wait(50).replies == [(hasty.attachment, 1, NotGranted("timeout", waiters=2))]
    assert fickle.cancel(1).replies == [(fickle.attachment, 1, NotGranted("cancelled"))]
    assert log.wait(150).replies == [(patient.attachment, 1, Granted(FencingToken(log.index)))]


def test_an_operator_opens_a_closed_lock_under_the_last_holders_token(log: Log) -> None:
    """A quarantine of a day by mistake must not need a day."""
    holder, waiter, operator = log.open(), log.open(), log.open()
    token = holder.hold()
    quarantined(holder, token, CLOSED_MS_MAX)
    waiter.acquire()
    assert operator.break_lock(token).replies == [(waiter.attachment, 1, Granted(FencingToken(log.index)))]
    assert log.machine.next_deadline_ms() is None


def test_who_ends_in_the_entry_that_opens_the_lock_does_not_get_it(log: Log) -> None:
    """An entry grants one lock once: what its timers opened is granted after its command."""
    holder, first, second = log.open(), log.open(), log.open()
    quarantined(holder, holder.hold(), 100)
    first.acquire()
    second.acquire()
    log.time_ms += 100
    replies = first.expire().replies
    assert [(attachment, type(answer)) for attachment, _, answer in replies] == [
        (first.attachment, Failed),
        (second.attachment, Granted),
    ]


def test_an_operator_is_faster_than_the_timer_of_the_same_entry(log: Log) -> None:
    """The lock is opened once."""
    holder, waiter, operator = log.open(), log.open(), log.open()
    token = holder.hold()
    quarantined(holder, token, 100)
    waiter.acquire()
    log.time_ms += 100
    assert len(operator.break_lock(token).replies) == 1


def test_who_asks_in_the_entry_that_opens_the_lock_gets_it_in_that_entry(log: Log) -> None:
    """It found the lock closed and stands in the queue when it is opened: the request is answered as a waiter's."""
    holder, late = log.open(), log.open()
    quarantined(holder, holder.hold(), 100)
    log.time_ms += 100
    applied = late.call(LockAcquire("/l", None, OWNER))
    assert (applied.result, applied.replies) == (None, [(late.attachment, 1, Granted(FencingToken(log.index)))])


def test_a_closed_lock_is_closed_after_a_restore_too(log: Log) -> None:
    """Delays are in snapshots, with who caused them."""
    holder, waiter = log.open(), log.open()
    token = holder.hold(delay_ms=300)
    waiter.acquire()
    holder.expire()
    log.wait(100)
    again(log)
    assert log.lock("/l").closed == LockClosure("delay", token, OWNER, 200)
    assert log.wait(200).replies == [(waiter.attachment, 1, Granted(FencingToken(log.index)))]


@pytest.mark.parametrize("duration_ms", [-1, CLOSED_MS_MAX + 1])
def test_how_long_a_lock_can_be_closed_is_bounded(log: Log, duration_ms: int) -> None:
    """A slip of the keyboard must not close a lock for years."""
    process = log.open()
    assert code(process.acquire(delay_ms=duration_ms)) == "InvalidRequest"
    token = process.hold()
    assert code(quarantined(process, token, duration_ms)) == "InvalidRequest"
    assert log.lock("/l").holder is not None
