"""A parking lot: pieces of work that wait durably for a lock, and are handed to a consumer when it is free.

`AsyncParkingLot`; `sync_parking` has the blocking form.  Whoever finds a lock taken parks what it would have done, and goes on with
something else; when the lock is free, the next piece of that key is *called*, and whichever process consumes the lot is handed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from coord_core.client import paths
from coord_core.client.consuming import Consumer, Fetched
from coord_core.client.driver import Driver
from coord_core.client.feed import call
from coord_core.client.topic import Claim
from coord_core.protocol.operations import Operation, Owner
from coord_core.protocol.parking import (
    GRACE_MS_DEFAULT,
    WAITING_MAX,
    Delivery,
    Park,
    ParkedKey,
    ParkedList,
    ParkedListing,
    ParkingClaim,
    ParkingCommit,
    ParkingFetch,
    ParkingFetched,
    ParkingInfo,
    ParkingRelease,
    ParkingState,
    Unpark,
    Unparked,
)
from coord_core.protocol.parking import Parked as ParkedResult
from coord_core.protocol.queries import Answer
from coord_core.protocol.topics import Claimed, Committed, TopicRecord

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

#: Pieces that a consumer asks for at a time: few, for a key waits until its piece is committed, and those may come twice.
_BATCH = 16


class Parked(NamedTuple):
    """A piece is kept, durably."""

    #: How many of its key are called before it.
    position: int
    #: The lock was free: it is called already.
    called: bool
    #: False: it was waiting already, under this id.
    is_new: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece that is handed out: its lock is free, or it has waited for as long as it would."""

    #: Counts what was called in this lot.
    offset: int
    key: str
    id: str
    message: bytes
    #: Its `timeout` has passed: it is not to be run, and somebody should be told.
    expired: bool
    #: Seconds since it was parked, as the cluster counts them.
    waited: float
    #: Rises from piece to piece of a key, in the order in which they were first parked.
    ticket: int


class WaitingPiece(NamedTuple):
    """A piece that waits to be called."""

    id: str
    #: Seconds since it was parked, and until it expires (None: never), as the cluster counts them.
    since: float
    expires_in: float | None


@dataclass(frozen=True, slots=True)
class ParkedKeyStatus:
    """A key of a lot."""

    key: str
    #: What its pieces wait for, as the cluster knows it: with the namespace.
    lock: str
    waiting: int
    #: Called, and not both committed and come for the lock.
    called: int
    #: Seconds since the first of those that wait was parked.
    oldest: float


@dataclass(frozen=True, slots=True)
class ParkingStatus:
    """What there is in a lot."""

    path: str
    #: Pieces that wait, or are called and not committed; and the bytes of their messages.
    pieces: int
    bytes: int
    #: Called and not committed: what the consumer has still to work off.
    uncommitted: int
    #: Who consumes it.
    consumer: Owner | None
    keys_total: int
    #: In order, as many as were asked for.
    keys: tuple[ParkedKeyStatus, ...]


