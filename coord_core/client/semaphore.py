"""The distributed semaphore: `AsyncDistributedSemaphore`; `sync_lock` has the blocking form of the same names.

The rule: as with locks, a semaphore object is a handle, one prospective holder of some permits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coord_core.client import paths
from coord_core.client.holding import AsyncGrant, AsyncHolding
from coord_core.protocol.operations import Owner
from coord_core.protocol.semaphores import (
    SemaphoreAcquire,
    SemaphoreInfo,
    SemaphoreParty,
    SemaphoreRelease,
    SemaphoreSetLimit,
    SemaphoreState,
)
from coord_core.types import FencingToken

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient


class AsyncDistributedSemaphore(AsyncHolding):
    """A handle of the semaphore at `path`.  Made by `AsyncClient.semaphore`; making one sends nothing."""

    def __init__(self, client: "AsyncClient", path: str, limit: int, permits: int, owner: Owner) -> None:
        super().__init__(client, path, owner)
        #: How many permits this handle says there are; see `state` for how many there are.
        self.limit = limit
        #: How many it takes at a time.
        self.permits = permits

    async def acquire(self, timeout: float | None = None, *, permits: int | None = None) -> AsyncGrant | None:
        """Take permits (None: as many as the handle was made for), waiting in order of arrival.

        None where `timeout` seconds passed first (0: do not wait): nothing is held, and this handle is out of the queue.  Whoever
        wants many is not passed by those who want few.  Raises as `AsyncDistributedLock.acquire` does.
        """
        wanted = self.permits if permits is None else permits
        wait_ms = paths.acquire_wait_ms(timeout)
        return await self._get(SemaphoreAcquire(self._full_path, wait_ms, self._owner, wanted, self.limit))

    async def try_acquire(self, timeout: float = 0) -> AsyncGrant | None:
        """`acquire` that does not wait unless told to."""
        return await self.acquire(timeout)

    async def release(self) -> None:
        """Give back all permits of this handle's grant; whoever can go on goes on at once.

        Raises `NotHolder` (this handle has no grant), `LockLost` (it had, but lost it before), `OutcomeUnknown` (not confirmed in
        time: the release is sent on until the cluster has it, or the session is over).
        """
        await self._give(self._releasing)

    def _releasing(self, token: FencingToken) -> SemaphoreRelease:
        return SemaphoreRelease(self._full_path, token)

    async def set_limit(self, limit: int | None) -> None:
        """Set how many permits there are, for all; it stays until it is set anew, or taken back with None.

        Fewer than are held: nobody loses any, and nobody gets any until enough came back.  0: nobody gets any.
        Raises `InvalidRequest`, `Unavailable` (not applied), `OutcomeUnknown` (do it again).
        """
        await self._client.driver().call(SemaphoreSetLimit(self._full_path, limit), self)[1]

    async def state(self, holders: int = 100, waiters: int = 100) -> SemaphoreState:
        """Return the limit, who holds and who waits, at most so many of each named, linearizably.  Raises `Unavailable`."""
        return await self._state(SemaphoreInfo(self._full_path, holders, waiters))

    async def holders(self, limit: int = 100) -> Sequence[SemaphoreParty]:
        """Return who holds permits, in order of their grants.  Raises `Unavailable`."""
        return (await self.state(limit, 0)).holders

    async def waiters(self, limit: int = 100) -> Sequence[SemaphoreParty]:
        """Return who waits, first come first, at most `limit`.  Raises `Unavailable`."""
        return (await self.state(0, limit)).waiters

    async def is_held(self, token: int) -> bool:
        """Tell, linearizably, whether permits are held under `token`, by whomever.  Raises `Unavailable`."""
        query = SemaphoreInfo(self._full_path, 1, 0, FencingToken(token))
        return bool(token) and bool((await self._state(query)).holders)

    async def __aenter__(self) -> AsyncGrant:
        grant = await self.acquire()
        assert grant is not None
        return grant

    async def _leave(self, error: BaseException | None) -> None:
        await self.release()

    async def _held_under(self, token: FencingToken) -> SemaphoreParty | None:
        query = SemaphoreInfo(self._full_path, 1, 0, token)
        return next(iter((await self._state(query, self._client.lease_left_ms())).holders), None)

    async def _state(self, query: SemaphoreInfo, timeout_ms: int | None = None) -> SemaphoreState:
        state: SemaphoreState = await self._client.driver().ask(query, timeout_ms=timeout_ms)
        return state
