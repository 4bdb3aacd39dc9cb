"""What may be given to a guard as a token, and under which name it is compared.

The rule: a guard compares numbers of one name only.  The name is the path of the lock or election unless another is given; it does
not have the namespace of the client, so two applications that share a store and a path give names of their own.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from coord_core.errors import InvalidRequest, LeadershipLost, LockLost, StaleToken

#: Tokens, epochs and revisions stay below it, so that JSON, JavaScript and Lua, which count in doubles, hold them exactly.
TOKEN_MAX = 2**53 - 1
#: As much as a path may have.
NAME_BYTES_MAX = 512


class Granted(Protocol):
    """A grant of a lock or semaphore, or its handle (None: it holds nothing)."""

    @property
    def token(self) -> int | None: ...


class Elected(Protocol):
    """A leadership or candidacy (None: it does not lead)."""

    @property
    def epoch(self) -> int | None: ...


Holding: TypeAlias = Granted | Elected | int


@dataclass(frozen=True, slots=True)
class Fencing:
    """A token and the name under which it is compared; a `Holding` itself."""

    path: str
    token: int

    @property
    def name(self) -> str:
        return self.path


def fencing_of(holding: Holding, name: str | None = None) -> Fencing:
    """Return the token of what is held and its name: `name`, or the path of what is held.

    Raises `InvalidRequest` (no name, no token), `LockLost` or `LeadershipLost` (a handle that holds nothing).
    """
    token = _token_of(holding)
    found = getattr(holding, "path", None) if name is None else name
    if found is None:
        raise InvalidRequest("a bare token needs a name: say what it is a token of, as name='/jobs/nightly'", field="name")
    if not isinstance(found, str) or not found or not found.isprintable() or len(found.encode()) > NAME_BYTES_MAX:
        raise InvalidRequest(f"{found!r} is no name: text that can be shown, of 1 to {NAME_BYTES_MAX} bytes", field="name")
    return Fencing(found, token)


def _token_of(holding: Holding) -> int:
    if isinstance(holding, int):
        token: int | None = holding
    elif hasattr(holding, "token"):
        token = holding.token
        if token is None:
            raise LockLost("this handle holds nothing, so it has no token")
    elif hasattr(holding, "epoch"):
        token = holding.epoch
        if token is None:
            raise LeadershipLost("this candidate does not lead, so it has no epoch")
    else:
        raise InvalidRequest(f"{holding!r} has no token and no epoch", field="token")
    if not isinstance(token, int) or isinstance(token, bool) or not 1 <= token <= TOKEN_MAX:
        raise InvalidRequest(f"{token!r} is no token: they are numbers from 1 to 2**53 - 1", field="token")
    return token


def stale(fencing: Fencing, newest: int) -> StaleToken:
    """Return the error for a token that is smaller than one seen before."""
    return StaleToken(
        f"token {fencing.token} of {fencing.name} is stale: a later holder has come with {newest}",
        name=fencing.name,
        token=fencing.token,
        newest=newest,
    )
