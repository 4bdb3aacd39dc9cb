"""Clients' connections: requests in, answers out, both bounded.

Each connection may have so many requests unanswered; over that the node stops reading from it, and TCP tells the client to wait.
Who does not read its answers is first not read from either, and dropped when they come to more than the bound.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from coord_core.config import LimitsConfig
from coord_core.errors import Busy, ProtocolError
from coord_core.protocol.messages import (
    Acknowledge,
    Administer,
    Ask,
    Follow,
    GetStatus,
    KeepAlive,
    Members,
    NodeStatus,
    Refused,
    ServerMessage,
    Submit,
)
from coord_core.server.connections import Connection
from coord_core.wire import codec

log = logging.getLogger("coord.server")


class Requests(Protocol):
    """Where requests go: the node's loop."""

    def request(self, connection: int, message: Submit | KeepAlive | Ask | Administer) -> None: ...

    def follow(self, connection: int, message: Follow) -> None: ...

    def acknowledge(self, connection: int, message: Acknowledge) -> None: ...

    def connection_closed(self, connection: int) -> None: ...


class Clients:
    """All connected clients, by a number that is never used again."""

    def __init__(self, limits: LimitsConfig, requests: Requests, status: Callable[[int], NodeStatus]) -> None:
        self.limits = limits
        self.requests = requests
        #: Answers `GetStatus`, by its seq, on any node and at once.
        self.status = status
        self._clients: dict[int, Client] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._clients)

    def check_room(self) -> None:
        """Raise `Busy` where there are as many clients as there may be."""
        most = self.limits.client_connections_max
        if len(self._clients) >= most:
            raise Busy(f"this node has {most} client connections, as many as it takes", limit="client_connections_max")

    def add(self, connection: Connection) -> "Client":
        client = Client(self, next(self._numbers), connection)
        self._clients[client.number] = client
        return client

    def remove(self, client: "Client") -> None:
        if self._clients.pop(client.number, None) is not None:
            self.requests.connection_closed(client.number)

    def deliver(self, replies: Sequence[tuple[int, ServerMessage]]) -> None:
        """Send a turn's answers: one write a connection.  Answers to who has gone are forgotten; it will ask again elsewhere."""
        by_client: dict[int, list[ServerMessage]] = {}
        for number, message in replies:
            by_client.setdefault(number, []).append(message)
        for number, messages in by_client.items():
            client = self._clients.get(number)
            if client is not None:
                client.answer(messages)

    def push(self, pushes: Sequence[tuple[int, ServerMessage]]) -> None:
        """Send what nobody asked for now: one write a connection."""
        by_client: dict[int, list[ServerMessage]] = {}
        for number, message in pushes:
            by_client.setdefault(number, []).append(message)
        for number, messages in by_client.items():
            client = self._clients.get(number)
            if client is not None:
                client.tell(messages)

    def tell(self, news: Members) -> None:
        """Tell everyone, unasked."""
        for client in list(self._clients.values()):
            client.tell((news,))

    def say_goodbye(self, last_word: Refused) -> None:
        for client in list(self._clients.values()):
            client.connection.end(last_word)


class Client:
    """One client's connection."""

    def __init__(self, clients: Clients, number: int, connection: Connection) -> None:
        self.number = number
        self.connection = connection
        self._clients = clients
        self._transport = connection.transport
        self._most_in_flight = clients.limits.requests_in_flight_max
        self._most_unread = clients.limits.client_unread_bytes_max
        # Handed to the replica and not answered yet.
        self._in_flight = 0
        # What was written has not gone out and is over a quarter of the bound.
        self._write_paused = False
        self._read_paused = False
        self._transport.set_write_buffer_limits(high=self._most_unread // 4)

    # --- requests ---------------------------------------------------------------------------------------------------------------

    def payloads(self, payloads: list[bytes]) -> None:
        request = self._clients.requests.request
        decode = codec.decode_client
        asked: list[int] = []
        for payload in payloads:
            message = decode(payload)
            if type(message) is Submit or type(message) is Ask or type(message) is KeepAlive or type(message) is Administer:
                self._in_flight += 1
                request(self.number, message)
            elif type(message) is GetStatus:
                asked.append(message.seq)
            elif type(message) is Follow:
                self._clients.requests.follow(self.number, message)
            elif type(message) is Acknowledge:
                self._clients.requests.acknowledge(self.number, message)
            else:  # What is left of the union.
                raise ProtocolError("a second Hello on one connection")
        if asked:
            self._tell_status(asked)
        self._steer()

    def _tell_status(self, asked: Sequence[int]) -> None:
        """Answer all of one read at once: thousands of them must not hold up the node's loop."""
        status = self._clients.status(asked[0])
        self._write([status, *(msgspec.structs.replace(status, seq=seq) for seq in asked[1:])])

    # --- answers ----------------------------------------------------------------------------------------------------------------

    def answer(self, messages: Sequence[ServerMessage]) -> None:
        self._in_flight -= len(messages)
        self._write(messages)
        if self._read_paused:
            self._steer()

    def tell(self, messages: Sequence[ServerMessage]) -> None:
        """Send what is no answer."""
        self._write(messages)

    def _write(self, messages: Sequence[ServerMessage]) -> None:
        if self._transport.is_closing():
            return
        data = codec.encode_messages(messages)
        if self._transport.get_write_buffer_size() + len(data) > self._most_unread:
            self._drop()
            return
        self._transport.write(data)

    def paused(self, paused: bool) -> None:
        self._write_paused = paused
        self._steer()

    def lost(self, by_other_side: bool) -> None:
        self._clients.remove(self)

    def _drop(self) -> None:
        log.warning(
            "client %s dropped: it has not read %d bytes of answers, more than the %d it may leave",
            self.connection.who,
            self._transport.get_write_buffer_size(),
            self._most_unread,
        )
        self.connection.abort()

    def _steer(self) -> None:
        """Read from the client while both bounds allow it; begin again when half of its requests are answered."""
        limit = self._most_in_flight // 2 if self._read_paused else self._most_in_flight
        pause = self._write_paused or self._in_flight >= limit
        if pause == self._read_paused or self._transport.is_closing():
            return
        self._read_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
