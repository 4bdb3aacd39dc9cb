"""Carries out on asyncio what `session` decides: connections, bytes, timers, futures.

The rule: nothing is decided here.  A call costs a future and, shared by all calls of a turn of the loop, one `take` and one write.
"""

import asyncio
import logging
import os
import random
import ssl
from collections.abc import Callable, Hashable
from typing import Any, cast

from coord_core.client.clocks import clock_ms
from coord_core.client.session import CallId, ClientEffects, ClientSession, Outcome, SessionConfig, SessionState, StateChange
from coord_core.client.subscriptions import Delivery, SubscriptionEnded
from coord_core.client.url import split_address
from coord_core.errors import CoordError, ProtocolError
from coord_core.protocol.commands import Command
from coord_core.protocol.elections import ElectionResign, Entered
from coord_core.protocol.groups import GroupLeave
from coord_core.protocol.messages import CLIENT_FRAME_BYTES_MAX, MAGIC
from coord_core.protocol.operations import LockRelease, Operation
from coord_core.protocol.queries import Query
from coord_core.protocol.results import Granted
from coord_core.protocol.semaphores import PermitsGranted, SemaphoreRelease
from coord_core.protocol.streams import Joined, Subscribed, Unsubscribe
from coord_core.types import LogIndex, SubscriptionId
from coord_core.wire.codec import decode_server, encode_messages
from coord_core.wire.frames import FrameParser

_log = logging.getLogger("coord.client")

#: Tells until when (on `clock`, seconds) the session of an attached client is leased; None: not known at the moment.
Lease = Callable[[], float | None]


class _Connection(asyncio.Protocol):
    """One connection: frames to messages."""

    def __init__(self, driver: "Driver", address: str) -> None:
        self._driver = driver
        self.address = address
        self._frames = FrameParser(CLIENT_FRAME_BYTES_MAX)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._driver.connection_made(self)

    def data_received(self, data: bytes) -> None:
        driver = self._driver
        if driver.connection is not self:
            return
        try:
            received, now_ms = driver.session.received, clock_ms()
            for payload in self._frames.feed(data):
                received(decode_server(payload), now_ms)
        except ProtocolError as error:
            driver.connection_lost(self, str(error))
        driver.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(self, reason_of(exc) if exc else "the node closed the connection")


