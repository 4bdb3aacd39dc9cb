"""Everything that can happen to a message between two processes.

One idea: a *pipe*, one direction of one connection, ordered and reliable until it is cut.  A partition blocks a direction
between two hosts: what arrives there meanwhile is kept and flows on when it heals, as TCP's retransmission does, or is lost
with its connection. Between peers a seed may also drop, repeat and overtake, which no TCP connection does and consensus must
survive all the same.

A process that dies closes its connections, and the other ends hear of it, unless they cannot be reached.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from coord_core.replica import PeerMessage
from coord_core.testing.simulator import MILLISECOND, Simulator
from coord_core.types import NodeId


@dataclass(frozen=True, slots=True)
class Weather:
    """How messages travel in one seed.  Chances are per message; all but latency concern peers only."""

    latency_us_min: int = 100
    latency_us_max: int = 2 * MILLISECOND
    #: Now and then a message is this late.
    straggler_us_max: int = 60 * MILLISECOND
    straggler_chance: float = 0.002
    #: What clients' messages take longer than peers': clients may be far away.
    client_us_max: int = 0
    drop_chance: float = 0.0
    repeat_chance: float = 0.0
    overtake_chance: float = 0.0


class Host(Protocol):
    """A process, as the network sees it."""

    #: Where it runs: partitions are between machines.
    machine: str

    @property
    def up(self) -> bool: ...

    def arrive(self, action: Callable[..., None], *arguments: Any) -> None:
        """Run `action` in that process, when it is able to; never where it is dead."""


class PeerHost(Host, Protocol):
    """A node, as the other nodes' messages find it."""

    def message(self, message: PeerMessage) -> None: ...

    def peer_unreachable(self, peer: NodeId) -> None: ...

    def peer_connection_lost(self, peer: NodeId) -> None: ...

    def called_by(self, peer: NodeId) -> None: ...

    def told_removed(self) -> None: ...


