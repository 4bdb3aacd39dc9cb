"""Mixes made for one kind of trouble, each with bugs in mind that an arbitrary mix meets too rarely.

    python -m coord_core.testing --mix elections --seeds 20

Of the seeds of an ordinary run every fifth draws one of these; the mutation gate names the one that catches a bug.
"""

import random
from dataclasses import replace

from coord_core.replica import SnapshotConfig
from coord_core.testing.mix import CALM, Mix, draw_mix
from coord_core.testing.network import Weather
from coord_core.testing.simulator import MILLISECOND
from coord_core.testing.workload import Habits

LOSSY = Weather(
    latency_us_max=30 * MILLISECOND,
    straggler_chance=0.02,
    straggler_us_max=400 * MILLISECOND,
    drop_chance=0.1,
    repeat_chance=0.05,
    overtake_chance=0.1,
)

CRASHES = Mix(
    nodes=5,
    weather=LOSSY,
    kinds=("crash", "crash at a boundary", "crash of all"),
    every_us=300 * MILLISECOND,
    drift_max=0.004,
    tick_skew_max=0.5,
    habits=Habits(),
)
#: With an entry an Append, old entries and the new leader's first are acknowledged apart.
SMALL_APPENDS = replace(CRASHES, every_us=500 * MILLISECOND, append_bytes_max=50)

#: Everybody wants the one lock, and holds it for long.
FIGHT = Habits(think_us_max=100 * MILLISECOND, hold_us_max=1_500 * MILLISECOND, locks=0.9, cancels=0.0, paths=1, ttl_ms=1_000)
PARTITIONS = Mix(
    nodes=3,
    weather=CALM,
    kinds=("isolate", "stop", "split", "client isolate"),
    every_us=400 * MILLISECOND,
    drift_max=0.004,
    tick_skew_max=0.05,
    habits=FIGHT,
)
CUTS = replace(PARTITIONS, kinds=("client cut", "client isolate", "client stop"), every_us=300 * MILLISECOND, habits=Habits())
FAR = replace(
    PARTITIONS,
    weather=Weather(client_us_max=300 * MILLISECOND),
    kinds=("client isolate",),
    every_us=1_000 * MILLISECOND,
    drift_max=0.0,
    habits=replace(
        FIGHT, think_us_max=50 * MILLISECOND, hold_us_max=8_000 * MILLISECOND, locks=1.0, ttl_ms=2_000, participants=0, claimants=0
    ),
)
#: A stopped leader answers what waited for it, while those who were cut off have found its successor.
READS = replace(
    PARTITIONS,
    kinds=("stop", "client cut"),
    every_us=200 * MILLISECOND,
    habits=Habits(think_us_max=30 * MILLISECOND, locks=0.05, paths=1, ttl_ms=4_000, participants=0, claimants=0),
)
SECOND_THOUGHTS = replace(
    CUTS,
    weather=Weather(client_us_max=150 * MILLISECOND),
    kinds=("client cut",),
    every_us=1_000 * MILLISECOND,
    habits=Habits(think_us_max=100 * MILLISECOND, hold_us_max=300 * MILLISECOND, locks=1.0, cancels=0.8, ttl_ms=4_000),
)

#: A snapshot every few entries in many chunks, next to nothing of the log before it, and crashes at every boundary.
SNAPSHOTS = replace(
    CRASHES,
    nodes=3,
    weather=CALM,
    kinds=("crash", "crash at a boundary", "isolate"),
    habits=replace(FIGHT, hold_us_max=300 * MILLISECOND, locks=0.6, paths=3, ttl_ms=2_000),
    work_items_max=1,
    snapshots=SnapshotConfig(entries=10, trailing_entries=3, chunk_bytes=60, stage_bytes=1, pending_bytes=200),
)

