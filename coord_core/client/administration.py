"""Changes of the cluster itself, asked of whoever leads it, without a session."""

import asyncio
import ssl
from collections.abc import Sequence

from coord_core.client.oneshot import converse
from coord_core.errors import CoordError, ProtocolError, Unavailable, error_from_wire
from coord_core.protocol.administration import Administration
from coord_core.protocol.messages import Administer, Redirect, Reply
from coord_core.protocol.results import Done, Failed

#: Between two rounds of asking, while nobody leads.
_PAUSE_S = 0.1
#: Whoever has not said Welcome by then is passed over: the machine may be off, and there are others to ask.
_WELCOME_S = 2.0


async def administer(
    addresses: Sequence[str], token: str, tls: ssl.SSLContext | None, request: Administration, timeout_s: float
) -> None:
    """Ask until it is in force, following the leader.  What is asked may be asked again: nothing is done twice.

    Raises `Unsafe`, `InvalidRequest` where it is refused; `Unavailable` where nobody has done it in time, though somebody may.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout_s
    to_ask, trouble = list(addresses), CoordError("nobody was asked")
    while (left_s := deadline - clock()) > 0:
        if not to_ask:
            await asyncio.sleep(min(_PAUSE_S, left_s))
            to_ask = list(addresses)
        address = to_ask.pop(0)
        try:
            answer = await converse(address, token, tls, Administer(1, request), left_s, _WELCOME_S)
        except Unavailable as error:
            trouble = error
            continue
        if isinstance(answer, Redirect):
            trouble = Unavailable(f"{address} does not lead, and nobody is known to")
            if answer.leader:
                to_ask = [answer.leader, *(other for other in to_ask if other != answer.leader)]
            continue
        outcome = _outcome(address, answer)
        if outcome is None:
            return
        if not isinstance(outcome, Unavailable):
            raise outcome
        trouble = outcome
    raise Unavailable(f"not done within {timeout_s:g} s: {trouble.args[0]}")


def _outcome(address: str, answer: object) -> CoordError | None:
    """Return why it was not done; None where it was."""
    if isinstance(answer, Reply):
        if isinstance(answer.result, Done):
            return None
        if isinstance(answer.result, Failed):
            return error_from_wire(answer.result.code, answer.result.message, answer.result.details)
    return ProtocolError(f"{address} answered {type(answer).__name__} where Reply was due")
