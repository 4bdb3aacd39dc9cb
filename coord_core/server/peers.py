"""The links between nodes: each node dials each other one and sends on its own connection; on accepted ones it only receives.

So there is no question of whose connection is used, and a connection that broke in one direction is dialled anew by the side that
noticed.  Everything consensus says is repeated until answered, so a link that is down or full drops what it is given.

The rule: what arrives is consensus only from a member in its present incarnation, addressed to this node, and sent by the node at
the other end.  Anything else ends the connection.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import msgspec

from coord_core.config import LimitsConfig
from coord_core.errors import CoordError, NodeRemoved, ProtocolError, Unavailable, error_from_wire
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PeerIdentity, Refused
from coord_core.replica import PeerMessage
from coord_core.server.connections import Connection
from coord_core.server.dial import NODE_SILENCE_S_MAX, Dialled, dial
from coord_core.server.handshake import PEER, check_welcome, make_hello
from coord_core.server.seldom import Seldom
from coord_core.server.silence import notice_silence
from coord_core.types import NodeId
from coord_core.wire import codec
from coord_core.wire.frames import encode_frames

log = logging.getLogger("coord.server")

BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 1.0
DIAL_TIMEOUT_S = 2.0
#: Between two lines on the same refusal of a peer.
REPEAT_S = 600.0

_encoder = msgspec.msgpack.Encoder()
_decoder: "msgspec.msgpack.Decoder[PeerMessage]" = msgspec.msgpack.Decoder(PeerMessage)


def encode_peer_messages(messages: Sequence[PeerMessage]) -> bytes:
    """Return messages as frames in one piece, one message a frame: the limit of a frame holds for each."""
    return encode_frames(map(_encoder.encode, messages))


def decode_peer_message(payload: bytes) -> PeerMessage:
    """Return what a node said.  Raises `ProtocolError`."""
    return codec.decode_with(_decoder, payload, "a message between nodes")


class Events(Protocol):
    """What links tell: the node's loop."""

    def receive(self, message: PeerMessage) -> None: ...

    def peer_lost(self, peer: NodeId) -> None: ...

    def unreachable(self, peer: NodeId) -> None: ...

    def fail(self, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True)
class Ways:
    """How this node reaches others."""

    cluster_id: str
    own: PeerIdentity
    token: str
    tls: ssl.SSLContext | None
    limits: LimitsConfig


class Peers:
    """All links of one node."""

    def __init__(self, ways: Ways, members: Mapping[NodeId, Member], events: Events) -> None:
        self._ways = ways
        self._own = NodeId(ways.own.node_id)
        self._events = events
        self._links: dict[NodeId, Link] = {}
        # Links to nodes that were removed or have moved, until they have ended.
        self._former: set[Link] = set()
        # The one connection on which each peer is heard.
        self._incoming: dict[NodeId, IncomingPeer] = {}
        self._started = self._stopped = False
        self.follow(members)

    def start(self) -> None:
        self._started = True
        for link in self._links.values():
            link.start()

    def follow(self, members: Mapping[NodeId, Member]) -> None:
        """Be connected with these nodes, where they are now, and with no others."""
        if self._stopped:
            return
        for node, link in list(self._links.items()):
            if members.get(node) != link.member:
                self._drop(self._links.pop(node))
        for node, incoming in list(self._incoming.items()):
            if node not in members:
                del self._incoming[node]
                incoming.connection.abort()
        for node, member in members.items():
            # A node that took another's place may have its address; it does not dial itself.
            is_elsewhere = member.peer_address != self._ways.own.peer_address
            if node != self._own and is_elsewhere and node not in self._links:
                self._links[node] = Link(self._ways, member, self._events)
                if self._started:
                    self._links[node].start()

    def _drop(self, link: "Link") -> None:
        link.stop()
        self._former.add(link)
        link.when_ended(lambda: self._former.discard(link))

    def stop(self) -> None:
        """Close the links at once.  Idempotent."""
        self._stopped = True
        for link in self._links.values():
            link.stop()

    async def stopped(self) -> None:
        await asyncio.gather(*(link.stopped() for link in (*self._links.values(), *self._former)))

    def send(self, messages: Sequence[PeerMessage]) -> None:
        """Send a turn's messages: one write a peer."""
        by_peer: dict[NodeId, list[PeerMessage]] = {}
        for message in messages:
            by_peer.setdefault(message.to, []).append(message)
        for peer, its in by_peer.items():
            link = self._links.get(peer)
            if link is not None:
                link.send(its)

    def troubles(self) -> dict[str, str]:
        """Return why nodes cannot be reached just now, by name; those that are connected are not in it."""
        return {link.member.name: link.trouble for link in self._links.values() if link.trouble}

    def accept(self, connection: Connection, member: Member) -> "IncomingPeer":
        """Hear `member` on this connection from now on.  A former one is closed: the node that dials knows best which lives."""
        former = self._incoming.get(member.node_id)
        incoming = IncomingPeer(connection, member.node_id, self._own, self._events, self._forget)
        self._incoming[member.node_id] = incoming
        if former is not None:
            former.connection.abort()
        if member.node_id in self._links:
            # Who dials can be dialled.
            self._links[member.node_id].hurry()
        return incoming

    def _forget(self, incoming: "IncomingPeer") -> bool:
        """Return whether this was the connection on which the peer was heard."""
        if self._incoming.get(incoming.peer) is not incoming:
            return False
        del self._incoming[incoming.peer]
        return True


