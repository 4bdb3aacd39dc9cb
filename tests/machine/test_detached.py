"""Detached sessions: they pass from process to process, and from attempt to attempt (spec: resources, Sessions)."""

from collections.abc import Callable

import pytest

from coord_core.machine import Machine
from coord_core.machine.detached import ACTORS_KEPT, ATTEMPTS_PER_NAME_MAX
from coord_core.protocol.commands import (
    ACTOR_BYTES_MAX,
    DETACHED_NAME_BYTES_MAX,
    HOLD_MS_MAX,
    INSTANCE_BYTES_MAX,
    Attempt,
    CloseAttachment,
    CloseSession,
    Command,
    HandOff,
    OpenAttachment,
    OpenDetached,
)
from coord_core.protocol.elections import ElectionEnter, Entered, LeaderElected
from coord_core.protocol.operations import LockAcquire, Owner
from coord_core.protocol.results import Done, Failed, Granted, NotGranted
from coord_core.protocol.semaphores import PermitsGranted
from coord_core.types import AttachmentId, FencingToken, SessionId
from tests.machine.driver import OWNER, Log, Process, code

WORKER, TRIGGER, OTHER = b"worker", b"trigger", b"other worker"


def fenced(process: Process, path: str = "/l") -> object:
    return process.call(LockAcquire(path, None, OWNER, fences=True)).result


def waits_to_lead(process: Process, path: str = "/e") -> Entered:
    entered = process.call(ElectionEnter(path, OWNER, fences=False)).result
    assert isinstance(entered, Entered)
    return entered


# --- from process to process ------------------------------------------------------------------------------------------------------


def test_what_a_session_holds_passes_to_whoever_takes_it_up() -> None:
    """The same session, the same token: acquiring again finds what is held, it does not wait for it."""
    log = Log()
    worker = log.take_up(WORKER)
    token = worker.hold()
    assert worker.hand_off() == Done()
    trigger = log.take_up(TRIGGER)
    assert trigger.session == worker.session
    assert trigger.acquire() == Granted(token)
    assert trigger.release(token).result == Done()


def test_requests_of_one_process_exclude_each_other() -> None:
    """As in any session: who asks first has what was there before it, and nothing of that is undone with who asks second."""
    log = Log()
    worker = log.take_up(WORKER)
    token = worker.hold()
    assert isinstance(worker.acquire(wait_ms=0), NotGranted)
    trigger = log.take_up(TRIGGER)
    assert trigger.acquire() == Granted(token)
    assert isinstance(trigger.acquire(wait_ms=0), NotGranted)
    assert trigger.acquire() is None
    trigger.cancel(trigger.last_request)
    holder = log.lock("/l").holder
    assert holder is not None
    assert holder.token == token


def test_permits_and_candidacies_of_one_process_are_apart() -> None:
    log = Log()
    worker = log.take_up(WORKER)
    assert worker.taken(limit=3) != worker.taken(limit=3)
    assert worker.enter() != worker.enter()
    trigger = log.take_up(TRIGGER)
    tokens = {trigger.taken(limit=3), trigger.taken(limit=3)}
    assert len(tokens) == 2
    assert log.semaphore().taken == 2, "it has found both"
    trigger.taken(limit=3)
    assert log.semaphore().taken == 3


def test_who_goes_on_is_one_and_leaves_no_other_place_in_the_queue() -> None:
    """Several of the earlier process waited.  A place that nobody asks for would be granted to nobody until the session ends."""
    log = Log()
    worker = log.take_up(WORKER)
    token = worker.hold()
    worker.acquire()
    worker.acquire()
    trigger = log.take_up(TRIGGER)
    assert trigger.acquire() == Granted(token)
    trigger.release(token)
    assert log.lock("/l").holder is None


def test_the_process_that_had_it_can_do_nothing_any_more() -> None:
    """Without a hand-off as well: a triggerer that stalls is replaced while it believes that it goes on."""
    log = Log()
    stalled = log.take_up(TRIGGER)
    token = stalled.hold()
    log.take_up(OTHER)
    assert code(stalled.release(token).result) == "Superseded"
    assert code(stalled.acquire("/another")) == "Superseded"
    assert code(stalled.hand_off()) == "Superseded"
    assert stalled.exit().result == Done()
    stalled.expire(stalled.attachment)
    holder = log.lock("/l").holder
    assert holder is not None
    assert holder.token == token


