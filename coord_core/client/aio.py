"""`AsyncClient`: the client.  Everything else that calls itself a client is a facade over it.

The rule: making a client parses the URL and does nothing else; the first use, on whatever loop runs then, connects, and opens a
session where one is needed.  One connection carries all calls.  Use it on one loop only.
"""

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from coord_core.client import catalog, forks, paths
from coord_core.client.administration import administer
from coord_core.client.callbacks import CallbackThread
from coord_core.client.clocks import clock_ms
from coord_core.client.detached import Detached, fences, hold_ms
from coord_core.client.driver import Driver, Lease
from coord_core.client.election import AsyncDistributedLeaderElection
from coord_core.client.group import AsyncDistributedMembershipGroup
from coord_core.client.limiter import AsyncRateLimiter
from coord_core.client.listing import LockListing, SessionListing, end_session, list_locks, list_sessions
from coord_core.client.lock import AsyncDistributedLock
from coord_core.client.parking import AsyncParkingLot
from coord_core.client.place import Place, load, place_of
from coord_core.client.semaphore import AsyncDistributedSemaphore
from coord_core.client.session import SessionConfig, SessionState, StateChange
from coord_core.client.status import ClusterReport, ask_cluster
from coord_core.client.topic import AsyncDistributedTopic, TopicListed
from coord_core.client.url import ClientUrl, parse_url
from coord_core.client.value import AsyncDistributedValue
from coord_core.client.view import SessionView
from coord_core.errors import InvalidConfig, InvalidRequest, OutcomeUnknown, SessionClosed, Superseded, Unavailable
from coord_core.protocol.administration import Administration
from coord_core.protocol.commands import CloseAttachment, HandOff
from coord_core.protocol.locks import ListCursor
from coord_core.protocol.members import Member
from coord_core.protocol.operations import Owner
from coord_core.protocol.queries import LockInfo, LockState, SessionInfo
from coord_core.protocol.queries import SessionState as SessionInfoState
from coord_core.protocol.topics import TOPICS_LISTED_MAX, TopicList, TopicListing
from coord_core.types import AttachmentId, FencingToken, SessionId

#: How long `close` waits for the cluster to confirm; a session that could not be closed expires by itself.
CLOSE_TIMEOUT_S = 2.0
_STATUS_TIMEOUT_S = 2.0

R = TypeVar("R")
_Self = TypeVar("_Self", bound="AsyncClient")