class IncomingPeer:
    """An accepted connection from another node."""

    def __init__(
        self, connection: Connection, peer: NodeId, own: NodeId, events: Events, forget: "Callable[[IncomingPeer], bool]"
    ) -> None:
        self.connection = connection
        self.peer = peer
        self._own = own
        self._events = events
        self._forget = forget
        notice_silence(connection.transport, NODE_SILENCE_S_MAX)

    def payloads(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            message = decode_peer_message(payload)
            if message.sender != self.peer or message.to != self._own:
                raise ProtocolError(
                    f"node {self.peer} sent a message from node {message.sender} to node {message.to}; this is node {self._own}"
                )
            self._events.receive(message)

    def paused(self, paused: bool) -> None:
        """Nothing is written here after the handshake."""

    def lost(self, by_other_side: bool) -> None:
        if self._forget(self) and by_other_side:
            self._events.peer_lost(self.peer)


class Link:
    """The way to one peer: dials it, and again when the connection is lost, for as long as the node runs."""

    def __init__(self, ways: Ways, member: Member, events: Events) -> None:
        self._ways = ways
        self.member = member
        self._events = events
        self._hurry = asyncio.Event()
        # None: the link is down.
        self._connection: Dialled | None = None
        # Messages were dropped because the peer does not take them; it is said once until they flow again.
        self._overflowing = False
        self._task: asyncio.Task[None] | None = None
        # Not drawn from the replica's seed: who dials when decides nothing.
        self._random = random.Random()
        #: Why it is down, for people; empty while it is up, or before the first attempt.
        self.trouble = ""
        self._said = Seldom(REPEAT_S)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"link to {self.member.name}")
        self._task.add_done_callback(self._ended)

    def when_ended(self, then: Callable[[], None]) -> None:
        """Have `then` called when a link that was told to stop has ended."""
        if self._task is not None:
            self._task.add_done_callback(lambda _: then())

    def hurry(self) -> None:
        """Dial now, where the next attempt is only a matter of time."""
        self._hurry.set()

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def stopped(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def send(self, messages: Sequence[PeerMessage]) -> None:
        """Write messages, or drop them where the link is down or full."""
        connection = self._connection
        if connection is None or connection.transport.is_closing():  # closing: uvloop raises for a write after a reset
            return
        if connection.transport.get_write_buffer_size() > self._ways.limits.peer_unsent_bytes_max:
            if not self._overflowing:
                self._overflowing = True
                log.warning("node %s takes no messages: dropping what is sent to it until it does", self.member.name)
                self._events.unreachable(self.member.node_id)
            return
        self._overflowing = False
        connection.transport.write(encode_peer_messages(messages))

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                lost = await self._connect()
            except NodeRemoved as error:
                self._events.fail(error)
                return
            except CoordError as error:
                self._note_failure(error)
                await self._back_off(failures)
                failures += 1
                continue
            self.trouble = ""
            began = asyncio.get_running_loop().time()
            error_or_none = await lost
            # A connection that is closed as soon as it stands is a failure too: nobody is dialled in a tight circle.
            failures = failures + 1 if asyncio.get_running_loop().time() - began < BACKOFF_S_MAX else 0
            self._connection = None
            self._overflowing = False
            log.info("connection to node %s lost: %s", self.member.name, error_or_none or "closed by the other side")
            self._events.unreachable(self.member.node_id)
            self._events.peer_lost(self.member.node_id)
            await self._back_off(failures)

    async def _back_off(self, failures: int) -> None:
        """Wait, with full jitter: nodes that lost each other at one moment do not meet again at one moment."""
        pause_s = self._random.uniform(0, min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures, 10)))
        self._hurry.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), pause_s)

    async def _connect(self) -> "asyncio.Future[Exception | None]":
        """Dial and check who answers; return what is set when the connection is lost."""
        ways, member = self._ways, self.member
        connection, welcome = await dial(
            member.peer_address,
            make_hello(PEER, ways.cluster_id, ways.token, ways.own),
            tls=ways.tls,
            timeout_s=DIAL_TIMEOUT_S,
            frame_bytes_max=ways.limits.client_frame_bytes_max,
            on_payload=_last_word,
        )
        try:
            check_welcome(welcome, ways.cluster_id, member)
        except CoordError:
            connection.close()
            raise
        lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        connection.watch(lambda error: None if lost.done() else lost.set_result(error))
        self._connection = connection
        log.info("connected to node %s at %s", member.name, member.peer_address)
        return lost

    def _note_failure(self, error: CoordError) -> None:
        """Say it once for each reason: a node that is down for a night must not fill a disk with it.

        What somebody has to mend is said louder, and now and then again: the node that it is about may see nothing of it.
        """
        passes = isinstance(error, Unavailable) and not error.details.get("tls")
        if (passes and error.message != self.trouble) or (not passes and self._said.is_due(error.message)):
            level = logging.INFO if passes else logging.WARNING if isinstance(error, Unavailable) else logging.ERROR
            where = f"{self.member.name} at {self.member.peer_address}"
            log.log(level, "no connection to node %s: %s: %s", where, error.code, error.message)
        self.trouble = error.message

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._events.fail(error)


def _last_word(payload: bytes) -> None:
    """After the Welcome a node says nothing on a connection that it accepted, except why it ends it."""
    message = codec.decode_server(payload)
    if isinstance(message, Refused):
        raise error_from_wire(message.code, message.message, {})
    raise ProtocolError(f"{type(message).__name__} came on a connection that only sends")
