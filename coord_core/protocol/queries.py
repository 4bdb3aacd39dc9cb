"""Linearizable reads: what is asked of the machine after a quorum confirmed the leader, and the answers."""

from typing import TypeAlias

from coord_core.protocol.base import AnswerStruct, QueryStruct
from coord_core.protocol.elections import ElectionInfo, ElectionState
from coord_core.protocol.groups import GroupInfo, GroupState
from coord_core.protocol.limiters import LimiterInfo, LimiterState
from coord_core.protocol.locks import LockClosure, LockList, LockParty, LockRows, SessionList, SessionRows
from coord_core.protocol.parking import ParkedList, ParkedListing, ParkingFetch, ParkingFetched, ParkingInfo, ParkingState
from coord_core.protocol.results import Failed
from coord_core.protocol.semaphores import SemaphoreInfo, SemaphoreState
from coord_core.protocol.topics import TopicFetch, TopicFetched, TopicInfo, TopicList, TopicListing, TopicState
from coord_core.protocol.works import WorkState
from coord_core.types import SessionId

__all__ = ["Answer", "LockInfo", "LockParty", "LockState", "Query", "SessionInfo", "SessionState", "ValueGet", "ValueState"]


class LockInfo(QueryStruct, frozen=True, tag=1):
    """Who holds the lock and who waits.  Answers `LockState`; at most `waiters_max` waiters are named."""

    path: str
    waiters_max: int = 100


class ValueGet(QueryStruct, frozen=True, tag=2):
    """Answers `ValueState`."""

    path: str


class SessionInfo(QueryStruct, frozen=True, tag=3):
    """Answers `SessionState`."""

    session: SessionId


class PathInfo(QueryStruct, frozen=True, tag=12):
    """What is bound to a path.  Answers `PathState`."""

    path: str


Query: TypeAlias = (
    LockInfo
    | PathInfo
    | ValueGet
    | SessionInfo
    | ElectionInfo
    | GroupInfo
    | LockList
    | SessionList
    | SemaphoreInfo
    | LimiterInfo
    | TopicInfo
    | TopicList
    | TopicFetch
    | ParkingInfo
    | ParkedList
    | ParkingFetch
)


class PathState(AnswerStruct, frozen=True, tag=112):
    #: "lock", "election", "topic", ...; empty: nothing is bound to the path.
    kind: str


class LockState(AnswerStruct, frozen=True, tag=101):
    holder: LockParty | None
    waiters: tuple[LockParty, ...]
    waiters_total: int
    #: Set where there is no holder and it is not free.
    closed: LockClosure | None = None


class ValueState(AnswerStruct, frozen=True, tag=102):
    #: 0: there is no value.
    version: int
    value: bytes


class SessionState(AnswerStruct, frozen=True, tag=103):
    alive: bool
    attachments: int
    holdings: int
    #: As the leader reckons it: at least as long as its client may believe.  None where it does not live.
    lease_left_ms: int | None = None


Answer: TypeAlias = (
    LockState
    | PathState
    | ValueState
    | SessionState
    | ElectionState
    | GroupState
    | LockRows
    | SessionRows
    | SemaphoreState
    | LimiterState
    | TopicState
    | TopicListing
    | TopicFetched
    | WorkState
    | ParkingState
    | ParkedListing
    | ParkingFetched
    | Failed
)
