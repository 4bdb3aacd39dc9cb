"""A topic: durable messages in order, and consumer groups: `AsyncDistributedTopic`; `sync` has the blocking form.

Offsets count a topic's messages from 0.  What a group has *committed* is the offset of the next message for it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from coord_core.client import paths
from coord_core.client.consuming import Consumer, Fetched
from coord_core.client.driver import Driver
from coord_core.client.group import ANNOUNCE_TIMEOUT_S
from coord_core.client.listeners import Listener, call_listener, is_inside
from coord_core.errors import CoordError, InvalidRequest, NotFound, SessionClosed
from coord_core.protocol.operations import Operation, Owner
from coord_core.protocol.queries import Answer
from coord_core.protocol.streams import Announced, Unacknowledged
from coord_core.protocol.topics import (
    EARLIEST,
    FETCH_RECORDS_MAX,
    LATEST,
    RETENTION_AGE_MS_DEFAULT,
    RETENTION_BYTES_DEFAULT,
    Claimed,
    ClaimRefused,
    Committed,
    Retention,
    TopicClaim,
    TopicCommit,
    TopicConfigure,
    TopicCreate,
    TopicCreated,
    TopicDelete,
    TopicFetch,
    TopicFetched,
    TopicGroupDelete,
    TopicInfo,
    TopicPublish,
    TopicRecord,
    TopicRelease,
    TopicState,
    TopicSummary,
)
from coord_core.protocol.topics import Published as PublishedResult
from coord_core.types import LogIndex

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

_log = logging.getLogger("coord.client")

#: Messages that a consumer asks for at a time; of a group fewer, for those may come twice.
_BATCH, _GROUP_BATCH = 1_000, 100

#: Where to begin: "earliest", "latest", an offset, how long ago, or when.
From: TypeAlias = str | int | timedelta | datetime


class Consistency(Enum):
    """When a publish completes."""

    #: When the message is durable on a majority.
    ASYNCHRONOUS = "asynchronous"
    #: When all who were subscribed by then have also been told, and their listeners have returned.
    ATOMIC = "atomic"


class Published(NamedTuple):
    """A message is replicated and durable."""

    offset: int
    revision: LogIndex
    #: Of an ATOMIC publish: who was subscribed and had not worked it off when it completed.
    unacknowledged: tuple[Unacknowledged, ...] = ()


class Claim(NamedTuple):
    """This process is the one consumer of a group."""

    #: Rises with every claim of the group: proof to show to others.
    token: int
    #: None: the group has committed nothing yet.
    committed: int | None


@dataclass(frozen=True, slots=True)
class TopicMessage:
    """A message as it was published."""

    offset: int
    #: The log index at which it was published.
    revision: LogIndex
    payload: bytes
    key: bytes | None
    headers: Mapping[str, bytes]
    #: About when, by this process's wall clock: only to be shown.
    published_at: datetime


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A consumer group of a topic."""

    name: str
    committed: int | None
    #: Messages that it has not worked off and that are still there.
    lag: int
    #: Who has claimed it.
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """What there is of a topic."""

    path: str
    #: Tells it from an earlier one of the same path.
    number: int
    #: Of the oldest message kept, and of the next one to be published.
    earliest: int
    end: int
    bytes: int
    retention: Retention
    groups: tuple[GroupStatus, ...]