class Network:
    """The hosts, who cannot reach whom, and all pipes."""

    def __init__(self, simulator: Simulator, weather: Weather) -> None:
        self.simulator = simulator
        self.weather = weather
        self.rng = simulator.stream("network")
        #: Directions in which nothing arrives, and whether what is on its way is kept for later.  Never iterated in an order that
        #: depends on hashing: a dict.
        self._blocked: dict[tuple[str, str], bool] = {}
        self._peers: dict[NodeId, PeerHost] = {}
        self._links: dict[tuple[NodeId, NodeId], Pipe] = {}
        self._connections = 0
        #: Every pipe that has something to deliver after a heal.
        self._stopped: list[Pipe] = []

    # --- partitions ---------------------------------------------------------------------------------------------------------------

    def block(self, source: str, target: str, *, keep: bool) -> None:
        """Let nothing arrive at `target` from `source`.  `keep`: it arrives after the heal."""
        self._blocked[source, target] = keep

    def heal(self, source: str, target: str) -> None:
        if self._blocked.pop((source, target), None) is None:
            return
        stopped, self._stopped = self._stopped, []
        for pipe in stopped:
            pipe.resume()

    def heal_all(self) -> None:
        for source, target in list(self._blocked):
            self.heal(source, target)

    def blocked(self, source: str, target: str) -> bool:
        return (source, target) in self._blocked

    def keeps(self, source: str, target: str) -> bool:
        return self._blocked.get((source, target), False)

    def stopped(self, pipe: "Pipe") -> None:
        self._stopped.append(pipe)

    # --- peers --------------------------------------------------------------------------------------------------------------------

    def join(self, node_id: NodeId, host: PeerHost) -> None:
        """Connect a node to all others."""
        for other_id, other in self._peers.items():
            self._links[node_id, other_id] = Pipe(self, host.machine, other, reliable=False)
            self._links[other_id, node_id] = Pipe(self, other.machine, host, reliable=False)
        self._peers[node_id] = host

    def send(self, message: PeerMessage) -> None:
        """Send a peer's message.  It may be lost; then the sender hears, sometimes, that the peer is unreachable."""
        sender, receiver = self._peers[message.sender], self._peers.get(message.to)
        if receiver is None:
            # It is a member, and has not been told.
            return
        if receiver.up and not self.blocked(sender.machine, receiver.machine):
            self._links[message.sender, message.to].send(receiver.message, message)
            return
        if self.keeps(sender.machine, receiver.machine):
            self._links[message.sender, message.to].send(receiver.message, message)
        if self.rng.random() < 0.5:
            self._later(sender.arrive, sender.peer_unreachable, message.to)

    def call(self, caller: NodeId, peer: NodeId) -> None:
        """A node opens a connection to a peer, to see whether it is heard there."""
        if caller != peer and peer in self._peers:
            self.tell(self._peers[caller], self._peers[peer], self._peers[peer].called_by, caller)

    def tell_removed(self, node_id: NodeId, peer: NodeId) -> None:
        """A node answers a peer's call: it was removed."""
        self.tell(self._peers[node_id], self._peers[peer], self._peers[peer].told_removed)

    def tell(self, source: Host, target: Host, action: Callable[..., None], *arguments: Any) -> None:
        """One small message on a connection of its own; it is lost where it cannot arrive."""
        self.simulator.after(self.latency_us(), self._tell, source.machine, target, action, arguments)

    def _tell(self, source: str, target: Host, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self.blocked(source, target.machine):
            target.arrive(action, *arguments)

    def cut(self, one: NodeId, other: NodeId) -> None:
        """Break the connections between two nodes, and nothing else: what was on its way is lost, both ends hear of it."""
        for here, there in ((one, other), (other, one)):
            self._links[here, there].cut()
            self._tell_lost(self._peers[here], self._peers[there], there)

    def gone(self, node_id: NodeId) -> None:
        """The node's process died: its connections close.  What it had sent may still arrive."""
        dead = self._peers[node_id]
        for other_id, other in self._peers.items():
            if other_id == node_id:
                continue
            self._links[other_id, node_id].cut()
            if self.rng.random() < 0.5:
                self._links[node_id, other_id].cut()
            self._tell_lost(other, dead, node_id)

    def _tell_lost(self, host: PeerHost, peer: PeerHost, peer_id: NodeId) -> None:
        if not self.blocked(peer.machine, host.machine):
            self._later(host.arrive, host.peer_connection_lost, peer_id)

    def _later(self, action: Callable[..., None], *arguments: Any) -> None:
        self.simulator.after(self.latency_us() + self.rng.randint(0, 20 * MILLISECOND), action, *arguments)

    def next_number(self) -> int:
        """Return a number for a new connection."""
        self._connections += 1
        return self._connections

    # --- clients ------------------------------------------------------------------------------------------------------------------

    def pair(self, client: Host, server: Host) -> tuple["Pipe", "Pipe"]:
        """Return the two directions of a new connection: client to server, server to client."""
        return Pipe(self, client.machine, server, reliable=True), Pipe(self, server.machine, client, reliable=True)

    def latency_us(self) -> int:
        weather = self.weather
        if self.rng.random() < weather.straggler_chance:
            return self.rng.randint(weather.latency_us_max, weather.straggler_us_max)
        return self.rng.randint(weather.latency_us_min, weather.latency_us_max)


class Pipe:
    """One direction of one connection."""

    __slots__ = ("_epoch", "_free_us", "_kept", "_network", "_reliable", "_source", "_target")

    def __init__(self, network: Network, source: str, target: Host, *, reliable: bool) -> None:
        self._network = network
        self._source = source
        self._target = target
        #: A client's connection never loses anything while it stands.
        self._reliable = reliable
        #: When the last message arrives: nothing later overtakes it.
        self._free_us = 0
        #: Raised by a cut; what was sent in an earlier epoch is lost.
        self._epoch = 0
        self._kept: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def send(self, action: Callable[..., None], *arguments: Any) -> None:
        """Let `action` happen at the target, after everything sent before."""
        network = self._network
        if self._reliable:
            self._schedule(action, arguments)
            return
        weather, rng = network.weather, network.rng
        if weather.drop_chance and rng.random() < weather.drop_chance:
            return
        self._schedule(action, arguments, overtake=_strikes(rng, weather.overtake_chance))
        if _strikes(rng, weather.repeat_chance):
            self._schedule(action, arguments, overtake=True)

    def cut(self) -> None:
        """The connection is gone, with all that is on its way."""
        self._epoch += 1
        self._free_us = 0
        self._kept.clear()

    def resume(self) -> None:
        """A partition healed: what it held up travels on."""
        kept, self._kept = self._kept, []
        for action, arguments in kept:
            self._schedule(action, arguments)

    def _schedule(self, action: Callable[..., None], arguments: tuple[Any, ...], *, overtake: bool = False) -> None:
        simulator = self._network.simulator
        arrival_us = simulator.now_us + self._network.latency_us()
        if self._reliable and self._network.weather.client_us_max:
            arrival_us += self._network.rng.randint(0, self._network.weather.client_us_max)
        if overtake:
            arrival_us += self._network.rng.randint(0, 100 * MILLISECOND)
        else:
            arrival_us = self._free_us = max(arrival_us, self._free_us)
        simulator.after(arrival_us - simulator.now_us, self._deliver, self._epoch, action, arguments)

    def _deliver(self, epoch: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if epoch != self._epoch:
            return
        network = self._network
        if not network.blocked(self._source, self._target.machine):
            self._target.arrive(action, *arguments)
        elif self._reliable or network.keeps(self._source, self._target.machine):
            if not self._kept:
                network.stopped(self)
            self._kept.append((action, arguments))


def _strikes(rng: random.Random, chance: float) -> bool:
    return chance > 0 and rng.random() < chance
