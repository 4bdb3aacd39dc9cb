"""Which node to try next, and how long to wait before.

The rule: a node that names the leader is followed at once; without a name, every known address is tried once and then the delays
grow.  Each delay is drawn from zero to its bound (full jitter), so that ten thousand clients of a fallen leader do not arrive
together.
Pure: the random source and the time are handed in.
"""

import random
from collections.abc import Iterable

from coord_core.client.settings import SessionConfig

#: A node that failed this recently is tried after the others, and a hint that names it is stale: its giver has not noticed yet.
#: A stopped process still accepts connections, so that trying it costs a whole timeout.
_SUSPECT_MS = 1_000
_GROWTH = 1.6


class Route:
    """The known addresses and the attempts since a leader last answered."""

    __slots__ = ("_attempts", "_config", "_failed_ms", "_had_leader", "_next", "_rng", "addresses", "refusals")

    def __init__(self, config: SessionConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        #: Seeds first, then the members as they were told last; without repeats.
        self.addresses: list[str] = list(dict.fromkeys(config.seeds))
        # Clients start at different seeds, so that a fresh cluster's first node is not everybody's.
        self._next = rng.randrange(len(self.addresses)) if self.addresses else 0
        # Whoever loses a leader shares that fate with others: a new client is alone.
        self._had_leader = False
        self._attempts = 0
        self._failed_ms: dict[str, int] = {}
        #: Addresses that refused us for good since a leader last answered.
        self.refusals: set[str] = set()

    def learn(self, addresses: Iterable[str]) -> None:
        """These are the members' addresses now; of those that were told before, the others are forgotten."""
        now = list(dict.fromkeys(address for address in addresses if address))
        kept = [address for address in self.addresses if address in self._config.seeds or address in now]
        self.addresses = [*kept, *(address for address in now if address not in kept)]

    def failed(self, address: str, now_ms: int) -> None:
        self._failed_ms[address] = now_ms

    def arrived(self) -> None:
        """A leader answered: attempts count from nothing again."""
        self._had_leader = True
        self._attempts = 0
        self._failed_ms.clear()
        self.refusals.clear()

    def exhausted(self) -> bool:
        """Tell whether every known address has been tried since a leader last answered."""
        return self._attempts >= len(self.addresses)

    def trusts(self, leader: str, now_ms: int) -> bool:
        """Tell whether to follow a hint."""
        return bool(leader) and not self._is_suspect(leader, now_ms)

    def follow(self, leader: str) -> tuple[str, int]:
        """Return the hinted address and the delay before it: none, unless hints have led in circles."""
        return leader, self._delay_ms(0)

    def advance(self, now_ms: int) -> tuple[str, int]:
        """Return the next address in turn that has not failed just now (the next one where all have), and the delay before it."""
        count = len(self.addresses)
        turns = [(self._next + step) % count for step in range(count)]
        at = next((turn for turn in turns if not self._is_suspect(self.addresses[turn], now_ms)), turns[0])
        self._next = (at + 1) % count
        return self.addresses[at], self._delay_ms(self._config.backoff_ms_min if self._had_leader else 0)

    def backoff_ms(self, attempts: int) -> int:
        """Draw a delay whose bound grows with the attempts."""
        bound = min(self._config.backoff_ms_max, self._config.backoff_ms_min * _GROWTH ** min(attempts, 30))
        return int(self._rng.uniform(0, bound))

    def _is_suspect(self, address: str, now_ms: int) -> bool:
        failed_ms = self._failed_ms.get(address)
        return failed_ms is not None and now_ms - failed_ms < _SUSPECT_MS

    def _delay_ms(self, bound_ms: int) -> int:
        """Draw the delay before an attempt; `bound_ms`: of those in the first round."""
        round_over = self._attempts - len(self.addresses)
        self._attempts += 1
        return self.backoff_ms(round_over) if round_over >= 0 else int(self._rng.uniform(0, bound_ms))
