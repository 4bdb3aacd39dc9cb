"""The blocking form of `AsyncParkingLot`."""

from collections.abc import Sequence

from coord_core.client.parking import AsyncParkingLot, Parked, ParkingStatus, Piece, WaitingPiece
from coord_core.client.sync_base import Blocking
from coord_core.client.sync_topic import Subscription
from coord_core.client.topic import Claim
from coord_core.protocol.parking import GRACE_MS_DEFAULT, WAITING_MAX


class ParkingLot(Blocking[AsyncParkingLot]):
    """A handle of the parking lot at `path`.  Made by `Client.parking`; making one sends nothing.

    Every change raises as `AsyncParkingLot` says.
    """

    def park(
        self,
        key: str,
        id: str,
        message: bytes,
        *,
        lock: str,
        permits: int = 1,
        timeout: float | None = None,
        max_waiting: int = WAITING_MAX,
        grace: float = GRACE_MS_DEFAULT / 1000,
        replace: bool = False,
    ) -> Parked | None:
        """Keep a message of at most 256 KiB until the lock at the path `lock` is free, and then have it handed out, under its id.

        None where `max_waiting` of the key wait already.  Parking what waits already tells where it stands.  What was called and
        finds the lock taken again is parked again: it gets its old place.  See `AsyncParkingLot.park`.
        """
        return self._client.run(
            lambda: self._inner.park(
                key,
                id,
                message,
                lock=lock,
                permits=permits,
                timeout=timeout,
                max_waiting=max_waiting,
                grace=grace,
                replace=replace,
            )
        )

    def unpark(self, key: str, id: str) -> str:
        """Take a piece away; return "waiting", "called" (a consumer may have been handed it), or "" where there was none."""
        return self._client.run(lambda: self._inner.unpark(key, id))

    def waiting(self, key: str, limit: int = 100) -> Sequence[WaitingPiece]:
        """Return the pieces of a key that wait, first the next to be called, at most `limit`.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.waiting(key, limit))

    def info(self, limit: int = 100, after: str = "") -> ParkingStatus | None:
        """Return what there is, with `limit` keys, those after `after`; None where there is nothing.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.info(limit, after))

    def consume(self, *, commit: bool = True) -> Subscription[Piece]:
        """Iterate over what is called, without end, as the lot's one consumer.  See `AsyncParkingLot.consume`."""
        return Subscription(self._client, self._inner.consume(commit=commit))

    def commit(self, offset: int) -> int:
        """Note that everything called below `offset` was worked off.  Raises `NotHolder`, `InvalidRequest`."""
        return self._client.run(lambda: self._inner.commit(offset))

    def claim(self, *, takeover: bool = False) -> Claim | None:
        """Become the one consumer, until this process ends or releases it; None where another is, unless `takeover`."""
        return self._client.run(lambda: self._inner.claim(takeover=takeover))

    def release(self) -> None:
        """Be the consumer no more; fine where this process is not."""
        self._client.run(self._inner.release)
