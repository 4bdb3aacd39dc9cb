"""Errors move between processes and over the wire without losing their kind, their words or their facts."""

import copy
import pickle

import pytest

from coord_core import errors
from coord_core.errors import CoordError, error_from_wire


def _kinds(kind: type[CoordError] = CoordError) -> list[type[CoordError]]:
    found = [kind]
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            found += _kinds(child)
    return found


every_kind = pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.__name__)


@every_kind
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_pickling(kind: type[CoordError], protocol: int) -> None:
    """Celery and multiprocessing move errors by pickle; one that does not come back hangs its caller."""
    error = kind("three words long", limit=5, path="/a")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert (again.message, again.details, str(again)) == ("three words long", {"limit": 5, "path": "/a"}, "three words long")


@every_kind
def test_error_survives_copying(kind: type[CoordError]) -> None:
    """Copying uses the same road as pickling."""
    again = copy.deepcopy(kind("words", limit=5))
    assert type(again) is kind
    assert again.details == {"limit": 5}


@every_kind
def test_error_is_found_again_by_its_code(kind: type[CoordError]) -> None:
    """Errors cross the wire as (code, message, details)."""
    error = kind("words", limit=5)
    again = error_from_wire(error.code, error.message, error.details)
    assert type(again) is kind
    assert (again.message, again.details) == ("words", {"limit": 5})


def test_unknown_code_becomes_a_plain_error() -> None:
    """A newer server may know errors that this client does not."""
    error = error_from_wire("FromTheFuture", "words", {"limit": 5})
    assert type(error) is CoordError
    assert error.details == {"limit": 5}


@pytest.mark.parametrize("name", ["message", "self", "kind", "code", "details", "args"])
def test_detail_may_have_any_name(name: str) -> None:
    """Details come off the wire: none of them may be taken for an argument of the constructor."""
    error = error_from_wire("InvalidRequest", "words", {name: "value"})
    assert (error.message, error.code, error.details) == ("words", "InvalidRequest", {name: "value"})
    assert pickle.loads(pickle.dumps(error)).details == {name: "value"}


@every_kind
def test_every_kind_stands_in_the_tree_of_the_modules_docstring(kind: type[CoordError]) -> None:
    """The tree is what people read to decide what to catch."""
    assert kind.__name__ in (errors.__doc__ or "").split()


@every_kind
def test_every_kind_says_what_the_caller_can_do_by_its_branch(kind: type[CoordError]) -> None:
    """Retry, look, let go, change the request, stop the node, or do what is to be done where one's own call raises."""
    branches = (errors.RetryableError, errors.OutcomeUnknown, errors.LostError, errors.RequestError, errors.NodeError)
    assert kind is CoordError or issubclass(kind, (*branches, errors.RemoteError))
