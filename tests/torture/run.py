"""One run from beginning to end: trouble, healing, liveness, agreement, verdicts."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coord_core import AsyncClient
from coord_core.errors import CoordError
from tests.cluster import pausing_node
from tests.cluster.nodes import Nodes
from tests.torture.actor import COUNTERS
from tests.torture.disks import judge_disks
from tests.torture.judge import Evidence, Verdicts, judge_evidence
from tests.torture.nemesis import Nemesis
from tests.torture.records import Called, Recorder, now_ns, read
from tests.torture.workers import Workers

TTL_S = 3.0
#: Operations of one key, at most: what can be judged.
OPERATIONS_MAX = 1_000
#: How long every client may take, after everything is healed, to have done its work once.
LIVENESS_S = 60.0
TURN_S = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for."""

    seconds: float
    seed: int
    nodes: int = 5
    clients: int = 20
    #: Processes, each on a host of its own, between which the clients are divided.
    processes: int = 5
    network: str = "auto"


@dataclass
class Outcome:
    plan: Plan
    directory: Path
    network: str = ""
    violations: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    #: When each fault began and was over, in words.
    events: list[tuple[int, str]] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    verdicts: Verdicts = field(default_factory=Verdicts)
    #: When trouble began and when everything was healed.
    began_ns: int = 0
    healed_ns: int = 0
    #: Until every client had proved that it can work.
    recovery_s: float = 0.0
    level: int = 0


Say = Callable[[str], None]


def run(plan: Plan, directory: Path, say: Say) -> Outcome:
    """Torture a cluster in `directory`, where everything that was written down stays.  `say` gets a line about what happens."""
    outcome = Outcome(plan, directory)
    rng = random.Random(f"torture {plan.seed}")
    (directory / "nodes").mkdir(parents=True)
    (directory / "clients").mkdir()
    # Often enough that nodes which were away need them; and sometimes a window that is long enough for the log to tell everything.
    flags = ["--snapshots.entries", "3000", "--snapshots.trailing-entries", str(rng.choice((300, 3_000, 30_000)))]
    hosts = [f"c{number}" for number in range(1, plan.processes + 1)]
    with Nodes(plan.nodes, directory / "nodes", clients=hosts, flags=flags, network=plan.network) as nodes:
        outcome.network = nodes.network.kind
        nodes.commands = dict.fromkeys(nodes.names, pausing_node.COMMAND)
        say(f"{plan.nodes} nodes, {plan.clients} clients in {plan.processes} processes; {outcome.network}; {directory}")
        _Run(outcome, nodes, say).carry_out()
    return outcome


class _Run:
    def __init__(self, outcome: Outcome, nodes: Nodes, say: Say) -> None:
        plan = outcome.plan
        self._outcome = outcome
        self._nodes = nodes
        self._say = say
        self._workers = Workers(
            nodes,
            outcome.directory / "clients",
            plan.clients // plan.processes,
            plan.seed,
            ttl_s=TTL_S,
            share=OPERATIONS_MAX // plan.clients,
        )
        self._nemesis = Nemesis(nodes, self._workers, plan.seed)

    def carry_out(self) -> None:
        outcome = self._outcome
        self._nodes.start_all()
        for host in self._workers.hosts:
            self._workers.start(host)
        outcome.began_ns = now_ns()
        self._trouble()
        self._heal()
        if not outcome.violations:
            self._agree()
        outcome.faults = dict(self._nemesis.counts)
        self._say("judging")
        outcome.evidence = Evidence.of(self._workers.directory)
        outcome.verdicts = judge_evidence(outcome.evidence)
        outcome.violations += outcome.verdicts.violations
        if outcome.level:
            directories = [self._nodes.data(name) for name in self._nodes.names]
            outcome.violations += judge_disks(directories, outcome.level, outcome.evidence.operations)

    def _trouble(self) -> None:
        """Faults, until the time is over or something ends that nobody ended."""
        began = time.monotonic()
        while (now := time.monotonic() - began) < self._outcome.plan.seconds and not self._outcome.violations:
            for line in self._nemesis.step(now):
                self._outcome.events.append((now_ns(), line))
                self._say(f"{now:6.1f} s  {self._workers.lines():7d} operations  {line}")
            self._outcome.violations += self._died()
            time.sleep(TURN_S)

    def _died(self) -> list[str]:
        """Return who has ended by itself."""
        nodes = [name for name in self._nodes.names if name not in self._nemesis.killed and not self._nodes.is_up(name)]
        said = {name: (self._nodes.log(name).splitlines() or [""])[-1] for name in nodes}
        return [f"node {name} has ended by itself: {line}" for name, line in said.items()] + [
            f"the clients of {host} ended with an error: {self._workers.directory / f'{host}.log'}"
            for host in self._workers.failed()
        ]

    def _heal(self) -> None:
        """Everything is healed; then every client must get its work done."""
        self._nemesis.end()
        self._outcome.healed_ns = now_ns()
        self._say("healed: every client must do its work")
        began = time.monotonic()
        late = self._workers.finish(LIVENESS_S)
        self._outcome.recovery_s = time.monotonic() - began
        for host in late:
            self._outcome.violations.append(
                f"the clients of {host} had not done their work {LIVENESS_S:g} s after everything was healed"
            )
        self._outcome.violations += self._died()

    def _agree(self) -> None:
        """All nodes catch up; every value is read once more; the nodes stop in good order."""
        try:
            self._outcome.level = self._nodes.wait_level()
        except AssertionError as error:
            self._outcome.violations.append(f"after everything was healed: {error}: {self._nodes.status()}")
            return
        keys = _values_of(self._workers.directory)
        self._nodes.watch(lambda: asyncio.run(_read_all(self._nodes.url(), keys, self._workers.directory / "end.jsonl")))
        for name in self._nodes.names:
            self._nodes.signal(name, signal.SIGTERM)
        codes = {name: self._nodes.wait_ended(name) for name in self._nodes.names}
        self._outcome.violations += [
            f"node {name} ended with exit code {code} when told to stop" for name, code in codes.items() if code
        ]


def _values_of(directory: Path) -> Sequence[str]:
    keys = {one.key for path in directory.glob("*.jsonl") for one in read(path) if isinstance(one, Called)}
    return sorted({key for key in keys if not key.startswith("/locks")} | set(COUNTERS))


async def _read_all(url: str, keys: Sequence[str], path: Path) -> None:
    """What anybody can read now goes into the history: an acknowledged write that was lost is missed here."""
    recorder = Recorder(path)
    async with AsyncClient(url, label="end") as client:
        for key in keys:
            number = recorder.call("end", key, "get")
            try:
                found = await client.value(key).get()
            except CoordError as error:
                recorder.returned(number, "denied", value=error.code)
            else:
                version, value = (0, b"") if found is None else found
                recorder.returned(number, "seen", version=version, value=value.decode())
