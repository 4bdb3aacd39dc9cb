"""One seed from beginning to end: trouble, healing, liveness, verdicts.

report = run(7)     # raises `Failure`: what was broken, the last events, and the command that shows it again
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from coord_core.client.session import Outcome
from coord_core.errors import CoordError
from coord_core.machine.invariants import check
from coord_core.protocol.elections import ElectionInfo, ElectionState
from coord_core.protocol.groups import GroupInfo, GroupState
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner, ValueSet
from coord_core.protocol.queries import LockInfo, LockState
from coord_core.protocol.results import Done, Granted, ValueWritten
from coord_core.protocol.semaphores import SemaphoreInfo, SemaphoreState
from coord_core.testing.callers import CALLED
from coord_core.testing.client import ClientProcess
from coord_core.testing.cluster import Cluster, Disks
from coord_core.testing.disk import SimulatedDisk
from coord_core.testing.drills import DRILLS, draw
from coord_core.testing.faults import Nemesis
from coord_core.testing.history import Observed
from coord_core.testing.linearizability import Judgement, Verdict, judge
from coord_core.testing.mix import CALM, Mix
from coord_core.testing.models import LockModel, RegisterModel
from coord_core.testing.simulator import MILLISECOND, SECOND, Simulator, Violation
from coord_core.testing.workload import CLOSING_LOCKS, ELECTIONS, GROUPS, LOCKS, RELAYS, SEMAPHORES

#: How long faults happen, in virtual time.
TROUBLE_US = 20 * SECOND

#: After everything is healed a leader must be ready within this many of the longest election timeouts.
ELECTIONS_MAX = 10


#: How long the nodes then have to catch up with each other.
SETTLING_US = 15 * SECOND

#: What nobody holds, leads or belongs to.
_FREE = (LockState(None, (), 0), ElectionState(None, (), 0), GroupState(()))


class Failure(AssertionError):
    """A seed in which something was broken."""

    def __init__(self, seed: int, mix: Mix, cause: BaseException, tail: list[str], drill: str = "") -> None:
        replay = f"replay: make sim SEED={seed}" + (f' MIX="{drill}"' if drill else "")
        lines = [*tail, "", f"seed {seed}: {type(cause).__name__}: {cause}", f"mix: {mix}", replay]
        super().__init__("\n".join(lines))
        self.seed = seed
        self.cause = cause

    def __reduce__(self) -> tuple[Callable[..., "Failure"], tuple[object, ...]]:
        return _revive, (self.seed, str(self))


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in a seed in which nothing was broken."""

    seed: int
    mix: Mix
    #: Equal for equal runs.
    digest: str
    events: int
    virtual_s: float
    #: Entries committed, leaders elected, operations judged, sessions expired.
    entries: int
    leaders: int
    operations: int
    expired: int
    #: Snapshots that nodes took of their own, and that took the place of a follower's log.
    taken: int
    installed: int
    #: Changes of the cluster that an operator asked for.
    changes: int
    #: Keys whose search for an order was given up.
    undecided: int
    #: What clients were handed of streams: "record", "state", "resync"; and what became of announcements (`AnnouncementChecks`).
    streams: dict[str, int]
    #: What happened to semaphores, limiters and locks that close, by what it was (`ClaimChecks`).
    claims: dict[str, int]
    #: Messages of topics: acknowledged, fetched, and found on the nodes at the end.
    messages: dict[str, int] = field(default_factory=dict)
    #: What happened to pieces of work, by what it was (`ParkingChecks`).
    parking: dict[str, int] = field(default_factory=dict)
    #: What happened to detached sessions, by what it was (`RelayChecks`).
    relays: dict[str, int] = field(default_factory=dict)
    #: What became of calls of members (`CallBooks`).
    calls: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds = ", ".join(sorted(set(self.mix.kinds))) or "calm"
        return (
            f"seed {self.seed}: {self.mix.nodes} nodes, {self.virtual_s:.0f} s, {self.entries} entries, {self.leaders} leaders,"
            f" {self.operations} operations, {self.expired} expired, {self.taken} snapshots, {self.installed} installed,"
            f" {self.changes} changes of members, {self.streams.get('record', 0)} records, {self.streams.get('resync', 0)} resyncs,"
            f" {self.streams.get('waited', 0)} announcements that waited, {self.claims.get('permits', 0)} grants of permits,"
            f" {self.claims.get('delay', 0)} delays, {self.claims.get('broken', 0)} locks broken ({kinds})"
        )


