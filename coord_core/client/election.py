"""The leader election: `AsyncDistributedLeaderElection`, and the `AsyncCandidacy` of one who would lead.

The rule: who leads is told by the cluster, and believed only as long as the session's lease runs here.  Where leadership is lost
(the lease is over, an operator hands it on), that is known in this process before anybody else can be elected; only the epoch
protects what lies outside it.
"""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from coord_core.client.clocks import clock_ms
from coord_core.client.feed import Feed, call
from coord_core.client.listeners import Listener, call_listener
from coord_core.client.subscriptions import StateDelivered
from coord_core.client.watch import AsyncWatch
from coord_core.errors import CoordError, InvalidRequest, LeadershipLost, LostError, OutcomeUnknown, RetryableError, SessionClosed
from coord_core.protocol.base import Owner
from coord_core.protocol.elections import (
    Candidate,
    ElectionEnter,
    ElectionInfo,
    ElectionResign,
    ElectionState,
    ElectionTransfer,
    Entered,
    LeaderElected,
    LeaderGone,
)
from coord_core.protocol.queries import Answer
from coord_core.protocol.streams import Change
from coord_core.types import CandidateId, Epoch, LogIndex, SubscriptionId

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

_log = logging.getLogger("coord.client")

KIND = "election"

#: After a session was lost or nobody answered, before entering again.
_PAUSE_S = 0.2


class AsyncCandidacy:
    """One entry in an election: first it waits, then it leads, then it is over.

    Over means: resigned, or its session is lost.  An operator may hand its leadership on; then it waits again.
    """

    def __init__(self, client: "AsyncClient", path: str, entered: Entered) -> None:
        self.path = path
        #: The log index at which it entered: nobody else's, ever.
        self.candidate: CandidateId = entered.candidate
        self._client = client
        self._full_path = client.full_path(path)
        self._epoch: Epoch | None = entered.epoch or None
        self._over: LostError | None = None
        self._changed = asyncio.Event()
        # Of a detached session it may be an old candidacy: not what happened since it was entered counts, but who leads now.
        after = LogIndex(0) if client.is_detached else LogIndex(entered.candidate)
        self._feed = Feed(client.driver(), SubscriptionId(entered.candidate), after)
        self._following = asyncio.get_running_loop().create_task(self._follow())

    def __repr__(self) -> str:
        what = "over" if self._over else f"leads, epoch {self._epoch}" if self._epoch else "waits"
        return f"<{type(self).__name__} {self.candidate} in {self.path}: {what}>"

    @property
    def epoch(self) -> Epoch | None:
        """The present epoch, as far as this process knows; None while somebody else leads.  Use it as a fencing token."""
        return None if self._over is not None else self._epoch

    def is_leader_locally(self) -> bool:
        """Tell whether this process may believe that it leads: elected, and the session's lease not over.  Costs no message.

        Who was stopped between this call and its next step may be wrong by then: use the epoch.
        """
        deadline_ms = self._client.lease_deadline_ms()
        return self.epoch is not None and deadline_ms is not None and clock_ms() < deadline_ms

    async def wait_elected(self, timeout: float | None = None) -> Epoch | None:
        """Return the epoch when this candidate leads; None where `timeout` seconds passed first.

        Raises `LostError` where the candidacy is over.
        """
        try:
            async with asyncio.timeout(timeout):
                while self._epoch is None or self._over is not None:
                    self._check_not_over()
                    await self._change()
        except TimeoutError:
            return None
        return self._epoch

    async def wait_deposed(self) -> LostError:
        """Return why, when this candidate leads no more; at once where it does not lead."""
        epoch = self._epoch
        while self._over is None and epoch is not None and self._epoch == epoch:
            await self._change()
        return self._over or LeadershipLost(f"the leadership of {self.path} was handed on", epoch=epoch)

    async def resign(self) -> None:
        """Leave the election; the next candidate leads at once.  Does nothing where it is over.

        Raises `OutcomeUnknown` (not confirmed in time: it is sent on until the cluster has it, or the session is over).
        """
        if self._over is not None:
            return
        self._end(SessionClosed(f"this candidate has resigned from {self.path}"))
        self._feed.close()
        try:
            await self._client.driver().call(ElectionResign(self._full_path, self.candidate))[1]
        except LostError:
            pass  # It went with the session.
        except OutcomeUnknown as error:
            if "lost" not in error.details:
                raise

    # --- inside ------------------------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while self._over is None:
            try:
                item = await self._feed.get()
            except LostError as error:
                self._end(error)
                return
            if isinstance(item, StateDelivered):
                assert isinstance(item.state, ElectionState)
                self._led_by(item.state.leader)
            else:
                for change in item.changes:
                    self._led_by(change.leader if isinstance(change, LeaderElected) else None)
            self._feed.acknowledge(item)

    def _led_by(self, leader: Candidate | None) -> None:
        self._epoch = leader.epoch if leader is not None and leader.candidate == self.candidate else None
        self._changed.set()

    def _end(self, error: LostError) -> None:
        if self._over is None:
            self._over = error
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _check_not_over(self) -> None:
        if self._over is not None:
            raise type(self._over)(self._over.message, **self._over.details)