def test_holder_is_told_under_the_number_of_the_process_that_has_it_now() -> None:
    """A process that checks its grant compares its own number: of one that was replaced it differs."""
    log = Log()
    first = log.take_up(WORKER)
    token = first.hold()
    second = log.take_up(TRIGGER, owner=Owner("host-2", 7))
    holder = log.lock("/l").holder
    assert holder is not None
    assert (holder.session, holder.attachment, holder.token) == (second.session, second.attachment, token)
    assert holder.owner == OWNER, "who acquired it"
    second.acquire(owner=Owner("host-2", 7))
    holder = log.lock("/l").holder
    assert holder is not None
    assert holder.owner == Owner("host-2", 7)


def test_requests_go_on_above_those_of_the_process_before() -> None:
    """Whatever of the earlier process is still answered later must not be taken for the answer to the later one's request."""
    log = Log()
    log.open().hold()
    worker = log.take_up(WORKER)
    for _ in range(5):
        worker.set("/v", b"x")
    worker.acquire()
    trigger = log.take_up(TRIGGER)
    assert trigger.last_request == worker.last_request
    assert code(trigger.send(worker.last_request - 1, LockAcquire("/l", 0, OWNER)).result) == "StaleRequest"


def test_a_place_in_the_queue_passes_on() -> None:
    """A trigger that is restarted must not begin to wait anew; the grant is told to the one that asks last."""
    log = Log()
    holder = log.open()
    token = holder.hold()
    first = log.take_up(TRIGGER)
    assert first.acquire() is None
    stranger = log.open()
    assert stranger.acquire() is None
    second = log.take_up(OTHER)
    asked = second.call(LockAcquire("/l", None, OWNER))
    assert asked.result is None
    granted = holder.release(token)
    assert granted.replies == [(second.attachment, second.last_request, Granted(granted_token(log)))]


@pytest.mark.parametrize("how", ["handed off", "taken up"])
def test_who_waited_is_told_under_its_own_number_that_it_waits_no_more(how: str) -> None:
    """Its request is known to others by that number: nobody would ever answer it afterwards.  Its place stays."""
    log = Log()
    holder = log.open()
    token = holder.hold()
    worker = log.take_up(WORKER)
    worker.acquire()
    if how == "handed off":
        command: Command = HandOff(worker.session, worker.attachment, 5_000)
    else:
        command = OpenDetached("job", Attempt(1), 10_000, OWNER, TRIGGER)
    ((attachment, request, answer),) = log.apply(command).replies
    assert (attachment, request, code(answer)) == (worker.attachment, worker.last_request, "Superseded")
    holder.release(token)
    assert log.take_up(OTHER).acquire() == Granted(granted_token(log))


def granted_token(log: Log) -> FencingToken:
    holder = log.lock("/l").holder
    assert holder is not None
    return holder.token


def test_a_place_in_the_queue_is_granted_while_nobody_is_there() -> None:
    """Between worker and trigger nobody asks: the grant stands, and the next process finds it."""
    log = Log()
    holder = log.open()
    token = holder.hold()
    worker = log.take_up(WORKER)
    worker.acquire()
    worker.hand_off()
    holder.release(token)
    assert log.take_up(TRIGGER).acquire() == Granted(granted_token(log))


def test_who_asks_again_without_waiting_gives_up_its_place() -> None:
    """Else it would be granted later what nobody waits for any more."""
    log = Log()
    holder = log.open()
    token = holder.hold()
    log.take_up(WORKER).acquire()
    assert isinstance(log.take_up(TRIGGER).acquire(wait_ms=0), NotGranted)
    holder.release(token)
    assert log.lock("/l").holder is None


def test_patience_is_that_of_the_last_who_asked() -> None:
    log = Log()
    log.open().hold()
    log.take_up(WORKER).acquire(wait_ms=1_000)
    trigger = log.take_up(TRIGGER)
    trigger.acquire(wait_ms=5_000)
    assert log.wait(2_000).replies == []
    ((attachment, request, answer),) = log.wait(3_000).replies
    assert (attachment, request) == (trigger.attachment, trigger.last_request)
    assert isinstance(answer, NotGranted)


