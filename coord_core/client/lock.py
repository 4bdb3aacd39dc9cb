"""The distributed lock: `AsyncDistributedLock`; `sync` has the blocking form of the same names.

The rule: a lock object is a *handle*, one prospective holder.  Two tasks that are to exclude each other need two handles, also in
one process and on one client.  A *reentrant* handle may be acquired again while it holds the lock, and holds it until it was
released as often; whoever uses that handle is the holder.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from coord_core.client import paths
from coord_core.client.holding import AsyncGrant, AsyncHolding
from coord_core.client.watch import AsyncWatch
from coord_core.errors import LockLost
from coord_core.protocol.locks import LockBreak, LockBroken, LockChanged, LockClosure
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.protocol.queries import Answer, LockParty, LockState
from coord_core.protocol.streams import Change
from coord_core.types import FencingToken, LogIndex

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

__all__ = ["AsyncDistributedLock", "AsyncGrant"]

KIND = "lock"


class AsyncDistributedLock(AsyncHolding):
    """A handle of the lock at `path`.  Made by `AsyncClient.lock`; making one sends nothing."""

    def __init__(
        self,
        client: "AsyncClient",
        path: str,
        owner: Owner,
        *,
        reentrant: bool = False,
        lock_delay: float = 0,
        fences: bool = False,
    ) -> None:
        super().__init__(client, path, owner)
        self._reentrant = reentrant
        self._fences = fences
        self._delay_ms = paths.closed_ms("lock_delay", lock_delay)
        # How often it was acquired and not released; and the longest quarantine that those releases asked for.
        self._depth = 0
        self._quarantine_ms = 0

    async def acquire(self, timeout: float | None = None, *, lock_delay: float | None = None) -> AsyncGrant | None:
        """Take the lock, waiting in order of arrival; None where `timeout` seconds passed first (0: do not wait).

        `lock_delay`: should this holder end without a release (its session expires, its process is closed), nobody gets the lock
        for so many seconds; None: what the handle was made with.

        None means that the lock is not held and that this handle is out of its queue, whatever answers may still be under way; the
        same where the awaiting task is cancelled.  The cluster's clock decides; where it does not answer at all, the local clock
        does two seconds later.

        Raises `Unavailable` (no leader was reached in time: not applied), `SessionExpired` (the session was lost while waiting: not
        held), `Busy`, `DiskFull` (not applied; `OutcomeUnknown` where it was sent to two leaders: withdrawn), `WrongType`,
        and `InvalidRequest` where this handle holds the lock or waits for it already.  A reentrant handle that has lost the lock
        raises `LockLost`.
        """
        delay_ms = self._delay_ms if lock_delay is None else paths.closed_ms("lock_delay", lock_delay)
        if self._reentrant and self._depth:
            if not self.is_held_locally():
                raise LockLost(f"this handle has lost {self.path}: release it as often as it was acquired", token=self.token)
            self._depth += 1
            return self._grant
        wait_ms = paths.acquire_wait_ms(timeout)
        grant = await self._get(LockAcquire(self._full_path, wait_ms, self._owner, delay_ms, self._fences))
        self._depth = 0 if grant is None else 1
        self._quarantine_ms = 0
        return grant

    async def try_lock(self, timeout: float = 0) -> AsyncGrant | None:
        """`acquire` that does not wait unless told to."""
        return await self.acquire(timeout)

    lock = acquire

    async def release(self, *, quarantine: float = 0) -> None:
        """Give the lock back; the first waiter has it at once, or after `quarantine` seconds, in which nobody does.

        Of a reentrant handle, the last release does; those before it send nothing.

        Raises `NotHolder` (this handle has no grant), `LockLost` (it had, but the lock was gone before; `details` say by whom and
        why it was broken, where the cluster knows), `OutcomeUnknown` (not confirmed in time: the release is sent on until the
        cluster has it, or the session is over).
        """
        self._quarantine_ms = max(self._quarantine_ms, paths.closed_ms("quarantine", quarantine))
        self._depth = max(0, self._depth - 1)
        if not self._depth:
            await self._give(partial(self._releasing, self._quarantine_ms))

    unlock = release

    def _releasing(self, quarantine_ms: int, token: FencingToken) -> LockRelease:
        return LockRelease(self._full_path, token, quarantine_ms)

    async def break_(self, token: int, reason: str) -> LockBroken:
        """Take the lock from whoever holds it under exactly `token`; the first waiter has it at once.  For operators.

        The holder may still believe that it holds the lock: only its token keeps it out, where tokens are checked.  A lock that is
        closed opens, under the token of its last holder.  Who did it and why is told to the former holder and written into the
        leader's log.

        Return who held it.  Raises `NotHolder` (it is not held under that token now: look again), `InvalidRequest` or
        `LimitExceeded` (the reason is empty or too long), `Unavailable` (not applied), `OutcomeUnknown` (it is sent on).
        """
        operation = LockBreak(self._full_path, FencingToken(token), reason, self._owner)
        broken: LockBroken = await self._client.driver().call(operation)[1]
        return broken

    async def is_held(self, token: int) -> bool:
        """Tell, linearizably, whether the lock is held under `token`, by whomever.  Raises `Unavailable`."""
        holder = await self.holder()
        return holder is not None and holder.token == token

    async def holder(self) -> LockParty | None:
        """Return who holds the lock, linearizably.  Raises `Unavailable`."""
        return (await self._client.lock_state(self.path, 0)).holder

    async def waiters(self, limit: int = 100) -> Sequence[LockParty]:
        """Return who waits, first come first, at most `limit`.  Raises `Unavailable`."""
        return (await self._client.lock_state(self.path, limit)).waiters

    async def closure(self) -> LockClosure | None:
        """Return why and how long nobody gets the lock, though nobody holds it; None where it is held or free."""
        return (await self._client.lock_state(self.path, 0)).closed

    def watch(self) -> "AsyncWatch[LockParty | None]":
        """Return the holders, one after the other, beginning with the present one: `async for holder in lock.watch()`.

        None: nobody holds it, because it is free or closed for a while.
        """
        return AsyncWatch(self._client, KIND, self._full_path, HolderView())

    async def __aenter__(self) -> AsyncGrant:
        grant = await self.acquire()
        assert grant is not None
        return grant

    async def _leave(self, error: BaseException | None) -> None:
        await self.release()

    async def _held_under(self, token: FencingToken) -> LockParty | None:
        return (await self._client.lock_state(self.path, 0, within_lease=True)).holder


class HolderView:
    """Who holds a lock, told when that changes."""

    def __init__(self) -> None:
        # Token of the last one told, 0: nobody; None: nothing was told yet.
        self._told: int | None = None

    def state(self, state: Answer, revision: LogIndex) -> Sequence[LockParty | None]:
        assert isinstance(state, LockState)
        return self._tell(state.holder)

    def change(self, change: Change, revision: LogIndex) -> Sequence[LockParty | None]:
        assert isinstance(change, LockChanged)
        return self._tell(change.holder)

    def _tell(self, holder: LockParty | None) -> Sequence[LockParty | None]:
        token = 0 if holder is None else holder.token
        if token == self._told:
            return ()
        self._told = token
        return (holder,)
