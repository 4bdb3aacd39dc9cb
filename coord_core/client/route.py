"""Which node to try next, and how long to wait before.

The rule: a node that names the leader is followed at once; without a name, every known address is tried once and then the delays
grow.  Each delay is drawn from zero to its bound (full jitter), so that ten thousand clients of a fallen leader do not arrive
together.
Pure: the random source and the time are handed in.
"""

import random
from collections.abc import Iterable

from coord_core.client.settings import SessionConfig

#: A hint that names an address which failed this recently is stale: its giver has not noticed yet.
_HINT_STALE_MS = 200
_GROWTH = 1.6


class Route:
    """The known addresses and the attempts since a leader last answered."""

    __slots__ = ("_attempts", "_config", "_failed_ms", "_had_leader", "_next", "_rng", "addresses", "refusals")

    def __init__(self, config: SessionConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        #: Seeds first, then members as they were learned; without repeats.
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
        for address in addresses:
            if address and address not in self.addresses:
                self.addresses.append(address)

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
        failed_ms = self._failed_ms.get(leader)
        return bool(leader) and (failed_ms is None or now_ms - failed_ms >= _HINT_STALE_MS)

    def follow(self, leader: str) -> tuple[str, int]:
        """Return the hinted address and the delay before it: none, unless hints have led in circles."""
        return leader, self._delay_ms(0)

    def advance(self) -> tuple[str, int]:
        """Return the next address in turn and the delay before it."""
        address = self.addresses[self._next % len(self.addresses)]
        self._next = (self._next + 1) % len(self.addresses)
        return address, self._delay_ms(self._config.backoff_ms_min if self._had_leader else 0)

    def backoff_ms(self, attempts: int) -> int:
        """Draw a delay whose bound grows with the attempts."""
        bound = min(self._config.backoff_ms_max, self._config.backoff_ms_min * _GROWTH ** min(attempts, 30))
        return int(self._rng.uniform(0, bound))

    def _delay_ms(self, bound_ms: int) -> int:
        """Draw the delay before an attempt; `bound_ms`: of those in the first round."""
        round_over = self._attempts - len(self.addresses)
        self._attempts += 1
        return self.backoff_ms(round_over) if round_over >= 0 else int(self._rng.uniform(0, bound_ms))
