"""`Client`: the blocking client, a facade over `AsyncClient` on a private loop thread, with the same names.

The rule: no logic here.  Every method runs the method of the same name on the loop and waits for it; any number of threads may.
The thread starts with the first use.  In a forked child every inherited client is dead and says so, before it touches anything.
"""

import atexit
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Any, TypeVar

from coord_core.client import catalog, forks
from coord_core.client.aio import CLOSE_TIMEOUT_S, AsyncClient
from coord_core.client.detached import Detached
from coord_core.client.listing import LockListing, SessionListing
from coord_core.client.status import ClusterReport
from coord_core.client.sync_base import Blocking
from coord_core.client.sync_election import DistributedLeaderElection
from coord_core.client.sync_group import DistributedMembershipGroup
from coord_core.client.sync_lock import DistributedLock, DistributedSemaphore, RateLimiter
from coord_core.client.sync_parking import ParkingLot
from coord_core.client.sync_topic import DistributedTopic
from coord_core.client.sync_watch import Watch
from coord_core.client.threads import LoopThread, Undo
from coord_core.client.topic import TopicListed
from coord_core.client.value import AsyncDistributedValue, Versioned
from coord_core.client.view import SessionView
from coord_core.errors import InvalidRequest, SessionClosed
from coord_core.protocol.administration import Administration
from coord_core.protocol.locks import ListCursor
from coord_core.protocol.members import Member

#: At interpreter exit, for all clients together: sessions that could not be closed expire by themselves.
_EXIT_TIMEOUT_S = 1.0

_T = TypeVar("_T")