def test_cancelled_request_gives_back_what_it_found() -> None:
    """Exactly as if it had been granted to it anew: its caller has been told that it does not hold the lock."""
    log = Log()
    log.take_up(WORKER).hold()
    trigger = log.take_up(TRIGGER)
    trigger.acquire()
    trigger.cancel(trigger.last_request)
    assert log.lock("/l").holder is None


def test_permits_pass_on_and_are_not_taken_twice() -> None:
    log = Log()
    worker = log.take_up(WORKER)
    token = worker.taken(permits=2, limit=3)
    trigger = log.take_up(TRIGGER)
    assert trigger.take(permits=2, limit=3) == PermitsGranted(token)
    assert log.semaphore().taken == 2
    assert trigger.give(token).result == Done()


def test_a_place_in_a_semaphores_queue_passes_on() -> None:
    log = Log()
    holder = log.open()
    held = holder.taken(permits=2)
    log.take_up(WORKER).take()
    stranger = log.open()
    stranger.take(permits=2)
    trigger = log.take_up(TRIGGER)
    assert trigger.take() is None
    assert [waiter.attachment for waiter in log.semaphore().waiters] == [trigger.attachment, stranger.attachment]
    ((attachment, request, answer),) = holder.give(held).replies
    assert (attachment, request) == (trigger.attachment, trigger.last_request)
    assert isinstance(answer, PermitsGranted)


def test_a_candidacy_passes_on_with_its_epoch() -> None:
    """The same attempt leads on: nothing has changed for anybody else."""
    log = Log()
    entered = log.take_up(WORKER).enter()
    trigger = log.take_up(TRIGGER)
    assert trigger.enter() == entered
    leader = log.election().leader
    assert leader is not None
    assert (leader.epoch, leader.attachment) == (entered.epoch, trigger.attachment)


def test_what_belongs_to_a_process_ends_when_another_has_the_session() -> None:
    """Listeners, members and consumers are in a process; a wait for a rate would spend what nobody uses."""
    log = Log()
    worker = log.take_up(WORKER)
    worker.join("/g")
    worker.subscribe("lock", "/l")
    worker.spend(3)
    assert worker.spend(3, wait_ms=None) is None
    ended = log.apply(OpenDetached("job", Attempt(1), 10_000, OWNER, TRIGGER))
    assert log.members() == []
    assert len(ended.unsubscribed) == 2
    assert log.limiter().waiters_total == 0
    assert [answer.code for _, _, answer in ended.replies if isinstance(answer, Failed)] == ["Superseded"]


def test_what_belongs_to_a_process_ends_with_the_hand_off() -> None:
    log = Log()
    worker = log.take_up(WORKER)
    worker.join("/g")
    worker.hand_off()
    assert log.members() == []


def test_taking_up_twice_is_taking_up_once() -> None:
    """The command has no request number: sent again after a failover, it finds that it was applied."""
    log = Log()
    worker = log.take_up(WORKER)
    assert log.take_up(WORKER).attachment == worker.attachment
    trigger = log.take_up(TRIGGER)
    assert log.take_up(TRIGGER).attachment == trigger.attachment != worker.attachment


@pytest.mark.parametrize("handed_off", [False, True])
def test_late_copy_of_a_former_process_takes_nothing_from_the_present_one(handed_off: bool) -> None:
    """It may have lain in a socket all the while."""
    log = Log()
    worker = log.take_up(WORKER)
    if handed_off:
        worker.hand_off()
        assert code(log.try_take_up(WORKER)) == "Superseded"
    trigger = log.take_up(TRIGGER)
    assert code(log.try_take_up(WORKER)) == "Superseded"
    assert isinstance(trigger.acquire(), Granted)


def test_handing_off_twice_is_handing_off_once() -> None:
    log = Log()
    worker = log.take_up(WORKER)
    assert worker.hand_off(hold_ms=1_000) == Done()
    generation = log.machine.session(worker.session)
    assert worker.hand_off(hold_ms=9_000) == Done()
    assert log.machine.session(worker.session) == generation
    log.take_up(TRIGGER)
    assert worker.hand_off() == Done(), "it did, before"


def test_handed_off_session_has_no_lease_and_ends_when_it_was_held_long_enough() -> None:
    """The end is an entry of its own, which the leader adds; one meant for it as it was before does nothing."""
    log = Log()
    worker = log.take_up(WORKER)
    worker.hold()
    worker.hand_off(hold_ms=5_000)
    view = log.machine.session(worker.session)
    assert view is not None
    assert not view.is_leased
    assert view.detached is not None
    assert view.detached.held_until_ms == log.time_ms + 5_000
    worker.expire(worker.attachment)
    assert log.lock("/l").holder is not None
    worker.expire(view.generation)
    assert log.lock("/l").holder is None


