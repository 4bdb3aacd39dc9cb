"""The lock: FIFO, one holder, a token a grant (spec: resources, DistributedLock)."""

import pytest

from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.protocol.results import Done, Granted, NotGranted
from coord_core.types import FencingToken
from tests.machine.driver import OWNER, Log, code


@pytest.fixture
def log() -> Log:
    return Log()


def test_free_lock_is_granted_with_the_index_of_its_entry_as_token(log: Log) -> None:
    """Tokens are log indexes, so that nothing has to be remembered of a lock that is gone."""
    assert log.open().acquire() == Granted(FencingToken(log.index))


def test_second_acquire_waits_and_is_granted_by_the_entry_that_releases(log: Log) -> None:
    """Release and next grant are one entry: nobody polls, and no time passes between them."""
    first, second = log.open(), log.open()
    token = first.hold()
    assert second.acquire() is None
    released = first.release(token)
    assert released.result == Done()
    assert released.replies == [(second.attachment, 1, Granted(FencingToken(log.index)))]


def test_waiters_are_granted_in_order_of_arrival(log: Log) -> None:
    """FIFO, whatever the sessions' ages: the oldest session does not win, the first to ask does."""
    processes = [log.open() for _ in range(5)]
    holder, *waiters = processes[2], processes[4], processes[0], processes[3], processes[1]
    token = holder.hold()
    for waiter in waiters:
        assert waiter.acquire() is None
    served = []
    for _ in waiters:
        (attachment, _, granted) = holder.release(token).replies[0]
        assert isinstance(granted, Granted)
        served.append(attachment)
        token = granted.token
        holder = next(process for process in processes if process.attachment == attachment)
    assert served == [waiter.attachment for waiter in waiters]


def test_tokens_rise_over_the_whole_life_of_a_name_though_the_lock_is_forgotten_in_between(log: Log) -> None:
    """A guard keeps the highest token it has seen: one that restarted low would lock everybody out, or let the past in."""
    process = log.open()
    tokens = []
    for _ in range(5):
        tokens.append(process.hold())
        process.release(tokens[-1])
        assert log.lock("/l").holder is None
    assert tokens == sorted(set(tokens))


def test_two_requests_of_one_attachment_exclude_each_other(log: Log) -> None:
    """A holder is (session, attachment, request): two tasks of one process are strangers to the lock."""
    process = log.open()
    token = process.hold()
    assert process.acquire() is None
    assert process.release(token).replies == [(process.attachment, 2, Granted(FencingToken(log.index)))]


def test_release_by_a_non_holder_is_refused_and_releases_nothing(log: Log) -> None:
    """Neither a stranger who knows the token nor the waiter nor the holder with an old token may free the lock."""
    holder, waiter = log.open(), log.open()
    old = holder.hold()
    holder.release(old)
    token = holder.hold()
    waiter.acquire()
    sibling = holder.attach()
    assert code(waiter.release(token).result) == "NotHolder"
    assert code(sibling.release(token).result) == "NotHolder"
    assert code(holder.release(old).result) == "NotHolder"
    assert code(holder.release(token + 1).result) == "NotHolder"
    state = log.lock("/l")
    assert state.holder is not None
    assert state.holder.token == token
    assert state.waiters_total == 1


def test_release_of_a_lock_that_nobody_holds_is_refused(log: Log) -> None:
    """There is nothing under that name: no holder, so not this one either."""
    assert code(log.open().release(5).result) == "NotHolder"


def test_who_would_not_wait_is_told_at_once_who_holds_it(log: Log) -> None:
    """An expected refusal is a result that names the holder, so that people can look for it."""
    holder, waiter, visitor = log.open(owner=Owner("host-9", 7)), log.open(), log.open()
    token = holder.hold()
    waiter.acquire()
    answer = visitor.acquire(wait_ms=0)
    assert answer == NotGranted("busy", OWNER, token, 1)
    assert log.lock("/l").waiters_total == 1


def test_who_would_not_wait_gets_a_free_lock(log: Log) -> None:
    """wait_ms=0 refuses to wait, not to hold."""
    assert log.open().acquire(wait_ms=0) == Granted(FencingToken(log.index))