class Client:
    """A blocking client of one cluster and namespace; see `AsyncClient` for the arguments.  Use it from any thread.

    Made by `coord_core.connect`.  A context manager: leaving it closes the session.
    """

    def __init__(
        self,
        url: str,
        *,
        label: str = "",
        session_id: int | None = None,
        lease: Callable[[], float | None] | None = None,
        detached: Detached | None = None,
    ) -> None:
        self._inner = AsyncClient(url, label=label, session_id=session_id, lease=lease, detached=detached)
        self._born = forks.generation()
        self._engine = _Engine(self._inner)
        _engines.add(self._engine)
        # A client that nobody has any more closes its session, without anyone waiting for it.
        weakref.finalize(self, _Engine.abandon, self._engine).atexit = False

    def __repr__(self) -> str:
        return repr(self._inner).replace("Async", "", 1)

    @property
    def session(self) -> SessionView:
        """The present session: its number, state, lease; `on_state_change`.  Raises `UsedAfterFork`."""
        forks.check(self._born)
        return self._inner.session

    def lock(
        self,
        path: str,
        *,
        label: str | None = None,
        reentrant: bool = False,
        lock_delay: float = 0,
        takeover: str = "wait",
    ) -> DistributedLock:
        """Return a new handle of the lock at `path`.  See `AsyncClient.lock`.  Raises `InvalidRequest`."""
        inner = self._inner.lock(path, label=label, reentrant=reentrant, lock_delay=lock_delay, takeover=takeover)
        return DistributedLock(self, inner)

    def semaphore(self, path: str, limit: int, *, permits: int = 1, label: str | None = None) -> DistributedSemaphore:
        """Return a new handle of the semaphore at `path`.  See `AsyncClient.semaphore`.  Raises `InvalidRequest`."""
        return DistributedSemaphore(self, self._inner.semaphore(path, limit, permits=permits, label=label))

    def rate_limiter(self, path: str, rate: float | Fraction, burst: int | None = None) -> RateLimiter:
        """Return a new handle of the rate limiter at `path`.  See `AsyncClient.rate_limiter`.  Raises `InvalidRequest`."""
        return RateLimiter(self, self._inner.rate_limiter(path, rate, burst))

    def value(self, path: str) -> "DistributedValue":
        """Return a new handle of the value at `path`.  Raises `InvalidRequest`."""
        return DistributedValue(self, self._inner.value(path))

    def election(self, path: str, *, label: str | None = None, takeover: str = "fence") -> DistributedLeaderElection:
        """Return a new handle of the election at `path`.  See `AsyncClient.election`.  Raises `InvalidRequest`."""
        return DistributedLeaderElection(self, self._inner.election(path, label=label, takeover=takeover))

    def group(self, path: str, *, label: str | None = None) -> DistributedMembershipGroup:
        """Return a new handle of the membership group at `path`.  `label`: for its member.  Raises `InvalidRequest`."""
        return DistributedMembershipGroup(self, self._inner.group(path, label=label))

    def topic(self, path: str, *, label: str | None = None) -> DistributedTopic:
        """Return a new handle of the topic at `path`.  `label`: for the consumer that it may become.  Raises `InvalidRequest`."""
        return DistributedTopic(self, self._inner.topic(path, label=label))

    def parking(self, path: str, *, label: str | None = None) -> ParkingLot:
        """Return a new handle of the parking lot at `path`.  `label`: for its consumer.  Raises `InvalidRequest`."""
        return ParkingLot(self, self._inner.parking(path, label=label))

    def topics(self, prefix: str = "/", limit: int = 1_000) -> list[TopicListed]:
        """Return the topics whose path begins with `prefix`, in order, at most `limit`.  Raises `Unavailable`."""
        return self.run(lambda: self._inner.topics(prefix, limit))

    def create(self, path: str, kind: type[_T], **options: Any) -> _T:
        """Return a handle of a class of resource (`DistributedLock`, ...) at a path that is free or of that type.

        The same as the method of that name; besides, a topic is made.  Raises `WrongType`, `InvalidRequest`, `Unavailable`.
        """
        handle: _T = getattr(self, catalog.factory_of(kind))(path, **options)
        self.run(lambda: catalog.check(self._inner, path, kind, must_exist=False))
        if isinstance(handle, DistributedTopic):
            handle.create()
        return handle

    def get(self, path: str, kind: type[_T], **options: Any) -> _T:
        """Return a handle of what is there at a path.  Raises `NotFound`, `WrongType`, `InvalidRequest`, `Unavailable`."""
        handle: _T = getattr(self, catalog.factory_of(kind))(path, **options)
        self.run(lambda: catalog.check(self._inner, path, kind, must_exist=True))
        return handle

    def wait_connected(self, timeout: float | None = None) -> None:
        """Connect and open the session now; return once it stands.  Raises as `AsyncClient.wait_connected` does."""
        self.run(lambda: self._inner.wait_connected(timeout))

    def status(self, timeout: float = 2.0) -> ClusterReport:
        """Ask every known node what it knows; needs neither a leader nor a session."""
        return self.run(lambda: self._inner.status(timeout))

    def members(self) -> tuple[Member, ...]:
        """Return the nodes of the cluster.  Raises `Unavailable` where none answers."""
        return self.run(self._inner.members)

    def administer(self, request: Administration, timeout: float = 10.0) -> None:
        """Have the cluster itself changed (`coord_core.protocol.administration`); needs no session.  Safe to ask again.

        Raises `Unsafe`, `InvalidRequest` where it is refused; `Unavailable` where nobody has done it in time, though somebody may.
        """
        self.run(lambda: self._inner.administer(request, timeout))

    def list_locks(
        self,
        prefix: str = "/",
        *,
        limit: int = 1_000,
        after: ListCursor | None = None,
        kinds: Sequence[str] = ("lock", "semaphore"),
    ) -> LockListing:
        """Return the locks and semaphores of this namespace whose names begin so.  See `AsyncClient.list_locks`."""
        return self.run(lambda: self._inner.list_locks(prefix, limit=limit, after=after, kinds=kinds))

    def list_sessions(self, *, limit: int = 1_000, after: int = 0) -> SessionListing:
        """Return the sessions of the cluster.  Raises `Unavailable`."""
        return self.run(lambda: self._inner.list_sessions(limit=limit, after=after))

    def session_lease_left_ms(self, session_id: int) -> int | None:
        """Return how much is left of a session's lease, as the leader reckons it; None: no such session.  Raises `Unavailable`."""
        return self.run(lambda: self._inner.session_lease_left_ms(session_id))

    def end_session(self, session_id: int) -> bool:
        """Close somebody's session, for operators; False where there is none.  See `AsyncClient.end_session`."""
        return self.run(lambda: self._inner.end_session(session_id))

    def close_attachment(self, attachment_id: int) -> None:
        """Close another process's part of this session: what it acquired is free, its late commands are refused.

        Fine where it is closed already.  Raises `Unavailable` (not done), `OutcomeUnknown` (do it again), `SessionExpired` (all of
        the session is gone).
        """
        self.run(lambda: self._inner.close_attachment(attachment_id))

    def hand_off(self, hold: float = 600.0, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Leave a detached session to whoever takes it up next, and close this client.  See `AsyncClient.hand_off`."""
        try:
            self.run(lambda: self._inner.hand_off(hold, timeout))
        finally:
            if self._inner.is_over():
                self.close(timeout)

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Give back everything held and end the session; waits at most `timeout` seconds for the cluster's word.

        Without it the session expires after its TTL.  Does nothing the second time, or in a forked child.
        """
        if self._born == forks.generation():
            self._engine.close(timeout)

    def __enter__(self) -> "Client":
        forks.check(self._born)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(self, call: Callable[[], Coroutine[Any, Any, _T]], undo: Undo | None = None, *, finish: bool = False) -> _T:
        """Run what `call` returns on the client's loop and wait for it (for the resources); see `LoopThread.call`."""
        forks.check(self._born)
        return self._engine.thread().call(call(), undo, finish=finish)


class _Engine:
    """The async client and the thread that runs it: what lives on when nobody refers to the `Client` any more."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.born = forks.generation()
        self._thread: LoopThread | None = None
        # Closing the session of a client that nobody refers to any more.
        self._leaving: LoopThread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def thread(self) -> LoopThread:
        thread = self._thread
        if thread is None:
            with self._lock:
                if self._closed:
                    raise SessionClosed("this client was closed")
                thread = self._thread = self._thread or LoopThread()
        return thread

    def close(self, timeout_s: float) -> None:
        thread = self._take_thread()
        if thread is not None:
            try:
                thread.call(self._client.close(timeout_s))
            finally:
                thread.stop()
            thread.join(1.0)
        elif self._leaving is not None:
            self._leaving.join(timeout_s)

    def abandon(self) -> None:
        """Close in the background; called by the garbage collector, on any thread."""
        if self.born == forks.generation():
            thread = self._leaving = self._take_thread()
            if thread is not None:
                thread.begin(self._close_and_stop(thread))

    async def _close_and_stop(self, thread: LoopThread) -> None:
        await self._client.close()
        thread.stop()

    def _take_thread(self) -> LoopThread | None:
        self._closed = True
        thread, self._thread = self._thread, None
        return thread


_engines: "weakref.WeakSet[_Engine]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """At interpreter exit: free what this process holds now, not after its TTL."""
    engines = [engine for engine in _engines if engine.born == forks.generation()]
    for engine in engines:
        engine.close(_EXIT_TIMEOUT_S / len(engines))


class DistributedValue(Blocking[AsyncDistributedValue]):
    """A handle of the value at `path`.  Calls through one handle take effect in the order in which they are made.

    Every write raises as `AsyncDistributedValue` says.
    """

    def get(self) -> Versioned | None:
        """Return the value, linearizably; None where there is none.  Raises `Unavailable`."""
        return self._client.run(self._inner.get)

    def set(self, value: bytes, ttl: float | None = None) -> int:
        """Write, whatever was there; gone after `ttl` seconds without another write.  Return the new version."""
        return self._client.run(lambda: self._inner.set(value, ttl))

    def compare_and_set(self, expected_version: int, value: bytes, ttl: float | None = None) -> int | None:
        """Write where the present version is `expected_version` (0: where there is none).

        Return the new version, or None where another was there.
        """
        return self._client.run(lambda: self._inner.compare_and_set(expected_version, value, ttl))

    def delete(self, expected: int | None = None) -> bool:
        """Delete; with `expected`, only that version.  Return False where another version was there."""
        return self._client.run(lambda: self._inner.delete(expected))

    def watch(self) -> "Watch[Versioned | None]":
        """Return the value after each change, beginning with the present one.  None: there is none."""
        return Watch(self._client, self._inner.watch())


def connect(url: str, *, label: str = "") -> Client:
    """Return a client; nothing is sent before its first use or `wait_connected`.  Raises `InvalidUrl`.

    `url`: `coord://[token@]h1:7400,h2:7400/namespace?ttl=15s`, `coords://` with TLS (options `ca`, `cert`, `key`), or
    `coord+embedded:///directory?namespace=app` for a node inside the processes of one machine.
    `label`: who this is, for those who look at holders; the program's name if empty.
    """
    return Client(url, label=label)


def attach(url: str, session_id: int, lease: Callable[[], float | None], *, label: str = "") -> Client:
    """Return a client under a session that another process keeps alive; it has a connection and an attachment of its own.

    `lease` tells until when the session is leased, in seconds of `coord_core.client.clock`: the keeper's `session.lease_deadline`,
    handed over as you like, such as through shared memory; None: not known at the moment.  It must be quick: it is called from the
    client's loop, and by `is_held_locally` from any thread.  When that moment passes without a later one, the client is LOST for
    good.  Raises `InvalidUrl`, `InvalidRequest`.
    """
    if session_id < 1:
        raise InvalidRequest(f"{session_id!r} is not the number of a session", field="session_id")
    return Client(url, label=label, session_id=session_id, lease=lease)
