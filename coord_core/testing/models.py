"""The plain objects that clients should not be able to tell from the cluster: a register with versions, and a lock with tokens.

Both histories name what they write: each value written is unique, each grant has a token.  So an operation of unknown outcome
is either seen by somebody, and then it did take effect, or by nobody, and then it may as well not have: `known_effects` sorts
them, and the search never has to guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from coord_core.testing.history import Observed

# --- a register -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    def __str__(self) -> str:
        return "get"


@dataclass(frozen=True, slots=True)
class Write:
    #: Unique in the whole history.
    value: bytes
    #: The version it must replace; None: any.
    expected: int | None = None

    def __str__(self) -> str:
        return f"set {self.value!r}" + ("" if self.expected is None else f" over {self.expected}")


@dataclass(frozen=True, slots=True)
class Delete:
    expected: int | None = None

    def __str__(self) -> str:
        return "delete" + ("" if self.expected is None else f" of {self.expected}")


@dataclass(frozen=True, slots=True)
class Seen:
    """The register as a read or a refused write found it."""

    version: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Written:
    version: int


@dataclass(frozen=True, slots=True)
class Deleted:
    pass


RegisterAction: TypeAlias = Read | Write | Delete
RegisterOutcome: TypeAlias = Seen | Written | Deleted
RegisterOperation: TypeAlias = Observed[RegisterAction, RegisterOutcome]

#: (highest version ever, present version, present value); version 0 is "no value".
RegisterState: TypeAlias = tuple[int, int, bytes]


class RegisterModel:
    """A value with compare-and-set, whose versions only rise."""

    def __init__(self, operations: Sequence[RegisterOperation]) -> None:
        #: Which version each value got, wherever anybody saw the two together.
        self._versions: dict[bytes, int] = {}
        for operation in operations:
            match operation.action, operation.outcome:
                case Write(value=value), Written(version=version):
                    self._versions[value] = version
                case _, Seen(version=version, value=value) if version:
                    self._versions.setdefault(value, version)
                case _:
                    pass

    def known_effects(self, operations: Sequence[RegisterOperation]) -> list[RegisterOperation]:
        """Leave out the open operations that nobody can have seen."""
        return [operation for operation in operations if operation.returned is not None or self._may_matter(operation.action)]

    def _may_matter(self, action: RegisterAction) -> bool:
        match action:
            case Write(value=value):
                return value in self._versions
            case Delete():
                return True
            case Read():
                return False

    def observes(self, operation: RegisterOperation) -> bool:
        return isinstance(operation.outcome, Seen)

    def initial(self) -> RegisterState:
        return (0, 0, b"")

    def step(self, state: RegisterState, operation: RegisterOperation) -> RegisterState | None:
        highest, version, value = state
        if isinstance(operation.outcome, Seen):
            refused = not isinstance(operation.action, Read)
            if refused and _expected(operation.action) in (None, version):
                return None
            return state if (operation.outcome.version, operation.outcome.value) == (version, value) else None
        if _expected(operation.action) not in (None, version):
            return None
        match operation.action:
            case Write(value=written):
                new = self._versions[written]
                return (new, new, written) if new > highest else None
            case Delete():
                return (highest, 0, b"")
            case Read():
                return state


def _expected(action: RegisterAction) -> int | None:
    return None if isinstance(action, Read) else action.expected


# --- a lock ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acquire:
    #: Unique in the whole history; the owner label under which others see this holder.
    label: str

    def __str__(self) -> str:
        return f"acquire as {self.label}"


@dataclass(frozen=True, slots=True)
class Release:
    token: int

    def __str__(self) -> str:
        return f"release {self.token}"


@dataclass(frozen=True, slots=True)
class Lapse:
    """The cluster took the grant back (expiry, close, cancel): no client sees when, so it is always open."""

    token: int

    def __str__(self) -> str:
        return f"lapse of {self.token}"


@dataclass(frozen=True, slots=True)
class Look:
    def __str__(self) -> str:
        return "who holds it"


@dataclass(frozen=True, slots=True)
class Holds:
    """It was granted."""

    token: int


@dataclass(frozen=True, slots=True)
class HeldBy:
    """What a look or a refused acquire found; token 0: nobody."""

    token: int
    label: str


@dataclass(frozen=True, slots=True)
class Released:
    pass


@dataclass(frozen=True, slots=True)
class NotHeld:
    """The release was refused: this token does not hold the lock."""


LockAction: TypeAlias = Acquire | Release | Lapse | Look
LockOutcome: TypeAlias = Holds | HeldBy | Released | NotHeld
LockOperation: TypeAlias = Observed[LockAction, LockOutcome]

#: (highest token ever, token that holds it now or 0).
LockModelState: TypeAlias = tuple[int, int]


class LockModel:
    """A mutex whose grants have strictly rising tokens."""

    def __init__(self, operations: Sequence[LockOperation]) -> None:
        #: Which token each acquire got, wherever anybody saw it.
        self._tokens: dict[str, int] = {}
        #: Tokens that were surely given back by their holders: nothing else ended them.
        self._given_back: set[int] = set()
        for operation in operations:
            match operation.action, operation.outcome:
                case Release(token=token), Released():
                    self._given_back.add(token)
                case Acquire(label=label), Holds(token=token):
                    self._tokens[label] = token
                case _, HeldBy(token=token, label=label) if token:
                    self._tokens.setdefault(label, token)
                case _:
                    pass

    def known_effects(self, operations: Sequence[LockOperation]) -> list[LockOperation]:
        """Leave out what nobody can have seen, and let a grant that was not given back lapse at some time.

        An acquire that was refused or withdrawn after it was seen to hold the lock counts as one of unknown outcome.
        """
        kept: list[LockOperation] = []
        for operation in operations:
            if isinstance(operation.action, Acquire):
                token = self._tokens.get(operation.action.label)
                if token is not None and token not in self._given_back:
                    kept.append(Observed("-", operation.key, Lapse(token), operation.called))
                elif token is None and operation.returned is None:
                    continue
            elif operation.returned is None and isinstance(operation.action, Look):
                continue
            kept.append(operation)
        return kept

    def observes(self, operation: LockOperation) -> bool:
        return isinstance(operation.outcome, HeldBy | NotHeld)

    def initial(self) -> LockModelState:
        return (0, 0)

    def step(self, state: LockModelState, operation: LockOperation) -> LockModelState | None:
        highest, holder = state
        match operation.action:
            case Acquire(label=label) if not isinstance(operation.outcome, HeldBy):
                token = self._tokens[label]
                return (token, token) if holder == 0 and token > highest else None
            case Release(token=token) | Lapse(token=token) if not isinstance(operation.outcome, NotHeld):
                return (highest, 0) if holder == token else None
            case Release(token=token) | Lapse(token=token):
                return state if holder != token else None
            case Acquire() | Look():
                assert isinstance(operation.outcome, HeldBy)
                return state if operation.outcome.token == holder else None
