"""Plays network and cluster for a `ClientSession`, step by step: tests read as scripts."""

import random
from typing import Any

from coord_core.client.session import CallId, ClientEffects, ClientSession, SessionConfig, SessionState
from coord_core.protocol.commands import Call, Command, OpenSession
from coord_core.protocol.members import Member
from coord_core.protocol.messages import (
    Acknowledge,
    ClientMessage,
    Follow,
    Hello,
    KeepAlive,
    KeptAlive,
    Reply,
    ServerMessage,
    Submit,
    Welcome,
)
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner, ValueSet
from coord_core.protocol.results import Result, SessionOpened
from coord_core.types import AttachmentId, FencingToken, NodeId, SessionId
from coord_core.wire.codec import decode_command

OWNER = Owner("host", 1)
A, B, C = "a:7400", "b:7400", "c:7400"
MEMBERS = tuple(Member(NodeId(number), f"n{number}", "", address, "") for number, address in enumerate((A, B, C), 1))
TTL_MS = 15_000
#: 1% of the TTL, and the constant.
MARGIN_MS = 150 + 20


class Script:
    """A session, the time, and everything that it sent, was told, and made known."""

    def __init__(self, *, seeds: tuple[str, ...] = (A,), seed: int = 1, **config: Any) -> None:
        self.now_ms = 1_000
        self.session = ClientSession(SessionConfig(seeds, OWNER, ttl_ms=TTL_MS, **config), random.Random(seed), self.now_ms)
        self.outcomes: dict[CallId, Any] = {}
        self.states: list[SessionState] = []
        self.at = ""
        self.finished = False
        self.disconnects = 0
        #: The last one.
        self.hello: Hello | None = None

    # --- time and effects --------------------------------------------------------------------------------------------------------

    def take(self) -> list[ClientMessage]:
        """Carry out the effects; return what was sent."""
        effects: ClientEffects = self.session.take()
        if effects.disconnect:
            self.at = ""
            self.disconnects += 1
        if effects.connect_to is not None:
            self.at = effects.connect_to
        for call, outcome in effects.resolved:
            assert call not in self.outcomes, "a call has one outcome"
            self.outcomes[call] = outcome
        self.states += [change.state for change in effects.states]
        self.finished = self.finished or effects.finished
        return effects.send

    def sleep(self, ms: int) -> list[ClientMessage]:
        """Let time pass, ticking whenever the session wants to be woken."""
        end_ms, sent = self.now_ms + ms, self.take()
        for _ in range(10_000):
            wakeup_ms = self.session.next_wakeup_ms()
            if wakeup_ms is None or wakeup_ms > end_ms:
                break
            self.now_ms = max(self.now_ms, wakeup_ms)
            self.session.tick(self.now_ms)
            sent += self.take()
        else:
            raise AssertionError("the session wants to be woken without end")
        self.now_ms = end_ms
        return sent

    def say(self, message: ServerMessage) -> list[ClientMessage]:
        self.session.received(message, self.now_ms)
        return self.take()

    # --- connections -------------------------------------------------------------------------------------------------------------

    def dial(self) -> str:
        """Wait until the session connects somewhere; let it, and return where."""
        self.take()
        for _ in range(1_000):
            if self.at:
                break
            self.sleep(1)
        address = self.at
        self.session.connected(address, self.now_ms)
        (hello,) = self.take()
        assert isinstance(hello, Hello)
        self.hello = hello
        return address

    def welcome(self, leader: str) -> list[ClientMessage]:
        node = next(member.name for member in MEMBERS if member.client_address == self.at)
        return self.say(Welcome(1, "cluster", node, MEMBERS, leader))

    def connect(self) -> list[ClientMessage]:
        """Connect to a node, which leads; return what is sent to it first."""
        address = self.dial()
        return self.welcome(address)

    def cut(self) -> None:
        self.at = ""
        self.session.disconnected(self.now_ms)
        self.take()

    def opened(self, session: int = 100) -> list[ClientMessage]:
        """Connect and open a session; return what is sent then."""
        self.session.open(self.now_ms)
        (open_,) = self.connect()
        assert isinstance(command_of(open_), OpenSession)
        return self.say(Reply(seq_of(open_), session_opened(session)))

    # --- calls -------------------------------------------------------------------------------------------------------------------

    def acquire(self, path: str = "/lock", wait_ms: int | None = None, **options: Any) -> CallId:
        return self.session.call(LockAcquire(path, wait_ms, OWNER), self.now_ms, **options)

    def release(self, token: int, path: str = "/lock") -> CallId:
        return self.session.call(LockRelease(path, FencingToken(token)), self.now_ms)

    def set(self, value: bytes = b"x", **options: Any) -> CallId:
        return self.session.call(ValueSet("/value", value), self.now_ms, **options)

    def answer(self, message: ClientMessage, result: Result) -> list[ClientMessage]:
        return self.say(Reply(seq_of(message), result))

    def kept_alive(self, message: ClientMessage) -> list[ClientMessage]:
        assert isinstance(message, KeepAlive)
        return self.say(KeptAlive(message.seq, TTL_MS))


def session_opened(session: int = 100, ttl_ms: int = TTL_MS) -> SessionOpened:
    return SessionOpened(SessionId(session), AttachmentId(session), 1, ttl_ms)


def seq_of(message: ClientMessage) -> int:
    assert not isinstance(message, Hello | Follow | Acknowledge)
    return message.seq


def command_of(message: ClientMessage) -> Command:
    assert isinstance(message, Submit)
    return decode_command(bytes(message.command))


def call_of(message: ClientMessage) -> Call:
    command = command_of(message)
    assert isinstance(command, Call)
    return command


def calls_of(messages: list[ClientMessage]) -> list[Call]:
    """Return the numbered calls among the messages."""
    commands = [command_of(message) for message in messages if isinstance(message, Submit)]
    return [command for command in commands if isinstance(command, Call)]


def kinds_of(messages: list[ClientMessage]) -> list[str]:
    """Return what the messages are: the operation, command or message type of each."""
    names = []
    for message in messages:
        if isinstance(message, Submit):
            command = command_of(message)
            names.append(type(command.operation if isinstance(command, Call) else command).__name__)
        else:
            names.append(type(message).__name__)
    return names
