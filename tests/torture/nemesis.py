"""What goes wrong, drawn from a seed, in three lanes at once: nodes' processes, the network, clients' processes.

A lane has at most one fault at a time, and rests between two.  So there are moments in which a majority is well, in which none is,
and in which several things meet.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.cluster.network import both_ways, one_way
from tests.cluster.nodes import Nodes
from tests.cluster.pausing_node import pause
from tests.torture.workers import Workers


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong now and is undone later."""

    kind: str
    #: For people: who has it.
    where: str
    lasts_s: float
    undo: Callable[[], None]


Draw = Callable[[], Fault]


class Lane:
    """One fault after the other."""

    def __init__(self, rng: random.Random, draws: Sequence[tuple[int, Draw]], rest_s_max: float) -> None:
        self._rng = rng
        self._weights = [weight for weight, _ in draws]
        self._draws = [draw for _, draw in draws]
        self._rest_s_max = rest_s_max
        self._next_s: float | None = None
        self.fault: Fault | None = None

    def step(self, now_s: float) -> str:
        """Begin or end what is due; return a line about it, empty where nothing was."""
        if self._next_s is None:
            self._next_s = now_s + self._rng.uniform(0, self._rest_s_max)
        if now_s < self._next_s:
            return ""
        if self.fault is not None:
            self._next_s = now_s + self._rng.uniform(0.2, self._rest_s_max)
            return self.end()
        self.fault = self._rng.choices(self._draws, self._weights)[0]()
        self._next_s = now_s + self.fault.lasts_s
        return f"{self.fault.kind} {self.fault.where} for {self.fault.lasts_s:.1f} s"

    def end(self) -> str:
        fault, self.fault = self.fault, None
        if fault is None:
            return ""
        fault.undo()
        return f"over: {fault.kind} {fault.where}"


