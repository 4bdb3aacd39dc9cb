"""Exceptions survive both ways in which Celery moves them."""

import pickle

import pytest
from celery import Celery
from celery.utils.serialization import get_pickleable_exception
from coord_celery import CoordUnavailable, DuplicateTask, LockLost, SingletonConflict

import coord_core

KINDS = [DuplicateTask, SingletonConflict, LockLost, CoordUnavailable]


@pytest.mark.parametrize("kind", KINDS)
def test_exception_survives_pickling(kind):
    """celery-singleton#55: the exception of the worker arrived as an UnpickleableExceptionWrapper."""
    error = pickle.loads(pickle.dumps(kind("user-7", "task-1", "because")))
    assert (type(error), error.key, error.holder_task_id, error.reason) == (kind, "user-7", "task-1", "because")
    assert isinstance(get_pickleable_exception(error), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_exception_survives_a_json_result_backend(kind):
    """There it is stored as class and args and built again from them."""
    backend = Celery("test", backend="cache+memory://", set_as_current=False).backend
    error = backend.exception_to_python(backend.prepare_exception(kind("user-7", "task-1"), "json"))
    assert (type(error), error.key, error.holder_task_id) == (kind, "user-7", "task-1")


def test_message_names_key_and_holder():
    assert str(DuplicateTask("user-7", "task-1")) == "already queued or running (key 'user-7', held by task task-1)"
    assert str(LockLost("user-7", None, "why")) == "the lock is lost (key 'user-7'): why"


def test_exceptions_are_caught_as_what_they_are_in_the_core():
    assert issubclass(LockLost, coord_core.errors.LockLost)
    assert issubclass(CoordUnavailable, coord_core.errors.Unavailable)
