"""The semaphore: permits, in order of arrival (spec: resources, Semaphore)."""

import pytest

from coord_core.protocol.operations import LockAcquire
from coord_core.protocol.results import Done, NotGranted
from coord_core.protocol.semaphores import PERMITS_MAX, PermitsGranted, SemaphoreAcquire, SemaphoreRelease, SemaphoreSetLimit
from coord_core.types import FencingToken
from tests.machine.driver import OWNER, Log, Process, code


@pytest.fixture
def log() -> Log:
    return Log()


def limit(process: Process, permits: int | None) -> list[tuple[int, int]]:
    """Set the limit; return who went on: attachment and token."""
    applied = process.call(SemaphoreSetLimit("/s", permits))
    assert applied.result == Done()
    return granted(applied.replies)


def granted(replies: list) -> list[tuple[int, int]]:  # type: ignore[type-arg]
    return [(attachment, answer.token) for attachment, _, answer in replies if isinstance(answer, PermitsGranted)]


def test_as_many_as_there_are_permits_hold_at_a_time(log: Log) -> None:
    """And the next one waits until one is given back, which is the same entry."""
    processes = [log.open() for _ in range(3)]
    tokens = [process.taken(limit=2) for process in processes[:2]]
    assert processes[2].take(limit=2) is None
    asked = log.index
    applied = processes[0].give(tokens[0])
    assert (applied.result, granted(applied.replies)) == (Done(), [(processes[2].attachment, asked)])
    assert log.semaphore().taken == 2


def test_tokens_rise_from_grant_to_grant_and_name_one_holding(log: Log) -> None:
    """Several go on in one entry, so a token is the index of the entry that asked; order of arrival makes them rise."""
    holder, waiters = log.open(), [log.open() for _ in range(3)]
    token = holder.taken(permits=3, limit=3)
    for waiter in waiters:
        waiter.take(limit=3)
    on = granted(holder.give(token).replies)
    assert [attachment for attachment, _ in on] == [waiter.attachment for waiter in waiters]
    tokens = [token, *(token for _, token in on)]
    assert tokens == sorted(set(tokens))
    assert [party.token for party in log.semaphore().holders] == tokens[1:]


def test_who_wants_many_is_not_passed_by_those_who_want_few(log: Log) -> None:
    """The first who waits would starve else: somebody always wants one."""
    one, two, greedy, modest = (log.open() for _ in range(4))
    first, second = one.taken(limit=2), two.taken(limit=2)
    greedy.take(permits=2, limit=2)
    assert modest.take(limit=2) is None
    assert one.give(first).replies == []
    assert log.open().take(wait_ms=0) == NotGranted("busy", OWNER, second, 2)
    assert [attachment for attachment, _ in granted(two.give(second).replies)] == [greedy.attachment]


def test_when_the_first_goes_away_the_next_goes_on_in_the_same_entry(log: Log) -> None:
    """It stood in front of permits that were there: timeout, cancel and end let the others have them."""
    for leave in ("timeout", "cancel", "expire"):
        path = f"/{leave}"
        holder, greedy, modest = log.open(), log.open(), log.open()
        holder.taken(limit=2, path=path)
        greedy.take(permits=2, limit=2, wait_ms=50, path=path)
        modest.take(limit=2, path=path)
        applied = log.wait(50) if leave == "timeout" else greedy.cancel(1) if leave == "cancel" else greedy.expire()
        assert [attachment for attachment, _ in granted(applied.replies)] == [modest.attachment], leave
        assert log.semaphore(path).taken == 2


def test_everything_that_an_ended_attachment_holds_comes_back_in_the_same_entry(log: Log) -> None:
    """However many; and none of its own waits inherits any of it."""
    holder, waiters = log.open(), [log.open() for _ in range(3)]
    holder.taken(permits=1, limit=3)
    holder.taken(permits=2, limit=3)
    holder.take(limit=3)
    for waiter in waiters:
        waiter.take(limit=3)
    assert [attachment for attachment, _ in granted(holder.expire().replies)] == [waiter.attachment for waiter in waiters]


