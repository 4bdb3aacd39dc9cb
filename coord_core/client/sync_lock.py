"""Blocking locks, semaphores and rate limiters: facades without logic, as everything of `sync`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from coord_core.client.holding import AsyncGrant
from coord_core.client.limiter import AsyncRateLimiter, Decision
from coord_core.client.lock import AsyncDistributedLock
from coord_core.client.semaphore import AsyncDistributedSemaphore
from coord_core.client.sync_base import Blocking
from coord_core.client.sync_watch import Watch
from coord_core.protocol.limiters import LimiterState
from coord_core.protocol.locks import LockBroken, LockClosure
from coord_core.protocol.queries import LockParty
from coord_core.protocol.semaphores import SemaphoreParty, SemaphoreState
from coord_core.types import AttachmentId, FencingToken, SessionId

if TYPE_CHECKING:
    from coord_core.client.sync import Client


@dataclass(frozen=True, slots=True)
class Grant:
    """It was granted: proof to show to others (`token`), and what to ask whether it still stands."""

    _inner: AsyncGrant = field(repr=False)
    _client: "Client" = field(repr=False, compare=False)

    def __repr__(self) -> str:
        return f"Grant(path={self.path!r}, token={self.token}, session_id={self.session_id}, attachment_id={self.attachment_id})"

    @property
    def path(self) -> str:
        return self._inner.path

    @property
    def token(self) -> FencingToken:
        """Strictly rising over the lock's whole life: a store that refuses smaller tokens cannot be written by a former holder."""
        return self._inner.token

    @property
    def session_id(self) -> SessionId:
        return self._inner.session_id

    @property
    def attachment_id(self) -> AttachmentId:
        return self._inner.attachment_id

    def is_held_locally(self) -> bool:
        """Tell whether this process may believe that it holds this; costs no message.  See `AsyncGrant`."""
        return self._inner.is_held_locally()

    def check(self) -> None:
        """Ask the cluster whether it is held under this grant.  Raises `LockLost`, `Unavailable`."""
        self._client.run(self._inner.check)


