"""No session ends before the promise made to it.

A promise is made when a session is opened, when its keep-alive is answered, and to everybody when a leader becomes ready.  For
the leader that made it, it lasts for the TTL from then by that leader's clock (which may run fast by as much as clocks drift),
and does not run while the leader is stopped.  For a later leader it lasts from when the client sent the keep-alive, as the client
counts: an answer may have been held up in a stopped process, long after a quorum confirmed it.
"""

from dataclasses import dataclass, field

from coord_core.machine import Applied
from coord_core.protocol.commands import Command, ExpireSession, HandOff, OpenDetached, OpenSession
from coord_core.protocol.messages import ClientMessage, KeepAlive, KeptAlive, ServerMessage
from coord_core.replica import Effects
from coord_core.replica.facts import LeaderReady
from coord_core.replica.leases import STALL_MS
from coord_core.testing.connection import Connection
from coord_core.testing.node import Node
from coord_core.testing.simulator import MILLISECOND, SECOND, Violation
from coord_core.types import SessionId

#: A lease may be shorter than its TTL by this part: clocks drift apart by no more.
DRIFT = 0.01


@dataclass(slots=True)
class Promise:
    """That a session lives for its TTL."""

    made_us: int
    #: When the client asked for it.
    asked_us: int
    #: How long the node that made it had been stopped by then, in all.
    node: Node
    stopped_us: int
    #: And how often.
    stops: int


@dataclass
class LeaseChecks:
    promises: dict[SessionId, Promise] = field(default_factory=dict)
    ttl_ms: dict[SessionId, int] = field(default_factory=dict)
    #: When the leader of each term became ready.
    ready: dict[int, Promise] = field(default_factory=dict)
    #: (connection, seq) of the keep-alives under way.
    asked: dict[tuple[int, int], SessionId] = field(default_factory=dict)
    expired: list[SessionId] = field(default_factory=list)

    def keep_alive(self, connection: int, message: ClientMessage) -> None:
        """A keep-alive reached a node."""
        if type(message) is KeepAlive:
            self.asked[connection, message.seq] = message.session

    def answered(self, node: Node, connection: Connection, message: ServerMessage) -> None:
        """A node answers a client."""
        if type(message) is not KeptAlive:
            return
        session = self.asked.pop((connection.number, message.seq), None)
        if session is not None and session in self.ttl_ms:
            self.promises[session] = Promise(
                node.simulator.now_us, connection.sent_us[message.seq], node, node.stopped_us(), node.stops
            )

    def turned(self, node: Node, effects: Effects) -> None:
        for fact in effects.facts:
            if type(fact) is LeaderReady:
                self.ready[int(fact.term)] = _promise_now(node)

    def applied(self, node: Node, term: int, index: int, command: Command, applied: Applied) -> None:
        """An entry of `term` was applied for the first time anywhere."""
        if applied.leased and isinstance(command, OpenSession | OpenDetached):
            # Last: a session that it superseded is looked at again as well.
            opened = applied.leased[-1]
            self.ttl_ms[opened] = command.ttl_ms
            self.promises[opened] = _promise_now(node)
        elif type(command) is HandOff and applied.leased:
            del self.ttl_ms[command.session], self.promises[command.session]
        if type(command) is ExpireSession:
            for session in applied.closed:
                self.expired.append(session)
                # Of a session that nobody has there is no lease to be judged.
                if session in self.promises:
                    self._judge(node, session, term, index)

    def _judge(self, node: Node, session: SessionId, term: int, index: int) -> None:
        now_us, ttl_ms = node.simulator.now_us, self.ttl_ms[session]
        own, ready = self.promises[session], self.ready.get(term)
        for why, promise in (("its last promise", own), ("the leader was ready", ready)):
            if promise is None:
                continue
            lasts_us = int(ttl_ms * MILLISECOND * (1 - DRIFT))
            # What another node does or did is not known to the present leader.
            current = ready is not None and promise.node is ready.node and promise.made_us >= ready.made_us
            begun_us = promise.made_us if current else promise.asked_us
            # So much of each stop counts as time: a loop that is a little late is no stall.
            unnoticed_us = (promise.node.stops - promise.stops) * STALL_MS * MILLISECOND
            stopped_us = max(0, promise.node.stopped_us() - promise.stopped_us - unnoticed_us) if current else 0
            if now_us < begun_us + lasts_us + stopped_us:
                after = (now_us - begun_us) / SECOND
                raise Violation(
                    f"session {session} expired at entry {index}, {after:.3f} s after {why}; its TTL is {ttl_ms} ms and the"
                    f" leader was stopped for {stopped_us / SECOND:.3f} s of that"
                )


def _promise_now(node: Node) -> Promise:
    return Promise(node.simulator.now_us, node.simulator.now_us, node, node.stopped_us(), node.stops)
