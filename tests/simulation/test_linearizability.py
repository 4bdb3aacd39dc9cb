"""The judge of histories: what it must accept, and what it must not.

Histories are written as (call, return) positions; None for a return means that the client never heard.
"""

from typing import Any

from coord_core.testing.history import History, Observed
from coord_core.testing.linearizability import Verdict, judge
from coord_core.testing.models import (
    Acquire,
    Delete,
    Deleted,
    HeldBy,
    Holds,
    LockModel,
    Look,
    NotHeld,
    Read,
    RegisterModel,
    Release,
    Released,
    Seen,
    Write,
    Written,
)


def done(action: Any, outcome: Any, called: int, returned: int) -> Observed[Any, Any]:
    return Observed("c", "/key", action, called, returned, outcome)


def unknown(action: Any, called: int) -> Observed[Any, Any]:
    return Observed("c", "/key", action, called)


def register_verdict(*operations: Observed[Any, Any], steps_max: int = 10_000) -> Verdict:
    model = RegisterModel(operations)
    return judge(model, model.known_effects(operations), steps_max=steps_max).verdict


def lock_verdict(*operations: Observed[Any, Any]) -> Verdict:
    model = LockModel(operations)
    return judge(model, model.known_effects(operations)).verdict


A, B = Write(b"a"), Write(b"b")


# --- registers ------------------------------------------------------------------------------------------------------------------


def test_read_sees_the_last_write() -> None:
    assert register_verdict(done(A, Written(5), 1, 2), done(Read(), Seen(5, b"a"), 3, 4)) is Verdict.LINEARIZABLE


def test_stale_read_is_not_linearizable() -> None:
    """The write had returned before the read was called."""
    assert register_verdict(done(A, Written(5), 1, 2), done(Read(), Seen(0, b""), 3, 4)) is Verdict.NOT_LINEARIZABLE


def test_read_during_a_write_may_see_either() -> None:
    for seen in (Seen(0, b""), Seen(5, b"a")):
        assert register_verdict(done(A, Written(5), 1, 4), done(Read(), seen, 2, 3)) is Verdict.LINEARIZABLE


def test_reads_during_a_write_may_not_go_back() -> None:
    """One reader saw the new value; whoever asks after it cannot see the old one."""
    verdict = register_verdict(
        done(A, Written(5), 1, 6),
        done(Read(), Seen(5, b"a"), 2, 3),
        done(Read(), Seen(0, b""), 4, 5),
    )
    assert verdict is Verdict.NOT_LINEARIZABLE


def test_write_of_unknown_outcome_may_take_effect_late_or_never() -> None:
    late = [unknown(A, 1), done(Read(), Seen(0, b""), 2, 3), done(Read(), Seen(5, b"a"), 4, 5)]
    assert register_verdict(*late) is Verdict.LINEARIZABLE
    assert register_verdict(*late[:2]) is Verdict.LINEARIZABLE


def test_write_of_unknown_outcome_takes_effect_once() -> None:
    """It was seen, overwritten, and is seen again."""
    verdict = register_verdict(
        unknown(A, 1),
        done(Read(), Seen(5, b"a"), 2, 3),
        done(B, Written(6), 4, 5),
        done(Read(), Seen(5, b"a"), 6, 7),
    )
    assert verdict is Verdict.NOT_LINEARIZABLE


def test_compare_and_set_succeeds_only_over_what_it_expects() -> None:
    over_a = done(Write(b"b", expected=5), Written(6), 3, 4)
    assert register_verdict(done(A, Written(5), 1, 2), over_a) is Verdict.LINEARIZABLE
    over_nothing = done(Write(b"b", expected=0), Written(6), 3, 4)
    assert register_verdict(done(A, Written(5), 1, 2), over_nothing) is Verdict.NOT_LINEARIZABLE


def test_two_compare_and_sets_over_one_version_cannot_both_succeed() -> None:
    """The lost update."""
    verdict = register_verdict(
        done(A, Written(5), 1, 2),
        done(Write(b"b", expected=5), Written(6), 3, 6),
        done(Write(b"c", expected=5), Written(7), 4, 5),
    )
    assert verdict is Verdict.NOT_LINEARIZABLE


def test_conflict_over_the_version_that_was_expected_is_not_linearizable() -> None:
    verdict = register_verdict(done(A, Written(5), 1, 2), done(Write(b"b", expected=5), Seen(5, b"a"), 3, 4))
    assert verdict is Verdict.NOT_LINEARIZABLE


def test_versions_must_rise() -> None:
    assert register_verdict(done(A, Written(6), 1, 2), done(B, Written(5), 3, 4)) is Verdict.NOT_LINEARIZABLE