class Driver:
    """Drives one `ClientSession` on the running loop.  Everything here happens on that loop's thread."""

    def __init__(self, config: SessionConfig, tls: ssl.SSLContext | None, lease: Lease | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._tls = tls
        self._lease = lease
        # Seeded by the system: two clients must not draw the same delays.
        self.session = ClientSession(config, random.Random(), clock_ms())
        self.on_state: Callable[[StateChange], object] = _nothing
        #: The present connection; None while there is none or it is being made.
        self.connection: _Connection | None = None
        #: Done when the session has nothing more to do after `close`.
        self.finished: asyncio.Future[None] = self._loop.create_future()
        #: Done, and made anew, after every flush that changed the state or failed to reach a node.
        self.progress: asyncio.Future[None] = self._loop.create_future()
        # The connection being made, and the task that makes it.
        self._pending: _Connection | None = None
        self._dialing: asyncio.Task[None] | None = None
        self._futures: dict[CallId, asyncio.Future[Any]] = {}
        # Grants and the like whose caller was cancelled in the same turn of the loop.
        self._unclaimed: dict[CallId, Outcome] = {}
        self._sinks: dict[SubscriptionId, Callable[[Delivery], object]] = {}
        self._flush_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        # Closed, and waited long enough: nothing is done any more.
        self._ended = False
        # Said once an outage.
        self._complained = False
        self.refresh_lease()

    # --- calls -------------------------------------------------------------------------------------------------------------------

    def call(self, operation: Operation, order: Hashable | None = None) -> "tuple[CallId, asyncio.Future[Any]]":
        """Submit an operation; the future gets its result or error."""
        call = self.session.call(operation, clock_ms(), order=order)
        return call, self._future(call)

    def ask(self, query: Query, order: Hashable | None = None, *, timeout_ms: int | None = None) -> "asyncio.Future[Any]":
        return self._future(self.session.ask(query, clock_ms(), order=order, timeout_ms=timeout_ms))

    def command(self, command: Command) -> "asyncio.Future[Any]":
        return self._future(self.session.command(command, clock_ms()))

    def open(self) -> None:
        self.session.open(clock_ms())
        self._flush_soon()

    def follow(self, subscription: SubscriptionId, after: LogIndex, sink: Callable[[Delivery], object]) -> None:
        """Have what comes after a revision handed to `sink`, on the loop's thread; the last of it is `SubscriptionEnded`."""
        self._sinks[subscription] = sink
        self.session.follow(subscription, after, clock_ms())
        self._flush_soon()

    def unfollow(self, subscription: SubscriptionId) -> None:
        if self._sinks.pop(subscription, None) is not None:
            self.session.unfollow(subscription)

    def acknowledge(self, subscription: SubscriptionId, revision: LogIndex) -> None:
        self.session.acknowledge(subscription, revision)
        self._flush_soon()

    def tell(self, operation: Operation) -> None:
        """Submit an operation of which nobody wants to know what comes of it."""
        if self.session.state is not SessionState.CLOSED:
            self.session.call(operation, clock_ms())
            self._flush_soon()

    def withdraw(self, call: CallId, future: "asyncio.Future[Any]", path: str) -> None:
        """The caller has gone: leave the queue, or give back what was got already."""
        got = self._unclaimed.pop(call, None)
        if self._futures.pop(call, None) is not None:
            self.session.cancel(call, clock_ms())
        elif got is None and not future.cancelled() and future.exception() is None:
            got = future.result()
        giving_back = None if self.session.session_id is None else _giving_back(path, got)
        if isinstance(got, Granted | PermitsGranted) and (path, got.token) not in self.session.held():
            giving_back = None  # It went with its session.
        if giving_back is not None:
            self.session.call(giving_back, clock_ms())
        self._flush_soon()

    def _future(self, call: CallId) -> "asyncio.Future[Any]":
        future = self._futures[call] = self._loop.create_future()
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self.flush)
        return future

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self.flush)

    # --- effects -----------------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Carry out what the session wants done."""
        if self._ended:
            return
        self._flush_is_due = False
        effects = self.session.take()
        if effects.disconnect:
            self._drop()
        if effects.connect_to is not None:
            self._pending = _Connection(self, effects.connect_to)
            self._dialing = self._loop.create_task(self._dial(self._pending))
        if effects.send and self.connection is not None and self.connection.transport is not None:
            self.connection.transport.write(encode_messages(effects.send))
        for call, outcome in effects.resolved:
            self._resolve(call, outcome)
        for subscription, delivery in effects.deliveries:
            self._deliver(subscription, delivery)
        if effects.states or effects.finished:
            self._announce(effects)
        elif self.session.refusal is not None:
            self._stir()
        self._arm()

    def _resolve(self, call: CallId, outcome: Outcome) -> None:
        future = self._futures.pop(call, None)
        if future is None:
            return
        if future.done():
            # Its task was cancelled and has not run since; when it does, `withdraw` gives back what it got.
            if _giving_back("", outcome) is not None:
                self._unclaimed[call] = outcome
        elif isinstance(outcome, CoordError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _deliver(self, subscription: SubscriptionId, delivery: Delivery) -> None:
        ended = isinstance(delivery, SubscriptionEnded)
        sink = self._sinks.pop(subscription, None) if ended else self._sinks.get(subscription)
        if sink is not None:
            sink(delivery)

    def _announce(self, effects: ClientEffects) -> None:
        for change in effects.states:
            if change.session_id is not None:  # a client that never had one closes in silence
                level = logging.WARNING if change.state is SessionState.LOST else logging.INFO
                _log.log(level, "session %s is %s", change.session_id, change.state.value)
            if change.state is SessionState.CONNECTED:
                self._complained = False
            self.on_state(change)
        if effects.finished and not self.finished.done():
            self.finished.set_result(None)
        self._stir()

    def _stir(self) -> None:
        """Wake those who watch for a change."""
        self.progress.set_result(None)
        self.progress = self._loop.create_future()

    # --- time --------------------------------------------------------------------------------------------------------------------

    def refresh_lease(self) -> None:
        """Attached: hear from the session's keeper until when the lease runs."""
        if self._lease is None:
            return
        try:
            deadline = self._lease()
        except Exception as error:  # noqa: BLE001 - the application's fault must not stop the clock: what was known last holds
            _log.error("the lease of the session cannot be told: %r", error)
            return
        if deadline is not None:
            self.session.lease_renewed(int(deadline * 1000), clock_ms())

    def _arm(self) -> None:
        wakeup_ms = self.session.next_wakeup_ms()
        if wakeup_ms is None or (self._timer is not None and self._timer_ms <= wakeup_ms):
            return  # A timer that fires early costs one look; moving it costs more.
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = wakeup_ms
        self._timer = self._loop.call_later(max(0.001, (wakeup_ms - clock_ms()) / 1000), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.refresh_lease()
        self.session.tick(clock_ms())
        self.flush()

    # --- connections -------------------------------------------------------------------------------------------------------------

    async def _dial(self, connection: _Connection) -> None:
        try:
            host, port = split_address(connection.address)
            tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": host} if self._tls else {}
            await self._loop.create_connection(lambda: connection, host, port, **tls)
        except (
            OSError,
            ValueError,
            CoordError,
        ) as error:  # ValueError: a name that cannot be looked up; OSError: also ssl.SSLError
            if self._pending is connection:
                self._pending = None
                self._complain(connection.address, reason_of(error))
                self.session.connection_failed(connection.address, clock_ms(), reason_of(error))
                self._stir()
                self.flush()

    def connection_made(self, connection: _Connection) -> None:
        if connection.transport is None:
            return
        if self._pending is not connection:  # Given up meanwhile.
            connection.transport.abort()
            return
        self._pending = None
        self.connection = connection
        connection.transport.write(MAGIC)
        self.session.connected(connection.address, clock_ms())
        self.flush()

    def connection_lost(self, connection: _Connection, reason: str) -> None:
        if self.connection is not connection:
            return
        self._drop()
        self._complain(connection.address, reason)
        self.session.disconnected(clock_ms(), reason)
        self._stir()
        self.flush()

    def _drop(self) -> None:
        """Let go of the connection, and of the attempt to make one."""
        if self._pending is not None and self._dialing is not None:
            self._pending = None
            self._dialing.cancel()
        connection, self.connection = self.connection, None
        if connection is not None and connection.transport is not None:
            connection.transport.close()

    def _complain(self, address: str, reason: str) -> None:
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        _log.log(level, "lost or cannot reach %s: %s; trying on", address, reason)

    # --- the end -----------------------------------------------------------------------------------------------------------------

    async def close(self, timeout_s: float, *, bury: bool = True) -> None:
        """Close the session, waiting at most this long for the cluster to confirm it; `bury`: see `ClientSession.close`."""
        self.session.close(clock_ms(), bury=bury)
        self.flush()
        await asyncio.wait([self.finished], timeout=timeout_s)
        self._ended = True
        self._drop()
        if self._timer is not None:
            self._timer.cancel()


def _nothing(change: StateChange) -> None:
    pass


def _giving_back(path: str, outcome: object) -> Operation | None:
    """Return what undoes what a call has got at `path`; None where there is nothing to undo."""
    match outcome:
        case Granted(token=token):
            return LockRelease(path, token)
        case PermitsGranted(token=token):
            return SemaphoreRelease(path, token)
        case Entered(candidate=candidate):
            return ElectionResign(path, candidate)
        case Joined(member=member):
            return GroupLeave(path, member)
        case Subscribed(subscription=subscription):
            return Unsubscribe(subscription)
    return None


#: OpenSSL's: the certificate is for another host, or another address.
_OTHER_HOST = frozenset({62, 64})


def reason_of(error: BaseException) -> str:
    """Write in a few words why a connection could not be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"TLS: the node's certificate does not hold: {error.verify_message}"
        return why if error.verify_code in _OTHER_HOST else f"{why}; its authority is named by ?ca=FILE in the URL (or --cacert)"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, OSError) and error.strerror:
        # Of asyncio's own text only the number is for people; name lookups have numbers of their own, below zero.
        return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return str(error) or type(error).__name__
