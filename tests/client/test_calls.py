"""Exactly once, order, window, cancellation and timeouts of calls, as scripts (dissertation, 6.3)."""

import pytest

from coord_core.client.session import SessionState
from coord_core.client.settings import QUEUED_REQUESTS_MAX
from coord_core.errors import Busy, NotHolder, OutcomeUnknown, Unavailable
from coord_core.protocol.commands import WINDOW_REQUESTS_MAX, CloseAttachment
from coord_core.protocol.messages import Ask, Reply, Told
from coord_core.protocol.operations import Cancel, ValueSet
from coord_core.protocol.queries import ValueGet, ValueState
from coord_core.protocol.results import Done, Failed, Granted, NotGranted, ValueConflict, ValueWritten
from coord_core.protocol.streams import Announced
from coord_core.types import AttachmentId, FencingToken, LogIndex, SessionId, TopicNumber
from tests.client.script import Script, call_of, calls_of, command_of, kinds_of, seq_of

TOKEN = FencingToken(200)
BUSY = Failed("Busy", "try again in a moment", {})


@pytest.fixture
def script() -> Script:
    """Return a script whose session is open and idle."""
    script = Script()
    script.opened()
    return script


# --- order and numbers -----------------------------------------------------------------------------------------------------------


def test_calls_are_numbered_and_sent_in_the_order_in_which_they_were_made(script: Script) -> None:
    """One message each, all of a turn at once."""
    for _ in range(3):
        script.acquire()
    assert [call.request for call in calls_of(script.take())] == [1, 2, 3]


def test_low_water_rises_with_answers_and_stops_at_the_first_gap(script: Script) -> None:
    """The cluster may forget answers up to it, and must not forget one that has not come."""
    for _ in range(3):
        script.set()
    first, second, third = script.take()
    script.answer(second, ValueWritten(1))
    script.answer(third, ValueWritten(1))
    script.set()
    (fourth,) = script.take()
    assert call_of(fourth).low_water == 0
    script.answer(first, ValueWritten(1))
    script.set()
    (fifth,) = script.take()
    assert call_of(fifth).low_water == 3


def test_ranges_are_sent_once_much_is_answered_above_a_gap(script: Script) -> None:
    """A call that waits for days must not make the cluster remember a thousand answers, nor close the window."""
    script.acquire()
    script.take()
    for _ in range(600):
        script.set()
        (sent,) = script.take()
        script.answer(sent, ValueWritten(1))
    script.set()
    (sent,) = script.take()
    assert call_of(sent).low_water == 0
    assert call_of(sent).answered == ((2, 601),)


def test_answers_with_values_are_acknowledged_at_once(script: Script) -> None:
    """The cluster keeps only a megabyte of them."""
    script.acquire()
    script.set()
    _, second = script.take()
    script.answer(second, ValueConflict(1, b"x" * 1000))
    script.set()
    (sent,) = script.take()
    assert call_of(sent).answered == ((2, 2),)


def test_answers_that_named_an_audience_are_acknowledged_at_once(script: Script) -> None:
    """They count among those of which the cluster keeps only a megabyte: over it, it would refuse even a release."""
    script.acquire()
    script.set()
    _, second = script.take()
    script.answer(second, Announced(LogIndex(9), 1_000, (), (), 0, TopicNumber(5)))
    script.set()
    (sent,) = script.take()
    assert call_of(sent).answered == ((2, 2),)


def test_unanswered_calls_are_sent_again_in_order_after_a_reconnect(script: Script) -> None:
    """Under their old numbers, before new ones."""
    for _ in range(4):
        script.acquire()
    sent = script.take()
    script.answer(sent[1], NotGranted("busy"))
    script.cut()
    script.acquire()
    again = script.connect()
    assert kinds_of(again)[0] == "KeepAlive"
    assert [call.request for call in calls_of(again)] == [1, 3, 4, 5]


def test_answered_calls_are_not_sent_again(script: Script) -> None:
    """Their answers have been given out."""
    script.set()
    (sent,) = script.take()
    script.answer(sent, ValueWritten(1))
    script.cut()
    assert kinds_of(script.connect()) == ["KeepAlive"]


