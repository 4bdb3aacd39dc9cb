"""Clearing up in the background."""

import os
import threading

import pytest
from coord_celery import janitor as module
from coord_celery.janitor import Janitor

from coord_core import errors


def no_pause(_seconds):
    """Time is a parameter."""


def holding_up(begun, leave):
    """Return a chore that keeps the janitor until `leave`."""

    def act():
        begun.set()
        leave.wait(20)

    return act


def done(janitor):
    """Wait until the janitor has come past everything it was given."""
    past = threading.Event()
    janitor.put("the end", past.set)
    assert past.wait(20)


@pytest.mark.parametrize("error", [errors.Unavailable("x"), errors.OutcomeUnknown("x"), errors.Busy("x")])
def test_chore_is_tried_until_it_is_done(error):
    janitor, tries = Janitor(pause=no_pause), []

    def act():
        tries.append(1)
        if len(tries) < 4:
            raise error

    janitor.put("chore", act)
    done(janitor)
    assert len(tries) == 4


@pytest.mark.parametrize("error", [errors.NotHolder("x"), errors.SessionExpired("x")])
def test_chore_that_has_become_pointless_is_dropped(error):
    janitor, tries = Janitor(pause=no_pause), []

    def act():
        tries.append(1)
        raise error

    janitor.put("chore", act)
    done(janitor)
    assert len(tries) == 1


def test_chore_is_given_up_when_it_is_too_old(caplog):
    """What is left goes with its TTL; a service that is away for hours must not fill memory."""
    now = [0.0]

    def act():
        now[0] += 200
        raise errors.Unavailable("away")

    janitor = Janitor(clock=lambda: now[0], pause=no_pause)
    janitor.put("reservation /x", act)
    done(janitor)
    assert "left to its time limit: reservation /x" in caplog.text
    assert now[0] == 800


def test_full_queue_drops_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(module, "CHORES_MAX", 1)
    janitor, begun, leave = Janitor(), threading.Event(), threading.Event()
    janitor.put("one", holding_up(begun, leave))
    assert begun.wait(20)
    janitor.put("two", lambda: None)
    janitor.put("three", lambda: None)
    assert "left to its time limit: three" in caplog.text
    leave.set()


def test_forked_child_begins_with_an_empty_queue():
    """The parent does what the parent was asked, once."""
    janitor, begun, leave = Janitor(), threading.Event(), threading.Event()
    janitor.put("held", holding_up(begun, leave))
    assert begun.wait(20)
    janitor.put("waiting", lambda: None)
    pid = os.fork()
    if pid == 0:
        ran = threading.Event()
        janitor.put("the child's own", ran.set)
        os._exit(0 if ran.wait(10) and janitor._chores.empty() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    leave.set()
