"""What people are told at the end of a run."""

import itertools
from collections import Counter
from collections.abc import Iterable

from tests.torture.judge import DONE
from tests.torture.run import Outcome

VIOLATIONS_SHOWN = 20
#: Faults that began so long before the longest gap are told with it.
GAP_EVENTS_S = 2.0


def summary(outcome: Outcome) -> str:
    evidence, verdicts = outcome.evidence, outcome.verdicts
    kinds: dict[str, Counter[str]] = {}
    for one in evidence.operations:
        kinds.setdefault(one.called.action, Counter())[one.result] += 1
    lines = ["", f"{len(evidence.operations)} operations of {len({one.called.client for one in evidence.operations})} clients"]
    lines += [f"  {action:8} {_counted(results)}" for action, results in sorted(kinds.items())]
    lines += [
        f"{len(evidence.beliefs)} times somebody held a lock; sessions: {_counted(evidence.turns)}",
        f"{sum(outcome.faults.values())} faults: {_counted(outcome.faults)}",
        _gap(outcome),
        f"every client had worked {outcome.recovery_s:.1f} s after all was healed",
        f"all nodes ended at entry {outcome.level}; {verdicts.judged} operations ordered, {len(verdicts.undecided)} keys undecided",
    ]
    lines += [f"VIOLATION: {violation}" for violation in outcome.violations[:VIOLATIONS_SHOWN]]
    lines.append(f"seed {outcome.plan.seed}, {outcome.network}: {len(outcome.violations)} violations")
    return "\n".join(lines)


def longest_gap(outcome: Outcome) -> tuple[int, int]:
    """Return from when until when, while there was trouble, no client was told for longest that anything was done."""
    began, healed = outcome.began_ns, outcome.healed_ns
    answers = _done_at(outcome)
    moments = [began, *sorted(at for at in answers if began < at < healed), healed]
    return max(itertools.pairwise(moments), key=lambda pair: pair[1] - pair[0])


def _gap(outcome: Outcome) -> str:
    """The longest time without an answer, and what went wrong meanwhile."""
    start, end = longest_gap(outcome)
    events = [
        f"{(at - outcome.began_ns) / 1e9:.1f} s {line}" for at, line in outcome.events if start - GAP_EVENTS_S * 1e9 <= at <= end
    ]
    return (
        f"longest time without any answer: {(end - start) / 1e9:.2f} s, from {(start - outcome.began_ns) / 1e9:.1f} s on"
        f" ({'; '.join(events) or 'nothing went wrong then'})"
    )


def _done_at(outcome: Outcome) -> Iterable[int]:
    return (one.returned.at for one in outcome.evidence.operations if one.returned is not None and one.result in DONE)


def _counted(counts: "Counter[str] | dict[str, int]") -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"