def test_answer_of_a_connection_before_means_nothing(script: Script) -> None:
    """Sequence numbers begin anew on every connection; an old answer must not settle a new request."""
    call = script.set()
    (old,) = script.take()
    script.cut()
    script.connect()
    script.say(Reply(seq_of(old) + 100, ValueWritten(1)))
    assert call not in script.outcomes


def test_unanswered_read_is_asked_again_after_a_reconnect(script: Script) -> None:
    """It changes nothing, so it may."""
    call = script.session.ask(ValueGet("/v"), script.now_ms)
    script.take()
    script.cut()
    asks = [message for message in script.connect() if isinstance(message, Ask)]
    script.say(Told(asks[0].seq, ValueState(3, b"x")))
    assert script.outcomes[call] == ValueState(3, b"x")


def test_calls_of_one_order_go_one_after_the_others_answer(script: Script) -> None:
    """So that none overtakes another, whatever is refused or sent again on the way."""
    for value in (b"1", b"2"):
        script.set(value, order="handle")
    script.set(b"other")
    first, other = script.take()
    assert [call_of(sent).operation for sent in (first, other)] == [ValueSet("/value", b"1"), ValueSet("/value", b"other")]
    (second,) = script.answer(first, ValueWritten(1))
    assert call_of(second).operation == ValueSet("/value", b"2")


def test_read_waits_for_the_write_before_it_in_its_order(script: Script) -> None:
    """A handle reads its own writes."""
    script.set(order="handle")
    script.session.ask(ValueGet("/value"), script.now_ms, order="handle")
    (sent,) = script.take()
    assert kinds_of([sent]) == ["ValueSet"]
    assert kinds_of(script.answer(sent, ValueWritten(1))) == ["Ask"]


# --- the window ------------------------------------------------------------------------------------------------------------------


def test_calls_beyond_the_window_wait_for_answers(script: Script) -> None:
    """The cluster refuses more, and would be right."""
    for _ in range(WINDOW_REQUESTS_MAX + 5):
        script.acquire()
    sent = script.take()
    assert len(sent) == WINDOW_REQUESTS_MAX
    assert len(calls_of(script.answer(sent[0], NotGranted("busy")))) == 1


def test_release_goes_even_when_waiting_calls_fill_the_window(script: Script) -> None:
    """Else a process whose every call waits for a lock that it holds itself would wait for ever."""
    script.acquire()
    (sent,) = script.take()
    script.answer(sent, Granted(TOKEN))
    for _ in range(WINDOW_REQUESTS_MAX + 1):
        script.acquire()
    script.take()
    script.release(TOKEN)
    assert kinds_of(script.take()) == ["LockRelease"]


def test_more_calls_than_the_bound_raise_busy(script: Script) -> None:
    """A queue without a bound hides the trouble until memory ends; a release is taken all the same."""
    script.cut()
    for _ in range(QUEUED_REQUESTS_MAX):
        script.acquire()
    with pytest.raises(Busy):
        script.acquire()
    script.release(TOKEN)


# --- Busy ------------------------------------------------------------------------------------------------------------------------


def test_busy_cluster_is_asked_again_after_a_pause_in_order(script: Script) -> None:
    """Nobody but this client can give it time to breathe."""
    for _ in range(3):
        script.set()
    first, second, third = script.take()
    assert script.answer(third, BUSY) == []
    assert script.answer(first, BUSY) == []
    script.answer(second, ValueWritten(1))
    assert [call.request for call in calls_of(script.sleep(200))] == [1, 3]


def test_new_calls_wait_while_the_cluster_is_busy_but_releases_go(script: Script) -> None:
    """What frees something relieves the cluster."""
    script.set()
    (sent,) = script.take()
    script.answer(sent, BUSY)
    script.acquire()
    script.release(TOKEN)
    assert kinds_of(script.take()) == ["LockRelease"]
    assert kinds_of(script.sleep(200)) == ["ValueSet", "LockAcquire"]


