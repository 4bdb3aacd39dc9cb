"""What is said again, and when."""

from coord_core.server.seldom import SAID_MAX, Seldom


def test_the_same_is_said_once_a_pause_and_other_things_at_once() -> None:
    """A peer that is refused dials on, twice a second and for days."""
    now = 0.0
    seldom = Seldom(10, lambda: now)
    assert seldom.is_due("refused")
    assert not seldom.is_due("refused")
    assert seldom.is_due("something else")
    now = 10.0
    assert seldom.is_due("refused")
    now = 19.0
    assert not seldom.is_due("refused")


def test_what_is_remembered_as_said_is_bounded() -> None:
    """Strangers decide what is said of them."""
    seldom = Seldom(10, lambda: 0.0)
    assert all(seldom.is_due(number) for number in range(SAID_MAX + 1))
    assert seldom.is_due(0), "the oldest is forgotten"
    assert not seldom.is_due(SAID_MAX)
