"""What clients saw: calls and returns, in the one order in which they really happened.

A history knows nothing of logs and leaders; it is what an outsider can testify to.  `linearizability` judges it.  An
operation of unknown outcome (its client died, or was told so) stays open to the end: it may have taken effect at any moment
since its call.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Action = TypeVar("Action")
Outcome = TypeVar("Outcome")


@dataclass(slots=True, eq=False)
class Observed(Generic[Action, Outcome]):
    """One operation of one client on one key."""

    client: str
    key: str
    action: Action
    #: Position of the call among all calls and returns of the history.
    called: int
    #: Position of the return; None while it is open.
    returned: int | None = None
    #: None while it is open.
    outcome: Outcome | None = None

    def __str__(self) -> str:
        outcome = "?" if self.returned is None else str(self.outcome)
        until = "..." if self.returned is None else str(self.returned)
        return f"[{self.called}-{until}] {self.client} {self.key} {self.action} -> {outcome}"


class History(Generic[Action, Outcome]):
    """Records operations as they are called and return."""

    def __init__(self) -> None:
        self._operations: list[Observed[Action, Outcome]] = []
        self._clock = 0

    def call(self, client: str, key: str, action: Action) -> Observed[Action, Outcome]:
        operation: Observed[Action, Outcome] = Observed(client, key, action, self._tick())
        self._operations.append(operation)
        return operation

    def returns(self, operation: Observed[Action, Outcome], outcome: Outcome) -> None:
        if operation.returned is not None:
            raise AssertionError(f"returned twice: {operation}")
        operation.returned, operation.outcome = self._tick(), outcome

    def discard(self, operation: Observed[Action, Outcome]) -> None:
        """Forget an operation that surely was not and never will be applied."""
        self._operations.remove(operation)

    def by_key(self) -> Iterator[tuple[str, list[Observed[Action, Outcome]]]]:
        """Yield each key with its operations in the order of their calls.  Keys are independent of each other."""
        keys = sorted({operation.key for operation in self._operations})
        for key in keys:
            yield key, [operation for operation in self._operations if operation.key == key]

    def __len__(self) -> int:
        return len(self._operations)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
