"""What a client session is configured with.  Times are milliseconds of the driver's clock (`client.clock`)."""

from dataclasses import dataclass, field

from coord_core.protocol.commands import WINDOW_REQUESTS_MAX, Attempt
from coord_core.protocol.operations import Owner
from coord_core.types import SessionId

#: Requests that may wait in the client for room in the window; one more raises `Busy`.
QUEUED_REQUESTS_MAX = 16_384

#: Releases and cancels go beyond the window of the others: a process whose waiting calls fill it can still let go of what it has.
WINDOW_URGENT_MAX = 2 * WINDOW_REQUESTS_MAX


@dataclass(frozen=True, slots=True)
class DetachedConfig:
    """Which detached session to take up, and as whom."""

    name: str
    attempt: Attempt
    #: Drawn for this one use of it.
    actor: bytes


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Bounds and intervals of one `ClientSession`."""

    #: host:port of nodes to try first; the members, as they are told, are added to them.
    seeds: tuple[str, ...]
    #: Who this process is, for people who ask who holds a lock.
    owner: Owner
    #: Shared secret of the cluster.  Never shown.
    token: str = field(default="", repr=False)
    #: How long the cluster keeps the session without hearing of it.
    ttl_ms: int = 15_000
    #: Empty: any; the first node's answer then fixes it for the session's life.
    cluster_id: str = ""
    #: Given: open an attachment of this session, which another process keeps alive, instead of a session of our own.
    session_id: SessionId | None = None
    #: Given: take up this detached session instead of opening one that ends with us.
    detached: DetachedConfig | None = None

    #: Constant part of what the client's lease is shorter than the cluster's; 1% of the TTL for clock drift comes on top.
    lease_margin_ms: int = 20
    #: For connecting and greeting one node.  At most a quarter of the TTL, so that there is time for others.
    connect_timeout_ms: int = 2_000
    #: For a call without a timeout of its own.
    request_timeout_ms: int = 10_000
    #: An acquire's local deadline is its waiting time and this: the server's clock decides, ours only where no answer comes.
    acquire_grace_ms: int = 2_000
    #: Nothing heard for this long after sending: ask for a sign of life.  At most a sixth of the TTL.
    probe_after_ms: int = 500
    #: No sign of life for this long: try another node.  At most a third of the TTL.
    probe_timeout_ms: int = 1_500
    #: Delays between attempts are drawn from 0 to a bound that grows from min to max (full jitter).
    backoff_ms_min: int = 25
    backoff_ms_max: int = 1_000

    @property
    def attached(self) -> bool:
        return self.session_id is not None

    @property
    def dial_ms_max(self) -> int:
        return min(self.connect_timeout_ms, max(250, self.ttl_ms // 4))

    @property
    def probe_wait_ms(self) -> int:
        return max(1, min(self.probe_after_ms, self.ttl_ms // 6))

    @property
    def silence_ms_max(self) -> int:
        return self.probe_wait_ms + max(1, min(self.probe_timeout_ms, self.ttl_ms // 3))

    def margin_ms(self, ttl_ms: int) -> int:
        """What to take off a lease of `ttl_ms`: 1% for clocks that run apart, rounded up, and the constant."""
        return -(-ttl_ms // 100) + self.lease_margin_ms
