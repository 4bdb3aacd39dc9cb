"""The blocking client says what the async one says: every class has its twin, with the same names and the same arguments."""

import inspect
import re
from typing import Any

import pytest

import coord_core
from coord_core.client.consuming import Consumer
from coord_core.client.sync_topic import Subscription

TWINS = [
    *[(getattr(coord_core, name), getattr(coord_core, name[5:])) for name in coord_core.__all__ if name.startswith("Async")],
    (Consumer, Subscription),
]
#: What the client's own parts, and its tests, ask one another.
INSIDE = {
    "AsyncClient": {
        "believes_held",
        "callbacks",
        "driver",
        "full_path",
        "is_detached",
        "is_over",
        "lease_deadline_ms",
        "lease_left_ms",
        "lock_state",
    },
    "AsyncDistributedTopic": {"driver", "fetch", "full_path"},
    "AsyncParkingLot": {"driver", "fetch", "full_path"},
    "Client": {"run"},
    "Consumer": {"take"},
}
#: Where Python has two names for one thing.
NAMES = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}


@pytest.mark.parametrize("pair", TWINS, ids=lambda pair: pair[0].__name__)
def test_twins_have_the_same_names(pair: tuple[type, type]):
    """Neither can do what the other cannot."""
    asynchronous, blocking = (public(kind) for kind in pair)
    assert {NAMES.get(name, name) for name in asynchronous} == set(blocking)


@pytest.mark.parametrize("pair", TWINS, ids=lambda pair: pair[0].__name__)
def test_twins_take_the_same_arguments(pair: tuple[type, type]):
    """In the same order, with the same defaults."""
    asynchronous, blocking = (public(kind) for kind in pair)
    for name, method in asynchronous.items():
        twin = blocking.get(NAMES.get(name, name))
        if callable(method) and callable(twin) and not name.startswith("__"):
            assert arguments(method) == arguments(twin), name


def test_connect_takes_the_same_arguments_as_connect_async():
    assert arguments(coord_core.connect) == arguments(coord_core.connect_async)


def public(kind: type) -> dict[str, Any]:
    """Return what a class offers by name: methods, properties, and what it sets on itself."""
    found = {name: getattr(kind, name) for name in (*NAMES, *NAMES.values()) if hasattr(kind, name)}
    for base in reversed([base for base in kind.__mro__ if base.__module__.startswith("coord_core")]):
        found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
        found |= dict.fromkeys(re.findall(r"self\.([a-z]\w*)\b[^=\n(]*= ", inspect.getsource(base)))
    return {name: value for name, value in found.items() if name not in INSIDE.get(kind.__name__, ())}


def arguments(method: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]
