"""One subscription that a process follows, as the real resources do it.

What comes is handed to the checkers and to whoever follows, and said to be worked off: at once, slowly, or not for a while.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from coord_core.client.subscriptions import Delivery, StateDelivered, SubscriptionEnded
from coord_core.protocol.streams import Record
from coord_core.testing.client import ClientProcess
from coord_core.testing.simulator import MILLISECOND
from coord_core.testing.workload import Books
from coord_core.types import LogIndex, SubscriptionId

Item: TypeAlias = Record | StateDelivered

#: How a feed's listener takes its time: not at all, a little for each item, or none until it stands still for long.
MANNERS = ("prompt", "prompt", "slow", "moody")


class Feed:
    """One subscription that one process follows."""

    def __init__(
        self,
        process: ClientProcess,
        books: Books,
        rng: random.Random,
        subscription: int,
        after: int,
        on_item: Callable[[Item], None],
        on_end: Callable[[], None],
    ) -> None:
        self._process = process
        self._books = books
        self._rng = rng
        self._subscription = SubscriptionId(subscription)
        self._on_item = on_item
        self._on_end = on_end
        self._manner = rng.choice(MANNERS)
        # Not worked off yet; the first is at work.
        self._items: deque[LogIndex] = deque()
        self._working = False
        self.open = True
        life = process.life
        self._follower = books.streams.follows(
            process.name, self._subscription, after, lambda: self.open and process.up and process.life == life
        )
        process.follow(self._subscription, LogIndex(after), self._deliver)

    def close(self) -> None:
        self.open = False
        self._process.unfollow(self._subscription)

    def _deliver(self, delivery: Delivery) -> None:
        self._books.streams.delivered(self._follower, delivery)
        if isinstance(delivery, SubscriptionEnded):
            self.open = False
            self._on_end()
            return
        self._items.append(delivery.revision)
        self._books.streams.holds(self._follower, len(self._items))
        self._on_item(delivery)
        self._work()

    def _work(self) -> None:
        while self._items and not self._working and self.open:
            delay_us = self._takes_us()
            if delay_us:
                self._working = True
                self._process.later(delay_us, self._worked_off)
                return
            self._acknowledge()

    def _takes_us(self) -> int:
        if self._books.winding_up or self._manner == "prompt":
            return 0
        if self._manner == "slow":
            return self._rng.randint(1, 300) * MILLISECOND
        return self._rng.randint(500, 4_000) * MILLISECOND if self._rng.random() < 0.2 else 0

    def _worked_off(self) -> None:
        self._working = False
        if self.open:
            self._acknowledge()
            self._work()

    def _acknowledge(self) -> None:
        revision = self._items.popleft()
        self._books.streams.says(self._follower, revision)
        self._process.session.acknowledge(self._subscription, revision)
