"""The distributed lock: `AsyncDistributedLock` and its `AsyncGrant`; `sync` has the blocking forms of the same names.

The rule: a lock object is a *handle*, one prospective holder.  Two tasks that are to exclude each other need two handles, also in
one process and on one client.  What a handle holds goes with its session: `is_held_locally` is what this process may believe
without asking, `check` asks the cluster, and only the fencing token protects what lies outside it.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from coord_core.client.paths import acquire_wait_ms
from coord_core.errors import (
    CoordError,
    InvalidRequest,
    LockLost,
    LostError,
    NotHolder,
    OutcomeUnknown,
    Unavailable,
    error_from_wire,
)
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.protocol.queries import LockParty
from coord_core.protocol.results import Granted, NotGranted, Result
from coord_core.types import AttachmentId, FencingToken, SessionId

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

_log = logging.getLogger("coord.client")


@dataclass(frozen=True, slots=True)
class AsyncGrant:
    """The lock was granted: proof to show to others (`token`), and what to ask whether it still stands."""

    path: str
    #: Strictly rising over the lock's whole life: a store that refuses smaller tokens cannot be written by a former holder.
    token: FencingToken
    session_id: SessionId
    attachment_id: AttachmentId
    _client: "AsyncClient" = field(repr=False, compare=False)

    def is_held_locally(self) -> bool:
        """Tell whether this process may believe that it holds the lock: not released here, and the lease not over.

        Costs no message.  A holder that was stopped between this call and its next step may be wrong by then: use the token.
        """
        return self._client.believes_held(self.path, self.token)

    async def check(self) -> None:
        """Ask the cluster whether the lock is held under this grant, linearizably.

        Raises `LockLost` (it is not: stop; also when the lease ends while nobody answers), `Unavailable` (nobody could say).
        """
        self._check_locally()
        try:
            holder = (await self._client.lock_state(self.path, 0, within_lease=True)).holder
        except Unavailable:
            self._check_locally()
            raise
        if holder is None or (holder.token, holder.session, holder.attachment) != (self.token, self.session_id, self.attachment_id):
            raise LockLost(f"{self.path} is not held under token {self.token} any more", token=self.token)

    def _check_locally(self) -> None:
        if not self.is_held_locally():
            raise LockLost(f"{self.path} is not held any more: released, or the session's lease is over", token=self.token)


class AsyncDistributedLock:
    """A handle of the lock at `path`.  Made by `AsyncClient.lock`; making one sends nothing."""

    def __init__(self, client: "AsyncClient", path: str, owner: Owner) -> None:
        self.path = path
        self._client = client
        self._full_path = client.full_path(path)
        self._owner = owner
        self._grant: AsyncGrant | None = None
        self._acquiring = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} {f'token {self.token}' if self._grant else 'not held'}>"

    @property
    def token(self) -> FencingToken | None:
        """The fencing token of the present grant; None where this handle has none."""
        return None if self._grant is None else self._grant.token

    @property
    def grant(self) -> AsyncGrant | None:
        return self._grant

    async def acquire(self, timeout: float | None = None) -> AsyncGrant | None:
        """Take the lock, waiting in order of arrival; None where `timeout` seconds passed first (0: do not wait).

        None means that the lock is not held and that this handle is out of its queue, whatever answers may still be under way; the
        same where the awaiting task is cancelled.  The cluster's clock decides; where it does not answer at all, the local clock
        does two seconds later.

        Raises `Unavailable` (no leader was reached in time: not applied), `SessionExpired` (the session was lost while waiting: not
        held), `Busy`, `DiskFull` (not applied; `OutcomeUnknown` where it was sent to two leaders: withdrawn), `WrongType`,
        and `InvalidRequest` where this handle holds the lock or waits for it already.
        """
        self._check_free()
        driver = self._client.driver()
        call, future = driver.call(LockAcquire(self._full_path, acquire_wait_ms(timeout), self._owner))
        self._acquiring = True
        try:
            return self._granted(await future)
        except asyncio.CancelledError:
            driver.withdraw(call, future, self._full_path)
            raise
        except OutcomeUnknown as error:
            raise _lost_while_waiting(error) from None
        finally:
            self._acquiring = False

    async def try_lock(self, timeout: float = 0) -> AsyncGrant | None:
        """`acquire` that does not wait unless told to."""
        return await self.acquire(timeout)

    lock = acquire

    async def release(self) -> None:
        """Give the lock back; the first waiter has it at once.

        Raises `NotHolder` (this handle has no grant), `LockLost` (it had, but the lock was gone before), `OutcomeUnknown` (not
        confirmed in time: the release is sent on until the cluster has it, or the session is over).
        """
        grant, self._grant = self._grant, None
        if grant is None:
            raise NotHolder(f"this handle does not hold {self.path}")
        driver = self._client.driver()
        if driver.session.session_id != grant.session_id:
            raise LockLost(f"{self.path} was lost with session {grant.session_id}", token=grant.token)
        try:
            await driver.call(LockRelease(self._full_path, grant.token))[1]
        except (NotHolder, LostError) as error:
            raise LockLost(f"{self.path} was lost before it was released: {error.message}", token=grant.token) from error
        except OutcomeUnknown as error:
            if "lost" in error.details:
                raise LockLost(f"{self.path} was lost before its release was confirmed", token=grant.token) from error
            raise

    unlock = release

    async def check(self) -> None:
        """Raise `LockLost` unless the cluster says that this handle holds the lock.  Raises `Unavailable`."""
        if self._grant is None:
            raise LockLost(f"this handle does not hold {self.path}")
        await self._grant.check()

    def is_held_locally(self) -> bool:
        """Tell whether this process may believe that this handle holds the lock."""
        return self._grant is not None and self._grant.is_held_locally()

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

    async def __aenter__(self) -> AsyncGrant:
        grant = await self.acquire()
        assert grant is not None
        return grant

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release.  Raises `LockLost` where the body did not have the lock all the time, unless it raised something itself."""
        try:
            await self.release()
        except (OutcomeUnknown, LostError) as trouble:
            if error is None and not isinstance(trouble, OutcomeUnknown):
                raise
            _log.warning("leaving %s: %s", self.path, trouble)

    def _check_free(self) -> None:
        if self._acquiring:
            raise InvalidRequest(f"this handle waits for {self.path} already: a second holder needs a handle of its own")
        if self._grant is not None:
            if self._grant.is_held_locally():
                raise InvalidRequest(f"this handle holds {self.path} already: a second holder needs a handle of its own")
            self._grant = None

    def _granted(self, result: Result) -> AsyncGrant | None:
        if isinstance(result, NotGranted):
            return None
        session = self._client.driver().session
        if not isinstance(result, Granted) or session.session_id is None or session.attachment_id is None:
            # The grant and the loss of its session came in one turn of the loop: what was granted is gone.
            raise LockLost(f"{self.path} was granted and lost at once")
        self._grant = AsyncGrant(self.path, result.token, session.session_id, session.attachment_id, self._client)
        return self._grant


def _lost_while_waiting(error: OutcomeUnknown) -> CoordError:
    """An acquire's outcome is known after all where its session went: nothing is held."""
    code = error.details.get("lost")
    if code is None:
        return error
    return error_from_wire(code, "the session was lost while waiting; whatever it was granted is free again", {})