class AsyncLeadership:
    """`async with election.lead() as leadership:` the body runs while this candidate leads, and is cancelled when it does not."""

    def __init__(self, election: "AsyncDistributedLeaderElection", timeout: float | None) -> None:
        self._election = election
        self._timeout = timeout
        self._candidacy: AsyncCandidacy | None = None
        self._guard: asyncio.Task[None] | None = None
        self._epoch = Epoch(0)
        self._deposed: LostError | None = None
        self._body: asyncio.Task[object] | None = None

    @property
    def epoch(self) -> Epoch:
        """Under which this candidate was elected; unique and rising over the election's whole life."""
        return self._epoch

    def is_leader_locally(self) -> bool:
        """Tell whether this process may believe that it still leads."""
        candidacy = self._candidacy
        return candidacy is not None and candidacy.epoch == self._epoch and candidacy.is_leader_locally()

    async def __aenter__(self) -> "AsyncLeadership":
        """Wait to be elected.  Raises `TimeoutError`, and as `enter` does."""
        candidacy = self._candidacy = await self._election.enter()
        try:
            epoch = await candidacy.wait_elected(self._timeout)
        except BaseException:
            await candidacy.resign()
            raise
        if epoch is None:
            await candidacy.resign()
            raise TimeoutError(f"not elected in {candidacy.path} within {self._timeout:g} s")
        self._epoch = epoch
        self._body = asyncio.current_task()
        self._guard = asyncio.get_running_loop().create_task(self._watch(candidacy))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Resign.  Raises `LeadershipLost` where the body was cancelled because leadership was lost."""
        assert self._candidacy is not None
        assert self._guard is not None
        self._guard.cancel()
        deposed = self._deposed
        if deposed is not None and self._body is not None and self._body.uncancel() == 0 and kind is asyncio.CancelledError:
            await self._leave()
            message = f"the leadership of {self._candidacy.path} was lost: {deposed.message}"
            raise LeadershipLost(message, epoch=self._epoch) from deposed
        await self._leave()

    async def _leave(self) -> None:
        assert self._candidacy is not None
        try:
            await self._candidacy.resign()
        except OutcomeUnknown as trouble:
            _log.warning("leaving %s: %s", self._candidacy.path, trouble)

    async def _watch(self, candidacy: AsyncCandidacy) -> None:
        self._deposed = await candidacy.wait_deposed()
        if self._body is not None:
            self._body.cancel()


class AsyncDistributedLeaderElection:
    """A handle of the election at `path`.  Made by `AsyncClient.election`; making one sends nothing."""

    def __init__(self, client: "AsyncClient", path: str, owner: Owner, *, fences: bool = True) -> None:
        self.path = path
        self._client = client
        self._full_path = client.full_path(path)
        self._owner = owner
        self._fences = fences
        self._registration: asyncio.Task[None] | None = None
        self._candidacy: AsyncCandidacy | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    # --- taking part -------------------------------------------------------------------------------------------------------------

    async def enter(self) -> AsyncCandidacy:
        """Become a candidate; return once it can be elected (it may be already).  First come, first elected.

        Raises `Unavailable`, `Busy` or `DiskFull` (not applied), `SessionExpired`, `OutcomeUnknown`, `WrongType`, `LimitExceeded`.
        """
        operation = ElectionEnter(self._full_path, self._owner, self._fences)
        entered = await call(self._client.driver(), operation, self._full_path)
        assert isinstance(entered, Entered)
        return AsyncCandidacy(self._client, self.path, entered)

    def lead(self, timeout: float | None = None) -> AsyncLeadership:
        """Return a context that is entered when this process leads, and whose body is cancelled when it does no more.

        Entering raises `TimeoutError` where it was not elected within `timeout` seconds, and leaves the election then.
        """
        return AsyncLeadership(self, timeout)

    async def on_election(self, listener: Listener, on_lost: Listener | None = None) -> None:
        """Be a candidate from now on, until `resign`; completes once this process can be elected.

        `listener(epoch)` is called whenever it is elected, `on_lost(epoch)` when it does not lead any more.  After a lost session
        it enters anew.  A coroutine function is cancelled when leadership is lost; a plain function runs on the callback thread.

        Raises as `enter` does, and `InvalidRequest` where this handle is a candidate already.
        """
        if self._registration is not None:
            raise InvalidRequest(f"this handle is a candidate in {self.path} already")
        candidacy = self._candidacy = await self.enter()
        self._registration = asyncio.get_running_loop().create_task(self._run(candidacy, listener, on_lost))

    async def resign(self) -> None:
        """Undo `on_election`: leave the election; the next candidate leads at once.  `on_lost` is not called.

        Raises as `AsyncCandidacy.resign` does.
        """
        registration, self._registration = self._registration, None
        candidacy, self._candidacy = self._candidacy, None
        if registration is not None:
            registration.cancel()
        if candidacy is not None:
            await candidacy.resign()

    # --- looking -----------------------------------------------------------------------------------------------------------------

    async def is_leader(self, epoch: int) -> bool:
        """Tell, linearizably, whether the election is led under `epoch`, by whomever.  Raises `Unavailable`."""
        leader = await self.leader()
        return leader is not None and leader.epoch == epoch

    async def leader(self) -> Candidate | None:
        """Return who leads, linearizably.  Raises `Unavailable`."""
        return (await self._state(0)).leader

    async def candidates(self, limit: int = 100) -> Sequence[Candidate]:
        """Return who waits to lead, the next one first, at most `limit`.  Raises `Unavailable`."""
        return (await self._state(limit)).candidates

    def observe(self) -> "AsyncWatch[Candidate | None]":
        """Return the leaders, one after the other, beginning with the present one: `async for leader in election.observe()`.

        None: nobody leads.
        """
        return AsyncWatch(self._client, KIND, self._full_path, LeaderView())

    async def transfer(self, candidate: int = 0, *, epoch: int | None = None) -> None:
        """Let a candidate lead (0: the next), and the leader wait behind the others.

        `epoch`: only if it is led under this one; None: whoever leads now.  Raises `NotHolder` where it is not,
        `InvalidRequest` where there is no such candidate, and as every write does.
        """
        if epoch is None:
            leader = await self.leader()
            if leader is None:
                raise InvalidRequest(f"{self.path} has no candidate")
            epoch = leader.epoch
        operation = ElectionTransfer(self._full_path, Epoch(epoch), CandidateId(candidate))
        await call(self._client.driver(), operation, self._full_path)

    async def _state(self, limit: int) -> ElectionState:
        state: ElectionState = await self._client.driver().ask(ElectionInfo(self._full_path, limit))
        return state

    # --- on_election -------------------------------------------------------------------------------------------------------------

    async def _run(self, candidacy: AsyncCandidacy, listener: Listener, on_lost: Listener | None) -> None:
        while True:
            try:
                await self._lead(candidacy, listener, on_lost)
            except SessionClosed:
                return
            except LostError as error:
                if self._client.is_over():
                    _log.warning("candidate %d of %s is gone for good: %s", candidacy.candidate, self.path, error.message)
                    return
                _log.warning("candidate %d of %s is gone, entering again: %s", candidacy.candidate, self.path, error.message)
                try:
                    candidacy = self._candidacy = await self._enter_again()
                except SessionClosed:
                    return

    async def _lead(self, candidacy: AsyncCandidacy, listener: Listener, on_lost: Listener | None) -> None:
        """From one election of this candidate to its end.  Raises `LostError` where it is over for good."""
        epoch = await candidacy.wait_elected()
        loop, thread = asyncio.get_running_loop(), self._client.callbacks
        leading = loop.create_task(call_listener(thread, listener, epoch))
        try:
            await candidacy.wait_deposed()
        finally:
            leading.cancel()
        if on_lost is not None:
            await call_listener(thread, on_lost, epoch)

    async def _enter_again(self) -> AsyncCandidacy:
        while True:
            try:
                return await self.enter()
            except SessionClosed:
                raise
            except (RetryableError, OutcomeUnknown, LostError) as error:
                _log.debug("cannot enter %s yet: %s", self.path, error.message)
            except CoordError as error:  # it may pass: there are too many candidates, the path is another's
                _log.warning("cannot enter %s: %s", self.path, error.message)
            await asyncio.sleep(_PAUSE_S)


class LeaderView:
    """Who leads, told when that changes."""

    def __init__(self) -> None:
        # Epoch of the last one told, 0: nobody; None: nothing was told yet.
        self._told: int | None = None

    def state(self, state: Answer, revision: LogIndex) -> Sequence[Candidate | None]:
        assert isinstance(state, ElectionState)
        return self._tell(state.leader)

    def change(self, change: Change, revision: LogIndex) -> Sequence[Candidate | None]:
        assert isinstance(change, LeaderElected | LeaderGone)
        return self._tell(change.leader if isinstance(change, LeaderElected) else None)

    def _tell(self, leader: Candidate | None) -> Sequence[Candidate | None]:
        epoch = 0 if leader is None else leader.epoch
        if epoch == self._told:
            return ()
        self._told = epoch
        return (leader,)
