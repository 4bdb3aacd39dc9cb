"""The blocking form of `AsyncWatch`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from coord_core.client.watch import AsyncWatch
from coord_core.errors import SessionClosed

if TYPE_CHECKING:
    from coord_core.client.sync import Client

T = TypeVar("T")


class Watch(Generic[T]):
    """The changes of one resource, as an iterator that waits for the next; close it (or leave its context) when done.

    A change counts as worked off when the next one is asked for.  Ends when it or the client is closed, by whichever thread.
    """

    def __init__(self, client: "Client", inner: AsyncWatch[T]) -> None:
        self._client = client
        self._inner = inner

    def start(self) -> None:
        """Subscribe now: what happens from here on is told.  Raises as every call does; the first `for` does the same."""
        self._client.run(self._inner.start)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return self._client.run(self._inner.__anext__)
        except (StopAsyncIteration, SessionClosed):  # the latter where the thread ended first
            raise StopIteration from None

    def done(self) -> None:
        """Everything told so far is worked off; asking for the next one says the same."""

        async def done() -> None:
            self._inner.done()

        self._client.run(done)

    def close(self) -> None:
        """Watch no more.  Idempotent."""
        self._client.run(self._inner.aclose)

    def __enter__(self) -> "Watch[T]":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
