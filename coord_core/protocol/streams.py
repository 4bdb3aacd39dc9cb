"""Streams: what comes out of the service.  A subscription, what is pushed to it, and what waits for its acknowledgement.

A stream is what happens to one resource, named by the resource's kind and path.  Its records are numbered by *revision*, the log
index of the entry that caused them, and each names the revision before it, so that a gap shows.  A subscription is a fact of the
machine: it belongs to an attachment and goes with it.  What is pushed to it, and what it has acknowledged, is the leader's.

An operation that is to be *announced* (a join; a message published atomically) says for how long its answer may wait.  Its result
names the audience: all subscriptions at that entry.  The leader withholds the answer until each has acknowledged that revision or
is gone, or the time is over; then it says in `unacknowledged` who has not.
"""

from typing import TypeAlias

import msgspec

from coord_core.protocol.base import OperationStruct, Owner, ResultStruct
from coord_core.protocol.elections import LeaderElected, LeaderGone
from coord_core.protocol.groups import MemberJoined, MemberLeft, MemberUpdated
from coord_core.protocol.locks import LockChanged
from coord_core.protocol.topics import MessagePublished, TopicDeleted
from coord_core.protocol.values import ValueChanged
from coord_core.protocol.works import WorkDue
from coord_core.types import LogIndex, MemberId, SubscriptionId, TopicNumber

ANNOUNCE_WAIT_MS_MAX = 600_000


class Subscribe(OperationStruct, frozen=True, tag=10):
    """Be told of every change to a resource, also one that is not there yet, until `Unsubscribe`.

    Answers `Subscribed`, or `WrongType` where the path is bound to another kind.
    """

    #: "election", "group", "value", "lock": `Named.kind` of the resource.
    kind: str
    path: str


class Unsubscribe(OperationStruct, frozen=True, tag=11):
    """End a subscription of this attachment.  Answers `Done`, also where it is gone already."""

    subscription: SubscriptionId


class Subscribed(ResultStruct, frozen=True, tag=10):
    subscription: SubscriptionId


class Unacknowledged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Somebody who was subscribed and has not acknowledged."""

    subscription: SubscriptionId
    #: "deadline": it may still be told; "gone": its session ended or it unsubscribed first.
    reason: str
    #: None: it was gone before this leader knew who it was.
    owner: Owner | None = None


class AnnouncedStruct(ResultStruct, frozen=True):
    """Base of the results that wait for their audience."""

    #: What is to be acknowledged.
    revision: LogIndex
    #: For how long the answer may wait; 0: not at all.
    wait_ms: int
    #: Whose acknowledgement is waited for; empty when the answer goes out.
    audience: tuple[SubscriptionId, ...]
    #: Filled in when the answer goes out.
    unacknowledged: tuple[Unacknowledged, ...]


Change: TypeAlias = (
    LeaderElected
    | LeaderGone
    | MemberJoined
    | MemberLeft
    | MemberUpdated
    | ValueChanged
    | LockChanged
    | MessagePublished
    | TopicDeleted
    | WorkDue
)


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one entry of the log did to one resource."""

    revision: LogIndex
    #: Revision of the stream's record before this one; where there is none, of a moment before.
    previous: LogIndex
    changes: tuple[Change, ...]


class Joined(AnnouncedStruct, frozen=True, tag=12):
    """The answer to `GroupJoin`."""

    member: MemberId


class Announced(AnnouncedStruct, frozen=True, tag=13):
    """The answer to a `TopicPublish` that is announced."""

    offset: int
    topic: TopicNumber
