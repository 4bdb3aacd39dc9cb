"""One subscription of one session, as the resources read it: what comes, in order, one item after the other.

What is held here is bounded by the cluster, which pushes only so much that is not acknowledged.
"""

import asyncio
from collections import deque
from typing import TypeAlias

from coord_core.client.driver import Driver
from coord_core.client.subscriptions import Delivery, StateDelivered, SubscriptionEnded
from coord_core.errors import CoordError, SessionClosed
from coord_core.protocol.operations import Operation
from coord_core.protocol.streams import Record, Subscribe, Subscribed, Unsubscribe
from coord_core.types import LogIndex, SubscriptionId

Item: TypeAlias = Record | StateDelivered


class Feed:
    """Made by `subscribe`, or for what is a subscription besides (a member, a candidate), from which on `after` says."""

    def __init__(self, driver: Driver, subscription: SubscriptionId, after: int = 0, *, owned: bool = False) -> None:
        self._driver = driver
        self._subscription = subscription
        # Whether it is for this feed to end the subscription.
        self._owned = owned
        self._items: deque[Item] = deque()
        self._ended: CoordError | None = None
        self._arrived = asyncio.Event()
        driver.follow(subscription, LogIndex(after), self._deliver)

    @property
    def ended(self) -> CoordError | None:
        """Why nothing more comes; None while it may."""
        return self._ended

    async def get(self) -> Item:
        """Return the next item, when it comes.  Raises why nothing more does: `LostError`."""
        while not self._items:
            if self._ended is not None:
                raise type(self._ended)(self._ended.message, **self._ended.details)
            self._arrived.clear()
            await self._arrived.wait()
        return self._items.popleft()

    def acknowledge(self, item: Item) -> None:
        """The item is worked off: more may come, and who waits for it need not wait longer."""
        self._driver.acknowledge(self._subscription, item.revision)

    def close(self) -> None:
        """Read no more, and end the subscription where it is this feed's."""
        self._driver.unfollow(self._subscription)
        if self._owned and self._ended is None and self._driver.session.session_id is not None:
            self._driver.tell(Unsubscribe(self._subscription))
        self._owned = False
        if self._ended is None:
            self._ended = SessionClosed("this watch was closed")
        self._arrived.set()

    def _deliver(self, delivery: Delivery) -> None:
        if isinstance(delivery, SubscriptionEnded):
            self._ended = delivery.error
        else:
            self._items.append(delivery)
        self._arrived.set()


async def subscribe(driver: Driver, kind: str, path: str) -> Feed:
    """Subscribe to what happens to a resource; the present state comes first.

    Raises as every call does: `Unavailable`, `OutcomeUnknown`, `SessionExpired`, `WrongType`, `LimitExceeded`.
    """
    result = await call(driver, Subscribe(kind, path), path)
    assert isinstance(result, Subscribed)
    return Feed(driver, result.subscription, owned=True)


async def call(driver: Driver, operation: Operation, path: str) -> object:
    """Carry out an operation; withdraw it where the caller is cancelled."""
    number, future = driver.call(operation)
    try:
        result: object = await future
    except asyncio.CancelledError:
        driver.withdraw(number, future, path)
        raise
    return result
