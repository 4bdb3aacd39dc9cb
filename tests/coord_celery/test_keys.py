"""Which calls are the same work."""

import inspect
import json
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from coord_celery.keys import GLOBAL_KEY, KEY_BYTES_MAX, call_key, lock_path, reservation_path
from hypothesis import given
from hypothesis import strategies as st
from kombu.serialization import dumps, loads

from coord_core.protocol.operations import PATH_BYTES_MAX


def report(a, b=2, *rest, c=None, **others):
    """A signature with every kind of parameter."""


SIGNATURE = inspect.signature(report)


def key_of(*args, key=None, unique_on=None, **kwargs):
    return call_key(SIGNATURE, args, kwargs, key=key, unique_on=unique_on)


def test_positional_and_keyword_arguments_make_one_key():
    """celery-once and celery-singleton differ here: users of the latter got two locks for one piece of work."""
    assert key_of(1) == key_of(a=1) == key_of(1, 2) == key_of(b=2, a=1) == key_of(1, c=None)


def test_different_arguments_make_different_keys():
    """Also where their texts look alike."""
    keys = [
        key_of(1),
        key_of("1"),
        key_of(1.5),
        key_of(None),
        key_of(True),
        key_of([1]),
        key_of({"1": 1}),
        key_of(1, 3),
        key_of(1, x=1),
    ]
    assert len(set(keys)) == len(keys)


def test_an_argument_cannot_forge_the_text_of_another():
    """The key is text; a string with its separators in it must stay a string."""
    assert key_of('x",b="y') != key_of("x", "y")


def test_key_does_not_depend_on_the_order_of_dict_members_sets_or_keyword_arguments():
    assert key_of({"x": 1, "y": 2}) == key_of({"y": 2, "x": 1})
    assert key_of({"b", "a"}) == key_of({"a", "b"})
    assert key_of(1, x=1, y=2) == key_of(1, y=2, x=1)


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        datetime(2026, 11, 23, 12, 30, tzinfo=UTC),
        datetime(2026, 11, 23, 12, 30, 1, 500),  # noqa: DTZ001 - users have naive ones
        date(2026, 11, 23),
        uuid.UUID(int=7),
        Decimal("1.50"),
        b"text",
        b"\xff\xfe",
        {1: "int", False: "bool", None: "none", 1.5: "float"},
    ],
    ids=repr,
)
def test_key_is_the_same_after_the_serializer(value):
    """The publisher sees the value, the worker what kombu's JSON made of it."""
    content_type, encoding, body = dumps([value], "json")
    (received,) = loads(body, content_type, encoding, accept=[content_type])
    assert key_of(received) == key_of(value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_key_survives_any_json_round_trip(value):
    assert key_of(json.loads(json.dumps(value))) == key_of(value)


def test_unique_on_looks_at_the_named_arguments_only():
    assert key_of(1, 2, unique_on=("a",)) == key_of(1, 3, x=9, unique_on=("a",))
    assert key_of(1, 2, unique_on=("a", "b")) != key_of(1, 3, unique_on=("a", "b"))
    assert key_of(1, x=9, unique_on=("x",)) == key_of(2, x=9, unique_on=("x",))


def test_unique_on_nothing_is_one_instance_of_the_task():
    assert key_of(1, unique_on=()) == key_of(2, 3, unique_on=()) == GLOBAL_KEY


def test_key_can_be_a_format_string_over_the_arguments():
    assert key_of(7, key="user-{a:03d}-{b}") == "user-007-2"


def test_key_can_be_a_function_of_the_arguments():
    assert key_of(7, c=1, key=lambda a, c: f"{a}/{c}") == "7/1"


def test_key_function_must_return_text():
    with pytest.raises(TypeError, match="must return a str, not int"):
        key_of(7, key=lambda a: a)


def test_argument_without_stable_text_is_refused_with_a_way_out():
    """`repr` would differ between publisher and worker: two locks for one piece of work."""
    with pytest.raises(TypeError, match=r"argument 'a' has no stable key.*unique_on"):
        key_of(object())


def test_paths_of_one_key_lie_side_by_side():
    assert lock_path("shop.sync", "user-7") == "/celery/singleton/shop.sync/user-7/lock"
    assert reservation_path("shop.sync", "user-7") == "/celery/singleton/shop.sync/user-7/queued"


def test_slashes_in_names_and_keys_cannot_meet():
    """Task `a` with key `b/c` and task `a/b` with key `c` are two."""
    paths = {lock_path("a", "b/c"), lock_path("a/b", "c"), lock_path("a", "b%2Fc"), lock_path("a", "b"), reservation_path("a", "b")}
    assert len(paths) == 5


@given(st.text(max_size=600), st.text(max_size=600))
def test_every_path_fits(name, key):
    path = lock_path(name, key)
    assert len(path.encode()) <= PATH_BYTES_MAX // 2  # a namespace may take the other half
    assert path.count("/") == 5


def test_long_keys_are_hashed_and_keep_their_beginning():
    """Two long keys that differ at the end are two; a person still sees what the lock is about."""
    one, other = (lock_path("t", "user=" + "x" * 5000 + end) for end in "ab")
    assert one != other
    assert one.startswith("/celery/singleton/t/user=xxx")


def test_short_keys_are_not_hashed():
    assert lock_path("t", "k" * KEY_BYTES_MAX).endswith("k" * KEY_BYTES_MAX + "/lock")