def test_expiry_meant_for_a_process_before_does_nothing() -> None:
    """The leader found the lease over; before its entry was applied, another process took the session up."""
    log = Log()
    worker = log.take_up(WORKER)
    worker.hold()
    trigger = log.take_up(TRIGGER)
    worker.expire(worker.attachment)
    assert isinstance(trigger.acquire(), Granted)
    trigger.expire(trigger.attachment)
    assert code(trigger.acquire()) == "SessionExpired"


def test_name_can_be_used_again_once_its_sessions_ended() -> None:
    log = Log()
    first = log.take_up(WORKER, attempt=5)
    first.exit()
    second = log.take_up(WORKER, attempt=1)
    assert second.session != first.session


# --- from attempt to attempt ------------------------------------------------------------------------------------------------------


def test_attempts_are_in_order_of_numbers_and_then_of_instances() -> None:
    log = Log()
    log.take_up(WORKER, attempt=2, instance="b")
    for attempt, instance in ((1, "z"), (2, "a"), (0, "")):
        refused = log.try_take_up(OTHER, attempt, instance)
        assert isinstance(refused, Failed)
        assert (refused.code, refused.details["by"]) == ("Superseded", "attempt")
    log.take_up(OTHER, attempt=2, instance="c")
    log.take_up(OTHER, attempt=3, instance="")


def test_later_attempt_gets_the_lock_only_when_the_earlier_one_is_gone() -> None:
    """`wait`: the earlier attempt may still be at work; it is over with its lease, or when it says that it has stopped."""
    log = Log()
    first = log.take_up(WORKER, attempt=1)
    first.hold()
    second = log.take_up(OTHER, attempt=2)
    assert second.session != first.session
    assert second.acquire() is None
    ended = first.exit()
    assert ended.replies == [(second.attachment, second.last_request, Granted(granted_token(log)))]


def test_nobody_comes_between_two_attempts() -> None:
    """Strangers waited before the later attempt came: the lock is its name's until that gives it back."""
    log = Log()
    first = log.take_up(WORKER, attempt=1)
    first.hold()
    stranger = log.open()
    stranger.acquire()
    second = log.take_up(OTHER, attempt=2)
    second.acquire()
    first.expire(first.attachment)
    holder = log.lock("/l").holder
    assert holder is not None
    assert holder.attachment == second.attachment


def test_superseded_attempt_gets_nothing_more_and_may_give_back() -> None:
    log = Log()
    first = log.take_up(WORKER, attempt=1)
    token = first.hold()
    log.take_up(OTHER, attempt=2)
    refused = first.acquire("/another")
    assert isinstance(refused, Failed)
    assert (refused.code, refused.details["by"]) == ("Superseded", "attempt")
    assert first.release(token).result == Done()


@pytest.mark.parametrize("actor", [WORKER, TRIGGER])
def test_superseded_session_is_not_taken_up_though_the_later_attempt_has_ended(actor: bytes) -> None:
    """It would get nothing any more, and whoever tries it again and again would keep it from ending."""
    log = Log()
    first = log.take_up(WORKER, attempt=1)
    first.hold()
    log.take_up(OTHER, attempt=2).exit()
    refused = log.apply(OpenDetached("job", Attempt(1), 10_000, OWNER, actor))
    assert isinstance(refused.result, Failed)
    assert (refused.result.code, refused.result.details["by"]) == ("Superseded", "attempt")
    assert not refused.leased, "its lease runs on as it did"
    first.expire(first.attachment)
    assert log.take_up(TRIGGER, attempt=1).session != first.session


def test_later_attempt_that_fences_has_the_lock_at_once_under_a_new_token() -> None:
    """Safety is the token's business then."""
    log = Log()
    first = log.take_up(WORKER, attempt=1)
    token = first.hold()
    granted = fenced(log.take_up(OTHER, attempt=2))
    assert isinstance(granted, Granted)
    assert granted.token > token
    assert code(first.release(token).result) == "NotHolder"


