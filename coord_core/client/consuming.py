"""Reading a topic, or what is called in a parking lot, without end: ask, hand out, commit, ask again.

At the end of what there is the consumer subscribes: from then on it is told of every message, and short ones come along with the
news; others, and what it missed, it fetches.

The rule: what was handed out and not committed is handed out again, by whoever is the group's consumer then; nothing is left out
but what retention has passed.  Trouble that passes (no leader, a lost session) is waited out; what a caller must know is raised.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from coord_core.client.feed import Feed, Item, subscribe
from coord_core.client.subscriptions import StateDelivered
from coord_core.errors import LimitExceeded, LostError, NotFound, NotHolder, OutcomeUnknown, RetryableError, SessionClosed
from coord_core.protocol.queries import Answer
from coord_core.protocol.streams import Record
from coord_core.protocol.topics import LATEST, MessagePublished, TopicDeleted, TopicRecord
from coord_core.types import AttachmentId

if TYPE_CHECKING:
    from coord_core.client.driver import Driver
    from coord_core.client.topic import From

M = TypeVar("M")

#: How soon to ask again where a group is another's, or there are too many subscribers: the first time, and at most; and after
#: trouble.
POLL_S_MIN, POLL_S_MAX = 0.02, 0.5
TROUBLE_S = 0.5


class Fetched(NamedTuple, Generic[M]):
    """What one question brought."""

    #: Of the topic or lot; 0: there is none.
    number: int
    #: With their offsets, which rise and may leave some out.
    messages: "list[tuple[int, M]]"
    #: Where to go on.
    next: int
    end: int


class Claimed(Protocol):
    """This process is the one consumer of a group."""

    @property
    def committed(self) -> int | None: ...


class Source(Protocol[M]):
    """What is consumed, and by whom: a topic, as a group or alone; a parking lot, as its one group."""

    #: As it is subscribed to.
    kind: str
    full_path: str
    is_group: bool

    def driver(self) -> "Driver": ...

    async def claim(self) -> Claimed | None:
        """None: another is the consumer."""

    async def release(self) -> None: ...

    async def commit(self, offset: int) -> None: ...

    async def fetch(self, start: int, ago_ms: int | None) -> Fetched[M]: ...

    def message(self, record: TopicRecord) -> M:
        """Return a message that came along with the news of it."""

    def position(self, state: Answer) -> tuple[int, int]:
        """Return number and end."""


class Consumer(AsyncIterator[M], Generic[M]):
    """One iteration over a topic (`subscribe`) or a parking lot (`consume`).  Close it (or leave its context) when done.

    A message counts as worked off when the next one is asked for.  Ends when it or the client is closed.
    """

    def __init__(self, source: Source[M], from_: "From", *, commit: bool) -> None:
        from coord_core.client.topic import begin

        self._source = source
        self._start, self._ago_ms = begin(from_)
        self._is_group = source.is_group
        self._commits = commit and self._is_group
        self._fresh: deque[tuple[int, M]] = deque()
        #: The number of the topic that is being read; 0: none was there yet.
        self._number = 0
        self._is_consumer = not self._is_group
        # Where it began, and the attachment under which it has claimed the group.
        self._first = self._start, self._ago_ms
        self._claimed_by: AttachmentId | None = None
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

    def __aiter__(self) -> "Consumer[M]":
        return self

    async def __anext__(self) -> M:
        self.worked_off()
        if self._is_group and self._is_consumer and self._claimed_by != self._source.driver().session.attachment_id:
            self._lose_claim()
        try:
            while not self._fresh and not self._closed:
                await self._go_on()
        except SessionClosed:
            raise StopAsyncIteration from None
        if self._closed:
            raise StopAsyncIteration
        offset, message = self._fresh.popleft()
        self._handed_out = offset + 1
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
        if self._is_group and await self._is_taken():
            return
        if self._start == LATEST and not self._is_group:
            await self._hear(await self._subscribe())
        else:
            await self._rest()

    async def aclose(self) -> None:
        """Stop: commit what is worked off, and give up the group.  Idempotent."""
        self._closed = True
        if self._feed is not None:
            self._feed.close()
        if self._is_group and self._is_consumer:
            self._is_consumer = False
            try:
                await self._commit()
            finally:
                await self._source.release()

    async def __aenter__(self) -> "Consumer[M]":
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
            if self._source.driver().session.over is not None:
                raise
            self._lose_claim()

    def _lose_claim(self) -> None:
        """The group may be another's by now, or gone with its topic: what was not committed is that one's."""
        self._is_consumer = not self._is_group
        self._done = None
        if self._is_group:
            self._fresh.clear()
        self._unsubscribed()

    async def _become_consumer(self) -> bool:
        return not await self._is_taken() and self._is_consumer

    async def _is_taken(self) -> bool:
        """Claim the group; return whether another has it.  Where there is no topic yet, nobody has, this one neither."""
        try:
            claim = await self._source.claim()
        except NotFound:
            return False
        if claim is None:
            self._unsubscribed()
            return True
        if self._closed:  # Meanwhile: nobody would give it back.
            await self._source.release()
            return True
        self._is_consumer, self._claimed_by = True, self._source.driver().session.attachment_id
        if claim.committed is not None:
            self._start, self._ago_ms = claim.committed, None
        elif self._first[0] != LATEST:
            self._start, self._ago_ms = self._first
        return False

    async def _commit(self) -> None:
        done = self._done
        if self._commits and done is not None:
            await self._source.commit(done)
        self._done = None

    @property
    def _lacks_some(self) -> bool:
        """Whether there may be messages that did not come along with the news."""
        return self._feed is None or self._end is None or self._start < self._end

    async def _fetch(self) -> bool:
        """Ask once; return whether anything came."""
        fetched = await self._source.fetch(self._start, self._ago_ms)
        if not fetched.number:
            return False
        if self._number and fetched.number != self._number:
            # Deleted and made anew: from the beginning, which nobody has read.
            self._start, self._ago_ms, self._number = 0, None, fetched.number
            return True
        self._number = fetched.number
        self._start, self._ago_ms = fetched.next, None
        self._end = fetched.end if self._end is None else max(self._end, fetched.end)
        self._fresh += fetched.messages
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
        feed = self._feed = await subscribe(self._source.driver(), self._source.kind, self._source.full_path)
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
            number, end = self._source.position(item.state)
            self._take_state(number, end)
            self._told.append((end, item))
        else:
            self._take(item)

    def _take_state(self, number: int, end: int) -> None:
        if self._start == LATEST:
            self._start, self._number = end, number
        elif self._number and number != self._number:
            self._deleted()
            self._number = number
        self._end = end if number == self._number else None

    def _take(self, item: Record) -> None:
        end = 0
        for change in item.changes:
            if isinstance(change, TopicDeleted):
                self._deleted()
            elif isinstance(change, MessagePublished):
                end = change.offset + 1
                self._end = end if self._end is None else max(self._end, end)
                if change.record is not None and change.offset == self._start and self._ago_ms is None:
                    self._fresh.append((change.offset, self._source.message(change.record)))
                    self._start = end
        self._told.append((end, item))

    def _deleted(self) -> None:
        """Whatever comes under this path now is another topic, and nobody has read it."""
        self._start, self._ago_ms, self._number, self._end = 0, None, 0, 0
        self._told = deque((0, item) for _, item in self._told)

    def _acknowledge(self) -> None:
        """Whatever was told and is worked off counts as that: who waits for it need not wait longer."""
        next_due = self._start if not self._fresh else self._fresh[0][0]
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
