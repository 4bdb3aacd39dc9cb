"""A cluster in one loop, for tests of the client: real sockets and the real state machine, without consensus.

Every node serves the same machine, the leader answers, the others redirect.  Tests make it misbehave: `hold` (say nothing), `busy`
(refuse the next commands), `kill` and `start` (a node), `lead` (another leader), `expire` (a session).
"""

import asyncio
from collections.abc import Callable
from typing import cast

from coord_core.machine.machine import Machine
from coord_core.protocol.commands import Call, Command, ExpireSession, Tick
from coord_core.protocol.members import Member
from coord_core.protocol.messages import (
    CLIENT_FRAME_BYTES_MAX,
    MAGIC,
    Acknowledge,
    Ask,
    Follow,
    GetStatus,
    Hello,
    KeepAlive,
    KeptAlive,
    NodeStatus,
    Redirect,
    Refused,
    Reply,
    ServerMessage,
    Submit,
    Told,
    Welcome,
)
from coord_core.protocol.results import Failed, Result
from coord_core.types import AttachmentId, LogIndex, NodeId, RequestNumber, SessionId
from coord_core.wire.codec import decode_client, decode_command, encode_messages
from coord_core.wire.frames import FrameParser


class FakeCluster:
    def __init__(self, size: int = 1, token: str = "") -> None:
        self.machine = Machine()
        self.token = token
        self.nodes = [Node(self, number) for number in range(1, size + 1)]
        self.leader: Node | None = self.nodes[0]
        #: Commands in the order in which they were applied.
        self.log: list[Command] = []
        #: So many of the next numbered calls are refused with Busy.
        self.busy = 0
        #: Requests are taken and applied, and nothing is answered.
        self.holds = False
        # Who waits for the answer to a request.
        self._waiting: dict[tuple[AttachmentId, RequestNumber], tuple[Peer, int]] = {}
        self._started_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    async def start(self) -> "FakeCluster":
        self._started_s = asyncio.get_running_loop().time()
        for node in self.nodes:
            await node.start()
        return self

    async def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        for node in self.nodes:
            await node.kill()

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(Member(NodeId(node.number), node.name, "", node.address, "") for node in self.nodes)

    @property
    def calls(self) -> list[Call]:
        return [command for command in self.log if isinstance(command, Call)]

    def lead(self, number: int) -> None:
        self.leader = self.nodes[number - 1]

    def expire(self, session: int) -> None:
        """What a leader does when it has not heard of a session."""
        view = self.machine.session(SessionId(session))
        assert view is not None
        self.apply(ExpireSession(view.session, view.generation))

    def apply(self, command: Command) -> Result | None:
        self.log.append(command)
        index = LogIndex(len(self.log))
        applied = self.machine.apply(index, self.now_ms(), command)
        for attachment, request, result in applied.replies:
            peer, seq = self._waiting.pop((attachment, request), (None, 0))
            if peer is not None:
                peer.say(Reply(seq, result))
        self._set_alarm()
        return applied.result

    def _set_alarm(self) -> None:
        """Propose a Tick when the machine's next deadline passes."""
        deadline_ms = self.machine.next_deadline_ms()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if deadline_ms is not None:
            wait_s = max(0, deadline_ms - self.now_ms()) / 1000
            self._alarm = asyncio.get_running_loop().call_later(wait_s + 0.001, self.apply, Tick())

    def submit(self, peer: "Peer", seq: int, command: Command) -> None:
        if isinstance(command, Call) and self.busy > 0:
            self.busy -= 1
            peer.say(Reply(seq, Failed("Busy", "try again", {"limit": "test"})))
            return
        if isinstance(command, Call):
            self._waiting[command.attachment, command.request] = (peer, seq)
        result = self.apply(command)
        if result is not None:
            if isinstance(command, Call):
                self._waiting.pop((command.attachment, command.request), None)
            peer.say(Reply(seq, result))

    def now_ms(self) -> int:
        return int((asyncio.get_running_loop().time() - self._started_s) * 1000)


class Node:
    def __init__(self, cluster: FakeCluster, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.name = f"n{number}"
        self.address = ""
        self.peers: set[Peer] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        port = int(self.address.rpartition(":")[2]) if self.address else 0
        self._server = await asyncio.get_running_loop().create_server(lambda: Peer(self), "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def kill(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """End all connections."""
        for peer in list(self.peers):
            peer.transport.abort()


class Peer(asyncio.Protocol):
    """One client's connection to one node."""

    transport: asyncio.Transport

    def __init__(self, node: Node) -> None:
        self.node = node
        self.cluster = node.cluster
        self.frames = FrameParser(CLIENT_FRAME_BYTES_MAX, magic=MAGIC)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.node.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.node.peers.discard(self)

    def say(self, message: ServerMessage) -> None:
        if not self.cluster.holds and not self.transport.is_closing():
            self.transport.write(encode_messages([message]))

    def data_received(self, data: bytes) -> None:
        for payload in self.frames.feed(data):
            message = decode_client(payload)
            if isinstance(message, Hello):
                self._hello(message)
            elif isinstance(message, GetStatus):
                self._status(message.seq)
            elif isinstance(message, Follow | Acknowledge):
                pass  # This cluster pushes nothing.
            elif self.cluster.leader is not self.node:
                leader = self.cluster.leader
                self.say(Redirect(message.seq, leader.address if leader else ""))
            elif isinstance(message, Submit):
                self.cluster.submit(self, message.seq, decode_command(bytes(message.command)))
            elif isinstance(message, Ask):
                self.say(Told(message.seq, self.cluster.machine.query(message.query)))
            elif isinstance(message, KeepAlive):
                self._keep_alive(message)

    def _hello(self, hello: Hello) -> None:
        cluster = self.cluster
        if hello.token != cluster.token:
            self.transport.write(encode_messages([Refused("AuthenticationFailed", "the token was refused")]))
            self.transport.close()
            return
        leader = cluster.leader.address if cluster.leader else ""
        self.say(Welcome(1, "the-cluster", self.node.name, cluster.members, leader))

    def _keep_alive(self, message: KeepAlive) -> None:
        view = self.cluster.machine.session(message.session)
        if view is None:
            self.say(Reply(message.seq, Failed("SessionExpired", f"session {message.session} is gone", {})))
        else:
            self.say(KeptAlive(message.seq, view.ttl_ms))

    def _status(self, seq: int) -> None:
        cluster = self.cluster
        role = "leader" if cluster.leader is self.node else "follower"
        leader = cluster.leader.address if cluster.leader else ""
        last = len(cluster.log)
        sessions = cluster.machine.session_count()
        self.say(
            NodeStatus(seq, "the-cluster", self.node.name, role, 1, leader, last, last, last, sessions, cluster.members, "test"),
        )


async def until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    """Wait until the condition holds: it is looked at in every turn of the loop."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)
