"""coord: locks, elections, groups and small shared values, replicated by Raft, for programs that must not do a thing twice.

    client = coord_core.connect("coord://h1:7400,h2:7400,h3:7400/app?ttl=15s")
    with client.lock("/jobs/nightly") as grant:
        write(..., fencing_token=grant.token)

The names below are loaded when first used, so that `import coord_core` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient, connect_async
    from coord_core.client.detached import Detached
    from coord_core.client.election import AsyncCandidacy, AsyncDistributedLeaderElection, AsyncLeadership
    from coord_core.client.group import AsyncDistributedMembershipGroup, AsyncJoinedMember, GroupChange
    from coord_core.client.holding import AsyncGrant
    from coord_core.client.limiter import AsyncRateLimiter, Decision
    from coord_core.client.lock import AsyncDistributedLock
    from coord_core.client.parking import AsyncParkingLot, Parked, ParkingStatus, Piece
    from coord_core.client.semaphore import AsyncDistributedSemaphore
    from coord_core.client.session import SessionState
    from coord_core.client.sync import Client, DistributedValue, attach, connect
    from coord_core.client.sync_election import Candidacy, DistributedLeaderElection, Leadership
    from coord_core.client.sync_group import DistributedMembershipGroup, JoinedMember, RemoteMember, ScheduledWork
    from coord_core.client.sync_lock import DistributedLock, DistributedSemaphore, Grant, RateLimiter
    from coord_core.client.sync_parking import ParkingLot
    from coord_core.client.sync_topic import DistributedTopic
    from coord_core.client.sync_watch import Watch
    from coord_core.client.topic import AsyncDistributedTopic, Consistency, TopicMessage, TopicStatus
    from coord_core.client.value import AsyncDistributedValue, Versioned
    from coord_core.client.watch import AsyncWatch
    from coord_core.client.works import AsyncRemoteMember, AsyncScheduledWork
    from coord_core.errors import (
        AttachmentClosed,
        AuthenticationFailed,
        Busy,
        CoordError,
        DiskFull,
        InvalidConfig,
        InvalidRequest,
        InvalidUrl,
        LeadershipLost,
        LimitExceeded,
        LockLost,
        LostError,
        NotFound,
        NotHolder,
        NotLeader,
        OutcomeUnknown,
        ProtocolError,
        RemoteError,
        RequestError,
        RetryableError,
        SessionClosed,
        SessionExpired,
        StaleRequest,
        StaleToken,
        SubscriptionLost,
        Superseded,
        Unavailable,
        UnsupportedVersion,
        UsedAfterFork,
        WrongCluster,
        WrongType,
    )

__version__ = "0.1.0"

_HOMES = {
    "coord_core.client.aio": ("AsyncClient", "connect_async"),
    "coord_core.client.detached": ("Detached",),
    "coord_core.client.election": ("AsyncCandidacy", "AsyncDistributedLeaderElection", "AsyncLeadership"),
    "coord_core.client.group": ("AsyncDistributedMembershipGroup", "AsyncJoinedMember", "GroupChange"),
    "coord_core.client.holding": ("AsyncGrant",),
    "coord_core.client.limiter": ("AsyncRateLimiter", "Decision"),
    "coord_core.client.lock": ("AsyncDistributedLock",),
    "coord_core.client.parking": ("AsyncParkingLot", "Parked", "ParkingStatus", "Piece"),
    "coord_core.client.semaphore": ("AsyncDistributedSemaphore",),
    "coord_core.client.session": ("SessionState",),
    "coord_core.client.sync": ("Client", "DistributedValue", "attach", "connect"),
    "coord_core.client.sync_lock": ("DistributedLock", "DistributedSemaphore", "Grant", "RateLimiter"),
    "coord_core.client.sync_election": ("Candidacy", "DistributedLeaderElection", "Leadership"),
    "coord_core.client.sync_group": ("DistributedMembershipGroup", "JoinedMember", "RemoteMember", "ScheduledWork"),
    "coord_core.client.works": ("AsyncRemoteMember", "AsyncScheduledWork"),
    "coord_core.client.sync_watch": ("Watch",),
    "coord_core.client.watch": ("AsyncWatch",),
    "coord_core.client.sync_parking": ("ParkingLot",),
    "coord_core.client.sync_topic": ("DistributedTopic",),
    "coord_core.client.topic": ("AsyncDistributedTopic", "Consistency", "TopicMessage", "TopicStatus"),
    "coord_core.client.value": ("AsyncDistributedValue", "Versioned"),
    "coord_core.errors": (
        "AttachmentClosed",
        "AuthenticationFailed",
        "Busy",
        "CoordError",
        "DiskFull",
        "InvalidConfig",
        "InvalidRequest",
        "InvalidUrl",
        "LeadershipLost",
        "LimitExceeded",
        "LockLost",
        "LostError",
        "NotFound",
        "NotHolder",
        "NotLeader",
        "OutcomeUnknown",
        "ProtocolError",
        "RemoteError",
        "RequestError",
        "RetryableError",
        "SessionClosed",
        "SessionExpired",
        "StaleRequest",
        "StaleToken",
        "SubscriptionLost",
        "Superseded",
        "Superseded",
        "Unavailable",
        "UnsupportedVersion",
        "UsedAfterFork",
        "WrongCluster",
        "WrongType",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncCandidacy",
    "AsyncClient",
    "AsyncDistributedLeaderElection",
    "AsyncDistributedLock",
    "AsyncDistributedMembershipGroup",
    "AsyncDistributedSemaphore",
    "AsyncDistributedTopic",
    "AsyncDistributedValue",
    "AsyncGrant",
    "AsyncJoinedMember",
    "AsyncLeadership",
    "AsyncParkingLot",
    "AsyncRateLimiter",
    "AsyncRemoteMember",
    "AsyncScheduledWork",
    "AsyncWatch",
    "AttachmentClosed",
    "AuthenticationFailed",
    "Busy",
    "Candidacy",
    "Client",
    "Consistency",
    "CoordError",
    "Decision",
    "Detached",
    "DiskFull",
    "DistributedLeaderElection",
    "DistributedLock",
    "DistributedMembershipGroup",
    "DistributedSemaphore",
    "DistributedTopic",
    "DistributedValue",
    "Grant",
    "GroupChange",
    "InvalidConfig",
    "InvalidRequest",
    "InvalidUrl",
    "JoinedMember",
    "Leadership",
    "LeadershipLost",
    "LimitExceeded",
    "LockLost",
    "LostError",
    "NotFound",
    "NotHolder",
    "NotLeader",
    "OutcomeUnknown",
    "Parked",
    "ParkingLot",
    "ParkingStatus",
    "Piece",
    "ProtocolError",
    "RateLimiter",
    "RemoteError",
    "RemoteMember",
    "RequestError",
    "RetryableError",
    "ScheduledWork",
    "SessionClosed",
    "SessionExpired",
    "SessionState",
    "StaleRequest",
    "StaleToken",
    "SubscriptionLost",
    "Superseded",
    "TopicMessage",
    "TopicStatus",
    "Unavailable",
    "UnsupportedVersion",
    "UsedAfterFork",
    "Versioned",
    "Watch",
    "WrongCluster",
    "WrongType",
    "attach",
    "connect",
    "connect_async",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