def test_pauses_grow_while_the_cluster_stays_busy(script: Script) -> None:
    """And are bounded: twenty refusals take a while, and not for ever."""
    script.acquire()
    (sent,) = script.take()
    began_ms = script.now_ms
    pauses = []
    for _ in range(20):
        at_ms = script.now_ms
        resent = script.answer(sent, BUSY)
        while not calls_of(resent):
            resent = [message for message in script.sleep(1) if kinds_of([message]) == ["LockAcquire"]]
        (sent,) = resent
        pauses.append(script.now_ms - at_ms)
    assert max(pauses[:2]) <= 45
    assert 45 < max(pauses) <= 1_002
    assert script.now_ms - began_ms > 500


# --- cancellation ----------------------------------------------------------------------------------------------------------------


def test_cancelled_acquire_is_withdrawn_and_its_caller_hears_at_once(script: Script) -> None:
    """The caller does not wait for the network; the cluster is told until it answers."""
    call = script.acquire()
    script.take()
    script.session.cancel(call, script.now_ms)
    (cancel,) = script.take()
    assert call_of(cancel).operation == Cancel(1)  # type: ignore[arg-type]
    assert script.outcomes[call] == NotGranted("cancelled")


def test_grant_that_crosses_the_cancel_is_not_believed(script: Script) -> None:
    """The cancel releases it (atomix 500)."""
    call = script.acquire()
    (acquire,) = script.take()
    script.session.cancel(call, script.now_ms)
    (cancel,) = script.take()
    script.answer(acquire, Granted(TOKEN))
    assert not script.session.believes_held("/lock", TOKEN, script.now_ms)
    script.answer(cancel, Done())
    assert script.outcomes[call] == NotGranted("cancelled")


def test_cancelled_request_is_not_acknowledged_before_its_cancel_is_answered(script: Script) -> None:
    """The cluster must still know of it when the cancel arrives."""
    call = script.acquire()
    (acquire,) = script.take()
    script.session.cancel(call, script.now_ms)
    (cancel,) = script.take()
    script.answer(acquire, Granted(TOKEN))
    script.set()
    (sent,) = script.take()
    assert call_of(sent).low_water == 0
    script.answer(cancel, Done())
    script.set()
    (sent,) = script.take()
    assert call_of(sent).low_water == 2


def test_cancel_is_sent_again_until_answered_and_its_target_is_not(script: Script) -> None:
    """The request's own copy would only join the queue again."""
    call = script.acquire()
    script.take()
    script.session.cancel(call, script.now_ms)
    script.take()
    script.cut()
    assert kinds_of(script.connect()) == ["KeepAlive", "Cancel"]


def test_cancelling_what_was_never_sent_sends_nothing() -> None:
    """The cluster does not know of it."""
    script = Script()
    call = script.acquire()
    script.session.cancel(call, script.now_ms)
    script.opened()
    assert script.outcomes[call] == NotGranted("cancelled")
    assert script.take() == []


def test_cancelling_what_is_answered_does_nothing(script: Script) -> None:
    """It has its outcome."""
    call = script.acquire()
    (sent,) = script.take()
    script.answer(sent, Granted(TOKEN))
    script.session.cancel(call, script.now_ms)
    assert script.take() == []
    assert script.outcomes[call] == Granted(TOKEN)


def test_busy_acquire_that_is_cancelled_is_not_sent_again(script: Script) -> None:
    """Only its cancel goes: it leaves a tombstone where the request may still arrive."""
    call = script.acquire()
    (sent,) = script.take()
    script.answer(sent, BUSY)
    script.session.cancel(call, script.now_ms)
    assert kinds_of(script.sleep(400)) == ["Cancel"]


def test_cancel_goes_at_once_although_the_cluster_is_busy_and_the_window_full(script: Script) -> None:
    """It makes room."""
    calls = [script.acquire() for _ in range(WINDOW_REQUESTS_MAX)]
    sent = script.take()
    script.answer(sent[-1], BUSY)
    script.session.cancel(calls[0], script.now_ms)
    assert kinds_of(script.take()) == ["Cancel"]


def test_own_answer_of_a_withdrawn_call_does_not_let_the_next_of_its_order_go(script: Script) -> None:
    """Only the cancel's answer is final."""
    call = script.set(b"1", order="handle")
    script.set(b"2", order="handle")
    (first,) = script.take()
    script.session.cancel(call, script.now_ms)
    (cancel,) = script.take()
    assert script.answer(first, ValueWritten(1)) == []
    assert kinds_of(script.answer(cancel, Done())) == ["ValueSet"]