def test_later_attempt_need_not_wait_for_one_that_was_handed_off_to_nobody() -> None:
    """Nobody can be at work under it."""
    log = Log()
    first = log.take_up(WORKER, attempt=1)
    token = first.hold()
    first.hand_off()
    second = log.take_up(OTHER, attempt=2)
    granted = second.acquire(wait_ms=0)
    assert isinstance(granted, Granted)
    assert granted.token > token


def test_a_stranger_never_fences() -> None:
    """Names that differ are strangers to each other, and so are sessions without one."""
    log = Log()
    log.take_up(WORKER, attempt=1, name="one").hold()
    assert fenced(log.take_up(WORKER, attempt=9, name="two")) is None
    assert fenced(log.open()) is None


def test_later_attempt_takes_the_place_of_one_that_waits() -> None:
    log = Log()
    holder = log.open()
    token = holder.hold()
    first = log.take_up(WORKER, attempt=1)
    first.acquire()
    stranger = log.open()
    stranger.acquire()
    second = log.take_up(OTHER, attempt=2)
    moved = second.call(LockAcquire("/l", None, OWNER))
    assert [(attachment, answer.reason) for attachment, _, answer in moved.replies if isinstance(answer, NotGranted)] == [
        (first.attachment, "moved")
    ]
    holder.release(token)
    now = log.lock("/l").holder
    assert now is not None
    assert now.attachment == second.attachment


def test_later_attempt_leads_at_once_in_a_new_epoch() -> None:
    """The default of elections: nobody is led by an attempt that was given up."""
    log = Log()
    first = log.take_up(WORKER, attempt=1)
    old = first.enter()
    stranger = log.open()
    stranger.enter()
    since = log.index
    entered = log.take_up(OTHER, attempt=2).enter()
    assert entered.epoch > old.epoch
    leader = log.election().leader
    assert leader is not None
    assert leader.candidate == entered.candidate
    told = [change for _, _, found in log.read("election", "/e", since) for change in found]
    assert [change.leader.epoch for change in told if isinstance(change, LeaderElected)] == [entered.epoch]


def test_later_attempt_that_waits_leads_when_the_earlier_one_is_gone_before_strangers() -> None:
    log = Log()
    first = log.take_up(WORKER, attempt=1)
    first.enter()
    log.open().enter()
    entered = waits_to_lead(log.take_up(OTHER, attempt=2))
    assert entered.epoch == 0
    first.exit()
    leader = log.election().leader
    assert leader is not None
    assert leader.candidate == entered.candidate


def test_later_attempt_takes_the_place_of_a_candidate_that_waits() -> None:
    log = Log()
    log.open().enter()
    log.take_up(WORKER, attempt=1).enter()
    stranger = log.open().enter()
    entered = log.take_up(OTHER, attempt=2).enter()
    assert [found.candidate for found in log.election().candidates] == [entered.candidate, stranger.candidate]


def test_later_attempt_takes_the_places_of_all_before_it() -> None:
    """The first leads, the second waits for it; when the third has led and gone, none of them leads again."""
    log = Log()
    log.take_up(WORKER, attempt=1).enter()
    waits_to_lead(log.take_up(TRIGGER, attempt=2))
    third = log.take_up(OTHER, attempt=3)
    third.enter()
    assert log.election().candidates == ()
    third.exit()
    assert log.election().leader is None


def test_what_a_later_attempt_does_not_ask_for_ends_with_the_earlier_one() -> None:
    """A session that nobody has is held no longer than its TTL once it is superseded."""
    log = Log()
    first = log.take_up(WORKER, attempt=1, ttl_ms=3_000)
    first.hold("/unwanted")
    first.hand_off(hold_ms=600_000)
    log.take_up(OTHER, attempt=2)
    view = log.machine.session(first.session)
    assert view is not None
    assert view.detached is not None
    assert view.detached.held_until_ms == log.time_ms + 3_000


# --- who was replaced without a hand-off ------------------------------------------------------------------------------------------


def let_go(log: Log, process: Process, token: FencingToken, how: str) -> None:
    if how == "released":
        assert process.release(token).result == Done()
    elif how == "closed":
        process.exit()
    elif how == "expired":
        process.expire(process.attachment)
    else:
        process.cancel(process.last_request)


