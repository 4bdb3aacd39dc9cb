"""A request is applied once, however often it is sent (dissertation, 6.3; spec: resources, Exactly once)."""

import pytest

from coord_core.machine.bounds import ANSWER_BYTES_MAX, ANSWERED_RANGES_MAX, NUMBER_MAX, WINDOW_CONTROL_MAX
from coord_core.protocol.commands import WINDOW_REQUESTS_MAX
from coord_core.protocol.operations import VALUE_BYTES_MAX, LockAcquire, LockRelease, ValueDelete, ValueSet
from coord_core.protocol.results import Done, Granted, NotGranted, ValueConflict, ValueWritten
from coord_core.protocol.topics import Claimed, TopicClaim, TopicCreate, TopicRelease
from coord_core.types import FencingToken
from tests.machine.driver import OWNER, Log, code


@pytest.fixture
def log() -> Log:
    return Log()


def test_resent_request_gets_the_first_answer_again(log: Log) -> None:
    """The first answer was lost with the leader that made it: the second is the same, not a second grant."""
    process = log.open()
    operation = LockAcquire("/l", None, OWNER)
    first = process.send(1, operation)
    again = process.send(1, operation)
    assert again.result == first.result
    assert again.replies == []


def test_resent_write_is_not_applied_again(log: Log) -> None:
    """A write that another has overtaken must not come back because its answer was lost."""
    process, other = log.open(), log.open()
    first = process.send(1, ValueSet("/v", b"old"))
    other.set("/v", b"new")
    assert process.send(1, ValueSet("/v", b"old")).result == first.result
    assert log.value("/v").value == b"new"


def test_resent_release_does_not_free_the_next_grant(log: Log) -> None:
    """The same attachment holds the lock again, under another token, when the copy of its old release arrives."""
    process = log.open()
    token = process.hold()
    process.send(2, LockRelease("/l", token))
    process.hold()
    assert process.send(2, LockRelease("/l", token)).result == Done()
    assert log.lock("/l").holder is not None


def test_resent_waiting_request_keeps_its_place_and_gets_no_second_one(log: Log) -> None:
    """Sent again after a failover, it finds its place in the queue."""
    holder, first, second = log.open(), log.open(), log.open()
    token = holder.hold()
    first.acquire()
    second.acquire()
    resent = first.send(1, LockAcquire("/l", None, OWNER))
    assert (resent.result, resent.replies) == (None, [])
    assert [party.attachment for party in log.lock("/l").waiters] == [first.attachment, second.attachment]
    (reply,) = holder.release(token).replies
    assert reply[0] == first.attachment


def test_answer_that_came_later_is_cached_too(log: Log) -> None:
    """The grant was made while the client was between two leaders: asking again tells it."""
    holder, waiter = log.open(), log.open()
    token = holder.hold()
    waiter.acquire()
    holder.release(token)
    granted = Granted(FencingToken(log.index))
    assert waiter.send(1, LockAcquire("/l", None, OWNER)).result == granted
    holder.acquire(wait_ms=5)
    timed_out = log.wait(5).replies[0][2]
    assert holder.send(3, LockAcquire("/l", 5, OWNER)).result == timed_out


def test_request_that_times_out_in_the_entry_that_resends_it_is_answered_by_it(log: Log) -> None:
    """Timers fire first, so the copy finds the answer."""
    holder, waiter = log.open(), log.open()
    token = holder.hold()
    waiter.acquire(wait_ms=10)
    log.time_ms += 10
    applied = waiter.send(1, LockAcquire("/l", 10, OWNER))
    assert applied.result == NotGranted("timeout", OWNER, token, 0)
    assert applied.replies == [(waiter.attachment, 1, applied.result)]


def test_request_at_or_below_the_mark_is_stale_and_not_applied(log: Log) -> None:
    """Its answer is forgotten, so it cannot be told from a new one by anything but its number."""
    process = log.open()
    for _ in range(3):
        process.set("/v", b"x")
    process.call(ValueDelete("/v"), low_water=3)
    for request in (1, 2, 3):
        assert code(process.send(request, ValueSet("/v", b"again")).result) == "StaleRequest"
    assert log.value("/v").version == 0


def test_request_in_an_answered_range_is_stale_and_not_applied(log: Log) -> None:
    """Answers arrive out of order: one long wait must not make the machine keep everything after it."""
    process = log.open()
    for request in range(2, 9):
        process.send(request, ValueSet("/v", b"x"))
    process.send(9, ValueDelete("/v"), answered=((2, 4), (7, 8)))
    for request in (2, 3, 4, 7, 8):
        assert code(process.send(request, ValueSet("/v", b"again")).result) == "StaleRequest"
    assert log.value("/v").version == 0
    # What was not acknowledged is still cached; what was never seen is new.
    assert isinstance(process.send(5, ValueSet("/v", b"again")).result, ValueWritten)
    assert log.value("/v").version == 0
    assert isinstance(process.send(1, ValueSet("/v", b"first")).result, ValueWritten)
    assert log.value("/v").value == b"first"