#: Candidates meet in one term, ask twice, and a voter is back before the second question comes.
ELECTIONS = replace(
    CRASHES,
    weather=replace(LOSSY, latency_us_max=60 * MILLISECOND, drop_chance=0.05, repeat_chance=0.5, overtake_chance=0.3),
    kinds=("blink", "blink", "blink", "crash of all", "leader isolate", "transfer"),
    every_us=80 * MILLISECOND,
    tick_skew_max=0.0,
    habits=Habits(think_us_max=1_000 * MILLISECOND, participants=0),
)
#: A leader in a minority goes on taking commands, and comes back with them to a successor who says it in many small Appends.
DIVIDED = replace(
    CRASHES,
    nodes=3,
    weather=replace(LOSSY, latency_us_max=10 * MILLISECOND),
    kinds=("leader isolate", "leader isolate", "one way", "split"),
    every_us=400 * MILLISECOND,
    tick_skew_max=0.05,
    append_bytes_max=200,
    habits=Habits(think_us_max=100 * MILLISECOND, locks=0.1),
)
#: Nodes come, go and are replaced, under everything that makes them forget who belongs.
MEMBERSHIP = replace(
    CRASHES,
    nodes=3,
    weather=CALM,
    kinds=("crash", "blink", "leader isolate", "split", "stop", "damaged disk", "transfer"),
    every_us=700 * MILLISECOND,
    tick_skew_max=0.05,
    habits=Habits(think_us_max=600 * MILLISECOND),
    operator=True,
    snapshots=SnapshotConfig(entries=20, trailing_entries=5, chunk_bytes=500),
)
#: Many who watch, lead and join, next to no room for what happened, and leaders that change while joins are announced.
STREAMS = replace(
    CRASHES,
    nodes=3,
    weather=CALM,
    kinds=("client cut", "client cut", "client isolate", "client stop", "blink", "leader isolate", "transfer"),
    every_us=500 * MILLISECOND,
    tick_skew_max=0.05,
    habits=Habits(
        think_us_max=400 * MILLISECOND,
        locks=0.1,
        paths=1,
        participants=4,
        pause_us_max=1_000 * MILLISECOND,
        part_us_max=3_000 * MILLISECOND,
        announce_ms_max=3_000,
    ),
    snapshots=SnapshotConfig(entries=30, trailing_entries=5, chunk_bytes=500),
    ring_records_max=3,
    pushed_records_max=2,
)
#: Many who take permits, break locks and leave them closed, with sessions that end all the time and snapshots every few entries.
CLAIMS = replace(
    CUTS,
    kinds=("client cut", "client isolate", "client kill", "client kill", "leader isolate", "blink"),
    every_us=500 * MILLISECOND,
    habits=Habits(
        think_us_max=200 * MILLISECOND,
        hold_us_max=800 * MILLISECOND,
        locks=0.1,
        cancels=0.2,
        participants=0,
        claimants=4,
        ttl_ms=1_000,
    ),
    work_items_max=5,
    snapshots=SnapshotConfig(entries=20, trailing_entries=5, chunk_bytes=100),
)

#: Messages without end into two small topics, which are deleted now and then, and nodes that crash at every boundary, lag and come
#: with snapshots.
TOPICS = replace(
    SNAPSHOTS,
    kinds=("crash", "crash at a boundary", "crash of all", "isolate", "transfer"),
    every_us=500 * MILLISECOND,
    habits=Habits(think_us_max=150 * MILLISECOND, hold_us_max=300 * MILLISECOND, locks=0.3, ttl_ms=2_000, topics=0.8),
    snapshots=SnapshotConfig(entries=25, trailing_entries=3, chunk_bytes=300, stage_bytes=1_000),
    work_items_max=1_000,
)

#: Tasks that park what finds its lock taken, and are killed, cut off and stopped while they send on what is called.
PARKING = replace(
    TOPICS,
    kinds=("client kill", "client kill", "client cut", "client stop", "crash", "crash at a boundary", "isolate", "transfer"),
    habits=Habits(
        think_us_max=150 * MILLISECOND,
        hold_us_max=400 * MILLISECOND,
        locks=0.3,
        ttl_ms=1_500,
        participants=0,
        claimants=0,
        parkers=3,
    ),
)
#: Work that passes from process to process and from attempt to attempt, with leaders that change and snapshots all the time.
RELAYS = replace(
    SNAPSHOTS,
    kinds=("blink", "leader isolate", "crash", "transfer", "isolate"),
    every_us=600 * MILLISECOND,
    habits=Habits(think_us_max=600 * MILLISECOND, locks=0.3, participants=0, claimants=0, ttl_ms=1_000, relays=4),
    snapshots=SnapshotConfig(entries=20, trailing_entries=3, chunk_bytes=300),
)

#: Members that call each other, with sessions that end and leaders that change between asking and the result.
CALLS = replace(
    SNAPSHOTS,
    kinds=("client cut", "client isolate", "client kill", "leader isolate", "blink", "crash", "transfer"),
    every_us=600 * MILLISECOND,
    habits=Habits(think_us_max=500 * MILLISECOND, locks=0.2, cancels=0.2, participants=0, claimants=0, ttl_ms=1_500, callers=2),
    snapshots=SnapshotConfig(entries=20, trailing_entries=3, chunk_bytes=300),
)

#: What seeds draw from.  More of them would give every seed another mix: those of the tests would not be those that found what
#: they are there for.
DRAWN = {
    "crashes": CRASHES,
    "small appends": SMALL_APPENDS,
    "partitions": PARTITIONS,
    "cuts": CUTS,
    "far clients": FAR,
    "reads": READS,
    "second thoughts": SECOND_THOUGHTS,
    "snapshots": SNAPSHOTS,
    "elections": ELECTIONS,
    "divided": DIVIDED,
    "membership": MEMBERSHIP,
    "streams": STREAMS,
    "claims": CLAIMS,
}
#: All, by name: `make sim MIX=name`.
DRILLS = {**DRAWN, "topics": TOPICS, "parking": PARKING, "relays": RELAYS, "calls": CALLS}


def draw(rng: random.Random) -> Mix:
    """Draw the mix of a seed."""
    if rng.random() < 0.2:
        return rng.choice(list(DRAWN.values()))
    return draw_mix(rng)
