"""Watching a resource: its changes as an asynchronous iterator that goes on across connections, leaders and sessions.

The rule: nothing is passed over in silence.  Within a session every change comes once and in order.  Where that cannot be (a new
session, or the cluster has forgotten what happened since), the present state is compared with what was told last, and the
difference comes as if it had just happened.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from coord_core.client.feed import Feed, Item, subscribe
from coord_core.client.subscriptions import StateDelivered
from coord_core.errors import LostError, OutcomeUnknown, RetryableError, SessionClosed
from coord_core.protocol.queries import Answer
from coord_core.protocol.streams import Change
from coord_core.types import LogIndex

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

_log = logging.getLogger("coord.client")

E = TypeVar("E", covariant=True)
T = TypeVar("T")

#: After a session was lost or nobody answered, before subscribing again.
_PAUSE_S = 0.2


class View(Protocol[E]):
    """What a kind of resource makes of a stream.  It remembers what it told."""

    def state(self, state: Answer, revision: LogIndex) -> Iterable[E]:
        """Return what has happened since, where only the present state is known."""

    def change(self, change: Change, revision: LogIndex) -> Iterable[E]:
        """Return what a change means to the application."""


class AsyncWatch(Generic[T]):
    """The changes of one resource; `async for` it, and close it (or leave its context) when done.

    A change counts as worked off when the next one is asked for.  Ends when the client is closed.
    """

    def __init__(self, client: "AsyncClient", kind: str, path: str, view: View[T]) -> None:
        self._client = client
        self._kind = kind
        self._path = path
        self._view = view
        self._feed: Feed | None = None
        # The item of which something is still to be told, and what.
        self._item: Item | None = None
        self._told: deque[T] = deque()
        self._closed = False

    async def start(self) -> None:
        """Subscribe now: what happens from here on is told.  Raises as every call does; the first `async for` does the same."""
        if self._feed is None and not self._closed:
            self._feed = await self._subscribe()

    def __aiter__(self) -> "AsyncWatch[T]":
        return self

    async def __anext__(self) -> T:
        await self.start()
        while not self._told:
            await self._next()
        return self._told.popleft()

    async def aclose(self) -> None:
        """Watch no more.  Idempotent."""
        self._closed = True
        if self._feed is not None:
            self._feed.close()

    async def __aenter__(self) -> "AsyncWatch[T]":
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def done(self) -> None:
        """Everything told so far is worked off; asking for the next one says the same."""
        if self._item is not None and self._feed is not None and not self._told:
            self._feed.acknowledge(self._item)
            self._item = None

    async def _next(self) -> None:
        self.done()
        if self._feed is None or self._closed:
            raise StopAsyncIteration
        try:
            item = self._item = await self._feed.get()
        except SessionClosed:
            raise StopAsyncIteration from None
        except LostError as error:
            _log.info("what happened to %s while there was no session is worked out from its state: %s", self._path, error.message)
            self._feed = await self._again()
            return
        if isinstance(item, StateDelivered):
            self._told.extend(self._view.state(item.state, item.revision))
        else:
            for change in item.changes:
                self._told.extend(self._view.change(change, item.revision))

    async def _subscribe(self) -> Feed:
        feed = await subscribe(self._client.driver(), self._kind, self._path)
        if self._closed:  # Meanwhile: nobody else would end it, and others would wait for what it works off.
            feed.close()
        return feed

    async def _again(self) -> Feed:
        """Subscribe in the next session, however long it takes to get one; not where the watch is closed meanwhile."""
        self._item = None
        while True:
            if self._closed:
                raise StopAsyncIteration
            try:
                return await self._subscribe()
            except SessionClosed:
                raise StopAsyncIteration from None
            except (RetryableError, OutcomeUnknown, LostError) as error:
                if self._client.is_over():
                    raise
                _log.debug("cannot subscribe to %s yet: %s", self._path, error.message)
                await asyncio.sleep(_PAUSE_S)