def test_request_that_acknowledges_itself_is_stale(log: Log) -> None:
    """The client counts it as answered, so it waits for nothing."""
    process = log.open()
    assert code(process.send(1, LockAcquire("/l", None, OWNER), low_water=1).result) == "StaleRequest"
    assert log.lock("/l").holder is None


def test_mark_beyond_its_own_request_is_not_taken(log: Log) -> None:
    """Nobody has answers to what was not asked yet: taken at its word, such a client could never ask again."""
    process = log.open()
    assert code(process.send(1, ValueSet("/v", b"x"), low_water=NUMBER_MAX + 1).result) == "StaleRequest"
    assert isinstance(process.send(2, ValueSet("/v", b"x")).result, ValueWritten)


def test_late_copy_with_an_old_mark_does_not_lower_the_mark(log: Log) -> None:
    """Copies are sent with the mark of their day."""
    process = log.open()
    process.set("/v", b"x")
    process.set("/v", b"y")
    process.call(ValueDelete("/v"), low_water=2)
    process.send(3, ValueDelete("/v"), low_water=0)
    assert code(process.send(2, ValueSet("/v", b"y")).result) == "StaleRequest"


def test_acknowledged_answers_are_forgotten(log: Log) -> None:
    """The window is what stays small while a client lives for years."""
    process = log.open()
    window = log.machine._sessions._sessions[process.session].attachments[process.attachment].window
    for request in range(1, 200):
        process.send(request, ValueSet("/v", b"x"), low_water=request - 1)
    assert len(window.answers) == 1
    assert window.forgotten.ranges == ()


def test_answers_above_a_long_wait_are_forgotten_by_ranges(log: Log) -> None:
    """The mark stands at the wait; the ranges above it say what may go."""
    holder, process = log.open(), log.open()
    holder.hold()
    process.acquire()
    window = log.machine._sessions._sessions[process.session].attachments[process.attachment].window
    for request in range(2, 200):
        answered = () if request == 2 else ((2, request - 1),)
        process.send(request, ValueSet("/v", b"x"), answered=answered)
    assert set(window.answers) == {1, 199}
    assert window.forgotten.ranges == ((2, 198),)


def test_windows_of_two_attachments_are_apart(log: Log) -> None:
    """Two processes of one session number their requests by themselves."""
    process = log.open()
    sibling = process.attach()
    token = process.hold()
    assert sibling.acquire() is None
    process.send(2, LockRelease("/l", token), low_water=1)
    assert isinstance(sibling.send(1, LockAcquire("/l", None, OWNER)).result, Granted)


def test_1024_unanswered_requests_are_admitted_and_one_more_is_refused(log: Log) -> None:
    """What the machine remembers of an attachment is bounded."""
    process = log.open()
    process.hold()
    for _ in range(WINDOW_REQUESTS_MAX - 1):
        process.acquire()
    assert code(process.acquire()) == "LimitExceeded"
    assert log.lock("/l").waiters_total == WINDOW_REQUESTS_MAX - 1


def test_acknowledging_makes_room_for_new_requests(log: Log) -> None:
    """The bound is on what is unanswered, not on what is asked."""
    process = log.open()
    for _ in range(WINDOW_REQUESTS_MAX):
        process.set("/v", b"x")
    assert code(process.set("/v", b"y")) == "LimitExceeded"
    assert isinstance(process.call(ValueSet("/v", b"y"), low_water=1).result, ValueWritten)


def test_request_refused_for_a_full_window_is_never_applied_later(log: Log) -> None:
    """Its client was told no: an older copy that arrives when there is room again must not take the lock for nobody."""
    process = log.open()
    for _ in range(WINDOW_REQUESTS_MAX):
        process.set("/v", b"x")
    refused = WINDOW_REQUESTS_MAX + 1
    assert code(process.send(refused, LockAcquire("/l", None, OWNER)).result) == "LimitExceeded"
    assert code(process.send(refused, LockAcquire("/l", None, OWNER), low_water=10).result) == "StaleRequest"
    assert log.lock("/l").holder is None


