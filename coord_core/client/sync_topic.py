"""The blocking form of `AsyncDistributedTopic`, and of iterating over one."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from coord_core.client.consuming import Consumer
from coord_core.client.group import ANNOUNCE_TIMEOUT_S
from coord_core.client.listeners import Listener
from coord_core.client.sync_base import Blocking
from coord_core.client.topic import AsyncDistributedTopic, Claim, Consistency, From, Published, TopicMessage, TopicStatus
from coord_core.errors import SessionClosed
from coord_core.protocol.topics import RETENTION_AGE_MS_DEFAULT, RETENTION_BYTES_DEFAULT

if TYPE_CHECKING:
    from coord_core.client.sync import Client

M = TypeVar("M")


class Subscription(Iterator[M], Generic[M]):
    """The messages of a topic, or what is called in a parking lot, as an iterator that waits for the next.

    Close it (or leave its context) when done.

    A message counts as worked off when the next one is asked for.  Ends when it or the client is closed, by whichever thread.
    """

    def __init__(self, client: "Client", inner: Consumer[M]) -> None:
        self._client = client
        self._inner = inner

    def __next__(self) -> M:
        try:
            return self._client.run(self._inner.__anext__)
        except (StopAsyncIteration, SessionClosed):  # the latter where the thread ended first
            raise StopIteration from None

    def start(self) -> None:
        """Subscribe now: who announces a message from now on waits for this one.  Raises as every call does."""
        self._client.run(self._inner.start)

    def worked_off(self) -> None:
        """The last message is done with; asking for the next one says the same."""

        async def worked_off() -> None:
            self._inner.worked_off()

        self._client.run(worked_off)

    def close(self) -> None:
        """Stop: commit what is worked off, and give up the group.  Idempotent."""
        self._client.run(self._inner.aclose)

    def __enter__(self) -> "Subscription[M]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class DistributedTopic(Blocking[AsyncDistributedTopic]):
    """A handle of the topic at `path`.  Made by `Client.topic`; making one sends nothing.

    Every change raises as `AsyncDistributedTopic` says.
    """

    @property
    def consistency(self) -> Consistency:
        """When its publishes complete."""
        return self._inner.consistency

    def with_consistency(self, consistency: Consistency) -> "DistributedTopic":
        """Return a handle whose publishes complete as `consistency` says."""
        return DistributedTopic(self._client, self._inner.with_consistency(consistency))

    def create(
        self,
        *,
        max_bytes: int = RETENTION_BYTES_DEFAULT,
        max_records: int | None = None,
        max_age: float | None = RETENTION_AGE_MS_DEFAULT / 1000,
    ) -> bool:
        """Make the topic; publishing makes it too.  Return False where it is there.  See `AsyncDistributedTopic.create`."""
        return self._client.run(lambda: self._inner.create(max_bytes=max_bytes, max_records=max_records, max_age=max_age))

    def configure(
        self,
        *,
        max_bytes: int = RETENTION_BYTES_DEFAULT,
        max_records: int | None = None,
        max_age: float | None = RETENTION_AGE_MS_DEFAULT / 1000,
    ) -> None:
        """Change what the topic keeps, at once; all of it, as `create` says.  Raises `NotFound`."""
        self._client.run(lambda: self._inner.configure(max_bytes=max_bytes, max_records=max_records, max_age=max_age))

    def delete(self) -> None:
        """Delete the topic with its messages and groups; fine where there is none."""
        self._client.run(self._inner.delete)

    def info(self) -> TopicStatus | None:
        """Return what there is of it, linearizably; None where there is no such topic.  Raises `Unavailable`."""
        return self._client.run(self._inner.info)

    def publish(
        self,
        message: bytes,
        headers: Mapping[str, str | bytes] | None = None,
        key: str | bytes | None = None,
        timeout: float = ANNOUNCE_TIMEOUT_S,
    ) -> Published:
        """Append a message of at most 256 KiB; return its place when it is durable on a majority.

        ATOMIC (`with_consistency`): when besides all who were subscribed have been told and their listeners have returned; whoever
        has not within `timeout` seconds, or is gone, is named in `unacknowledged`.
        """
        return self._client.run(lambda: self._inner.publish(message, headers, key, timeout))

    def read(self, from_: From = "earliest", limit: int = 1_000) -> list[TopicMessage]:
        """Return up to `limit` messages from there on, linearizably: fewer where the topic ends, or is not there."""
        return self._client.run(lambda: self._inner.read(from_, limit))

    def subscribe(self, from_: From = "latest", *, group: str | None = None, commit: bool = True) -> Subscription[TopicMessage]:
        """Iterate over the messages from there on, without end.  See `AsyncDistributedTopic.subscribe`."""
        return Subscription(self._client, self._inner.subscribe(from_, group=group, commit=commit))

    def on_message(self, listener: Listener, from_: From = "latest", *, group: str | None = None) -> Callable[[], None]:
        """Have `listener(message)` called, on the callback thread, for every message from there on; return a function that ends it.

        Subscribed when this completes: an ATOMIC publish from then on waits for the listener.
        """
        end = self._client.run(lambda: self._inner.on_message(listener, from_, group=group))
        return lambda: self._client.run(end)

    def __iter__(self) -> Iterator[TopicMessage]:
        return self.subscribe()

    def commit(self, group: str, offset: int) -> int:
        """Note that a group has worked off everything below `offset`; return where it stands.  It only moves forward."""
        return self._client.run(lambda: self._inner.commit(group, offset))

    def seek(self, group: str, to: From) -> int:
        """Have a group go on from there, also backwards; return the offset."""
        return self._client.run(lambda: self._inner.seek(group, to))

    def committed(self, group: str) -> int | None:
        """Return the offset of the next message for a group; None where it has committed nothing.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.committed(group))

    def claim(self, group: str, *, takeover: bool = False) -> Claim | None:
        """Become the one consumer of a group; None where another process is, unless `takeover`.  Raises `NotFound`."""
        return self._client.run(lambda: self._inner.claim(group, takeover=takeover))

    def release(self, group: str) -> None:
        """Give up the claim of a group; fine where this process has none."""
        self._client.run(lambda: self._inner.release(group))

    def forget_group(self, group: str) -> None:
        """Forget a group and how far it has read.  Raises `NotHolder` where another process has claimed it."""
        self._client.run(lambda: self._inner.forget_group(group))
