"""What the clients wrote down, judged: every violation in words, with where to look.

- Registers and the locks that change: one order of all operations of a key must exist (`coord_core.testing.linearizability`).
- Every lock: tokens rise with every grant, and no two clients ever believed at the same time that they held it.
- Counters: what was acknowledged was counted, and nothing was counted that was refused; what is unknown may have been.
- What was surely not applied, by its client's answer, is never seen by anybody.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coord_core.testing.history import Observed
from coord_core.testing.linearizability import Judgement, Verdict, judge
from coord_core.testing.models import (
    Acquire,
    Delete,
    Deleted,
    HeldBy,
    Holds,
    LockModel,
    Look,
    Read,
    RegisterModel,
    Release,
    Released,
    Seen,
    Write,
    Written,
)
from tests.torture.actor import ONE_LOCK
from tests.torture.records import Believed, Called, Proved, Returned, Turned, read

#: Of one key's search.
STEPS_MAX = 2_000_000
#: What may be answered where nothing was applied.
REFUSALS = {"Unavailable", "Busy", "SessionExpired"}
#: Answers that say that the cluster works.
DONE = {"seen", "written", "deleted", "holds", "held", "released"}


@dataclass
class Operation:
    """A call and what came of it; None: nothing."""

    file: str
    called: Called
    returned: Returned | None = None

    @property
    def result(self) -> str:
        return "unknown" if self.returned is None else self.returned.result

    def __str__(self) -> str:
        return f"{self.called.client} {self.called.action} {self.called.key} {self.called.value} -> {self.returned or 'no answer'}"


@dataclass
class Evidence:
    """Everything that was written down."""

    operations: list[Operation] = field(default_factory=list)
    beliefs: dict[tuple[str, int], Believed] = field(default_factory=dict)
    turns: Counter[str] = field(default_factory=Counter)
    proved: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, directory: Path) -> "Evidence":
        evidence = cls()
        for path in sorted(directory.glob("*.jsonl")):
            evidence._take(path)
        evidence.operations.sort(key=lambda one: one.called.at)
        return evidence

    def _take(self, path: Path) -> None:
        calls: dict[int, Operation] = {}
        for record in read(path):
            match record:
                case Called():
                    calls[record.number] = Operation(path.name, record)
                case Returned():
                    calls[record.number].returned = record
                case Believed():
                    # The later line of one belief goes further.
                    self.beliefs[record.key, record.token] = record
                case Turned():
                    self.turns[record.state] += 1
                case Proved():
                    self.proved.add(record.client)
        self.operations += calls.values()

    def by_key(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = defaultdict(list)
        for one in self.operations:
            found[one.called.key].append(one)
        return found


@dataclass
class Verdicts:
    violations: list[str] = field(default_factory=list)
    #: Keys whose search for an order was given up.
    undecided: list[str] = field(default_factory=list)
    judged: int = 0


def judge_evidence(evidence: Evidence) -> Verdicts:
    verdicts = Verdicts()
    for key, operations in sorted(evidence.by_key().items()):
        room = key.split("/")[1]
        if room in ("registers", "proofs"):
            _judge_register(key, operations, verdicts)
        elif room == "locks" and key != ONE_LOCK:
            _judge_lock(key, operations, verdicts)
        elif room == "counters":
            verdicts.violations += _judge_counter(key, operations)
        if room == "locks":
            verdicts.violations += _judge_tokens(key, operations)
    verdicts.violations += _judge_beliefs(evidence.beliefs.values())
    verdicts.violations += _judge_refusals(evidence.operations)
    return verdicts


# --- one order of everything ----------------------------------------------------------------------------------------------------


def _judge_register(key: str, operations: Sequence[Operation], verdicts: Verdicts) -> None:
    observed = [_observed(one, _register_action(one.called), _register_outcome(one)) for one in _possible(operations)]
    model = RegisterModel(observed)
    _accept(key, len(observed), judge(model, model.known_effects(observed), steps_max=STEPS_MAX), verdicts)


def _judge_lock(key: str, operations: Sequence[Operation], verdicts: Verdicts) -> None:
    observed = [_observed(one, _lock_action(one.called), _lock_outcome(one)) for one in _possible(operations)]
    model = LockModel(observed)
    _accept(key, len(observed), judge(model, model.known_effects(observed), steps_max=STEPS_MAX), verdicts)


def _possible(operations: Sequence[Operation]) -> Iterator[Operation]:
    return (one for one in operations if one.result != "denied")


def _observed(one: Operation, action: Any, outcome: Any) -> Observed[Any, Any]:
    """A call and a return of the same nanosecond count as being at the same time, so calls come first."""
    returned = None if outcome is None or one.returned is None else 2 * one.returned.at + 1
    return Observed(one.called.client, one.called.key, action, 2 * one.called.at, returned, outcome)


def _register_action(called: Called) -> Read | Write | Delete:
    match called.action:
        case "get":
            return Read()
        case "delete":
            return Delete(called.expected)
        case _:
            return Write(called.value.encode(), called.expected)


def _register_outcome(one: Operation) -> Seen | Written | Deleted | None:
    match one.returned:
        case Returned(result="seen", version=version, value=value):
            return Seen(version, value.encode())
        case Returned(result="written", version=version):
            return Written(version)
        case Returned(result="deleted"):
            return Deleted()
        case _:
            return None


def _lock_action(called: Called) -> Acquire | Release | Look:
    match called.action:
        case "acquire":
            return Acquire(called.value)
        case "release":
            return Release(called.token)
        case _:
            return Look()


def _lock_outcome(one: Operation) -> Holds | HeldBy | Released | None:
    match one.returned:
        case Returned(result="holds", token=token):
            return Holds(token)
        case Returned(result="held", token=token, value=label):
            return HeldBy(token, label)
        case Returned(result="released"):
            return Released()
        case _:
            return None


def _accept(key: str, count: int, judgement: Judgement, verdicts: Verdicts) -> None:
    verdicts.judged += count
    if judgement.verdict is Verdict.UNDECIDED:
        verdicts.undecided.append(key)
    elif judgement.verdict is Verdict.NOT_LINEARIZABLE:
        last = "; ".join(map(str, judgement.longest[-4:]))
        stuck = "; ".join(map(str, judgement.stuck))
        verdicts.violations.append(f"{key} is not linearizable: after {last} none of these fits: {stuck}")


# --- the rest -------------------------------------------------------------------------------------------------------------------


def _judge_tokens(key: str, operations: Sequence[Operation]) -> Iterator[str]:
    """A grant that began after another was over has the higher token; no token is given twice."""
    grants = [one for one in operations if one.result == "holds" and one.returned is not None]
    seen: dict[int, Operation] = {}
    highest, by_return = 0, iter(sorted(grants, key=lambda one: one.returned.at if one.returned else 0))
    earlier = next(by_return, None)
    for one in sorted(grants, key=lambda one: one.called.at):
        assert one.returned is not None
        while earlier is not None and earlier.returned is not None and earlier.returned.at < one.called.at:
            highest, earlier = max(highest, earlier.returned.token), next(by_return, None)
        if one.returned.token <= highest:
            yield f"{key}: a token does not rise: {one}, after one of {highest}"
        if one.returned.token in seen:
            yield f"{key}: a token was given twice: {one} and {seen[one.returned.token]}"
        seen[one.returned.token] = one


def _judge_beliefs(beliefs: Sequence[Believed] | Any) -> Iterator[str]:
    for key, group in itertools.groupby(sorted(beliefs, key=lambda one: (one.key, one.began)), key=lambda one: one.key):
        for earlier, later in itertools.pairwise(group):
            if earlier.until > later.began:
                yield f"{key}: two believed that they held it: {earlier} and {later}"
            if earlier.token >= later.token:
                yield f"{key}: an older token was believed in later: {earlier} and {later}"


def _judge_counter(key: str, operations: Sequence[Operation]) -> Iterator[str]:
    """The last thing that anybody saw of it is what it counted to."""
    written = [int(one.called.value) for one in operations if one.result == "written"]
    unknown = sum(one.result == "unknown" for one in operations)
    for count, times in Counter(written).items():
        if times > 1:
            yield f"{key}: {times} clients were told that they had counted to {count}"
    final = next((one for one in reversed(operations) if one.called.action == "get" and one.returned is not None), None)
    if final is None or final.returned is None:
        yield f"{key}: nobody has read it at the end"
        return
    counted = int(final.returned.value or 0)
    if not len(written) <= counted <= len(written) + unknown:
        yield f"{key}: it counted to {counted}; {len(written)} were acknowledged and {unknown} are unknown"


def _judge_refusals(operations: Sequence[Operation]) -> Iterator[str]:
    denied = {
        one.called.value: one for one in operations if one.result == "denied" and one.called.action in ("set", "cas", "acquire")
    }
    for one in operations:
        if one.returned is not None and one.result in ("seen", "held") and one.returned.value in denied:
            yield f"{denied[one.returned.value]} took effect: {one}"
        if one.returned is not None and one.result == "denied" and one.returned.value not in REFUSALS:
            yield f"an answer that nobody should get: {one}"
