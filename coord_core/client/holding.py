"""What a handle of a lock and a handle of a semaphore have in common: one prospective holder, and its `AsyncGrant`.

The rule: a handle is one holder.  What it holds goes with its session: `is_held_locally` is what this process may believe without
asking, `check` asks the cluster, and only the fencing token protects what lies outside it.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

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
from coord_core.protocol.locks import LockParty
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.protocol.results import Granted, NotGranted, Result
from coord_core.protocol.semaphores import PermitsGranted, SemaphoreAcquire, SemaphoreParty, SemaphoreRelease
from coord_core.types import AttachmentId, FencingToken, SessionId

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

_log = logging.getLogger("coord.client")

#: Asks the cluster who holds under a token: None where nobody does.
Asking: TypeAlias = Callable[[FencingToken], Awaitable[LockParty | SemaphoreParty | None]]


@dataclass(frozen=True, slots=True)
class AsyncGrant:
    """It was granted: proof to show to others (`token`), and what to ask whether it still stands."""

    path: str
    #: Strictly rising over the whole life of a lock: a store that refuses smaller tokens cannot be written by a former holder.  Of
    #: a semaphore it names the holding.
    token: FencingToken
    session_id: SessionId
    attachment_id: AttachmentId
    _client: "AsyncClient" = field(repr=False, compare=False)
    _ask: Asking = field(repr=False, compare=False)

    def is_held_locally(self) -> bool:
        """Tell whether this process may believe that it holds this: not released here, and the lease not over.

        Costs no message.  A holder that was stopped between this call and its next step may be wrong by then: use the token.
        """
        return self._client.believes_held(self.path, self.token)

    async def check(self) -> None:
        """Ask the cluster whether it is held under this grant, linearizably.

        Raises `LockLost` (it is not: stop; also when the lease ends while nobody answers), `Unavailable` (nobody could say).
        """
        self._check_locally()
        try:
            holder = await self._ask(self.token)
        except Unavailable:
            self._check_locally()
            raise
        if holder is None or (holder.token, holder.session, holder.attachment) != (self.token, self.session_id, self.attachment_id):
            raise LockLost(f"{self.path} is not held under token {self.token} any more", token=self.token)

    def _check_locally(self) -> None:
        if not self.is_held_locally():
            raise LockLost(f"{self.path} is not held any more: released, or the session's lease is over", token=self.token)


class AsyncHolding(ABC):
    """Base of the handles."""

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
        """The token of the present grant; None where this handle has none."""
        return None if self._grant is None else self._grant.token

    @property
    def grant(self) -> AsyncGrant | None:
        return self._grant

    async def check(self) -> None:
        """Raise `LockLost` unless the cluster says that this handle holds what it was granted.  Raises `Unavailable`."""
        if self._grant is None:
            raise LockLost(f"this handle does not hold {self.path}")
        await self._grant.check()

    def is_held_locally(self) -> bool:
        """Tell whether this process may believe that this handle holds what it was granted."""
        return self._grant is not None and self._grant.is_held_locally()

    async def _get(self, operation: LockAcquire | SemaphoreAcquire) -> AsyncGrant | None:
        self._check_free()
        driver = self._client.driver()
        call, future = driver.call(operation)
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

    async def _give(self, operation: Callable[[FencingToken], LockRelease | SemaphoreRelease]) -> None:
        grant, self._grant = self._grant, None
        if grant is None:
            raise NotHolder(f"this handle does not hold {self.path}")
        driver = self._client.driver()
        if driver.session.session_id != grant.session_id:
            raise LockLost(f"{self.path} was lost with session {grant.session_id}", token=grant.token)
        try:
            await driver.call(operation(grant.token))[1]
        except (NotHolder, LostError) as error:
            # Who took it away and why, where the cluster still knows.
            known = {key: value for key, value in error.details.items() if key in ("broken_by", "reason")}
            raise LockLost(f"{self.path} was lost before it was released: {error.message}", token=grant.token, **known) from error
        except OutcomeUnknown as error:
            if "lost" in error.details:
                raise LockLost(f"{self.path} was lost before its release was confirmed", token=grant.token) from error
            raise

    @abstractmethod
    async def _held_under(self, token: FencingToken) -> LockParty | SemaphoreParty | None:
        """Ask the cluster; an answer after the present lease is over is of no use."""

    @abstractmethod
    async def _leave(self, error: BaseException | None) -> None:
        """Give back what the body of a context held; `error`: what the body raised."""

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release.  Raises `LockLost` where the body did not hold it all the time, unless it raised something itself."""
        try:
            await self._leave(error)
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
        if type(result) is Granted or type(result) is PermitsGranted:
            session = self._client.driver().session
            if session.session_id is not None and session.attachment_id is not None:
                place = session.session_id, session.attachment_id
                self._grant = AsyncGrant(self.path, result.token, *place, self._client, self._held_under)
                return self._grant
        if type(result) is NotGranted:
            return None
        # The grant and the loss of its session came in one turn of the loop: what was granted is gone.
        raise LockLost(f"{self.path} was granted and lost at once")


def _lost_while_waiting(error: OutcomeUnknown) -> CoordError:
    """An acquire's outcome is known after all where its session went: nothing is held."""
    code = error.details.get("lost")
    if code is None:
        return error
    return error_from_wire(code, "the session was lost while waiting; whatever it was granted is free again", {})