class AsyncParkingLot:
    """A handle of the parking lot at `path`.  Made by `AsyncClient.parking`; making one sends nothing.

    Every change raises `Unavailable`, `DiskFull` or `Busy` (not applied), `OutcomeUnknown` (sent and not answered in time, or the
    session was lost meanwhile: do it again, what waits already does not wait twice), `SessionExpired` (not applied), `WrongType`,
    `LimitExceeded`.
    """

    def __init__(self, client: "AsyncClient", path: str, owner: Owner) -> None:
        self.path = path
        self._client = client
        self._full_path = client.full_path(path)
        self._owner = owner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    # --- pieces ------------------------------------------------------------------------------------------------------------------

    async def park(
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

        The pieces of a key are called one at a time, in the order in which they were parked; all of them wait for the same lock.
        `lock` may name a semaphore: then as many are called as there are permits, each of which takes `permits`.  Where the lock is
        free now, the piece is called at once.

        Parking what waits already changes nothing but, with `replace`, its message, and tells where it stands.  What was called and
        finds the lock taken again is parked again: it gets its old place.

        `timeout`: after so many seconds of waiting it is handed out as expired.  `max_waiting`: None is returned where so many of
        the key wait already.  `grace`: how long the others wait for this one, once it was handed out and committed, to come for the
        lock.  It stays when this session ends.  Raises `InvalidRequest`.
        """
        piece = (paths.piece_key(key), paths.piece_id(id), paths.payload(message), self._client.full_path(lock))
        times = (paths.patience_ms(timeout), max_waiting, paths.grace_ms(grace))
        result = await self._do(Park(self._full_path, *piece, permits, *times, replace))
        return Parked(result.position, result.called, result.is_new) if isinstance(result, ParkedResult) else None

    async def unpark(self, key: str, id: str) -> str:
        """Take a piece away, such as one that was revoked; the next is called where this one was in the way.

        Return "waiting"; "called", where a consumer may have been handed it already; or "", where there was none.
        """
        result: Unparked = await self._do(Unpark(self._full_path, paths.piece_key(key), paths.piece_id(id)))
        return result.was

    async def waiting(self, key: str, limit: int = 100) -> Sequence[WaitingPiece]:
        """Return the pieces of a key that wait, first the next to be called, at most `limit`.  Raises `Unavailable`."""
        query = ParkedList(self._full_path, paths.piece_key(key), limit)
        listing: ParkedListing = await self._client.driver().ask(query)
        return tuple(
            WaitingPiece(each.id, each.since_ms / 1000, None if each.left_ms is None else each.left_ms / 1000)
            for each in listing.pieces
        )

    async def info(self, limit: int = 100, after: str = "") -> ParkingStatus | None:
        """Return what there is, linearizably, with `limit` keys, those after `after`; None where there is nothing and no consumer.

        Raises `Unavailable`.
        """
        state: ParkingState = await self._client.driver().ask(ParkingInfo(self._full_path, after, limit))
        if not state.lot:
            return None
        counts = (state.pieces, state.bytes, state.uncommitted, state.consumer, state.keys_total)
        return ParkingStatus(self.path, *counts, tuple(map(_key, state.keys)))

    # --- consuming ---------------------------------------------------------------------------------------------------------------

    def consume(self, *, commit: bool = True) -> Consumer[Piece]:
        """Iterate over what is called, without end, as the lot's one consumer; waits until no other process is.

        A piece counts as worked off when the next one is asked for: what was not committed before a crash is handed out again, to
        whoever consumes then, under the same id.  `commit=False` leaves committing to you.  Goes on over failovers and lost
        sessions.
        """
        return Consumer(_Source(self), "earliest", commit=commit)

    async def commit(self, offset: int) -> int:
        """Note that everything called below `offset` was worked off; return where that stands.

        Raises `NotHolder` (this process is not the consumer), `InvalidRequest` (beyond the end).
        """
        result: Committed = await self._do(ParkingCommit(self._full_path, offset))
        return result.offset

    async def claim(self, *, takeover: bool = False) -> Claim | None:
        """Become the one consumer, until this process ends or releases it; None where another is, unless `takeover`."""
        result = await self._do(ParkingClaim(self._full_path, self._owner, takeover))
        return Claim(result.token, result.committed) if isinstance(result, Claimed) else None

    async def release(self) -> None:
        """Be the consumer no more; fine where this process is not."""
        await self._do(ParkingRelease(self._full_path))

    # --- inside ------------------------------------------------------------------------------------------------------------------

    async def fetch(self, start: int) -> ParkingFetched:
        """Ask for what was called and is not committed, once."""
        fetched: ParkingFetched = await self._client.driver().ask(ParkingFetch(self._full_path, start, _BATCH))
        return fetched

    def driver(self) -> Driver:
        """Return the client's driver (for the consumer)."""
        return self._client.driver()

    @property
    def full_path(self) -> str:
        """As the cluster knows it."""
        return self._full_path

    async def _do(self, operation: Operation) -> Any:
        return await call(self._client.driver(), operation, self._full_path)


class _Source:
    """A lot as its consumer sees it."""

    kind = "parking"
    is_group = True

    def __init__(self, lot: AsyncParkingLot) -> None:
        self._lot = lot
        self.full_path = lot.full_path

    def driver(self) -> Driver:
        return self._lot.driver()

    async def claim(self) -> Claim | None:
        return await self._lot.claim()

    async def release(self) -> None:
        await self._lot.release()

    async def commit(self, offset: int) -> None:
        await self._lot.commit(offset)

    async def fetch(self, start: int, ago_ms: int | None) -> Fetched[Piece]:
        # -1, the earliest, is 0: what is committed is not there any more.
        fetched = await self._lot.fetch(max(0, start))
        return Fetched(fetched.lot, [(each.offset, _piece(each)) for each in fetched.deliveries], fetched.next, fetched.end)

    def message(self, record: TopicRecord) -> Piece:
        raise AssertionError("news of a lot come without the message")

    def position(self, state: Answer) -> tuple[int, int]:
        assert isinstance(state, ParkingState)
        return state.lot, state.end


def _piece(found: Delivery) -> Piece:
    return Piece(found.offset, found.key, found.id, found.message, found.expired, found.since_ms / 1000, found.ticket)


def _key(found: ParkedKey) -> ParkedKeyStatus:
    return ParkedKeyStatus(found.key, found.gate, found.waiting, found.called, found.oldest_ms / 1000)