class DistributedLock(Blocking[AsyncDistributedLock]):
    """A handle of the lock at `path`: one prospective holder.  Made by `Client.lock`; making one sends nothing."""

    @property
    def token(self) -> FencingToken | None:
        """The fencing token of the present grant; None where this handle has none."""
        return self._inner.token

    @property
    def grant(self) -> Grant | None:
        return self._wrap(self._inner.grant)

    def acquire(self, timeout: float | None = None, *, lock_delay: float | None = None) -> Grant | None:
        """Take the lock, waiting in order of arrival; None where `timeout` seconds passed first (0: do not wait).

        None means that the lock is not held and that this handle is out of its queue; the same where the wait is interrupted.
        Raises as `AsyncDistributedLock.acquire` does.
        """
        return self._wrap(self._client.run(lambda: self._inner.acquire(timeout, lock_delay=lock_delay), self._give_back))

    def try_lock(self, timeout: float = 0) -> Grant | None:
        """`acquire` that does not wait unless told to."""
        return self.acquire(timeout)

    lock = acquire

    def release(self, *, quarantine: float = 0) -> None:
        """Give the lock back; the first waiter has it at once, or after `quarantine` seconds, in which nobody does.

        Of a reentrant handle, the last release does.  Raises `NotHolder`, `LockLost`, `OutcomeUnknown`.
        """
        self._client.run(lambda: self._inner.release(quarantine=quarantine), finish=True)

    unlock = release

    def break_(self, token: int, reason: str) -> LockBroken:
        """Take the lock from whoever holds it under exactly `token`, for operators.  See `AsyncDistributedLock.break_`."""
        return self._client.run(lambda: self._inner.break_(token, reason), finish=True)

    def check(self) -> None:
        """Raise `LockLost` unless the cluster says that this handle holds the lock.  Raises `Unavailable`."""
        self._client.run(self._inner.check)

    def is_held_locally(self) -> bool:
        """Tell whether this process may believe that this handle holds the lock."""
        return self._inner.is_held_locally()

    def watch(self) -> "Watch[LockParty | None]":
        """Return the holders, one after the other, beginning with the present one.  None: nobody holds it."""
        return Watch(self._client, self._inner.watch())

    def is_held(self, token: int) -> bool:
        """Tell, linearizably, whether the lock is held under `token`, by whomever.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.is_held(token))

    def holder(self) -> LockParty | None:
        """Return who holds the lock, linearizably.  Raises `Unavailable`."""
        return self._client.run(self._inner.holder)

    def waiters(self, limit: int = 100) -> Sequence[LockParty]:
        """Return who waits, first come first, at most `limit`.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.waiters(limit))

    def closure(self) -> LockClosure | None:
        """Return why and how long nobody gets the lock, though nobody holds it; None where it is held or free."""
        return self._client.run(self._inner.closure)

    def __enter__(self) -> Grant:
        grant = self.acquire()
        assert grant is not None
        return grant

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release.  Raises `LockLost` where the body did not have the lock all the time, unless it raised something itself."""
        self._client.run(lambda: self._inner.__aexit__(kind, error, trace), finish=True)

    def _wrap(self, grant: AsyncGrant | None) -> Grant | None:
        return None if grant is None else Grant(grant, self._client)

    async def _give_back(self, grant: AsyncGrant) -> None:
        await self._inner.release()


class DistributedSemaphore(Blocking[AsyncDistributedSemaphore]):
    """A handle of the semaphore at `path`: one prospective holder.  Made by `Client.semaphore`; making one sends nothing."""

    @property
    def limit(self) -> int:
        """How many permits this handle says there are; see `state` for how many there are."""
        return self._inner.limit

    @property
    def permits(self) -> int:
        """How many it takes at a time."""
        return self._inner.permits

    @property
    def token(self) -> FencingToken | None:
        """The token of the present grant; None where this handle has none."""
        return self._inner.token

    @property
    def grant(self) -> Grant | None:
        return self._wrap(self._inner.grant)

    def acquire(self, timeout: float | None = None, *, permits: int | None = None) -> Grant | None:
        """Take permits, waiting in order of arrival; None where `timeout` seconds passed first (0: do not wait).

        Raises as `AsyncDistributedLock.acquire` does.
        """
        return self._wrap(self._client.run(lambda: self._inner.acquire(timeout, permits=permits), self._give_back))

    def try_acquire(self, timeout: float = 0) -> Grant | None:
        """`acquire` that does not wait unless told to."""
        return self.acquire(timeout)

    def release(self) -> None:
        """Give back all permits of this handle's grant.  Raises `NotHolder`, `LockLost`, `OutcomeUnknown`."""
        self._client.run(self._inner.release, finish=True)

    def set_limit(self, limit: int | None) -> None:
        """Set how many permits there are, for all; None takes it back.  See `AsyncDistributedSemaphore.set_limit`."""
        self._client.run(lambda: self._inner.set_limit(limit))

    def check(self) -> None:
        """Raise `LockLost` unless the cluster says that this handle holds what it was granted.  Raises `Unavailable`."""
        self._client.run(self._inner.check)

    def is_held_locally(self) -> bool:
        """Tell whether this process may believe that this handle holds what it was granted."""
        return self._inner.is_held_locally()

    def is_held(self, token: int) -> bool:
        """Tell, linearizably, whether permits are held under `token`, by whomever.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.is_held(token))

    def state(self, holders: int = 100, waiters: int = 100) -> SemaphoreState:
        """Return the limit, who holds and who waits, linearizably.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.state(holders, waiters))

    def holders(self, limit: int = 100) -> Sequence[SemaphoreParty]:
        """Return who holds permits, in order of their grants.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.holders(limit))

    def waiters(self, limit: int = 100) -> Sequence[SemaphoreParty]:
        """Return who waits, first come first, at most `limit`.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.waiters(limit))

    def __enter__(self) -> Grant:
        grant = self.acquire()
        assert grant is not None
        return grant

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release.  Raises `LockLost` where the body did not hold it all the time, unless it raised something itself."""
        self._client.run(lambda: self._inner.__aexit__(kind, error, trace), finish=True)

    def _wrap(self, grant: AsyncGrant | None) -> Grant | None:
        return None if grant is None else Grant(grant, self._client)

    async def _give_back(self, grant: AsyncGrant) -> None:
        await self._inner.release()


class RateLimiter(Blocking[AsyncRateLimiter]):
    """A handle of the rate limiter at `path`.  Made by `Client.rate_limiter`; making one sends nothing."""

    @property
    def burst(self) -> int:
        return self._inner.burst

    def try_acquire(self, permits: int = 1) -> Decision:
        """Take permits if they are there and nobody waits for them; say when to try again if not."""
        return self._client.run(lambda: self._inner.try_acquire(permits))

    def acquire(self, permits: int = 1, timeout: float | None = None) -> bool:
        """Take permits, waiting in order of arrival until they are there; False where `timeout` seconds passed first."""
        return self._client.run(lambda: self._inner.acquire(permits, timeout))

    def state(self) -> LimiterState:
        """Return how full the bucket is and how many wait, linearizably.  Raises `Unavailable`."""
        return self._client.run(self._inner.state)