# --- timeouts --------------------------------------------------------------------------------------------------------------------


def test_server_decides_a_waits_end_while_it_answers(script: Script) -> None:
    """The local deadline is later by the grace."""
    call = script.acquire(wait_ms=100)
    (sent,) = script.take()
    script.sleep(300)
    assert call not in script.outcomes
    script.answer(sent, NotGranted("timeout"))
    assert script.outcomes[call] == NotGranted("timeout")


def test_acquire_that_nobody_answers_ends_locally_and_is_withdrawn(script: Script) -> None:
    """A wait of five seconds must not become one without end where the cluster is gone."""
    call = script.acquire(wait_ms=100)
    script.take()
    script.cut()
    script.sleep(2_100)
    assert script.outcomes[call] == NotGranted("timeout")
    assert kinds_of(script.connect()) == ["KeepAlive", "Cancel"]


def test_acquire_that_was_never_sent_in_its_time_is_unavailable() -> None:
    """Not "busy": nobody was asked."""
    script = Script()
    call = script.acquire(wait_ms=100)
    script.sleep(2_100)
    assert isinstance(script.outcomes[call], Unavailable)


def test_acquire_without_end_waits_through_an_outage(script: Script) -> None:
    """As long as its session lives."""
    call = script.acquire()
    script.take()
    script.cut()
    script.sleep(10_000)
    assert call not in script.outcomes
    assert script.session.state is SessionState.SUSPENDED


def test_write_that_is_not_answered_in_time_is_unknown_and_withdrawn(script: Script) -> None:
    """It must not take effect much later, when its caller has turned away."""
    call = script.set(timeout_ms=300)
    script.take()
    sent = script.sleep(300)
    assert isinstance(script.outcomes[call], OutcomeUnknown)
    assert kinds_of(sent) == ["Cancel"]


def test_write_that_was_never_sent_in_its_time_is_unavailable_and_never_sent() -> None:
    """Unavailable promises that it was not applied."""
    script = Script()
    call = script.set(timeout_ms=300)
    script.sleep(300)
    assert isinstance(script.outcomes[call], Unavailable)
    assert calls_of(script.opened()) == []


def test_next_of_the_order_waits_until_the_withdrawal_is_certain(script: Script) -> None:
    """Before that the withdrawn write might still be applied, after its successor."""
    script.set(b"1", order="handle", timeout_ms=300)
    script.take()
    script.set(b"2", order="handle", timeout_ms=5_000)
    (cancel,) = script.sleep(300)
    assert kinds_of([cancel]) == ["Cancel"]
    (second,) = script.answer(cancel, Done())
    assert call_of(second).operation == ValueSet("/value", b"2")


def test_release_that_is_not_answered_in_time_is_sent_on(script: Script) -> None:
    """The caller wants the lock free: giving up the release would leave it held by a live session."""
    call = script.release(TOKEN)
    script.take()
    script.cut()
    script.sleep(10_000)
    assert isinstance(script.outcomes[call], OutcomeUnknown)
    assert kinds_of(script.connect()) == ["KeepAlive", "LockRelease"]


def test_read_that_is_not_answered_in_time_is_unavailable(script: Script) -> None:
    """Reading changes nothing, so nothing is unknown."""
    call = script.session.ask(ValueGet("/v"), script.now_ms, timeout_ms=300)
    script.sleep(300)
    assert isinstance(script.outcomes[call], Unavailable)


def test_refusal_of_a_call_becomes_its_error(script: Script) -> None:
    """By class name, so that the caller can catch it."""
    call = script.release(TOKEN)
    (sent,) = script.take()
    script.answer(sent, Failed("NotHolder", "not yours", {}))
    assert isinstance(script.outcomes[call], NotHolder)


def test_command_without_a_number_is_sent_again_until_answered(script: Script) -> None:
    """It is safe to apply twice."""
    command = CloseAttachment(SessionId(100), AttachmentId(150))
    call = script.session.command(command, script.now_ms)
    (sent,) = script.take()
    assert command_of(sent) == command
    script.cut()
    again = script.connect()[-1]
    assert command_of(again) == command
    script.answer(again, Done())
    assert script.outcomes[call] == Done()
