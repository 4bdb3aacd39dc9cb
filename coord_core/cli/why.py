"""Why somebody waits, in one plain sentence: who has it, since when, for how long at most, how many wait ahead.

Durations are the cluster's; the times of day are this machine's, reckoned from them.
"""

import time
from typing import TYPE_CHECKING

from coord_core.cli.durations import show_duration

if TYPE_CHECKING:
    from coord_core.protocol.base import Owner
    from coord_core.protocol.locks import LockClosure, LockParty
    from coord_core.protocol.queries import LockState
    from coord_core.protocol.semaphores import SemaphoreParty, SemaphoreState


def who(owner: "Owner") -> str:
    """Write `host:pid label`, on one line whatever the client calls itself."""
    text = f"{owner.host}:{owner.pid}" + (f" {owner.label}" if owner.label else "")
    return "".join(character if character.isprintable() else "?" for character in text)


def why_lock(name: str, state: "LockState", lease_left_ms: int | None) -> str:
    """`lease_left_ms`: of the holder's session, where it is known."""
    if state.closed is not None:
        return f"{name} is {_closed(state.closed)}; {_waiting(state.waiters_total, state.waiters)}."
    if state.holder is None:
        return f"{name} is free: nobody holds it."
    holder = f"held by {_party(state.holder)}{_lease(lease_left_ms)}"
    return f"{name} is {holder}; {_waiting(state.waiters_total, state.waiters)}."


def why_semaphore(name: str, state: "SemaphoreState", lease_left_ms: int | None) -> str:
    """`lease_left_ms`: of the session of the oldest holder, where it is known."""
    if state.limit is None:
        return f"{name} is free: nobody holds it."
    taken = f"{name} has {state.taken} of {state.limit} permits taken" + (" (the limit is set)" if state.set else "")
    waiting = _waiting(state.waiters_total, state.waiters)
    if not state.holders:
        return f"{taken}; {waiting}."
    return f"{taken}, for longest by {_party(state.holders[0])}{_lease(lease_left_ms)}; {waiting}."


def _party(party: "LockParty | SemaphoreParty") -> str:
    return f"{who(party.owner)} (session {party.session}, token {party.token}) since {_since(party.since_ms)}"


def _closed(closed: "LockClosure") -> str:
    left_s = max(0, closed.left_ms) / 1000
    until = f"closed until {_clock(left_s)} (for {show_duration(left_s)} more): {who(closed.owner)} (token {closed.token})"
    if closed.reason == "quarantine":
        return f"{until} gave it back with this quarantine"
    if closed.reason == "replaced":
        return f"{until} does not hold it, but an earlier process of its session may still believe that it does"
    return f"{until} ended without giving it back, and had asked for this delay"


def _waiting(total: int, first: "tuple[LockParty, ...] | tuple[SemaphoreParty, ...]") -> str:
    if not total:
        return "nobody waits"
    told = f", the first is {who(first[0].owner)} since {_since(first[0].since_ms)}" if first else ""
    return f"{total} {'waits' if total == 1 else 'wait'}{told}"


def _lease(left_ms: int | None) -> str:
    return "" if left_ms is None else f", its lease has {show_duration(left_ms / 1000)} left"


def _since(since_ms: int) -> str:
    return f"{_clock(-since_ms / 1000)} ({show_duration(since_ms / 1000)})"


def _clock(from_now_s: float) -> str:
    """Write a time of day; with the date where it is another day."""
    then, now = time.localtime(time.time() + from_now_s), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)
