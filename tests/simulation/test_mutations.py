"""The checkers must bite: each bug of `mutations`, put back in, is found by some seed of a small fixed range.

Each bug has a drill that gives it a chance; the range is several times as long as it usually takes.  What is found is
compared too, so that a bug is not "found" by an accident elsewhere.
"""

import re

import pytest

from coord_core.testing.drills import (
    CALLS,
    CLAIMS,
    CRASHES,
    CUTS,
    DRILLS,
    FAR,
    PARTITIONS,
    READS,
    RELAYS,
    SECOND_THOUGHTS,
    SMALL_APPENDS,
    SNAPSHOTS,
)
from coord_core.testing.mix import Mix
from coord_core.testing.run import Failure, run
from tests.simulation import mutations
from tests.simulation.mutations import Mutation

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
    (mutations.delay_is_forgotten, CLAIMS, 10, "must be closed until|it is closed until"),
    (mutations.closed_lock_is_granted_to_who_asks, CLAIMS, 10, "must be closed until|it is closed until"),
    (mutations.broken_lock_stays_held, CLAIMS, 5, "which was broken"),
    (mutations.permits_are_counted_by_holders, CLAIMS, 10, "permits were held when"),
    (mutations.few_permits_pass_many, CLAIMS, 10, "was passed"),
    (mutations.expiry_frees_no_permits, CLAIMS, 10, "its session .* has ended"),
    (mutations.bucket_fills_twice, CLAIMS, 10, "let through at"),
    (mutations.snapshot_opens_closed_locks, CLAIMS, 10, "has another state"),
    (mutations.former_process_keeps_its_number, RELAYS, 5, "is another's by now"),
    (mutations.later_attempt_waits_for_nobody, RELAYS, 10, "is held by"),
    (mutations.replaced_process_is_forgotten, RELAYS, 10, "is held by"),
    (mutations.handed_off_session_ends_with_its_lease, RELAYS, 10, "was to be held until"),
    (mutations.every_call_moves_on, CALLS, 10, "is begun by"),
    (mutations.cancelled_call_is_begun, CALLS, 10, "somebody was told that it never would be"),
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


@pytest.mark.parametrize("mix", DRILLS.values(), ids=DRILLS)
def test_without_the_bug_the_same_mix_is_clean(mix: Mix) -> None:
    """Else the case above would prove nothing."""
    run(1, mix=mix)
