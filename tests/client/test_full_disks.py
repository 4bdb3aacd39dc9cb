"""A cluster without room on its disks, as its clients see it: told at once, in its own words, and never told a falsehood."""

import pytest

from coord_core.errors import DiskFull, OutcomeUnknown
from coord_core.protocol.messages import Redirect
from coord_core.protocol.operations import Cancel
from coord_core.protocol.results import Done, Failed
from tests.client.script import B, Script, call_of, calls_of, kinds_of, seq_of

FULL = Failed("DiskFull", "no room on disk for new commands: node n1 has 3.0 MiB free", {"free_bytes": 3})


@pytest.fixture
def script() -> Script:
    """Return a script whose session is open and idle."""
    script = Script()
    script.opened()
    return script


def test_call_that_finds_no_room_ends_at_once(script: Script) -> None:
    """Not after a timeout, or never: it takes a person to free space.  Calls made later are asked anew."""
    calls = [script.set(), script.acquire()]
    for sent in script.take():
        script.answer(sent, FULL)
    for call in calls:
        assert isinstance(script.outcomes[call], DiskFull)
        assert script.outcomes[call].message == FULL.message
    again = script.set()
    (sent,) = script.take()
    assert call_of(sent).low_water == 2
    script.answer(sent, Done())
    assert script.outcomes[again] == Done()


def test_opening_a_session_ends_at_once_too() -> None:
    """Whoever waits for it hears why."""
    script = Script()
    call = script.set()
    (open_,) = script.connect()
    script.answer(open_, FULL)
    assert isinstance(script.outcomes[call], DiskFull)
    assert isinstance(script.session.refusal, DiskFull)


def test_release_is_sent_until_there_is_room_for_it(script: Script) -> None:
    """On disks that are not only low but full; the caller is told, and the lock does become free."""
    call = script.release(5)
    (sent,) = script.take()
    script.answer(sent, FULL)
    assert call not in script.outcomes
    sent_again = script.sleep(60_000)
    outcome = script.outcomes[call]
    assert isinstance(outcome, OutcomeUnknown)
    assert "still being sent (last: no room on disk" in outcome.message
    assert kinds_of(sent_again).count("LockRelease") >= 1


def test_write_that_was_sent_before_is_not_called_unapplied(script: Script) -> None:
    """The leader that it was sent to first may have stored it; it ends in time, and says what is the matter."""
    call = script.set()
    (first,) = script.take()
    script.say(Redirect(seq_of(first), B))
    assert script.dial() == B
    sent = [message for message in script.welcome(B) if "ValueSet" in kinds_of([message])]
    for message in sent:
        script.answer(message, FULL)
    assert call not in script.outcomes
    script.sleep(60_000)
    outcome = script.outcomes[call]
    assert isinstance(outcome, OutcomeUnknown)
    assert "may or may not have been applied (last: no room on disk" in outcome.message


def test_acquire_that_was_sent_before_is_withdrawn_and_ends_at_once(script: Script) -> None:
    """Whatever the first leader made of it: the Cancel is taken where there is no room for anything new."""
    call = script.acquire()
    (first,) = script.take()
    script.say(Redirect(seq_of(first), B))
    script.dial()
    (acquire,) = [message for message in script.welcome(B) if "LockAcquire" in kinds_of([message])]
    answered = script.answer(acquire, FULL)
    assert isinstance(script.outcomes[call], OutcomeUnknown)
    assert "no room on disk" in script.outcomes[call].message
    assert "it is withdrawn, and the lock is not held" in script.outcomes[call].message
    (cancel,) = calls_of(answered)
    assert cancel.operation == Cancel(call_of(acquire).request)
