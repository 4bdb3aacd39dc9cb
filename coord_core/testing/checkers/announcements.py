"""Announcements: nobody is told "they all know" before they all do, nor made to wait for longer than was asked.

Judged when a leader's answer leaves it, which is before it can arrive: each of the audience has said by then that it has worked off
the revision, or is gone, or is named.  Who is named for the deadline was given that long.
"""

from collections import Counter
from dataclasses import dataclass

from coord_core.machine import Applied
from coord_core.protocol.commands import Call, Command
from coord_core.protocol.messages import Acknowledge, ClientMessage, Follow, Reply, ServerMessage
from coord_core.protocol.streams import Joined
from coord_core.replica import Effects
from coord_core.replica.facts import RoleChanged
from coord_core.testing.checkers.streams import Join, StreamChecks
from coord_core.testing.node import Node
from coord_core.testing.simulator import MILLISECOND, SECOND, Violation
from coord_core.types import NodeId, SubscriptionId

#: Clocks drift apart by no more.
DRIFT = 0.01

#: A node looks at its waits when it ticks, and its clock for them leaves out what it takes for a stall.
LATE_US = SECOND


@dataclass(frozen=True, slots=True)
class Waiting:
    """A leader that may withhold an answer, since when, and for how long it had been stopped by then."""

    life: int
    term: int
    since_us: int
    stopped_us: int


@dataclass(slots=True)
class Following:
    """What a leader has heard of one who follows, on the connection that said so last."""

    connection: int
    acknowledged: int


class AnnouncementChecks:
    def __init__(self, streams: StreamChecks) -> None:
        self._streams = streams
        # By member, who waits for its audience: several leaders, where some do not know yet that they are none any more.
        self._waiting: dict[int, dict[NodeId, Waiting]] = {}
        self._following: dict[tuple[NodeId, int], dict[SubscriptionId, Following]] = {}
        # The joins that were answered; and, of a join out of a listener, by leader, those that were not when it was applied there.
        self._told: set[int] = set()
        self._excused: dict[tuple[NodeId, int], set[int]] = {}
        #: What became of answers: "complete" or "incomplete", those of them that "waited", and waits taken up by another leader.
        self.outcomes: Counter[str] = Counter()

    def applied(self, node: Node, command: Command, applied: Applied) -> None:
        """A node has applied an entry; if it leads, it may have an answer to withhold."""
        joined = applied.result
        if type(joined) is not Joined or type(command) is not Call or not joined.audience:
            return
        status = node.replica.status()
        if not status.ready:
            return
        waiting = self._waiting.setdefault(joined.member, {})
        if waiting and status.term not in [earlier.term for earlier in waiting.values()]:
            self.outcomes["failover"] += 1
        waiting[node.node_id] = Waiting(node.life, status.term, node.simulator.now_us, node.stopped_us())
        self._excused[node.node_id, joined.member] = {int(number) for number in joined.audience} - self._told

    def asked(self, node: Node, connection: int, message: ClientMessage) -> None:
        """A client says to a node what it follows, or how far it has got."""
        following = self._following.setdefault((node.node_id, node.life), {})
        if type(message) is Follow and node.replica.status().role == "leader":
            following[message.subscription] = Following(connection, min(message.acknowledged, message.after))
        elif type(message) is Acknowledge:
            found = following.get(message.subscription)
            if found is not None and found.connection == connection:
                found.acknowledged = max(found.acknowledged, message.revision)

    def turned(self, node: Node, effects: Effects) -> None:
        """Who does not lead forgets who follows."""
        if any(type(fact) is RoleChanged and fact.role != "leader" for fact in effects.facts):
            self._following.pop((node.node_id, node.life), None)

    def answered(self, node: Node, message: ServerMessage) -> None:
        """A node answers a client."""
        if type(message) is not Reply or type(message.result) is not Joined:
            return
        joined = message.result
        if joined.member in self._streams.others:
            return
        join = self._streams.joins.get(joined.member)
        if join is None or joined.audience or joined.revision != join.revision:
            raise Violation(f"{node.name} answers a join with {joined}; it was {join}")
        if join.audience:
            self._judge(node, joined)
        self._told.add(joined.member)

    def _judge(self, node: Node, joined: Joined) -> None:
        join = self._streams.joins[joined.member]
        waiting = self._waiting.get(joined.member, {}).get(node.node_id)
        if waiting is None or waiting.life != node.life:
            raise Violation(f"{node.name} answers the join {joined.member}, which it has not applied as a leader")
        named = {one.subscription: one.reason for one in joined.unacknowledged}
        if not set(named) <= set(join.audience):
            raise Violation(f"{node.name} names {sorted(named)} as not told of {joined.member}, announced to {join.audience}")
        for number in join.audience:
            ended = self._streams.subscriptions[number].ended
            if named.get(number) == "gone" and not ended:
                raise Violation(f"{node.name} says that subscription {number} is gone, and it is not")
            if named.get(number) == "deadline":
                self._judge_late(node, join, number, ended)
            if number not in named and not ended and self._streams.said.get(number, 0) < join.revision:
                if join.from_listener and number in self._streams.joins and number in self._excused[node.node_id, joined.member]:
                    continue  # Its own join waited for this listener, perhaps: it hears of this one when it has joined.
                said = self._streams.said.get(number, 0)
                raise Violation(f"{node.name} says that {number} knows of {join.revision}; it has acknowledged {said} so far")
        self._judge_time(node, waiting, join.wait_ms, late="deadline" in named.values())
        self.outcomes["incomplete" if named else "complete"] += 1

    def _judge_late(self, node: Node, join: Join, number: SubscriptionId, ended: int) -> None:
        """Whoever is named for the deadline was there, and had not said a word that reached this leader."""
        if 0 < ended <= node.replica.status().applied_index:
            raise Violation(f"{node.name} has waited for subscription {number} to the end, though it was gone")
        found = self._following.get((node.node_id, node.life), {}).get(number)
        if found is not None and found.acknowledged >= join.revision:
            raise Violation(f"{node.name} says that {number} has not acknowledged {join.revision}, and was told that it has")

    def _judge_time(self, node: Node, waiting: Waiting, wait_ms: int, *, late: bool) -> None:
        waited_us = node.simulator.now_us - waiting.since_us
        if late and waited_us < wait_ms * MILLISECOND * (1 - DRIFT):
            raise Violation(
                f"{node.name} was to wait {wait_ms} ms for the audience and gave up after {waited_us / MILLISECOND:.0f}"
            )
        stopped_us = node.stopped_us() - waiting.stopped_us
        if waited_us - stopped_us > wait_ms * MILLISECOND * (1 + DRIFT) + LATE_US:
            raise Violation(f"{node.name} was to wait {wait_ms} ms for the audience and took {waited_us / MILLISECOND:.0f}")
        if waited_us:
            self.outcomes["waited"] += 1
