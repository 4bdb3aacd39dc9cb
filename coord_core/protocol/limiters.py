"""Rate limiters: token buckets in cluster time.

A bucket has room for `burst` permits and gets `permits` of them every `per_ms` milliseconds, a part at a time; it begins full.  All
of it is integer arithmetic, in units of a `per_ms`-th of a permit, so replicas agree to the unit.
"""

from coord_core.protocol.base import AnswerStruct, OperationStruct, QueryStruct, ResultStruct

#: Of the three numbers of a rate: permits, milliseconds, burst.  A full bucket, and as deep a debt, must go into 63 bits in units.
RATE_PERMITS_MAX = 1_000_000_000
RATE_PER_MS_MAX = 10_000_000_000
BURST_MAX = 100_000_000


class RateAcquire(OperationStruct, frozen=True, tag=24):
    """Take permits out of the bucket, or wait in order of arrival until they are there.

    The rate and the burst are kept as last said, by whomever.  Answers `RateGranted` or `RateRefused`.  What was taken is spent: it
    is not given back, also where the request is cancelled later.
    """

    path: str
    #: None: wait for as long as it takes.  0: do not wait.
    wait_ms: int | None
    #: How many to take; at most `burst`.
    amount: int
    permits: int
    per_ms: int
    burst: int


class RateGranted(ResultStruct, frozen=True, tag=21):
    """Go ahead."""


class RateRefused(ResultStruct, frozen=True, tag=22):
    """Not now.  Expected, so not an error."""

    #: "busy" (would not wait) or "timeout".
    reason: str
    #: After this long the permits would be there, if nobody else asked meanwhile; ten years stand for more.
    wait_ms: int
    #: How many wait.
    waiters: int = 0


class LimiterInfo(QueryStruct, frozen=True, tag=23):
    """How full the bucket is.  Answers `LimiterState`."""

    path: str


class LimiterState(AnswerStruct, frozen=True, tag=123):
    """`burst` 0: there is no such limiter now: it is full, nobody waits, and the next to ask says its rate."""

    permits: int
    per_ms: int
    burst: int
    #: Whole permits in it; below 0 where somebody was let through who wanted more than it has room for.
    level: int
    waiters_total: int