class AsyncDistributedTopic:
    """A handle of the topic at `path`.  Made by `AsyncClient.topic`; making one sends nothing.

    Every change raises `Unavailable`, `DiskFull` or `Busy` (not applied), `OutcomeUnknown` (sent and not answered in time, or the
    session was lost meanwhile: look before trying again), `SessionExpired` (not applied), `WrongType`, `LimitExceeded`.
    """

    def __init__(self, client: "AsyncClient", path: str, owner: Owner, consistency: Consistency = Consistency.ASYNCHRONOUS) -> None:
        self.path = path
        self.consistency = consistency
        self._client = client
        self._full_path = client.full_path(path)
        self._owner = owner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def with_consistency(self, consistency: Consistency) -> "AsyncDistributedTopic":
        """Return a handle whose publishes complete as `consistency` says."""
        return AsyncDistributedTopic(self._client, self.path, self._owner, consistency)

    # --- the topic itself --------------------------------------------------------------------------------------------------------

    async def create(
        self,
        *,
        max_bytes: int = RETENTION_BYTES_DEFAULT,
        max_records: int | None = None,
        max_age: float | None = RETENTION_AGE_MS_DEFAULT / 1000,
    ) -> bool:
        """Make the topic; publishing makes it too.  Return False where it is there, as it was before.

        It keeps at most `max_bytes`, at least `max_records` and at most a 64th more, and each message for `max_age` seconds of the
        cluster's clock, which stands still where there is no leader.  None: no such limit.
        """
        created: TopicCreated = await self._do(TopicCreate(self._full_path, _retention(max_bytes, max_records, max_age)))
        return created.created

    async def configure(
        self,
        *,
        max_bytes: int = RETENTION_BYTES_DEFAULT,
        max_records: int | None = None,
        max_age: float | None = RETENTION_AGE_MS_DEFAULT / 1000,
    ) -> None:
        """Change what the topic keeps, at once; all of it, as `create` says.  Raises `NotFound`."""
        await self._do(TopicConfigure(self._full_path, _retention(max_bytes, max_records, max_age)))

    async def delete(self) -> None:
        """Delete the topic with its messages and groups; fine where there is none."""
        await self._do(TopicDelete(self._full_path))

    async def info(self) -> TopicStatus | None:
        """Return what there is of it, linearizably; None where there is no such topic.  Raises `Unavailable`."""
        state: TopicState = await self._client.driver().ask(TopicInfo(self._full_path))
        if not state.topic:
            return None
        groups = tuple(GroupStatus(group.name, group.committed, group.lag, group.owner) for group in state.groups)
        return TopicStatus(self.path, state.topic, state.earliest, state.end, state.bytes, state.retention, groups)

    # --- messages ----------------------------------------------------------------------------------------------------------------

    async def publish(
        self,
        message: bytes,
        headers: Mapping[str, str | bytes] | None = None,
        key: str | bytes | None = None,
        timeout: float = ANNOUNCE_TIMEOUT_S,
    ) -> Published:
        """Append a message of at most 256 KiB; return its place when it is durable on a majority.

        ATOMIC (`with_consistency`): when besides all who were subscribed have been told and their listeners have returned; whoever
        has not within `timeout` seconds, or is gone, is named in `unacknowledged`.  The message stands in any case.

        Publishes that are awaited one after the other keep their order.  Of several under way at a time, one that the cluster was
        too busy for may come behind those made after it.
        """
        wait_ms = paths.announce_ms(timeout) if self.consistency is Consistency.ATOMIC else 0
        content = (self._full_path, paths.payload(message), paths.key(key), paths.headers(headers))
        result: PublishedResult | Announced = await self._do(TopicPublish(*content, wait_ms, is_inside()))
        told = result.unacknowledged if type(result) is Announced else ()
        return Published(result.offset, result.revision, told)

    async def read(self, from_: From = "earliest", limit: int = 1_000) -> list[TopicMessage]:
        """Return up to `limit` messages from there on, linearizably: fewer where the topic ends, or is not there.

        By time, there may be some older ones before them.  Raises `Unavailable`.
        """
        found: list[TopicMessage] = []
        start, ago_ms = begin(from_)
        while len(found) < limit:
            fetched = await self.fetch(start, ago_ms, min(limit - len(found), FETCH_RECORDS_MAX))
            found += messages(fetched)
            if fetched.next >= fetched.end:
                break
            start, ago_ms = fetched.next, None
        return found

    def subscribe(self, from_: From = "latest", *, group: str | None = None, commit: bool = True) -> Consumer[TopicMessage]:
        """Iterate over the messages from there on, and then over those that come, without end.

        `group`: become its one consumer, waiting until it is free, and begin with what it has not worked off; `from_` counts only
        where it has committed nothing.  With `commit`, a message counts as worked off when the next one is asked for: what was not
        committed before a crash comes again.  Goes on over failovers and lost sessions.
        """
        return Consumer(_Source(self, group), from_, commit=commit)

    def __aiter__(self) -> Consumer[TopicMessage]:
        return self.subscribe()

    async def on_message(
        self, listener: Listener, from_: From = "latest", *, group: str | None = None
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        """Have `listener(message)` called for every message from there on, one after the other; return a function that ends it.

        Subscribed when this completes: an ATOMIC publish from then on waits for the listener.  With `group`, what was worked off is
        committed, and goes on there the next time; of a group, only its present consumer is waited for.  A listener that raises is
        logged, and the message counts as worked off.
        """
        consumer = self.subscribe(from_, group=group)
        try:
            await consumer.start()
        except BaseException:
            with contextlib.suppress(CoordError):  # what was claimed goes with the session then
                await consumer.aclose()
            raise
        listening = asyncio.get_running_loop().create_task(self._listen(consumer, listener))

        async def end() -> None:
            if listening is not asyncio.current_task():  # the listener itself may end it, and is not cut off
                listening.cancel()
                await asyncio.wait([listening])
            await consumer.aclose()

        return end

    async def _listen(self, consumer: Consumer[TopicMessage], listener: Listener) -> None:
        try:
            async for message in consumer:
                await call_listener(self._client.callbacks, listener, message)
                consumer.worked_off()
        except SessionClosed:
            return
        except CoordError as error:  # there is nobody else whom it could be told
            _log.error("a listener of %s hears nothing more: %s", self.path, error.message)

    def driver(self) -> Driver:
        """Return the client's driver (for the consumer)."""
        return self._client.driver()

    @property
    def full_path(self) -> str:
        """As the cluster knows it."""
        return self._full_path

    # --- consumer groups ---------------------------------------------------------------------------------------------------------

    async def commit(self, group: str, offset: int) -> int:
        """Note that a group has worked off everything below `offset`; return where it stands.  It only moves forward.

        Raises `NotHolder` (another process has claimed the group), `NotFound`, `InvalidRequest` (beyond the end).
        """
        result: Committed = await self._do(TopicCommit(self._full_path, group, offset))
        return result.offset

    async def seek(self, group: str, to: From) -> int:
        """Have a group go on from there, also backwards; return the offset.  Raises as `commit` does."""
        offset = to if isinstance(to, int) else await self._locate(to)
        result: Committed = await self._do(TopicCommit(self._full_path, group, offset, seek=True))
        return result.offset

    async def committed(self, group: str) -> int | None:
        """Return the offset of the next message for a group; None where it has committed nothing.  Raises `Unavailable`."""
        info = await self.info()
        return next((each.committed for each in info.groups if each.name == group), None) if info else None

    async def claim(self, group: str, *, takeover: bool = False) -> Claim | None:
        """Become the one consumer of a group, until this process ends or releases it: nobody else may commit.

        None where another process is, unless `takeover`: then that one may not commit any more.  Raises `NotFound`.
        """
        result: Claimed | ClaimRefused = await self._do(TopicClaim(self._full_path, group, self._owner, takeover))
        return Claim(result.token, result.committed) if isinstance(result, Claimed) else None

    async def release(self, group: str) -> None:
        """Give up the claim of a group; fine where this process has none."""
        await self._do(TopicRelease(self._full_path, group))

    async def forget_group(self, group: str) -> None:
        """Forget a group and how far it has read.  Raises `NotHolder` where another process has claimed it."""
        await self._do(TopicGroupDelete(self._full_path, group))

    # --- inside ------------------------------------------------------------------------------------------------------------------

    async def fetch(self, start: int, ago_ms: int | None, records_max: int) -> TopicFetched:
        """Ask for records once, as `TopicFetch` says."""
        query = TopicFetch(self._full_path, start, records_max, ago_ms=ago_ms)
        fetched: TopicFetched = await self._client.driver().ask(query)
        return fetched

    async def _locate(self, to: From) -> int:
        start, ago_ms = begin(to)
        fetched = await self.fetch(start, ago_ms, 1)
        if not fetched.topic:
            raise NotFound(f"there is no topic {self.path}", path=self.path)
        return fetched.next - len(fetched.records)

    async def _do(self, operation: Operation) -> Any:
        driver = self._client.driver()
        call, future = driver.call(operation)
        try:
            return await future
        except asyncio.CancelledError:
            driver.withdraw(call, future, self._full_path)
            raise


class _Source:
    """A topic as its consumer sees it."""

    kind = "topic"

    def __init__(self, topic: AsyncDistributedTopic, group: str | None) -> None:
        self._topic = topic
        self._group = group or ""
        self.is_group = group is not None
        self.full_path = topic.full_path

    def driver(self) -> Driver:
        return self._topic.driver()

    async def claim(self) -> Claim | None:
        return await self._topic.claim(self._group)

    async def release(self) -> None:
        await self._topic.release(self._group)

    async def commit(self, offset: int) -> None:
        await self._topic.commit(self._group, offset)

    async def fetch(self, start: int, ago_ms: int | None) -> Fetched[TopicMessage]:
        fetched = await self._topic.fetch(start, ago_ms, _GROUP_BATCH if self.is_group else _BATCH)
        found = [(message.offset, message) for message in messages(fetched)]
        return Fetched(fetched.topic, found, fetched.next, fetched.end)

    def message(self, record: TopicRecord) -> TopicMessage:
        return _message(record, datetime.now(UTC))

    def position(self, state: Answer) -> tuple[int, int]:
        assert isinstance(state, TopicState)
        return state.topic, state.end


@dataclass(frozen=True, slots=True)
class TopicListed:
    """One topic of a listing."""

    path: str
    number: int
    earliest: int
    end: int
    bytes: int
    groups: int

    @classmethod
    def of(cls, found: TopicSummary, namespace: str) -> "TopicListed":
        path = found.path.removeprefix(namespace)
        return cls(path, found.topic, found.earliest, found.end, found.bytes, found.groups)


def begin(from_: From) -> tuple[int, int | None]:
    """Return where a fetch begins: an offset, or how many milliseconds ago.  Raises `InvalidRequest`."""
    match from_:
        case "earliest":
            return EARLIEST, None
        case "latest":
            return LATEST, None
        case int() if from_ >= 0 and not isinstance(from_, bool):
            return from_, None
        case datetime():
            return begin(datetime.now(from_.tzinfo) - from_)
        case timedelta():
            return 0, max(0, round(from_ / timedelta(milliseconds=1)))
    raise InvalidRequest(f"'earliest', 'latest', an offset, a timedelta or a datetime: {from_!r} is none", field="from_")


def messages(fetched: TopicFetched) -> list[TopicMessage]:
    now = datetime.now(UTC)
    return [_message(record, now - timedelta(milliseconds=fetched.time_ms - record.time_ms)) for record in fetched.records]


def _message(record: TopicRecord, published_at: datetime) -> TopicMessage:
    return TopicMessage(record.offset, record.revision, record.payload, record.key, dict(record.headers), published_at)


def _retention(max_bytes: int, max_records: int | None, max_age: float | None) -> Retention:
    return Retention(max_bytes, max_records, paths.age_ms(max_age))
