"""Quorum-confirmed rounds (ReadIndex: dissertation, 6.4), shared by everything that needs to know that this node still leads.

A round is begun after what it serves has arrived, and one is under way at a time: what arrives meanwhile gathers for the next.
When a quorum has confirmed the round and the machine has applied the round's index, its items are served in order of arrival.
That order is what makes expiry safe: a session's keep-alive that was read before its expiry check is served before it.
"""

from dataclasses import dataclass
from typing import TypeAlias

from coord_core.protocol.queries import Query
from coord_core.replica.pending import Origin
from coord_core.types import LogIndex, SessionId

#: Items waiting for a round; beyond it a request is refused with Busy.
READS_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Renewal:
    """A keep-alive."""

    origin: Origin
    session: SessionId
    generation: int


@dataclass(frozen=True, slots=True)
class Question:
    """A linearizable read."""

    origin: Origin
    query: Query


@dataclass(frozen=True, slots=True)
class ExpiryCheck:
    """A lease ran out: end the session if nothing has renewed it by the time this is served."""

    session: SessionId
    #: The end of the lease that ran out: another end is another lease, which has to run out by itself.
    deadline_ms: int


Item: TypeAlias = Renewal | Question | ExpiryCheck


class Reads:
    __slots__ = ("_confirmed_at", "_gathering", "_round", "_running")

    def __init__(self) -> None:
        self._gathering: list[Item] = []
        self._running: list[Item] = []
        #: Number of the round under way, or of the last one.  Never 0: that means "no round" in a heartbeat.
        self._round = 0
        self._confirmed_at: LogIndex | None = None

    def __len__(self) -> int:
        return len(self._gathering) + len(self._running)

    def add(self, item: Item) -> bool:
        """Queue for the next round; False where too many wait."""
        if len(self) >= READS_MAX:
            return False
        self._gathering.append(item)
        return True

    def wants_round(self) -> bool:
        return bool(self._gathering and not self._running)

    def begin(self) -> int | None:
        """Begin a round if one is wanted and none is under way; return its number."""
        if self._running or not self._gathering:
            return None
        self._running, self._gathering = self._gathering, []
        self._confirmed_at = None
        self._round += 1
        return self._round

    def confirm(self, number: int, index: LogIndex) -> None:
        """A quorum confirmed the round; it may be served once `index` is applied."""
        if self._running and number == self._round:
            self._confirmed_at = index

    def take(self, applied: LogIndex) -> list[Item]:
        """Return the items of the confirmed round if the machine has got there."""
        if self._confirmed_at is None or applied < self._confirmed_at:
            return []
        items, self._running = self._running, []
        self._confirmed_at = None
        return items

    def drain(self) -> list[Item]:
        """Forget all; return who must be sent to the next leader."""
        items = [*self._running, *self._gathering]
        self._running = []
        self._gathering = []
        self._confirmed_at = None
        return items
