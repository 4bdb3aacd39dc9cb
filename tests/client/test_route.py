"""Which node is tried next, and when."""

import random

from coord_core.client.route import Route
from coord_core.client.settings import SessionConfig
from coord_core.protocol.operations import Owner

A, B, C = "a:1", "b:1", "c:1"


def route() -> Route:
    return Route(SessionConfig((A, B, C), Owner("host", 1)), random.Random(1))


def test_node_that_failed_just_now_is_passed_over_while_others_have_not():
    """A stopped leader still accepts connections: trying it again costs a whole timeout, and with it perhaps the lease."""
    way = route()
    way.failed(B, 1_000)
    assert {way.advance(1_100)[0] for _ in range(6)} == {A, C}


def test_node_that_failed_is_tried_again_after_a_while():
    way = route()
    way.failed(B, 1_000)
    assert {way.advance(3_000)[0] for _ in range(3)} == {A, B, C}


def test_where_all_have_failed_all_are_tried_in_turn():
    way = route()
    for address in (A, B, C):
        way.failed(address, 1_000)
    assert {way.advance(1_100)[0] for _ in range(3)} == {A, B, C}


def test_hint_that_names_a_node_that_failed_just_now_is_stale():
    way = route()
    way.failed(B, 1_000)
    assert not way.trusts(B, 1_900)
    assert way.trusts(B, 2_100)
    assert not way.trusts("", 0)
