"""The rate limiter: `AsyncRateLimiter`; `sync_lock` has the blocking form of the same names."""

import asyncio
import math
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from coord_core.client import paths
from coord_core.errors import InvalidRequest
from coord_core.protocol.limiters import (
    BURST_MAX,
    RATE_PER_MS_MAX,
    RATE_PERMITS_MAX,
    LimiterInfo,
    LimiterState,
    RateAcquire,
    RateGranted,
    RateRefused,
)

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

#: A rate is taken as the nearest fraction with no larger denominator: 1/3 a second is exact.
_DENOMINATOR_MAX = 1_000_000


class Decision(NamedTuple):
    """Whether to go ahead; false in a boolean context where not."""

    allowed: bool
    #: Seconds after which the permits would be there, if nobody else asked meanwhile; 0 where allowed.
    retry_after: float

    def __bool__(self) -> bool:
        return self.allowed


class AsyncRateLimiter:
    """A handle of the rate limiter at `path`.  Made by `AsyncClient.rate_limiter`; making one sends nothing.

    The rate and the burst that this handle was made with are sent with each call; the last ones sent, by whomever, count for all.
    """

    def __init__(self, client: "AsyncClient", path: str, rate: float | Fraction, burst: int | None) -> None:
        self.path = path
        self._client = client
        self._full_path = client.full_path(path)
        self._permits, self._per_ms, self.burst = _rate(rate, burst)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} {self._permits} a {self._per_ms} ms, burst {self.burst}>"

    async def try_acquire(self, permits: int = 1) -> Decision:
        """Take permits if they are there and nobody waits for them; say when to try again if not.

        What was taken is spent.  Raises `InvalidRequest` (more than the burst), `Unavailable` (nothing was spent), `OutcomeUnknown`
        (it may have been), `WrongType`.
        """
        result = await self._ask(permits, 0)
        return Decision(False, result.wait_ms / 1000) if isinstance(result, RateRefused) else Decision(True, 0)

    async def acquire(self, permits: int = 1, timeout: float | None = None) -> bool:
        """Take permits, waiting in order of arrival until they are there; False where `timeout` seconds passed first.

        False, and a cancelled task, mean that this call waits no more; nothing was spent, unless the permits came at that very
        moment: then they are spent for nothing.  Raises as `try_acquire` does, and `SessionExpired`.
        """
        return isinstance(await self._ask(permits, paths.acquire_wait_ms(timeout)), RateGranted)

    async def state(self) -> LimiterState:
        """Return how full the bucket is and how many wait, linearizably.  Raises `Unavailable`."""
        state: LimiterState = await self._client.driver().ask(LimiterInfo(self._full_path))
        return state

    async def _ask(self, permits: int, wait_ms: int | None) -> object:
        driver = self._client.driver()
        operation = RateAcquire(self._full_path, wait_ms, permits, self._permits, self._per_ms, self.burst)
        call, future = driver.call(operation)
        try:
            return await future
        except asyncio.CancelledError:
            driver.withdraw(call, future, self._full_path)
            raise


def _rate(rate: float | Fraction, burst: int | None) -> tuple[int, int, int]:
    """Return permits, milliseconds and burst.  Raises `InvalidRequest`."""
    if not 0 < rate < math.inf:
        raise InvalidRequest(f"a rate is a number of permits a second above 0: {rate!r}", field="rate")
    exact = Fraction(rate).limit_denominator(_DENOMINATOR_MAX) / 1000
    if not 1 <= exact.numerator <= RATE_PERMITS_MAX or exact.denominator > RATE_PER_MS_MAX:
        raise InvalidRequest(f"the rate {rate!r} a second is too small or too large", field="rate")
    most = max(1, math.ceil(rate)) if burst is None else burst
    if not 1 <= most <= BURST_MAX:
        raise InvalidRequest(f"a burst is a number of permits from 1 to {BURST_MAX}: {burst!r}", field="burst")
    return exact.numerator, exact.denominator, most
