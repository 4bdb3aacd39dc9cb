"""What goes wrong in a seed: each draws its own mix, some calm, some nasty, and then a fault every now and then.

A *fault* begins, lasts, and is undone; several may overlap.  Nothing here looks at who is right: the faults are the world's,
the judgement is the checkers'.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from coord_core.replica import SnapshotConfig
from coord_core.testing.client import ClientProcess
from coord_core.testing.disk import STALLED
from coord_core.testing.network import Network, Weather
from coord_core.testing.node import Boundary, Node
from coord_core.testing.process import Process
from coord_core.testing.simulator import MILLISECOND, SECOND, Simulator
from coord_core.testing.workload import Habits, draw_habits

CALM = Weather()

#: As in a real node: in a simulated run there is none.
RARE_SNAPSHOTS = SnapshotConfig()


@dataclass(frozen=True, slots=True)
class Mix:
    """The character of one seed."""

    nodes: int
    weather: Weather
    #: Names of the faults that happen, each as often as it is in here.
    kinds: tuple[str, ...]
    #: Mean time between two faults.
    every_us: int
    #: Largest part by which a process's clock runs fast or slow: two of them together stay within 1%.
    drift_max: float
    #: How far a node's ticks may be from what they should be, in parts.
    tick_skew_max: float
    habits: Habits
    #: Largest Append: small ones split what is sent into many.
    append_bytes_max: int = 1024 * 1024
    #: Whether nodes have room for next to nothing, so that they refuse with Busy.
    cramped: bool = False
    snapshots: SnapshotConfig = RARE_SNAPSHOTS

    @property
    def calm(self) -> bool:
        return not self.kinds and self.weather == CALM


KINDS = (
    "crash",
    "crash",
    "crash at a boundary",
    "crash at a boundary",
    "crash of all",
    "stop",
    "isolate",
    "split",
    "bridge",
    "one way",
    "cut",
    "slow disk",
    "client stop",
    "client kill",
    "client cut",
    "client isolate",
)


def draw_mix(rng: random.Random) -> Mix:
    nodes = rng.choice((3, 3, 5))
    temper = rng.random()
    if temper < 0.1:
        return Mix(nodes, CALM, (), SECOND, drift_max=0.004, tick_skew_max=0.0, habits=draw_habits(rng))
    kinds = KINDS if temper < 0.5 else tuple(rng.choices(KINDS, k=rng.randint(1, 4)))
    return Mix(
        nodes,
        _draw_weather(rng),
        kinds,
        every_us=rng.choice((400, 1_000, 2_500)) * MILLISECOND,
        drift_max=rng.choice((0.0, 0.004)),
        tick_skew_max=rng.choice((0.0, 0.05, 0.5)),
        habits=draw_habits(rng),
        append_bytes_max=rng.choice((100, 1024 * 1024)),
        cramped=rng.random() < 0.2,
        snapshots=_draw_snapshots(rng),
    )


def _draw_snapshots(rng: random.Random) -> SnapshotConfig:
    """Usually they come all the time, in several chunks, and keep little of the log."""
    return SnapshotConfig(
        entries=rng.choice((3, 10, 40, 50_000)),
        trailing_entries=rng.choice((0, 2, 20)),
        trailing_bytes=rng.choice((0, 300, 1 << 20)),
        chunk_bytes=rng.choice((60, 500, 4_000)),
        stage_bytes=rng.choice((1, 1_000)),
        pending_bytes=rng.choice((200, 1 << 20)),
        window_chunks=rng.choice((1, 4)),
        give_up_ticks=rng.choice((40, 12_000)),
    )


def _draw_weather(rng: random.Random) -> Weather:
    choice = rng.random()
    if choice < 0.5:
        return CALM
    if choice < 0.7:
        return Weather(
            latency_us_min=MILLISECOND, latency_us_max=40 * MILLISECOND, client_us_max=rng.choice((0, 400)) * MILLISECOND
        )
    return Weather(
        latency_us_max=rng.choice((2, 30)) * MILLISECOND,
        straggler_chance=0.02,
        straggler_us_max=400 * MILLISECOND,
        drop_chance=rng.choice((0.0, 0.02, 0.15)),
        repeat_chance=rng.choice((0.0, 0.05)),
        overtake_chance=rng.choice((0.0, 0.05, 0.2)),
    )


class Nemesis:
    """Lets faults happen until it is told to end."""

    def __init__(self, simulator: Simulator, network: Network, mix: Mix, nodes: list[Node], clients: list[ClientProcess]) -> None:
        self._simulator = simulator
        self._network = network
        self._mix = mix
        self._nodes = nodes
        self._clients = clients
        self._rng = simulator.stream("faults")
        self._over = False
        self._faults: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "crash at a boundary": self._crash_at_boundary,
            "crash of all": self._crash_all,
            "stop": self._stop,
            "isolate": self._isolate,
            "split": self._split,
            "bridge": self._bridge,
            "one way": self._one_way,
            "cut": self._cut,
            "slow disk": self._slow_disk,
            "client stop": self._client_stop,
            "client kill": self._client_kill,
            "client cut": self._client_cut,
            "client isolate": self._client_isolate,
        }

    def start(self) -> None:
        if self._mix.kinds:
            self._simulator.after(int(self._rng.expovariate(1 / self._mix.every_us)), self._strike)

    def end(self) -> None:
        """Heal everything: all links whole, all processes running, all disks fast."""
        self._over = True
        self._note("heals everything")
        self._network.heal_all()
        for node in self._nodes:
            node.armed = None
            node.disk.speed = node.usual_speed
        processes: list[Process] = [*self._nodes, *self._clients]
        for process in processes:
            if process.up:
                process.resume()
            else:
                process.start()

    def _strike(self) -> None:
        if self._over:
            return
        self._faults[self._rng.choice(self._mix.kinds)]()
        self.start()

    def _note(self, what: str) -> None:
        self._simulator.note("--", what)

    def _undo(self, delay_us: int, action: Callable[..., None], *arguments: object) -> None:
        self._simulator.after(delay_us, self._unless_over, action, arguments)

    def _unless_over(self, action: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if not self._over:
            action(*arguments)

    def _while(self) -> int:
        """How long a fault lasts: usually moments, sometimes several election timeouts or TTLs."""
        return int(self._rng.choice((0.1, 0.5, 2.0, 6.0)) * SECOND * self._rng.uniform(0.2, 1.0))

    def _victim(self) -> Node | None:
        """A node that lives; half of the time the leader, where there is one."""
        living = [node for node in self._nodes if node.up]
        leaders = [node for node in living if node.replica.status().role == "leader"]
        if leaders and self._rng.random() < 0.5:
            return self._rng.choice(leaders)
        return self._rng.choice(living) if living else None

    # --- processes ----------------------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        node = self._victim()
        if node is not None:
            node.kill()
            self._undo(self._while(), self._restart, node)

    def _crash_at_boundary(self) -> None:
        node = self._victim()
        if node is not None:
            node.armed = self._rng.choice(list(Boundary))
            self._undo(self._while(), self._restart, node)

    def _crash_all(self) -> None:
        for node in self._nodes:
            if node.up:
                node.kill()
            self._undo(self._while() // 2, self._restart, node)

    @staticmethod
    def _restart(process: Process) -> None:
        if not process.up:
            process.start()

    def _stop(self) -> None:
        node = self._victim()
        if node is not None and not node.stopped:
            node.stop()
            self._undo(self._while() + 200 * MILLISECOND, node.resume)

    def _slow_disk(self) -> None:
        node = self._victim()
        if node is not None:
            self._note(f"{node.name}'s disk stalls")
            node.disk.speed = STALLED
            self._undo(self._while(), self._fast_disk, node)

    @staticmethod
    def _fast_disk(node: Node) -> None:
        node.disk.speed = node.usual_speed

    # --- partitions ---------------------------------------------------------------------------------------------------------------

    def _isolate(self) -> None:
        node = self._victim()
        if node is not None:
            others = [other.name for other in self._nodes if other is not node]
            clients = [client.name for client in self._clients if self._rng.random() < 0.5]
            self._part([node.name], others + clients)

    def _split(self) -> None:
        names = [node.name for node in self._nodes] + [client.name for client in self._clients]
        self._rng.shuffle(names)
        at = self._rng.randint(1, len(names) - 1)
        self._part(names[:at], names[at:])

    def _bridge(self) -> None:
        """Two halves that reach each other only through one node in the middle."""
        names = [node.name for node in self._nodes]
        self._rng.shuffle(names)
        half = (len(names) - 1) // 2
        self._part(names[1 : 1 + half], names[1 + half :])

    def _one_way(self) -> None:
        node = self._victim()
        if node is not None:
            others = [other.name for other in self._nodes if other is not node]
            self._rng.shuffle(others)
            some = others[: self._rng.randint(1, len(others))]
            one, other = ([node.name], some) if self._rng.random() < 0.5 else (some, [node.name])
            self._part(one, other, both_ways=False)

    def _part(self, one: list[str], other: list[str], *, both_ways: bool = True) -> None:
        keep = self._rng.random() < 0.5
        pairs = [(source, target) for source in one for target in other]
        if both_ways:
            pairs += [(target, source) for source, target in pairs]
        arrow = "|" if both_ways else "-x->"
        self._note(f"{' '.join(one)} {arrow} {' '.join(other)}{' (kept)' if keep else ''}")
        for source, target in pairs:
            self._network.block(source, target, keep=keep)
        self._undo(self._while(), self._heal, pairs)

    def _heal(self, pairs: list[tuple[str, str]]) -> None:
        self._note(f"heals {len(pairs)} directions")
        for source, target in pairs:
            self._network.heal(source, target)

    def _cut(self) -> None:
        one, other = self._rng.sample(self._nodes, 2)
        self._note(f"cuts {one.name} - {other.name}")
        self._network.cut(one.node_id, other.node_id)

    # --- clients ------------------------------------------------------------------------------------------------------------------

    def _client(self) -> ClientProcess | None:
        living = [client for client in self._clients if client.up]
        return self._rng.choice(living) if living else None

    def _client_stop(self) -> None:
        client = self._client()
        if client is not None:
            client.stop()
            self._undo(self._while() + 200 * MILLISECOND, client.resume)

    def _client_kill(self) -> None:
        client = self._client()
        if client is not None:
            client.kill()
            self._undo(self._while(), self._restart, client)

    def _client_cut(self) -> None:
        client = self._client()
        if client is not None:
            client.drop_connection()

    def _client_isolate(self) -> None:
        client = self._client()
        if client is not None:
            self._part([client.name], [node.name for node in self._nodes])