@pytest.mark.parametrize("how", ["released", "closed", "expired", "cancelled"])
def test_nobody_has_the_lock_while_a_process_that_was_replaced_may_believe_in_it(how: str) -> None:
    """It stalls within its lease, the next one does the rest in no time, a stranger follows: it would go on beside the stranger."""
    log = Log()
    log.take_up(WORKER, ttl_ms=10_000).hold()
    other = log.take_up(OTHER, ttl_ms=1_000)
    granted = other.acquire()
    assert isinstance(granted, Granted)
    log.wait(3_000)
    stranger = log.open()
    stranger.acquire()
    let_go(log, other, granted.token, how)
    state = log.lock("/l")
    assert state.holder is None
    assert state.closed is not None
    assert state.closed.reason == "replaced"
    log.wait(6_999)
    assert log.lock("/l").holder is None
    log.wait(1)
    assert granted_token(log) > granted.token


def test_later_attempt_waits_for_a_process_that_was_replaced() -> None:
    """Also where the one that replaced it has handed the session off: it speaks for itself alone."""
    log = Log()
    log.take_up(WORKER, attempt=1, ttl_ms=10_000).hold()
    other = log.take_up(OTHER, attempt=1, ttl_ms=10_000)
    other.hand_off()
    second = log.take_up(TRIGGER, attempt=2)
    assert isinstance(second.acquire(wait_ms=0), NotGranted)
    assert second.acquire() is None
    log.wait(9_999)
    other.expire(granted_generation(log, other))
    assert log.lock("/l").holder is None
    log.wait(1)
    holder = log.lock("/l").holder
    assert holder is not None
    assert holder.session == second.session


def granted_generation(log: Log, process: Process) -> int:
    view = log.machine.session(process.session)
    assert view is not None
    return view.generation


def test_process_that_was_replaced_and_says_that_it_has_stopped_is_not_waited_for() -> None:
    log = Log()
    worker = log.take_up(WORKER)
    token = worker.hold()
    other = log.take_up(OTHER)
    assert worker.exit().result == Done()
    other.release(token)
    state = log.lock("/l")
    assert (state.holder, state.closed) == (None, None)


def test_process_that_was_replaced_never_heard_of_what_was_granted_later() -> None:
    log = Log()
    log.take_up(WORKER).hold("/before")
    other = log.take_up(OTHER)
    other.release(other.hold("/after"))
    assert log.lock("/after").closed is None


def test_its_lease_counts_from_what_the_next_process_does_first() -> None:
    """Its keep-alive may have been answered after the taking up was stamped, but not after that was applied."""
    log = Log()
    token = log.take_up(WORKER, ttl_ms=10_000).hold()
    other = log.take_up(OTHER)
    log.wait(4_000)
    other.release(token)
    log.wait(9_999)
    assert log.lock("/l").closed is not None
    log.wait(1)
    assert log.lock("/l").closed is None


def test_lease_of_the_next_process_counts_for_the_one_that_it_replaced() -> None:
    """It died before it did anything: nobody waits for two leases one after the other."""
    log = Log()
    log.take_up(WORKER, ttl_ms=10_000).hold()
    other = log.take_up(OTHER, ttl_ms=10_000)
    log.wait(10_000)
    other.expire(other.attachment)
    state = log.lock("/l")
    assert (state.holder, state.closed) == (None, None)


def test_many_that_were_replaced_are_remembered_as_one() -> None:
    """The bound costs no safety: the last of them all is waited for."""
    log = Log()
    token = log.take_up(b"0", ttl_ms=60_000).hold()
    for number in range(1, 3 * ACTORS_KEPT):
        other = log.take_up(bytes([number]), ttl_ms=1_000)
    other.release(token)
    log.wait(59_999)
    assert log.lock("/l").closed is not None


def test_operator_ends_it_at_once() -> None:
    """Who kills a session answers for its processes, as who breaks a lock does."""
    log = Log()
    log.take_up(WORKER).hold()
    other = log.take_up(OTHER)
    log.apply(CloseSession(other.session))
    state = log.lock("/l")
    assert (state.holder, state.closed) == (None, None)