class AsyncClient:
    """A client of one cluster and namespace.

    `url`: `coord://[token@]h1:7400,h2:7400/namespace?ttl=15s`, or `coord+embedded:///directory` for a node inside the processes of
    one machine; `label`: who this is, for those who look at holders; `session_id`, `lease`: attach to a session that another
    process keeps alive (see `coord_core.attach`).  `detached`: take up this detached session, or open it; once it is lost, or
    another has it, this client is at its end.  Raises `InvalidUrl`, `InvalidRequest`.

    Every use raises `UsedAfterFork` in a child made by `fork`, and `SessionClosed` after `close`.
    """

    def __init__(
        self,
        url: str | ClientUrl,
        *,
        label: str = "",
        session_id: int | None = None,
        lease: Lease | None = None,
        detached: Detached | None = None,
    ) -> None:
        self._url = url if isinstance(url, ClientUrl) else parse_url(url)
        load(self._url)
        self._owner = Owner(socket.gethostname(), os.getpid(), paths.label(label or _program()))
        self._session_id = None if session_id is None else SessionId(session_id)
        self._lease = lease
        if detached is not None and session_id is not None:
            raise InvalidRequest("a client has either a part of another's session, or a detached one", field="detached")
        self._detached = None if detached is None else detached.config(self._url.namespace)
        self._born = forks.generation()
        self._place: Place | None = None
        self._driver: Driver | None = None
        self._closed = False
        #: Where listeners run that are plain functions (for the resources).
        self.callbacks = CallbackThread()
        #: The present session: its number, state, lease; `on_state_change`.
        self.session = SessionView(self._url.ttl_ms)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {','.join(self._url.addresses)}{self._url.namespace} {self.session!r}>"

    # --- resources ---------------------------------------------------------------------------------------------------------------

    def lock(
        self,
        path: str,
        *,
        label: str | None = None,
        reentrant: bool = False,
        lock_delay: float = 0,
        takeover: str = "wait",
    ) -> AsyncDistributedLock:
        """Return a new handle of the lock at `path`.

        `label`: for its holder, such as a task id.  `reentrant`: whoever has the handle may acquire it again while it holds the
        lock.  `lock_delay`: should the holder end without a release, nobody gets the lock for so many seconds.  `takeover`, of a
        detached session: what to do where a lower attempt holds the lock: "wait" until that one's lease is over or it has closed
        its client, ahead of all others; "fence": take it at once, and trust in the token.  Raises `InvalidRequest`.
        """
        forks.check(self._born)
        owner = self._owner_with(label)
        return AsyncDistributedLock(self, path, owner, reentrant=reentrant, lock_delay=lock_delay, fences=fences(takeover))

    def semaphore(self, path: str, limit: int, *, permits: int = 1, label: str | None = None) -> AsyncDistributedSemaphore:
        """Return a new handle of the semaphore at `path`, which takes `permits` at a time.

        `limit`: how many permits there are, where this is the first to ask for any; what was said first, or set, stands.
        Raises `InvalidRequest`.
        """
        forks.check(self._born)
        return AsyncDistributedSemaphore(self, path, limit, permits, self._owner_with(label))

    def rate_limiter(self, path: str, rate: float | Fraction, burst: int | None = None) -> AsyncRateLimiter:
        """Return a new handle of the rate limiter at `path`: `rate` permits a second, at most `burst` at once.

        None for `burst`: those of a second, at least one.  Raises `InvalidRequest`.
        """
        forks.check(self._born)
        return AsyncRateLimiter(self, path, rate, burst)

    def value(self, path: str) -> AsyncDistributedValue:
        """Return a new handle of the value at `path`.  Raises `InvalidRequest`."""
        forks.check(self._born)
        return AsyncDistributedValue(self, path)

    def election(self, path: str, *, label: str | None = None, takeover: str = "fence") -> AsyncDistributedLeaderElection:
        """Return a new handle of the election at `path`.  `label`: for its candidate.

        `takeover`, of a detached session: what to do where a lower attempt leads: "fence": lead at once, in a new epoch; "wait" as
        with a lock.  Raises `InvalidRequest`.
        """
        forks.check(self._born)
        return AsyncDistributedLeaderElection(self, path, self._owner_with(label), fences=fences(takeover))

    def group(self, path: str, *, label: str | None = None) -> AsyncDistributedMembershipGroup:
        """Return a new handle of the membership group at `path`.  `label`: for its member.  Raises `InvalidRequest`."""
        forks.check(self._born)
        return AsyncDistributedMembershipGroup(self, path, self._owner_with(label))

    def topic(self, path: str, *, label: str | None = None) -> AsyncDistributedTopic:
        """Return a new handle of the topic at `path`.  `label`: for the consumer that it may become.  Raises `InvalidRequest`."""
        forks.check(self._born)
        return AsyncDistributedTopic(self, path, self._owner_with(label))

    def parking(self, path: str, *, label: str | None = None) -> AsyncParkingLot:
        """Return a new handle of the parking lot at `path`.  `label`: for its consumer.  Raises `InvalidRequest`."""
        forks.check(self._born)
        return AsyncParkingLot(self, path, self._owner_with(label))

    async def topics(self, prefix: str = "/", limit: int = 1_000) -> list[TopicListed]:
        """Return the topics whose path begins with `prefix`, in order, at most `limit`.  Raises `Unavailable`."""
        namespace, found = self._url.namespace, list[TopicListed]()
        after, more = "", True
        while more and len(found) < limit:
            query = TopicList(namespace + prefix, after, min(limit - len(found), TOPICS_LISTED_MAX))
            listing: TopicListing = await self.driver().ask(query)
            found += [TopicListed.of(each, namespace) for each in listing.topics]
            more = listing.more
            after = listing.topics[-1].path if listing.topics else after
        return found

    async def create(self, path: str, kind: type[R], **options: Any) -> R:
        """Return a handle of a class of resource (`AsyncDistributedLock`, ...) at a path that is free or of that type.

        The same as the method of that name; besides, a topic is made.  Raises `WrongType`, `InvalidRequest`, `Unavailable`.
        """
        handle: R = getattr(self, catalog.factory_of(kind))(path, **options)
        await catalog.check(self, path, kind, must_exist=False)
        if isinstance(handle, AsyncDistributedTopic):
            await handle.create()
        return handle

    async def get(self, path: str, kind: type[R], **options: Any) -> R:
        """Return a handle of what is there at a path.  Raises `NotFound`, `WrongType`, `InvalidRequest`, `Unavailable`."""
        handle: R = getattr(self, catalog.factory_of(kind))(path, **options)
        await catalog.check(self, path, kind, must_exist=True)
        return handle

    # --- the session and the cluster ---------------------------------------------------------------------------------------------

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Connect and open the session now; return once it stands.

        Raises `Unavailable` (not within `timeout` seconds; the client goes on trying), what the nodes refuse with
        (`AuthenticationFailed`, `WrongCluster`, ...), and the loss of an attached client's session.
        """
        driver = self.driver()
        driver.open()
        session = driver.session
        try:
            async with asyncio.timeout(timeout):
                while session.state is not SessionState.CONNECTED:
                    if session.refusal is not None:
                        raise session.refusal
                    driver.session.check_usable()
                    await asyncio.shield(driver.progress)
        except TimeoutError:
            why = f": {session.trouble}" if session.trouble else ""
            raise Unavailable(f"not connected within {timeout:g} s{why}") from None

    async def status(self, timeout: float = _STATUS_TIMEOUT_S) -> ClusterReport:
        """Ask every known node what it knows; needs neither a leader nor a session.  Nodes that do not answer are named as such."""
        forks.check(self._born)
        known = [] if self._driver is None else [member.client_address for member in self._driver.session.members]
        place = self._reach()
        addresses = await place.addresses([*self._url.addresses, *known])
        return await ask_cluster(addresses, place.token, _tls(self._url), timeout)

    async def members(self) -> tuple[Member, ...]:
        """Return the nodes of the cluster.  Raises `Unavailable` where none answers."""
        report = await self.status()
        if not report.members:
            raise next((node.error for node in report.nodes if node.error is not None), Unavailable("no node answered"))
        return report.members

    async def administer(self, request: Administration, timeout: float = 10.0) -> None:
        """Have the cluster itself changed (`coord_core.protocol.administration`); needs no session.  Safe to ask again.

        Raises `Unsafe`, `InvalidRequest` where it is refused; `Unavailable` where nobody has done it in time, though somebody may.
        """
        addresses = [member.client_address for member in await self.members()]
        await administer(addresses, self._reach().token, _tls(self._url), request, timeout)

    async def list_locks(
        self,
        prefix: str = "/",
        *,
        limit: int = 1_000,
        after: ListCursor | None = None,
        kinds: Sequence[str] = ("lock", "semaphore"),
    ) -> LockListing:
        """Return the locks and semaphores of this namespace whose names begin so, about `limit` of them, linearizably.

        `kinds`: also "election" and "group".

        Names are those of the cluster, with the namespace.  Where there are more, `next` says where to go on; what comes or goes
        between two calls may be told or not.  Raises `Unavailable`.
        """
        return await list_locks(self.driver(), self._url.namespace + prefix, limit, after, kinds)

    async def list_sessions(self, *, limit: int = 1_000, after: int = 0) -> SessionListing:
        """Return the sessions of the cluster, of all namespaces, in order of their numbers.  Raises `Unavailable`."""
        return await list_sessions(self.driver(), limit, after)

    async def session_lease_left_ms(self, session_id: int) -> int | None:
        """Return how much is left of a session's lease, as the leader reckons it; None: no such session.  Raises `Unavailable`."""
        state: SessionInfoState = await self.driver().ask(SessionInfo(SessionId(session_id)))
        return state.lease_left_ms

    async def end_session(self, session_id: int) -> bool:
        """Close somebody's session, for operators: all it holds is free at once, but its process may not know yet.

        Return False where there is no such session.  Raises `Unavailable`, `OutcomeUnknown` (do it again).
        """
        return await end_session(self.driver(), SessionId(session_id))

    async def close_attachment(self, attachment_id: int) -> None:
        """Close another process's part of this session: what it acquired is free, its late commands are refused.

        Fine where it is closed already.  Raises `Unavailable` (not done), `OutcomeUnknown` (do it again), `SessionExpired` (all of
        the session is gone).
        """
        driver = self.driver()
        session = driver.session.session_id
        if session is None:
            raise SessionClosed("there is no session, so it has no attachments")
        await driver.command(CloseAttachment(session, AttachmentId(attachment_id)))

    async def hand_off(self, hold: float = 600.0, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Leave a detached session to whoever takes it up next, with all that it holds, and close this client.

        Stop working under it first.  Locks, permits, candidacies and places in queues are kept for `hold` seconds of the cluster's
        time; then, if nobody has taken the session up, it ends.  Subscriptions, memberships and consumers end now.

        Raises `InvalidRequest` (this session is not detached), `Superseded` (another process, or a later attempt, has it already),
        `SessionExpired` (it has ended), and `Unavailable`, `DiskFull` or `OutcomeUnknown` (not confirmed): after these the client
        is still open, so hand it off again, or close it.
        """
        hold_for_ms = hold_ms(hold)
        driver = self.driver()
        session, attachment = driver.session.session_id, driver.session.attachment_id
        if self._detached is None:
            raise InvalidRequest("this client's session is not detached: it ends with the client", field="detached")
        if session is None or attachment is None:
            driver.session.check_usable()
            raise SessionClosed("there is no session yet: connect before you hand it off")
        command = HandOff(session, attachment, hold_for_ms)
        try:
            try:
                await driver.command(command)
            except OutcomeUnknown as error:
                if error.details.get("lost") != Superseded.__name__:
                    raise
                # A keep-alive found that somebody else has it; whether that came after our hand-off, the cluster knows.
                await driver.command(command)
        except Superseded:
            # What it closes is nothing but its own belief: whoever has the session has it under another number.
            await self._close(timeout)
            raise
        await self._close(timeout, bury=False)

    async def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Give back everything held and end the session; waits at most `timeout` seconds for the cluster's word.

        Without it the session expires after its TTL.  Does nothing the second time, or in a forked child.
        """
        await self._close(timeout)

    async def _close(self, timeout: float, *, bury: bool = True) -> None:
        if self._closed or self._born != forks.generation():
            return
        self._closed = True
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close(timeout, bury=bury)
        if self._place is not None:
            await self._place.leave()
        self.callbacks.stop()

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    # --- for the resources -------------------------------------------------------------------------------------------------------

    @property
    def is_detached(self) -> bool:
        return self._detached is not None

    def is_over(self) -> bool:
        """Tell whether this client takes no more calls: closed, or without a session and not to have another."""
        return self._closed or (self._driver is not None and self._driver.session.over is not None)

    def driver(self) -> Driver:
        """Return the driver, made with the first use.  Raises `UsedAfterFork`, `SessionClosed`."""
        forks.check(self._born)
        if self._driver is None:
            self._driver = self._start()
        return self._driver

    def full_path(self, path: str) -> str:
        return paths.full_path(self._url.namespace, path)

    def lease_deadline_ms(self) -> int | None:
        """Return until when, on `clock`, this process may believe in what its session holds; None: it holds nothing."""
        forks.check(self._born)
        if self._driver is None:
            return None
        self._driver.refresh_lease()
        return self._driver.session.lease_deadline_ms

    def believes_held(self, path: str, token: FencingToken) -> bool:
        forks.check(self._born)
        driver = self._driver
        if driver is None:
            return False
        driver.refresh_lease()
        return driver.session.believes_held(self.full_path(path), token, clock_ms())

    def lease_left_ms(self) -> int | None:
        """Return how long an answer about what the session holds is of use; None: it has no lease."""
        deadline_ms = self.driver().session.lease_deadline_ms
        return None if deadline_ms is None else max(1, deadline_ms - clock_ms())

    async def lock_state(self, path: str, waiters_max: int, *, within_lease: bool = False) -> LockState:
        """Ask who holds the lock and who waits; `within_lease`: an answer after the present lease is over is of no use."""
        driver, timeout_ms = self.driver(), self.lease_left_ms() if within_lease else None
        state: LockState = await driver.ask(LockInfo(self.full_path(path), waiters_max), timeout_ms=timeout_ms)
        return state

    def _owner_with(self, label: str | None) -> Owner:
        return self._owner if label is None else Owner(self._owner.host, self._owner.pid, paths.label(label))

    def _reach(self) -> Place:
        """Return where the nodes are; with it, an embedded one is run or followed.  Raises `SessionClosed`, `InvalidUrl`."""
        if self._closed:
            raise SessionClosed("this client was closed")
        if self._place is None:
            self._place = place_of(self._url)
        return self._place

    def _start(self) -> Driver:
        url, place = self._url, self._reach()
        config = SessionConfig(
            seeds=url.addresses,
            owner=self._owner,
            token=place.token,
            ttl_ms=url.ttl_ms,
            session_id=self._session_id,
            detached=self._detached,
            request_timeout_ms=url.timeout_ms,
        )
        driver = Driver(config, _tls(url), self._lease, place)
        driver.on_state = self._announce
        self.session.bind(driver.session)
        return driver

    def _announce(self, change: StateChange) -> None:
        for listener in self.session.listeners():
            self.callbacks.submit(partial(listener, change.state))


async def connect_async(url: str, *, label: str = "") -> AsyncClient:
    """Return a client; nothing is sent before its first use or `wait_connected`.  Raises `InvalidUrl`."""
    return AsyncClient(url, label=label)


def _tls(url: ClientUrl) -> ssl.SSLContext | None:
    if not url.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=url.ca or None)
        if url.cert:
            context.load_cert_chain(url.cert, url.key)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(file for file in (url.ca, url.cert, url.key) if file) or "the system's"
        fault = f"the TLS files ({files}) cannot be used: {error.strerror or error}"
        raise InvalidConfig(fault, faults=[fault]) from error
    return context


def _program() -> str:
    return os.path.basename(sys.argv[0]) if sys.argv else ""
