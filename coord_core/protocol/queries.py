"""Linearizable reads: what is asked of the machine after a quorum confirmed the leader, and the answers."""

from typing import TypeAlias

import msgspec

from coord_core.protocol.base import AnswerStruct, Owner, QueryStruct
from coord_core.protocol.elections import ElectionInfo, ElectionState
from coord_core.protocol.groups import GroupInfo, GroupState
from coord_core.protocol.results import Failed
from coord_core.protocol.topics import TopicFetch, TopicFetched, TopicInfo, TopicList, TopicListing, TopicState
from coord_core.types import AttachmentId, FencingToken, SessionId


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


Query: TypeAlias = LockInfo | ValueGet | SessionInfo | ElectionInfo | GroupInfo | TopicInfo | TopicList | TopicFetch


class LockParty(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One holder or waiter."""

    session: SessionId
    attachment: AttachmentId
    owner: Owner
    #: Milliseconds of cluster time since it was granted (holder) or began to wait.
    since_ms: int
    #: 0 for a waiter.
    token: FencingToken = FencingToken(0)


class LockState(AnswerStruct, frozen=True, tag=101):
    holder: LockParty | None
    waiters: tuple[LockParty, ...]
    waiters_total: int


class ValueState(AnswerStruct, frozen=True, tag=102):
    #: 0: there is no value.
    version: int
    value: bytes


class SessionState(AnswerStruct, frozen=True, tag=103):
    alive: bool
    attachments: int
    holdings: int


Answer: TypeAlias = (
    LockState | ValueState | SessionState | ElectionState | GroupState | TopicState | TopicListing | TopicFetched | Failed
)