def test_release_and_cancel_are_admitted_to_a_full_window(log: Log) -> None:
    """Every request of a process waits for a lock that the process itself holds: it must be able to let go."""
    process = log.open()
    token = process.hold()
    for _ in range(WINDOW_REQUESTS_MAX - 1):
        process.acquire()
    assert process.cancel(2).result == Done()
    released = process.release(token)
    assert released.result == Done()
    assert released.replies == [(process.attachment, 3, Granted(FencingToken(log.index)))]


def test_consumer_group_is_given_up_from_a_full_window_too(log: Log) -> None:
    """Else nobody could be its consumer for as long as this process waits for its locks."""
    process, other = log.open(), log.open()
    process.hold()
    process.call(TopicCreate("/t"))
    process.call(TopicClaim("/t", "g", OWNER))
    for _ in range(WINDOW_REQUESTS_MAX - 3):
        process.acquire()
    assert code(process.acquire()) == "LimitExceeded"
    assert process.call(TopicRelease("/t", "g")).result == Done()
    assert isinstance(other.call(TopicClaim("/t", "g", OWNER)).result, Claimed)


def test_releases_and_cancels_are_bounded_as_well(log: Log) -> None:
    """Tombstones of requests never seen count, too."""
    process = log.open()
    for _ in range(WINDOW_CONTROL_MAX // 2):
        assert process.cancel(NUMBER_MAX - process.last_request).result == Done()
    assert code(process.cancel(NUMBER_MAX - 5_000).result) == "LimitExceeded"
    assert code(process.release(1).result) == "LimitExceeded"


def test_values_in_unacknowledged_answers_are_bounded(log: Log) -> None:
    """A conflict carries the value: a thousand of them would be 256 MB for one careless process."""
    process = log.open()
    process.set("/v", bytes(VALUE_BYTES_MAX))
    for _ in range(ANSWER_BYTES_MAX // VALUE_BYTES_MAX):
        assert isinstance(process.set("/v", b"", expected=1), ValueConflict)
    assert code(process.set("/v", b"", expected=1)) == "LimitExceeded"
    assert isinstance(process.call(ValueSet("/v", b"", expected=1), low_water=2).result, ValueConflict)


@pytest.mark.parametrize("answered", [((3, 2),), ((0, 1),), ((-1, 4),), ((1, NUMBER_MAX + 1),)])
def test_ranges_that_are_none_are_refused_and_nothing_is_applied(log: Log, answered: tuple[tuple[int, int], ...]) -> None:
    """What a broken client sends gets an answer, not an exception."""
    process = log.open()
    assert code(process.call(ValueSet("/v", b"x"), answered=answered).result) == "InvalidRequest"
    assert log.value("/v").version == 0


def test_ranges_are_bounded(log: Log) -> None:
    """A client that leaves every second number out for good would make the set of numbers grow for ever."""
    process = log.open()
    gaps = tuple((number, number) for number in range(3, 2 * ANSWERED_RANGES_MAX + 4, 2))
    assert len(gaps) == ANSWERED_RANGES_MAX + 1
    assert isinstance(process.call(ValueSet("/v", b"x"), answered=gaps[1:]).result, ValueWritten)
    assert code(process.call(ValueSet("/v", b"y"), answered=gaps[:1]).result) == "LimitExceeded"


@pytest.mark.parametrize("request_number", [0, -1])
def test_numbers_begin_at_one(log: Log, request_number: int) -> None:
    """They lie at or below every mark."""
    assert code(log.open().send(request_number, ValueSet("/v", b"x")).result) == "StaleRequest"


def test_number_that_a_double_cannot_hold_is_refused(log: Log) -> None:
    """All numbers stay below 2**53."""
    assert code(log.open().send(NUMBER_MAX + 1, ValueSet("/v", b"x")).result) == "InvalidRequest"


def test_waiting_request_that_its_client_acknowledges_is_still_answered(log: Log) -> None:
    """No client does that; should one, its lock is granted and can be released, and no answer is kept."""
    holder, odd = log.open(), log.open()
    token = holder.hold()
    odd.acquire()
    odd.call(ValueSet("/v", b"x"), low_water=1)
    granted = holder.release(token).replies[0][2]
    assert isinstance(granted, Granted)
    assert code(odd.send(1, LockAcquire("/l", None, OWNER)).result) == "StaleRequest"
    assert odd.release(granted.token).result == Done()


def test_refusal_of_an_operation_is_an_answer_like_any_other(log: Log) -> None:
    """Refused once under its number, refused for good, also where it would succeed by now."""
    process, other = log.open(), log.open()
    other.set("/l", b"in the way")
    assert code(process.send(1, LockAcquire("/l", None, OWNER)).result) == "WrongType"
    other.delete("/l")
    assert code(process.send(1, LockAcquire("/l", None, OWNER)).result) == "WrongType"
