"""Reading a topic without end: ask, hand out, commit, ask again.

The rule: what was handed out and not committed is handed out again, by whoever is the group's consumer then; nothing is left out
but what retention has passed.  Trouble that passes (no leader, a lost session) is waited out; what a caller must know is raised.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from coord_core.errors import LostError, NotFound, NotHolder, OutcomeUnknown, RetryableError, SessionClosed

if TYPE_CHECKING:
    from coord_core.client.topic import AsyncDistributedTopic, From, TopicMessage

#: How soon to ask again at the end of a topic: the first time, and at most; and after trouble.
POLL_S_MIN, POLL_S_MAX = 0.02, 0.5
TROUBLE_S = 0.5

#: Messages asked for at a time; of a group fewer, for those may come twice.
_BATCH, _GROUP_BATCH = 1_000, 100


class Consumer(AsyncIterator["TopicMessage"]):
    """One iteration over a topic; made by `AsyncDistributedTopic.subscribe`."""

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

    def __aiter__(self) -> "Consumer":
        return self

    async def __anext__(self) -> "TopicMessage":
        self.worked_off()
        while not self._fresh:
            await self._go_on()
        message = self._fresh.popleft()
        self._handed_out = message.offset + 1
        return message

    def worked_off(self) -> None:
        """The last message is done with; asking for the next one says the same."""
        if self._handed_out is not None:
            self._done, self._handed_out = self._handed_out, None

    async def aclose(self) -> None:
        """Stop: commit what is worked off, and give up the group."""
        if self._group is not None and self._is_consumer:
            self._is_consumer = False
            await self._commit()
            await self._topic.release(self._group)

    async def _go_on(self) -> None:
        try:
            if not self._is_consumer and not await self._become_consumer():
                await self._rest()
                return
            await self._commit()
            if not await self._fetch():
                await self._rest()
        except SessionClosed:
            raise
        except (RetryableError, OutcomeUnknown):
            await asyncio.sleep(TROUBLE_S)
        except (LostError, NotHolder):
            # The group may be another's by now: what was not committed is that one's.
            self._is_consumer = self._group is None
            self._done = None

    async def _become_consumer(self) -> bool:
        assert self._group is not None, "without a group there is nothing to claim"
        try:
            claim = await self._topic.claim(self._group)
        except NotFound:
            return False
        if claim is None:
            return False
        self._is_consumer = True
        if claim.committed is not None:
            self._start, self._ago_ms = claim.committed, None
        return True

    async def _commit(self) -> None:
        done = self._done
        if self._commits and done is not None and self._group is not None:
            await self._topic.commit(self._group, done)
        self._done = None

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
        self._fresh += messages(fetched)
        self._pause_s = POLL_S_MIN if self._fresh else self._pause_s
        return bool(self._fresh)

    async def _rest(self) -> None:
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, POLL_S_MAX)
