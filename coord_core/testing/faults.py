"""What goes wrong in a seed: of the faults of its mix, one every now and then.

A *fault* begins, lasts, and is undone; several may overlap.  Nothing here looks at who is right: the faults are the world's, the
judgement is the checkers'.
"""

from collections.abc import Callable, Mapping, Sequence

from coord_core.testing.client import ClientProcess
from coord_core.testing.disk import STALLED
from coord_core.testing.mix import Mix
from coord_core.testing.network import Network
from coord_core.testing.node import Boundary, Node
from coord_core.testing.process import Process
from coord_core.testing.simulator import MILLISECOND, SECOND, Simulator
from coord_core.types import NodeId

#: Where nodes crash that are back at once: around what others wait for.
BRIEF = (
    Boundary.AFTER_TURN,
    Boundary.BETWEEN_SENDS,
    Boundary.WRITE_BEGUN,
    Boundary.WRITTEN,
    Boundary.ACKNOWLEDGED,
)


class Nemesis:
    """Lets faults happen until it is told to end."""

    def __init__(
        self,
        simulator: Simulator,
        network: Network,
        mix: Mix,
        nodes: Mapping[NodeId, Node],
        clients: list[ClientProcess],
        may_lose: Callable[[Node], bool],
    ) -> None:
        self._simulator = simulator
        self._network = network
        self._mix = mix
        self._all_nodes = nodes
        self._may_lose = may_lose
        self._clients = clients
        self._rng = simulator.stream("faults")
        self._over = False
        self._faults: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "crash at a boundary": self._crash_at_boundary,
            "crash of all": self._crash_all,
            "blink": self._blink,
            "stop": self._stop,
            "leader isolate": self._leader_isolate,
            "isolate": self._isolate,
            "split": self._split,
            "bridge": self._bridge,
            "one way": self._one_way,
            "cut": self._cut,
            "slow disk": self._slow_disk,
            "failing disk": self._failing_disk,
            "full disk": self._full_disk,
            "damaged disk": self._damaged_disk,
            "transfer": self._transfer,
            "client stop": self._client_stop,
            "client kill": self._client_kill,
            "client cut": self._client_cut,
            "client isolate": self._client_isolate,
        }

    @property
    def _nodes(self) -> list[Node]:
        return [node for node in self._all_nodes.values() if not node.removed]

    def start(self) -> None:
        if self._mix.kinds:
            self._simulator.after(int(self._rng.expovariate(1 / self._mix.every_us)), self._strike)

    def end(self) -> None:
        """Let no more happen, and heal a quorum and all clients: sometimes a minority stays dead, deaf, or cut off."""
        self._over = True
        self._network.heal_all()
        self._revive(self._clients)
        lost, sound = self._sorted_out()
        # Where nodes come and go, what is a minority now may be a majority soon.
        most = 0 if self._mix.calm or self._mix.operator else self._minority() - len(lost)
        minority = self._rng.sample(sound, self._rng.randint(0, most))
        self._revive([node for node in sound if node not in minority])
        for node in minority:
            self._leave(node, self._rng.choice(("dead", "deaf", "cut off", "half cut off")))
        for node in lost:
            self._leave(node, "dead")
        self._note(f"heals everything but {' '.join(node.name for node in minority + lost) or 'nothing'}")

    def heal_minority(self) -> None:
        """Now everything is whole."""
        self._note("heals the rest")
        self._network.heal_all()
        self._revive(self._sorted_out()[1])

    def _sorted_out(self) -> tuple[list[Node], list[Node]]:
        """Return the nodes that are lost for good, and the others."""
        return [node for node in self._nodes if node.lost], [node for node in self._nodes if not node.lost]

    def _minority(self) -> int:
        return (len(self._nodes) - 1) // 2

    def _revive(self, processes: Sequence[Process]) -> None:
        for process in processes:
            if isinstance(process, Node):
                process.armed = process.back_us = None
                process.disk.mend(process.usual_speed)
            if process.up:
                process.resume()
            else:
                process.start()

    def _leave(self, node: Node, how: str) -> None:
        self._note(f"leaves {node.name} {how}")
        if how == "dead":
            if node.up:
                node.kill()
            return
        self._revive([node])
        others = [other for other in self._nodes if other is not node]
        leader = self._leader()
        if how == "half cut off":
            others = [self._rng.choice(others) if leader in (None, node) else leader]
        for other in others:
            self._network.block(other.name, node.name, keep=False)
            if how != "deaf":
                self._network.block(node.name, other.name, keep=False)

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
        leader = self._leader()
        if leader is not None and self._rng.random() < 0.5:
            return leader
        return self._rng.choice(living) if living else None

    def _leader(self) -> Node | None:
        """A node that lives and believes that it leads."""
        leaders = [node for node in self._nodes if node.up and node.replica.status().role == "leader"]
        return self._rng.choice(leaders) if leaders else None

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

    def _blink(self) -> None:
        """A crash at a boundary, and a restart before anybody has noticed."""
        node = self._victim()
        if node is not None:
            node.armed = self._rng.choice(BRIEF)
            node.back_us = self._rng.randint(1, 30 * MILLISECOND)

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

    def _failing_disk(self) -> None:
        """EIO on commit: the node must stop, and finds when it starts again what has become of the write."""
        node = self._victim()
        if node is not None:
            self._note(f"{node.name}'s disk will fail a write")
            node.disk.failing = True
            self._undo(self._while(), self._restart, node)

    def _full_disk(self) -> None:
        """Until somebody makes room, however often the node is started."""
        node = self._victim()
        if node is not None:
            node.disk.room = self._rng.choice((0, 500, 5_000))
            self._note(f"{node.name}'s disk has room for {node.disk.room} bytes")
            self._undo(self._while(), self._make_room, node)

    def _make_room(self, node: Node) -> None:
        self._note(f"{node.name}'s disk has room again")
        node.disk.room = None
        self._restart(node)

    def _damaged_disk(self) -> None:
        """Found at the next start, or by reading it before: the node is lost, of which a cluster survives a minority."""
        node = self._rng.choice(self._sorted_out()[1])
        if self._may_lose(node):
            what = self._rng.choice(("a bit has flipped", "the end of the write-ahead log is gone"))
            self._note(f"{node.name}'s disk is damaged: {what}")
            node.disk.spoil(what)
            # An operator is not to find it alive who is about to lose it.
            if node.up and (self._mix.operator or self._rng.random() < 0.7):
                node.kill()
            self._undo(self._while(), self._restart, node)

    # --- operations ---------------------------------------------------------------------------------------------------------------

    def _transfer(self) -> None:
        """Whoever leads is told to hand over to somebody, who may be dead, deaf or far behind."""
        node = self._leader()
        if node is not None:
            others = [other for other in self._nodes if other is not node]
            if not others:
                return
            to = self._rng.choice(others)
            self._note(f"tells {node.name} to hand over to {to.name}")
            node.arrive(node.transfer_leadership, to.node_id)

    # --- partitions ---------------------------------------------------------------------------------------------------------------

    def _isolate(self) -> None:
        node = self._victim()
        if node is not None:
            others = [other.name for other in self._nodes if other is not node]
            clients = [client.name for client in self._clients if self._rng.random() < 0.5]
            self._part([node.name], others + clients)

    def _leader_isolate(self) -> None:
        """Only its clients still reach it, and do not know better."""
        node = self._leader()
        if node is not None:
            self._part([node.name], [other.name for other in self._nodes if other is not node])

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
        if len(self._nodes) < 2:
            return
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