def run(seed: int, *, mix: Mix | None = None, echo: Callable[[str], None] | None = None, disks: Disks = SimulatedDisk) -> Report:
    """Run a seed.

    Args:
        mix: instead of the one that the seed draws.
        echo: gets each line of the trace as it happens.
        disks: makes the nodes' disks.

    Raises `Failure`.
    """
    simulator = Simulator(seed, echo=echo)
    drawn = draw(simulator.stream("mix"))
    drill = "" if mix in (None, drawn) else next((name for name, known in DRILLS.items() if known == mix), "")
    mix = mix or drawn
    try:
        return _Run(simulator, mix, disks).report()
    except Exception as cause:
        raise Failure(seed, mix, cause, simulator.trace.tail(), drill) from cause


class _Run:
    def __init__(self, simulator: Simulator, mix: Mix, disks: Disks) -> None:
        self._simulator = simulator
        self._mix = mix
        self._cluster = Cluster(simulator, mix, disks)
        self._undecided = 0
        #: Who led, and in which term, when everything had come to rest.
        self._settled: tuple[str, int] | None = None

    def report(self) -> Report:
        self._trouble()
        self._heal()
        self._settle()
        self._wind_up()
        self._everyone_works()
        self._everyone_knows()
        self._nothing_is_held()
        self._still_led()
        self._nemesis.heal_minority()
        self._nodes_agree()
        self._judge_histories()
        watchers, books = self._cluster.watchers, self._cluster.books
        return Report(
            seed=self._simulator.seed,
            mix=self._mix,
            digest=self._simulator.trace.digest(),
            events=self._simulator.trace.length,
            virtual_s=self._simulator.now_us / SECOND,
            entries=len(watchers.consensus.committed),
            leaders=len(watchers.consensus.leaders),
            operations=len(books.registers) + len(books.locks),
            expired=len(watchers.leases.expired),
            taken=watchers.snapshots["SnapshotTaken"],
            installed=watchers.snapshots["SnapshotInstalled"],
            changes=0 if self._cluster.operator is None else sum(self._cluster.operator.done.values()),
            undecided=self._undecided,
            streams=dict(watchers.streams.handed + watchers.announcements.outcomes),
            claims=dict(watchers.claims.seen),
            messages=books.records.counts,
            parking=dict(books.parking.seen),
            relays=watchers.relays.seen,
            calls=self._cluster.calls.seen,
        )

    # --- phases -------------------------------------------------------------------------------------------------------------------

    def _trouble(self) -> None:
        cluster = self._cluster
        cluster.start()
        self._nemesis = Nemesis(self._simulator, cluster.network, self._mix, cluster.nodes, cluster.keepers(), cluster.may_lose)
        self._nemesis.start()
        self._simulator.run_until(TROUBLE_US)

    def _heal(self) -> None:
        """Heal everything; a leader must come."""
        cluster = self._cluster
        cluster.books.winding_up = True
        self._nemesis.end()
        if cluster.operator is not None:
            cluster.operator.end()
        cluster.network.weather = CALM
        # What a stalled disk had begun takes its time.
        self._simulator.run_until(self._in(11 * SECOND), lambda: not any(node.disk.busy for node in cluster.nodes.values()))
        self._demand(ELECTIONS_MAX * self._election_timeout_us(), self._is_led, lambda: "no leader is ready")

    def _settle(self) -> None:
        """What was asked of the cluster is done; who was on the way to become leader may become it now."""
        operator = self._cluster.operator
        if operator is not None:
            self._demand(SETTLING_US, lambda: not operator.busy(), operator.busy)
        self._simulator.run_until(self._in(2 * self._election_timeout_us()))
        # Who led when everything was healed may have been deaf.
        self._demand(ELECTIONS_MAX * self._election_timeout_us(), self._is_led, lambda: "no leader is ready")
        leader = self._cluster.leader()
        self._settled = None if leader is None else (leader.name, leader.replica.status().term)

    def _still_led(self) -> None:
        """A whole quorum that hears its leader keeps it: whoever is cut off from some of them deposes nobody."""
        leader = self._cluster.leader()
        now = None if leader is None else (leader.name, leader.replica.status().term)
        if self._settled is None or self._settled != now:
            raise Violation(f"the leader was {self._settled} and is {now}, though a quorum was whole all the time")

    def _election_timeout_us(self) -> int:
        """Return the longest: twice the least, with ticks that are half as long again."""
        return 2 * 6 * self._cluster.tick_ms * MILLISECOND * 3 // 2

    def _wind_up(self) -> None:
        """Every call must be answered, every lock given back."""
        for relay in self._cluster.relays:
            relay.wind_up()
        for family in self._cluster.families:
            family.wind_up()
        # The dead hold their locks for a TTL, the unlucky wait out their requests.
        limit_us = (2 * self._cluster.ttl_ms + 12_000) * MILLISECOND
        self._demand(limit_us, lambda: not self._unfinished(), lambda: "; ".join(self._unfinished()))

    def _everyone_works(self) -> None:
        """Every client that lives can write, lock and unlock."""
        proofs = [_Proof(process) for process in self._cluster.keepers()]
        for proof in proofs:
            proof.begin()
        self._demand(
            (self._cluster.ttl_ms + 6_000) * MILLISECOND,
            lambda: all(proof.done for proof in proofs),
            lambda: "; ".join(f"{proof.process.name}: {proof.stage}" for proof in proofs if not proof.done),
        )

    def _everyone_knows(self) -> None:
        """Whoever watches has been told everything, or that it is told no more."""
        behind = self._cluster.watchers.streams.behind
        self._demand((self._cluster.ttl_ms + 6_000) * MILLISECOND, lambda: not behind(), lambda: "; ".join(behind()))

    def _nothing_is_held(self) -> None:
        """Who lives has given everything back; who died has expired."""
        limit_us = (2 * self._cluster.ttl_ms + 1_000) * MILLISECOND
        self._demand(limit_us, lambda: not self._held(), lambda: "; ".join(self._held()))

    def _nodes_agree(self) -> None:
        """Everybody catches up, and all states are one.  Who does not belong any more knows it."""
        self._demand(SETTLING_US, lambda: not self._behind(), lambda: "; ".join(self._behind()))
        if self._cluster.operator is not None:
            strangers = self._cluster.strangers
            self._demand(SETTLING_US, lambda: not strangers(), lambda: f"{strangers()[0].name} was removed and does not know it")
        digests = {node.replica.machine.digest() for node in self._cluster.sound_nodes()}
        if len(digests) > 1:
            raise Violation("all nodes have applied the same entries, and their states differ")
        for node in self._cluster.sound_nodes():
            check(node.replica.machine)
        self._cluster.books.records.judge(self._cluster.sound_nodes())

    def _behind(self) -> list[str]:
        """Return who has not applied all that is committed."""
        leader = self._cluster.leader()
        if leader is None:
            return ["no leader is ready"]
        commit_index = leader.replica.status().commit_index
        applied = [(node.name, node.replica.status().applied_index) for node in self._cluster.sound_nodes()]
        return [f"{name} has applied {index} of {commit_index}" for name, index in applied if index != commit_index]

    def _held(self) -> list[str]:
        leader = self._cluster.leader()
        if leader is None:
            return ["no leader is ready"]
        query = leader.replica.machine.query
        states = [
            *((path, query(LockInfo(path))) for path in (*LOCKS, *CLOSING_LOCKS, *RELAYS)),
            *((path, query(ElectionInfo(path))) for path in ELECTIONS),
            *((path, query(GroupInfo(path))) for path in (*GROUPS, CALLED)),
        ]
        held = [f"{path} is held: {state}" for path, state in states if state not in _FREE]
        for path in SEMAPHORES:
            permits = query(SemaphoreInfo(path))
            if not isinstance(permits, SemaphoreState) or permits.holders or permits.waiters:
                held.append(f"{path} is held: {permits}")
        return held + self._cluster.watchers.streams.forgotten()

    def _in(self, delay_us: int) -> int:
        return self._simulator.now_us + delay_us

    def _demand(self, limit_us: int, holds: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        if not self._simulator.run_until(self._in(limit_us), holds):
            raise Violation(f"{limit_us / SECOND:.1f} s after everything was healed: {otherwise()}")

    def _is_led(self) -> bool:
        return self._cluster.leader() is not None

    def _unfinished(self) -> list[str]:
        return [line for family in self._cluster.families for line in family.busy()]

    # --- verdicts -----------------------------------------------------------------------------------------------------------------

    def _judge_histories(self) -> None:
        cluster, books = self._cluster, self._cluster.books
        for name in books.denied:
            if name in cluster.watchers.applied.effects:
                at = cluster.watchers.applied.effects[name]
                raise Violation(f"{name!r} took effect at {at}; its client was told that it was not applied")
        self._judge_order()
        books.parking.judge()
        # Those who pass work on are killed and stopped by each other.
        if self._mix.calm and not cluster.relays and cluster.watchers.leases.expired:
            raise Violation(f"sessions {cluster.watchers.leases.expired} expired, though nothing went wrong")
        for key, values in books.registers.by_key():
            registers = RegisterModel(values)
            self._accept(key, judge(registers, registers.known_effects(values)))
        for key, claims in books.locks.by_key():
            locks = LockModel(claims)
            self._accept(key, judge(locks, locks.known_effects(claims)))

    def _judge_order(self) -> None:
        """What one worker wrote took effect in the order in which it was called, also what it had given up on."""
        effects = self._cluster.watchers.applied.effects
        for names in self._cluster.books.sequences:
            indexes = [effects[name] for name in names if name in effects]
            if indexes != sorted(indexes):
                raise Violation(f"writes of one worker took effect out of order: {[(name, effects.get(name)) for name in names]}")

    def _accept(self, key: str, judgement: Judgement) -> None:
        if judgement.verdict is Verdict.UNDECIDED:
            self._undecided += 1
        elif judgement.verdict is Verdict.NOT_LINEARIZABLE:
            raise Violation(f"the history of {key} is not linearizable: {_explained(judgement)}")


def _explained(judgement: Judgement) -> str:
    last: list[Observed[object, object]] = list(judgement.longest[-8:])
    fits = "\n  ".join(str(operation) for operation in last)
    stuck = "\n  ".join(str(operation) for operation in judgement.stuck)
    return f"after\n  {fits}\nnone of these fits:\n  {stuck}"


class _Proof:
    """That a client can do its work: write a value, take a lock, give it back."""

    def __init__(self, process: ClientProcess) -> None:
        self.process = process
        self.stage = "write a value"
        self.done = False
        self._tries = 0
        self._path = f"/proof/{process.name}"

    def begin(self) -> None:
        self.process.arrive(self._write)

    def _again(self, outcome: Outcome) -> None:
        """A session that turns out to be lost fails what was asked of it; the next call has a new one."""
        self.stage = f"begin anew after {outcome}"
        self.process.later(50 * MILLISECOND, self._write)

    def _write(self) -> None:
        self._tries += 1
        try:
            self.process.call(ValueSet(f"{self._path}/value", f"{self._path}/{self._tries}".encode()), self._written)
        except CoordError as error:
            self._again(error)

    def _written(self, outcome: Outcome) -> None:
        if not isinstance(outcome, ValueWritten):
            self._again(outcome)
            return
        self.stage = "take a lock"
        self.process.call(
            LockAcquire(f"{self._path}/lock", None, Owner(self.process.name, 1, f"{self._path}/{self._tries}")), self._locked
        )

    def _locked(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Granted):
            self._again(outcome)
            return
        self.stage = "give the lock back"
        self.process.call(LockRelease(f"{self._path}/lock", outcome.token), self._released)

    def _released(self, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            self.done = True
        else:
            self._again(outcome)


def _revive(seed: int, text: str) -> Failure:
    failure = Failure.__new__(Failure)
    AssertionError.__init__(failure, text)
    failure.seed = seed
    failure.cause = Violation(text)
    return failure