class Nemesis:
    def __init__(self, nodes: Nodes, workers: Workers, seed: int) -> None:
        self._nodes = nodes
        self._workers = workers
        self._rng = random.Random(f"nemesis {seed}")
        self.counts: Counter[str] = Counter()
        #: Nodes that we ended: any other that has ended did so by itself.
        self.killed: set[str] = set()
        rng = self._rng
        nodes_lane: list[tuple[int, Draw]] = [
            (5, self._kill_leader),
            (5, self._kill_some),
            (1, self._kill_all),
            (4, self._stop_leader),
            (4, self._stop_some),
            (4, self._wake_apart),
            (3, self._pause_disk),
        ]
        network_lane: list[tuple[int, Draw]] = [
            (4, self._isolate),
            (3, self._mute),
            (3, self._deafen),
            (3, self._split),
            (2, self._bridge),
            (3, self._lose_link),
            (4, self._clients_apart),
        ]
        clients_lane: list[tuple[int, Draw]] = [(2, self._kill_worker), (3, self._stop_worker)]
        self._lanes = [
            Lane(rng, draws, rest_s_max) for draws, rest_s_max in ((nodes_lane, 5), (network_lane, 5), (clients_lane, 12))
        ]

    def step(self, now_s: float) -> list[str]:
        """Do what is due; return lines about it."""
        said = []
        for lane in self._lanes:
            before = lane.fault
            if line := lane.step(now_s):
                said.append(line)
            if lane.fault is not None and lane.fault is not before:
                self.counts[lane.fault.kind] += 1
        return said

    def end(self) -> None:
        """Heal everything."""
        for lane in self._lanes:
            lane.end()

    # --- nodes --------------------------------------------------------------------------------------------------------------------

    def _kill_leader(self) -> Fault:
        return self._kill("kill leader", [self._leader()])

    def _kill_some(self) -> Fault:
        return self._kill("kill", self._rng.sample(self._nodes.names, self._rng.choice((1, 1, 2))))

    def _kill_all(self) -> Fault:
        return self._kill("kill all", list(self._nodes.names))

    def _kill(self, kind: str, names: list[str]) -> Fault:
        self.killed.update(names)
        self._nodes.kill(*names)

        def start() -> None:
            for name in names:
                self._nodes.start(name)
            self.killed.difference_update(names)

        return Fault(kind, " ".join(names), self._rng.uniform(0, 4), start)

    def _stop_leader(self) -> Fault:
        return self._stop("stop leader", [self._leader()])

    def _stop_some(self) -> Fault:
        return self._stop("stop", self._rng.sample(self._nodes.names, self._rng.choice((1, 1, 2, 3))))

    def _stop(self, kind: str, names: list[str]) -> Fault:
        for name in names:
            self._nodes.signal(name, signal.SIGSTOP)

        def go_on() -> None:
            for name in names:
                self._nodes.signal(name, signal.SIGCONT)

        return Fault(kind, " ".join(names), self._rng.choice((0.2, 1, 3, 6)) * self._rng.uniform(0.5, 1.5), go_on)

    def _wake_apart(self) -> Fault:
        """A leader that wakes up behind a partition: requests are in its sockets, and nobody tells it that it was replaced.

        It sleeps for about as long as its clients wait for it, so that some have gone to its successor and some have not.
        """
        name = self._leader()
        network = self._nodes.network
        links = both_ways([name], self._nodes.rest(name))
        self._nodes.signal(name, signal.SIGSTOP)
        network.block(links)
        time.sleep(self._rng.uniform(1.0, 1.6))
        self._nodes.signal(name, signal.SIGCONT)
        return Fault("wake apart", name, self._rng.uniform(0.5, 3), lambda: network.unblock(links))

    def _pause_disk(self) -> Fault:
        """It stands still with the next write."""
        name = self._node()
        lasts_s = self._rng.choice((0.5, 3))
        pause(self._nodes.data(name), lasts_s)
        return Fault("pause disk", name, lasts_s, lambda: None)

    def _leader(self) -> str:
        return self._nodes.leader() or self._rng.choice(self._nodes.names)

    # --- the network --------------------------------------------------------------------------------------------------------------

    def _isolate(self) -> Fault:
        """From the other nodes; sometimes from the clients too."""
        name = self._node()
        others = [*self._nodes.rest(name), *(self._nodes.clients if self._rng.random() < 0.5 else ())]
        return self._lose("isolate", name, both_ways([name], others))

    def _mute(self) -> Fault:
        name = self._node()
        return self._lose("mute", name, one_way([name], self._nodes.rest(name)))

    def _deafen(self) -> Fault:
        name = self._node()
        return self._lose("deafen", name, one_way(self._nodes.rest(name), [name]))

    def _split(self) -> Fault:
        """Two sides; each client sees one of them, or both."""
        names = list(self._nodes.names)
        self._rng.shuffle(names)
        cut = len(names) // 2
        few, many = names[:cut], names[cut:]
        links = both_ways(few, many)
        for client in self._nodes.clients:
            unseen = self._rng.choice(([], few, many))
            links += both_ways([client], unseen)
        return self._lose("split", f"{' '.join(few)} | {' '.join(many)}", links)

    def _bridge(self) -> Fault:
        """Two sides that only one node sees both of."""
        names = list(self._nodes.names)
        self._rng.shuffle(names)
        bridge, *rest = names
        cut = len(rest) // 2
        return self._lose(
            "bridge", f"{' '.join(rest[:cut])} | {bridge} | {' '.join(rest[cut:])}", both_ways(rest[:cut], rest[cut:])
        )

    def _lose_link(self) -> Fault:
        source, target = self._rng.sample(self._nodes.names, 2)
        return self._lose("lose link", f"{source} -> {target}", [(source, target)])

    def _clients_apart(self) -> Fault:
        """Some clients lose what they send, or what they are told."""
        clients = self._rng.sample(self._nodes.clients, self._rng.randint(1, len(self._nodes.clients)))
        names = [self._leader()] if self._rng.random() < 0.6 else list(self._nodes.names)
        links = self._rng.choice((one_way(clients, names), one_way(names, clients), both_ways(clients, names)))
        return self._lose("clients apart", f"{' '.join(clients)} from {' '.join(names)}", links)

    def _lose(self, kind: str, where: str, links: list[tuple[str, str]]) -> Fault:
        network = self._nodes.network
        network.block(links)
        return Fault(kind, where, self._rng.choice((0.5, 2, 5)) * self._rng.uniform(0.5, 1.5), lambda: network.unblock(links))

    def _node(self) -> str:
        return self._leader() if self._rng.random() < 0.5 else self._rng.choice(self._nodes.names)

    # --- clients ------------------------------------------------------------------------------------------------------------------

    def _kill_worker(self) -> Fault:
        """It comes back as somebody else; what it held is free when its sessions have expired."""
        host = self._rng.choice(self._workers.hosts)
        self._workers.kill(host)
        return Fault("kill clients", host, self._rng.uniform(0, 4), lambda: self._workers.start(host))

    def _stop_worker(self) -> Fault:
        """For less than a lease, or for more."""
        host = self._rng.choice(self._workers.hosts)
        self._workers.signal(host, signal.SIGSTOP)
        lasts_s = self._workers.ttl_s * self._rng.uniform(0.3, 2.5)
        return Fault("stop clients", host, lasts_s, lambda: self._workers.signal(host, signal.SIGCONT))
