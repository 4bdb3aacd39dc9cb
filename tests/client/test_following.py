"""What is followed ends with the session that subscribed, and says so, whenever that was."""

from coord_core.client.session import SessionState
from coord_core.client.subscriptions import SubscriptionEnded
from coord_core.errors import LostError
from coord_core.types import LogIndex, SubscriptionId
from tests.client.script import TTL_MS, Script


def test_what_is_followed_after_the_session_was_lost_ends_at_once() -> None:
    """A candidate may be told that it entered and lose its session in one turn: it must not wait for ever for what comes next."""
    script = Script()
    script.opened()
    script.cut()
    script.sleep(TTL_MS)
    assert script.session.state is SessionState.LOST
    script.session.follow(SubscriptionId(7), LogIndex(7), script.now_ms)
    ((subscription, delivery),) = script.session.take().deliveries
    assert subscription == 7
    assert isinstance(delivery, SubscriptionEnded)
    assert isinstance(delivery.error, LostError)
