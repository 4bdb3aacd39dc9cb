"""A client process: the real `ClientSession`, and the shell that moves its messages and wakes it.

The shell's duties are those in the text of `coord_core.client.session`, as `aio` keeps them.  What the process wants of the
cluster is `workload`'s business.
"""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TypeAlias

from coord_core.client.session import CallId, ClientSession, Outcome, SessionConfig
from coord_core.client.subscriptions import Delivery, SubscriptionEnded
from coord_core.protocol.commands import Command
from coord_core.protocol.messages import ServerMessage
from coord_core.protocol.operations import Operation
from coord_core.protocol.queries import Query
from coord_core.testing.connection import Connection, Nobody
from coord_core.testing.network import Network
from coord_core.testing.node import Node
from coord_core.testing.process import Process
from coord_core.testing.simulator import MILLISECOND, Simulator, Timer, Violation
from coord_core.types import LogIndex, SubscriptionId

Then: TypeAlias = Callable[[Outcome], None]
Sink: TypeAlias = Callable[[Delivery], None]

#: A session that wants to be woken at once this often in a row, without anything happening between, would spin a real process.
SPINS_MAX = 50


class ClientProcess(Process):
    """One process with one client session.  `keeper`: the process that keeps the session alive to which this one is attached."""

    def __init__(
        self,
        simulator: Simulator,
        network: Network,
        name: str,
        servers: dict[str, Node],
        config: SessionConfig,
        *,
        drift: float,
        keeper: "ClientProcess | None" = None,
    ) -> None:
        super().__init__(simulator, name, drift=drift)
        if keeper is not None:
            self.machine = keeper.machine
        self.config = config
        self.session: ClientSession
        self._network = network
        self._servers = servers
        self._keeper = keeper
        self._keeper_session: ClientSession | None = None if keeper is None else keeper.session
        self._connection: Connection | None = None
        self._address = ""
        self._callers: dict[CallId, Then] = {}
        self._sinks: dict[SubscriptionId, Sink] = {}
        self._alarm: Timer | None = None
        self._spins = 0
        #: The session was closed and has said all it had to say.
        self.finished = False
        #: Called when a life begins, and after anything happened to the session.
        self.on_start: Callable[[], None] = _nothing
        self.on_stirred: Callable[[], None] = _nothing

    # --- life ---------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        if self._keeper is not None:
            # Two processes of one machine: one clock.
            self.clock = self._keeper.clock
        self._connection, self._alarm, self.finished = None, None, False
        self._callers, self._sinks = {}, {}
        rng = self.simulator.stream(f"session {self.name} life {self.life}")
        # Whoever starts a client names the nodes that there are now.
        config = replace(self.config, seeds=tuple(self._servers))
        self.session = ClientSession(config, rng, self.clock.now_ms())
        self._renew_from_keeper()
        self.on_start()

    def kill(self) -> None:
        super().kill()
        if self._alarm is not None:
            self._alarm.cancel()
        self._hang_up()

    def drop_connection(self) -> None:
        """A middlebox forgets the connection: both ends see it closed."""
        if self._connection is not None:
            self.note("loses its connection")
            connection = self._connection
            connection.close()
            self.arrive(self.connection_lost, connection)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    # --- what the application does ------------------------------------------------------------------------------------------------

    def call(self, operation: Operation, then: Then, *, timeout_ms: int | None = None, order: Hashable | None = None) -> CallId:
        call = self.session.call(operation, self.now_ms(), timeout_ms=timeout_ms, order=order)
        self._callers[call] = then
        return call

    def ask(self, query: Query, then: Then) -> CallId:
        call = self.session.ask(query, self.now_ms())
        self._callers[call] = then
        return call

    def command(self, command: Command, then: Then) -> CallId:
        call = self.session.command(command, self.now_ms())
        self._callers[call] = then
        return call

    def follow(self, subscription: SubscriptionId, after: LogIndex, sink: Sink) -> None:
        self._sinks[subscription] = sink
        self.session.follow(subscription, after, self.now_ms())

    def unfollow(self, subscription: SubscriptionId) -> None:
        if self._sinks.pop(subscription, None) is not None:
            self.session.unfollow(subscription)

    def pending(self) -> int:
        """How many calls have no outcome yet."""
        return len(self._callers)

    # --- arrivals -----------------------------------------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        if connection is self._connection:
            self.session.connected(self._address, self.now_ms())

    def connection_failed(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self.session.connection_failed(self._address, self.now_ms())

    def answered(self, connection: Connection, message: ServerMessage) -> None:
        if connection is self._connection:
            self._renew_from_keeper()
            self.session.received(message, self.now_ms())

    def connection_lost(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self.session.disconnected(self.now_ms())

    def _wake(self) -> None:
        self._alarm = None
        self._renew_from_keeper()
        self.session.tick(self.now_ms())

    def _renew_from_keeper(self) -> None:
        if self._keeper_session is not None:
            self.session.lease_renewed(self._keeper_session.lease_deadline_ms, self.now_ms())

    # --- carrying out -------------------------------------------------------------------------------------------------------------

    def stirred(self) -> None:
        if not self.up:
            return
        while self._carry_out():
            pass
        if self._sinks and self.session.session_id is None:
            raise Violation(f"{self.name} has no session, and whoever followed {list(self._sinks)} in it was not told")
        self._set_alarm()
        self.on_stirred()

    def _carry_out(self) -> bool:
        """Carry out what the session wants; say whether a caller was told something, and so may have asked for more."""
        effects = self.session.take()
        if effects.disconnect:
            self._hang_up()
        if effects.connect_to is not None:
            self._dial(effects.connect_to)
        for message in effects.send:
            assert self._connection is not None, "a session sends only where it is connected"
            self._connection.send(message)
        for change in effects.states:
            self.note(f"is {change.state.value} (session {change.session_id})")
        self.finished = self.finished or effects.finished
        for call, outcome in effects.resolved:
            then = self._callers.pop(call, None)
            if then is not None:
                then(outcome)
        for subscription, delivery in effects.deliveries:
            ended = isinstance(delivery, SubscriptionEnded)
            sink = self._sinks.pop(subscription, None) if ended else self._sinks.get(subscription)
            if sink is not None:
                sink(delivery)
        return bool(effects.resolved or effects.deliveries) and self.up

    def _dial(self, address: str) -> None:
        self._address = address
        server = self._servers.get(address) or Nobody(address)
        self._connection = Connection(self._network, self._network.next_number(), self, server)
        self._connection.dial()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        wakeup_ms = self.session.next_wakeup_ms()
        if wakeup_ms is None:
            return
        wait_ms = wakeup_ms - self.now_ms()
        self._spins = self._spins + 1 if wait_ms <= 0 else 0
        if self._spins > SPINS_MAX:
            raise Violation(f"{self.name} spins: its session wants to be woken at {wakeup_ms}, which has passed, again and again")
        self._alarm = self.alarm(max(1, wait_ms) * MILLISECOND, self._wake)


def _nothing() -> None:
    """Nobody wants to know."""
