"""The character of a seed: how large a cluster, what weather, which faults, which habits.

Each seed draws its own, some calm, some nasty, and the report of a failure prints it.
"""

import random
from dataclasses import dataclass

from coord_core.machine.bounds import RING_RECORDS_MAX
from coord_core.replica import SnapshotConfig
from coord_core.replica.watches import PUSHED_RECORDS_MAX
from coord_core.testing.network import Weather
from coord_core.testing.simulator import MILLISECOND, SECOND
from coord_core.testing.workload import Habits, draw_habits

CALM = Weather()

#: Small ones push out what followers have not read; small windows wait for acknowledgements.
RINGS = (1, 3, 10, RING_RECORDS_MAX)
WINDOWS = (1, 3, PUSHED_RECORDS_MAX)

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
    #: Whether somebody adds, removes and replaces nodes all the while.
    operator: bool = False
    #: Largest Append: small ones split what is sent into many.
    append_bytes_max: int = 1024 * 1024
    #: Whether nodes have room for next to nothing, so that they refuse with Busy.
    cramped: bool = False
    snapshots: SnapshotConfig = RARE_SNAPSHOTS
    #: Items of work between two turns, at most.
    work_items_max: int = 1_000
    #: How much of what happened the machines keep, and how much of it a follower is given before it has acknowledged any.
    ring_records_max: int = RING_RECORDS_MAX
    pushed_records_max: int = PUSHED_RECORDS_MAX

    @property
    def calm(self) -> bool:
        return not self.kinds and self.weather == CALM


KINDS = (
    "crash",
    "crash",
    "crash at a boundary",
    "crash at a boundary",
    "crash of all",
    "blink",
    "stop",
    "leader isolate",
    "isolate",
    "split",
    "bridge",
    "one way",
    "cut",
    "slow disk",
    "failing disk",
    "full disk",
    "damaged disk",
    "transfer",
    "client stop",
    "client kill",
    "client cut",
    "client isolate",
)


def draw_mix(rng: random.Random) -> Mix:
    nodes = rng.choice((3, 3, 5))
    temper = rng.random()
    if temper < 0.1:
        return Mix(
            nodes,
            CALM,
            (),
            SECOND,
            drift_max=0.004,
            tick_skew_max=0.0,
            habits=draw_habits(rng),
            operator=rng.random() < 0.3,
            snapshots=_draw_snapshots(rng),
            ring_records_max=rng.choice(RINGS),
            pushed_records_max=rng.choice(WINDOWS),
        )
    kinds = KINDS if temper < 0.5 else tuple(rng.choices(KINDS, k=rng.randint(1, 4)))
    return Mix(
        nodes,
        _draw_weather(rng),
        kinds,
        every_us=rng.choice((400, 1_000, 2_500)) * MILLISECOND,
        drift_max=rng.choice((0.0, 0.004)),
        tick_skew_max=rng.choice((0.0, 0.05, 0.5)),
        habits=draw_habits(rng),
        operator=rng.random() < 0.3,
        append_bytes_max=rng.choice((100, 1024 * 1024)),
        cramped=rng.random() < 0.2,
        snapshots=_draw_snapshots(rng),
        work_items_max=rng.choice((1, 5, 1_000)),
        ring_records_max=rng.choice(RINGS),
        pushed_records_max=rng.choice(WINDOWS),
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
