"""The checkers must bite: each bug of `mutations`, put back in, is found by some seed of a small fixed range.

Each bug has weather and habits that give it a chance; the range is several times as long as it usually takes.  What is found is
compared too, so that a bug is not "found" by an accident elsewhere.
"""

import re
from dataclasses import replace

import pytest

from coord_core.replica import SnapshotConfig
from coord_core.testing.mix import CALM, Mix
from coord_core.testing.network import Weather
from coord_core.testing.run import Failure, run
from coord_core.testing.simulator import MILLISECOND
from coord_core.testing.workload import Habits
from tests.simulation import mutations
from tests.simulation.mutations import Mutation

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
    habits=replace(FIGHT, think_us_max=50 * MILLISECOND, hold_us_max=8_000 * MILLISECOND, locks=1.0, ttl_ms=2_000),
)
#: A stopped leader answers what waited for it, while those who were cut off have found its successor.
READS = replace(
    PARTITIONS,
    kinds=("stop", "client cut"),
    every_us=200 * MILLISECOND,
    habits=Habits(think_us_max=30 * MILLISECOND, locks=0.05, paths=1, ttl_ms=4_000),
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

#: The bug, its mix, how many seeds, and what is said of it.
CASES: list[tuple[Mutation, Mix, int, str]] = [
    (mutations.vote_is_not_durable, CRASHES, 20, "voted twice"),
    (mutations.term_is_not_durable, CRASHES, 5, "stored term|forgot term|voted twice"),
    (mutations.write_is_acknowledged_before_it_is_durable, CRASHES, 5, "which is on the disks of"),
    (mutations.entries_of_earlier_terms_commit_by_counting, SMALL_APPENDS, 60, "by counting"),
    (mutations.votes_go_to_any_log, CRASHES, 10, "committed before"),
    (mutations.window_forgets_its_answers, CUTS, 20, "took effect twice"),
    (mutations.keep_alive_needs_no_quorum, PARTITIONS, 60, "after its last promise"),
    (mutations.read_needs_no_quorum, READS, 40, "not linearizable"),
    (mutations.client_counts_its_lease_from_the_answer, FAR, 60, "is held by"),
    (mutations.client_never_declares_its_session_lost, PARTITIONS, 60, "is held by"),
    (mutations.leases_run_while_the_leader_is_stopped, PARTITIONS, 20, "the leader was stopped for"),
    (mutations.new_leader_grants_no_fresh_leases, CRASHES, 5, "after the leader was ready|after its last promise"),
    (mutations.cancel_leaves_the_grant, SECOND_THOUGHTS, 10, "is held|acquire"),
    (mutations.expiry_frees_nothing, CUTS, 10, "its session .* has ended"),
    (mutations.last_waiter_goes_first, CUTS, 10, "changed its order|granted before"),
    (mutations.client_sends_again_under_a_new_number, CUTS, 20, "took effect twice|changed its order|not linearizable"),
    (mutations.machines_differ, CUTS, 20, "has another state|applied"),
    (mutations.snapshot_mixes_two_indexes, SNAPSHOTS, 5, "has another state"),
    (mutations.snapshot_has_no_cached_answers, SNAPSHOTS, 5, "has another state"),
    (mutations.snapshot_has_no_cluster_time, SNAPSHOTS, 5, "has another state"),
    (mutations.snapshot_forgets_what_waits, SNAPSHOTS, 5, "has another state"),
    (mutations.snapshot_is_installed_before_it_is_durable, SNAPSHOTS, 20, "fits|applied|forgot|no storage would take|restored"),
    (mutations.entries_behind_a_snapshot_are_applied_again, SNAPSHOTS, 5, "comes after|has another state|applied"),
    (mutations.term_is_taken_from_a_snapshot, SNAPSHOTS, 20, "the term fell|stored term|forgot term|voted twice"),
    (mutations.log_is_trimmed_beyond_the_snapshot, SNAPSHOTS, 5, "no storage would take|does not fit"),
    (mutations.chunks_of_a_former_life_are_kept, SNAPSHOTS, 20, "no storage would take|does not decode|no snapshot|follow"),
]


@pytest.mark.parametrize(("mutation", "mix", "seeds", "said"), CASES, ids=[case[0].__name__ for case in CASES])
def test_some_seed_finds_the_bug(mutation: Mutation, mix: Mix, seeds: int, said: str) -> None:
    """A checker that finds nothing in a broken system proves nothing about a whole one."""
    other: list[str] = []
    for seed in range(1, seeds + 1):
        with pytest.MonkeyPatch.context() as patch:
            mutation(patch)
            try:
                run(seed, mix=mix)
            except Failure as failure:
                if re.search(said, str(failure.cause)):
                    return
                other.append(f"seed {seed}: {failure.cause}")
    pytest.fail(f"no seed of {seeds} says {said!r}; others: {other[:3]}")


@pytest.mark.parametrize("mix", [CRASHES, SMALL_APPENDS, PARTITIONS, CUTS, FAR, READS, SECOND_THOUGHTS, SNAPSHOTS])
def test_without_the_bug_the_same_mix_is_clean(mix: Mix) -> None:
    """Else the case above would prove nothing."""
    for seed in range(1, 4):
        run(seed, mix=mix)