def test_wait_that_times_out_leaves_the_queue_and_moves_nobody_else(log: Log) -> None:
    """Timed-out waiters must not shift the queue: who came before and after keep their order."""
    holder, first, hasty, last = log.open(), log.open(), log.open(), log.open()
    token = holder.hold()
    first.acquire()
    hasty.acquire(wait_ms=100)
    last.acquire()
    assert log.wait(99).replies == []
    assert log.wait(1).replies == [(hasty.attachment, 1, NotGranted("timeout", OWNER, token, 2))]
    assert [party.attachment for party in log.lock("/l").waiters] == [first.attachment, last.attachment]
    (reply,) = holder.release(token).replies
    assert reply[0] == first.attachment


def test_granted_waiter_does_not_time_out_any_more(log: Log) -> None:
    """The limit was on the wait: once granted, only release or the end of the attachment frees the lock."""
    holder, waiter = log.open(), log.open()
    token = holder.hold()
    waiter.acquire(wait_ms=100)
    holder.release(token)
    assert log.machine.next_deadline_ms() is None
    assert log.wait(1_000).replies == []
    held = log.lock("/l").holder
    assert held is not None
    assert held.attachment == waiter.attachment


def test_deadline_that_passed_before_the_release_wins_in_the_same_entry(log: Log) -> None:
    """Timers fire before the command: a waiter whose time was over at the entry's stamp is not granted by it."""
    holder, waiter = log.open(), log.open()
    token = holder.hold()
    waiter.acquire(wait_ms=100)
    log.time_ms += 100
    released = holder.release(token)
    assert released.result == Done()
    assert released.replies == [(waiter.attachment, 1, NotGranted("timeout", OWNER, token, 0))]
    assert log.lock("/l").holder is None


def test_locks_of_different_names_are_independent(log: Log) -> None:
    """One busy name blocks no other."""
    process = log.open()
    process.hold("/a")
    assert isinstance(process.acquire("/b"), Granted)


def test_state_names_holder_and_waiters_with_owner_and_since(log: Log) -> None:
    """Who holds it, since when, who waits: what an operator asks first."""
    holder, waiter = log.open(), log.open()
    owner = Owner("host-2", 42, "task-17")
    holder.acquire(owner=owner)
    token = FencingToken(log.index)
    log.wait(30)
    waiter.acquire()
    log.wait(12)
    state = log.lock("/l")
    assert state.holder is not None
    assert (state.holder.session, state.holder.attachment) == (holder.session, holder.attachment)
    assert (state.holder.owner, state.holder.token, state.holder.since_ms) == (owner, token, 42)
    (party,) = state.waiters
    assert (party.session, party.owner, party.token, party.since_ms) == (waiter.session, OWNER, 0, 12)


def test_since_counts_anew_from_the_grant(log: Log) -> None:
    """A holder's `since` is how long it holds, not how long it has been around."""
    holder, waiter = log.open(), log.open()
    token = holder.hold()
    waiter.acquire()
    log.wait(500)
    holder.release(token)
    log.wait(7)
    state = log.lock("/l")
    assert state.holder is not None
    assert state.holder.since_ms == 7


def test_free_lock_leaves_nothing_behind(log: Log) -> None:
    """Names made from task arguments must not pile up: the state is that of a machine that never saw them."""
    process, visitor = log.open(), log.open()
    for number in range(50):
        token = process.hold(f"/tasks/{number}")
        visitor.acquire(f"/tasks/{number}", wait_ms=10)
        log.wait(10)
        process.release(token, f"/tasks/{number}")
    assert len(log.machine._names) == 0
    assert log.machine.next_deadline_ms() is None


@pytest.mark.parametrize("operation", [LockAcquire("/l", None, OWNER), LockRelease("/l", FencingToken(1))])
def test_name_of_a_value_is_no_lock(log: Log, operation: LockAcquire | LockRelease) -> None:
    """A name is bound to its type for as long as it is in use: another type is a clear error."""
    process = log.open()
    process.set("/l", b"x")
    assert code(process.call(operation).result) == "WrongType"
