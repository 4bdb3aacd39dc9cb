"""A client's connection to a node: two reliable pipes, until one end closes or dies."""

from collections.abc import Callable
from typing import Any, Protocol

from coord_core.protocol.messages import ClientMessage, KeepAlive, ServerMessage
from coord_core.testing.network import Host, Network


class ClientEnd(Host, Protocol):
    """The client's side."""

    def connected(self, connection: "Connection") -> None: ...

    def connection_failed(self, connection: "Connection") -> None: ...

    def answered(self, connection: "Connection", message: ServerMessage) -> None: ...

    def connection_lost(self, connection: "Connection") -> None: ...


class ServerEnd(Host, Protocol):
    """The node's side."""

    def accept(self, connection: "Connection") -> None: ...

    def asked(self, connection: "Connection", message: ClientMessage) -> None: ...

    def client_gone(self, connection: "Connection") -> None: ...


class Connection:
    """One connection, from dialling on."""

    def __init__(self, network: Network, number: int, client: ClientEnd, server: ServerEnd) -> None:
        #: Unique in the simulation; names the connection to the replica.
        self.number = number
        self._network = network
        self._client = client
        self._server = server
        self._to_server, self._to_client = network.pair(client, server)
        self._closed = False
        #: When the client sent its keep-alives, by seq: its lease counts from then.
        self.sent_us: dict[int, int] = {}

    def dial(self) -> None:
        """Ask for the connection.  `connected` or `connection_failed` follows, or nothing where the node cannot be reached."""
        self._network.simulator.after(self._network.latency_us(), self._reach)

    def send(self, message: ClientMessage) -> None:
        if not self._closed:
            if isinstance(message, KeepAlive):
                self.sent_us[message.seq] = self._network.simulator.now_us
            self._to_server.send(self._server.asked, self, message)

    def answer(self, message: ServerMessage) -> None:
        if not self._closed:
            self._to_client.send(self._client.answered, self, message)

    def close(self) -> None:
        """The client closes, or its process died: what the node still says goes nowhere."""
        if not self._closed:
            self._closed = True
            self._to_client.cut()
            self._to_server.send(self._server.client_gone, self)

    def broken(self, *, at_once: bool) -> None:
        """The node's process is not there any more.  `at_once`: what it had sent last is lost."""
        if self._closed:
            return
        self._closed = True
        self._to_server.cut()
        if at_once:
            self._to_client.cut()
        self._to_client.send(self._client.connection_lost, self)

    def _reach(self) -> None:
        network, client, server = self._network, self._client, self._server
        if self._closed or network.blocked(client.machine, server.machine) or network.blocked(server.machine, client.machine):
            return
        if server.up:
            server.arrive(server.accept, self)
            self._tell(client.connected)
        else:
            self._closed = True
            self._tell(client.connection_failed)

    def _tell(self, what: Callable[..., None]) -> None:
        self._network.simulator.after(self._network.latency_us(), self._arrive_at_client, what, (self,))

    def _arrive_at_client(self, what: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._client.arrive(what, *arguments)


class Nobody:
    """Where a node will be one day: nothing listens there."""

    up = False

    def __init__(self, machine: str) -> None:
        self.machine = machine

    def arrive(self, action: Callable[..., None], *arguments: Any) -> None:
        """Nothing happens to a process that does not exist."""

    def accept(self, connection: Connection) -> None:
        raise AssertionError("nobody accepts no connection")

    def asked(self, connection: Connection, message: ClientMessage) -> None:
        raise AssertionError("nobody is asked nothing")

    def client_gone(self, connection: Connection) -> None:
        """It had nothing of it."""