def test_a_cancelled_grant_comes_back(log: Log) -> None:
    """A client that turned away leaves nothing behind, whatever was on its way to it."""
    holder, waiter = log.open(), log.open()
    holder.taken(limit=1)
    waiter.take(limit=1)
    assert [attachment for attachment, _ in granted(holder.cancel(1).replies)] == [waiter.attachment]


def test_the_first_to_ask_says_how_many_permits_there_are(log: Log) -> None:
    """Later ones with another number change nothing: two versions of a program must not pull at it."""
    first, other = log.open(), log.open()
    first.taken(limit=1)
    assert other.take(limit=5, wait_ms=0) == NotGranted("busy", OWNER, FencingToken(log.index - 1), 0)
    assert log.semaphore().limit == 1


def test_a_limit_that_was_set_stays_though_nobody_holds_and_goes_when_it_is_taken_back(log: Log) -> None:
    """An operator who lowered it must not lose that at the first idle moment."""
    process = log.open()
    limit(process, 1)
    process.give(process.taken(limit=5))
    assert (log.semaphore().limit, log.semaphore().set) == (1, True)
    limit(process, None)
    assert log.semaphore().limit is None
    assert len(log.machine._names) == 0


def test_raising_the_limit_lets_those_who_wait_go_on(log: Log) -> None:
    """In order, as many as there is room for."""
    holder, waiters = log.open(), [log.open() for _ in range(3)]
    holder.taken(limit=1)
    for waiter in waiters:
        waiter.take(limit=1)
    assert [attachment for attachment, _ in limit(holder, 3)] == [waiter.attachment for waiter in waiters[:2]]


def test_lowering_the_limit_takes_nothing_from_anybody_and_grants_nothing_until_enough_came_back(log: Log) -> None:
    """Holders were promised; 0 lets the semaphore run empty."""
    holders, late = [log.open() for _ in range(3)], log.open()
    tokens = [holder.taken(limit=3) for holder in holders]
    assert limit(late, 1) == []
    assert log.semaphore().taken == 3
    late.take(limit=3)
    assert [holder.give(token).replies for holder, token in zip(holders[:2], tokens[:2], strict=True)] == [[], []]
    assert granted(holders[2].give(tokens[2]).replies) != []
    limit(late, 0)
    assert late.take(limit=3, wait_ms=0) == NotGranted("busy", OWNER, log.semaphore().holders[0].token, 0)


def test_release_by_a_non_holder_is_refused(log: Log) -> None:
    """Neither a stranger who knows the token, nor twice."""
    holder, stranger = log.open(), log.open()
    token = holder.taken()
    assert code(stranger.give(token).result) == "NotHolder"
    assert code(holder.attach().give(token).result) == "NotHolder"
    assert holder.give(token).result == Done()
    assert code(holder.give(token).result) == "NotHolder"


@pytest.mark.parametrize(("permits", "of"), [(0, 1), (-1, 1), (2, 1), (1, 0), (1, PERMITS_MAX + 1)])
def test_numbers_that_make_no_sense_are_refused(log: Log, permits: int, of: int) -> None:
    """Who wants more than there are would wait for ever."""
    assert code(log.open().take(permits, of)) == "InvalidRequest"
    assert len(log.machine._names) == 0


def test_a_semaphore_is_no_lock_and_a_lock_no_semaphore(log: Log) -> None:
    """A name is bound to its type for as long as it is in use."""
    process = log.open()
    process.taken(path="/s")
    process.hold("/l")
    assert code(process.call(LockAcquire("/s", None, OWNER)).result) == "WrongType"
    for operation in (
        SemaphoreAcquire("/l", None, OWNER, 1, 1),
        SemaphoreRelease("/l", FencingToken(1)),
        SemaphoreSetLimit("/l", 3),
    ):
        assert code(process.call(operation).result) == "WrongType"


def test_one_holding_can_be_asked_for_by_its_token(log: Log) -> None:
    """`is_held` needs no list of ten thousand."""
    process = log.open()
    tokens = [process.taken(limit=3) for _ in range(3)]
    (party,) = log.semaphore(token=tokens[1]).holders
    assert party.token == tokens[1]
    process.give(tokens[1])
    assert log.semaphore(token=tokens[1]).holders == ()