# --- bounds, snapshots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "command"),
    [
        ("name", OpenDetached("", Attempt(1), 10_000, OWNER, WORKER)),
        ("name", OpenDetached("x" * (DETACHED_NAME_BYTES_MAX + 1), Attempt(1), 10_000, OWNER, WORKER)),
        ("attempt", OpenDetached("job", Attempt(-1), 10_000, OWNER, WORKER)),
        ("instance", OpenDetached("job", Attempt(1, "x" * (INSTANCE_BYTES_MAX + 1)), 10_000, OWNER, WORKER)),
        ("actor", OpenDetached("job", Attempt(1), 10_000, OWNER, b"")),
        ("actor", OpenDetached("job", Attempt(1), 10_000, OWNER, b"x" * (ACTOR_BYTES_MAX + 1))),
        ("ttl_ms", OpenDetached("job", Attempt(1), 1, OWNER, WORKER)),
    ],
)
def test_ill_formed_command_is_refused(field: str, command: OpenDetached) -> None:
    refused = Log().apply(command).result
    assert isinstance(refused, Failed)
    assert (refused.code, refused.details["field"]) == ("InvalidRequest", field)


def test_attempts_of_one_name_that_have_not_ended_are_bounded() -> None:
    """Each is looked through for whatever the last one acquires.  There is room again when one ends."""
    log = Log()
    first = log.take_up(WORKER, attempt=0)
    for attempt in range(1, ATTEMPTS_PER_NAME_MAX):
        log.take_up(WORKER, attempt=attempt)
    assert code(log.try_take_up(WORKER, attempt=ATTEMPTS_PER_NAME_MAX)) == "LimitExceeded"
    first.exit()
    log.take_up(WORKER, attempt=ATTEMPTS_PER_NAME_MAX)


@pytest.mark.parametrize("hold_ms", [0, -1, HOLD_MS_MAX + 1])
def test_session_is_not_held_for_no_time_or_for_ever(hold_ms: int) -> None:
    worker = Log().take_up(WORKER)
    assert code(worker.hand_off(hold_ms)) == "InvalidRequest"
    assert isinstance(worker.acquire(), Granted)


def test_only_a_detached_session_is_handed_off_and_only_it_has_one_attachment() -> None:
    log = Log()
    process, worker = log.open(), log.take_up(WORKER)
    assert code(process.hand_off()) == "InvalidRequest"
    assert code(log.apply(HandOff(SessionId(9_999), AttachmentId(9_999), 1_000)).result) == "SessionExpired"
    assert code(log.apply(OpenAttachment(worker.session, OWNER)).result) == "InvalidRequest"
    assert code(log.apply(CloseAttachment(worker.session, worker.attachment)).result) == "InvalidRequest"


def handed_off(log: Log) -> None:
    worker = log.take_up(WORKER)
    worker.hold("/held")
    worker.hand_off()


def taken_up(log: Log) -> None:
    handed_off(log)
    log.take_up(TRIGGER).acquire("/held")


def replaced(log: Log) -> None:
    taken_up(log)
    log.take_up(OTHER).hold("/other")


def superseded(log: Log) -> None:
    taken_up(log)
    second = log.take_up(OTHER, attempt=2)
    second.acquire("/held")
    second.enter()


@pytest.mark.parametrize("state", [handed_off, taken_up, replaced, superseded])
@pytest.mark.parametrize("changes", [False, True])
def test_snapshot_has_it_all(state: Callable[[Log], None], changes: bool) -> None:
    """Also where the sessions pass on while the snapshot is written: it says what was at its index."""
    log = Log()
    state(log)
    before = log.machine.digest()
    snapshot = log.machine.begin_snapshot(chunk_bytes=64)
    chunks = snapshot.step(1)
    if changes:
        log.take_up(b"late", attempt=2)
        log.take_up(b"later", attempt=3).acquire("/held")
    while not snapshot.done:
        chunks += snapshot.step(1)
    restored = Machine.restore(chunks)
    assert restored.digest() == before


def test_snapshot_has_a_candidates_owner_though_the_next_process_is_called_the_same() -> None:
    """A row leaves out an owner that is its attachment's: that of the snapshot's index, not the one who came since."""
    log = Log()
    worker, called = log.take_up(WORKER), Owner("host-2", 7, "late")
    assert isinstance(worker.call(ElectionEnter("/e", called)).result, Entered)
    before = log.machine.digest()
    snapshot = log.machine.begin_snapshot(chunk_bytes=64)
    chunks = snapshot.step(1)
    log.take_up(TRIGGER, owner=Owner("host-2", 7, "late"))
    while not snapshot.done:
        chunks += snapshot.step(1)
    assert Machine.restore(chunks).digest() == before