def test_deleted_value_is_gone() -> None:
    write, delete = done(A, Written(5), 1, 2), done(Delete(), Deleted(), 3, 4)
    assert register_verdict(write, delete, done(Read(), Seen(0, b""), 5, 6)) is Verdict.LINEARIZABLE
    assert register_verdict(write, delete, done(Read(), Seen(5, b"a"), 5, 6)) is Verdict.NOT_LINEARIZABLE


def test_search_that_is_given_up_says_so() -> None:
    """A bound that looked like a yes would hide what it was built to find."""
    operations = [done(Write(b"%d" % number), Written(number), number, 100 + number) for number in range(1, 20)]
    assert register_verdict(*operations, steps_max=5) is Verdict.UNDECIDED


def test_reads_that_wait_together_are_no_choices() -> None:
    """Eighty reads, asked before a write and answered after it, half of them with each value: they are not tried in all subsets."""
    reads = [done(Read(), Seen(5, b"a") if number % 2 else Seen(6, b"b"), 10 + number, 200 + number) for number in range(80)]
    writes = [done(A, Written(5), 1, 2), done(B, Written(6), 100, 300)]
    assert register_verdict(*writes, *reads) is Verdict.LINEARIZABLE
    late = done(Read(), Seen(5, b"a"), 301, 302)
    assert register_verdict(*writes, *reads, late) is Verdict.NOT_LINEARIZABLE


# --- locks ----------------------------------------------------------------------------------------------------------------------


def test_lock_goes_from_hand_to_hand() -> None:
    verdict = lock_verdict(
        done(Acquire("a"), Holds(3), 1, 2),
        done(Acquire("b"), Holds(7), 3, 6),
        done(Release(3), Released(), 4, 5),
    )
    assert verdict is Verdict.LINEARIZABLE


def test_lock_cannot_be_granted_before_a_release_was_called() -> None:
    """Both were told that they hold it, and the first gave it back only later."""
    verdict = lock_verdict(
        done(Acquire("a"), Holds(3), 1, 2),
        done(Acquire("b"), Holds(7), 3, 4),
        done(Release(3), Released(), 5, 6),
    )
    assert verdict is Verdict.NOT_LINEARIZABLE


def test_grant_that_was_not_given_back_may_lapse() -> None:
    """The holder's session ended."""
    assert lock_verdict(done(Acquire("a"), Holds(3), 1, 2), done(Acquire("b"), Holds(7), 3, 4)) is Verdict.LINEARIZABLE


def test_token_that_falls_is_not_linearizable() -> None:
    assert lock_verdict(done(Acquire("a"), Holds(7), 1, 2), done(Acquire("b"), Holds(3), 3, 4)) is Verdict.NOT_LINEARIZABLE


def test_look_names_the_holder() -> None:
    held = done(Acquire("a"), Holds(3), 1, 2)
    assert lock_verdict(held, done(Look(), HeldBy(3, "a"), 3, 4), done(Release(3), Released(), 5, 6)) is Verdict.LINEARIZABLE
    assert lock_verdict(held, done(Look(), HeldBy(0, ""), 3, 4), done(Release(3), Released(), 5, 6)) is Verdict.NOT_LINEARIZABLE


def test_acquire_of_unknown_outcome_counts_where_it_was_seen() -> None:
    """Its client died; others were refused because of it."""
    verdict = lock_verdict(unknown(Acquire("a"), 1), done(Acquire("b"), HeldBy(3, "a"), 2, 3), done(Acquire("c"), Holds(9), 4, 5))
    assert verdict is Verdict.LINEARIZABLE


def test_release_that_is_refused_while_the_token_holds_is_not_linearizable() -> None:
    verdict = lock_verdict(
        done(Acquire("a"), Holds(3), 1, 2),
        done(Release(3), NotHeld(), 3, 4),
        done(Look(), HeldBy(3, "a"), 5, 6),
    )
    assert verdict is Verdict.NOT_LINEARIZABLE


# --- histories ------------------------------------------------------------------------------------------------------------------


def test_history_orders_calls_and_returns_and_parts_keys() -> None:
    history: History[str, str] = History()
    first = history.call("c1", "/b", "one")
    history.call("c2", "/a", "two")
    history.returns(first, "done")
    never = history.call("c1", "/b", "three")
    history.discard(never)
    by_key = dict(history.by_key())
    assert list(by_key) == ["/a", "/b"]
    assert by_key["/b"] == [first]
    assert (first.called, first.returned) == (1, 3)
