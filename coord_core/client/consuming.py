"""Reading a topic without end: ask, hand out, commit, ask again.

At the end of the topic the consumer subscribes to it: from then on it is told of every message, and short ones come along with the
news; others, and what it missed, it fetches.

The rule: what was handed out and not committed is handed out again, by whoever is the group's consumer then; nothing is left out
but what retention has passed.  Trouble that passes (no leader, a lost session) is waited out; what a caller must know is raised.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from coord_core.client.feed import Feed, Item, subscribe
from coord_core.client.subscriptions import StateDelivered
from coord_core.errors import LimitExceeded, LostError, NotFound, NotHolder, OutcomeUnknown, RetryableError, SessionClosed
from coord_core.protocol.streams import Record
from coord_core.protocol.topics import LATEST, MessagePublished, TopicDeleted, TopicState

if TYPE_CHECKING:
    from coord_core.client.topic import AsyncDistributedTopic, From, TopicMessage

#: How soon to ask again where a group is another's, or there are too many subscribers: the first time, and at most; and after
#: trouble.
POLL_S_MIN, POLL_S_MAX = 0.02, 0.5
TROUBLE_S = 0.5

#: Messages asked for at a time; of a group fewer, for those may come twice.
_BATCH, _GROUP_BATCH = 1_000, 100


class Consumer(AsyncIterator["TopicMessage"]):
    """One iteration over a topic; made by `AsyncDistributedTopic.subscribe`.  Close it (or leave its context) when done.

    A message counts as worked off when the next one is asked for.  Ends when it or the client is closed.
    """

    def __init__(self, topic: "AsyncDistributedTopic", from_: "From", group: str | None, *, commit: bool) -> None:
        from coord_core.client.topic import begin

        self._topic = topic
        self._start, self._ago_ms = begin(from_)
        self._group = group
        self._commits = commit and group is not None
        self._fresh: deque[TopicMessage] = deque()
        #: The number of the topic that is being read; 0: none was there yet.
        self._number = 0
        self._is_consumer = group is None
        # Behind the last message that was handed out and worked off, where that is not committed.
        self._done: int | None = None
        self._handed_out: int | None = None
        self._pause_s = POLL_S_MIN
        #: What is told of the topic; None before its end was reached, and after the session was lost.
        self._feed: Feed | None = None
        # The end of the topic, as far as this was told of it; None: only a fetch can say.
        self._end: int | None = None
        # What was told, and the offset behind it: acknowledged when everything below is worked off.
        self._told: deque[tuple[int, Item]] = deque()
        self._closed = False

    def __aiter__(self) -> "Consumer":
        return self

    async def __anext__(self) -> "TopicMessage":
        self.worked_off()
        try:
            while not self._fresh and not self._closed:
                await self._go_on()
        except SessionClosed:
            raise StopAsyncIteration from None
        if self._closed:
            raise StopAsyncIteration
        message = self._fresh.popleft()
        self._handed_out = message.offset + 1
        return message

    def worked_off(self) -> None:
        """The last message is done with; asking for the next one says the same."""
        if self._handed_out is not None:
            self._done, self._handed_out = self._handed_out, None
            self._acknowledge()

    async def start(self) -> None:
        """Subscribe now: who announces a message from now on waits for this consumer.  Raises as every call does.

        Not where its group has another consumer: that one is waited for.
        """
        if self._group is not None and await self._is_taken():
            return
        if self._start == LATEST and self._group is None:
            await self._hear(await self._subscribe())
        else:
            await self._rest()

    async def aclose(self) -> None:
        """Stop: commit what is worked off, and give up the group.  Idempotent."""
        self._closed = True
        if self._feed is not None:
            self._feed.close()
        if self._group is not None and self._is_consumer:
            self._is_consumer = False
            try:
                await self._commit()
            finally:
                await self._topic.release(self._group)

    async def __aenter__(self) -> "Consumer":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def _go_on(self) -> None:
        try:
            if not self._is_consumer and not await self._become_consumer():
                await self._pause()
                return
            await self._commit()
            if not (self._lacks_some and await self._fetch()):
                await self._rest()
        except SessionClosed:
            raise
        except (RetryableError, OutcomeUnknown):
            await asyncio.sleep(TROUBLE_S)
        except (LostError, NotHolder, NotFound):
            if self._topic.driver().session.over is not None:
                raise
            # The group may be another's by now, or gone with its topic: what was not committed is that one's.
            self._is_consumer = self._group is None
            self._done = None
            self._unsubscribed()

    async def _become_consumer(self) -> bool:
        return not await self._is_taken() and self._is_consumer

    async def _is_taken(self) -> bool:
        """Claim the group; return whether another has it.  Where there is no topic yet, nobody has, this one neither."""
        assert self._group is not None, "without a group there is nothing to claim"
        try:
            claim = await self._topic.claim(self._group)
        except NotFound:
            return False
        if claim is None:
            self._unsubscribed()
            return True
        if self._closed:  # Meanwhile: nobody would give it back.
            await self._topic.release(self._group)
            return True
        self._is_consumer = True
        if claim.committed is not None:
            self._start, self._ago_ms = claim.committed, None
        return False

    async def _commit(self) -> None:
        done = self._done
        if self._commits and done is not None and self._group is not None:
            await self._topic.commit(self._group, done)
        self._done = None

    @property
    def _lacks_some(self) -> bool:
        """Whether there may be messages that did not come along with the news."""
        return self._feed is None or self._end is None or self._start < self._end

    async def _fetch(self) -> bool:
        """Ask once; return whether anything came."""
        from coord_core.client.topic import messages

        fetched = await self._topic.fetch(self._start, self._ago_ms, _BATCH if self._group is None else _GROUP_BATCH)
        if not fetched.topic:
            return False
        if self._number and fetched.topic != self._number:
            # Deleted and made anew: from the beginning, which nobody has read.
            self._start, self._ago_ms, self._number = 0, None, fetched.topic
            return True
        self._number = fetched.topic
        self._start, self._ago_ms = fetched.next, None
        self._end = fetched.end if self._end is None else max(self._end, fetched.end)
        self._fresh += messages(fetched)
        self._pause_s = POLL_S_MIN if self._fresh else self._pause_s
        return bool(self._fresh)

    # --- being told --------------------------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Wait for news.  They may tell of what is read already."""
        if self._feed is None:
            try:
                await self._subscribe()
            except LimitExceeded:
                await self._pause()
                return
        if self._feed is not None:
            await self._hear(self._feed)

    async def _subscribe(self) -> Feed:
        feed = self._feed = await subscribe(self._topic.driver(), "topic", self._topic.full_path)
        if self._closed:  # Meanwhile: nobody else would end it, and others would wait for what it works off.
            feed.close()
        return feed

    async def _hear(self, feed: Feed) -> None:
        """Take one piece of news.  Raises `LostError` where there will be none any more."""
        item = await feed.get()
        self._pause_s = POLL_S_MIN
        self.take(item)
        self._acknowledge()

    def take(self, item: Item) -> None:
        """Take news of the topic, whenever the consumer subscribed (apart for tests)."""
        if isinstance(item, StateDelivered):
            assert isinstance(item.state, TopicState)
            self._take_state(item.state)
            self._told.append((item.state.end, item))
        else:
            self._take(item)

    def _take_state(self, state: TopicState) -> None:
        if self._start == LATEST:
            self._start, self._number = state.end, state.topic
        elif self._number and state.topic != self._number:
            self._deleted()
            self._number = state.topic
        self._end = state.end if state.topic == self._number else None

    def _take(self, item: Record) -> None:
        end = 0
        for change in item.changes:
            if isinstance(change, TopicDeleted):
                self._deleted()
            elif isinstance(change, MessagePublished):
                end = change.offset + 1
                self._end = end if self._end is None else max(self._end, end)
                if change.record is not None and change.offset == self._start and self._ago_ms is None:
                    from coord_core.client.topic import message_of

                    self._fresh.append(message_of(change.record))
                    self._start = end
        self._told.append((end, item))

    def _deleted(self) -> None:
        """Whatever comes under this path now is another topic, and nobody has read it."""
        self._start, self._ago_ms, self._number, self._end = 0, None, 0, 0
        self._told = deque((0, item) for _, item in self._told)

    def _acknowledge(self) -> None:
        """Whatever was told and is worked off counts as that: who waits for it need not wait longer."""
        next_due = self._start if not self._fresh else self._fresh[0].offset
        if self._handed_out is not None:
            next_due = self._handed_out - 1
        while self._told and self._told[0][0] <= next_due and self._feed is not None:
            self._feed.acknowledge(self._told.popleft()[1])

    def _unsubscribed(self) -> None:
        """Nobody is to wait for this one any more."""
        if self._feed is not None:
            self._feed.close()
        self._feed = self._end = None
        self._told.clear()

    async def _pause(self) -> None:
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, POLL_S_MAX)
