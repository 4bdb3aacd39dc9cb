"""Membership groups: who is there, told to everyone who is there."""

import msgspec

from coord_core.protocol.base import AnswerStruct, OperationStruct, Owner, QueryStruct
from coord_core.types import AttachmentId, MemberId, SessionId

MEMBER_METADATA_BYTES_MAX = 4096


class GroupMember(msgspec.Struct, frozen=True, array_like=True, gc=False):
    member: MemberId
    session: SessionId
    attachment: AttachmentId
    owner: Owner
    metadata: bytes
    #: Milliseconds of cluster time since it joined.
    since_ms: int


class GroupJoin(OperationStruct, frozen=True, tag=15):
    """Become a member, and subscribe to the group.  Answers `Joined`, when all who were subscribed before have been told."""

    path: str
    metadata: bytes
    owner: Owner
    #: For how long the answer waits for those who were there before; 0: not at all.
    announce_ms: int
    #: The caller itself is a listener of this session, so it must not wait for its own session.
    from_listener: bool = False
    #: It takes calls (`protocol.works`).
    callable: bool = False


class GroupLeave(OperationStruct, frozen=True, tag=16):
    """Stop being a member.  Answers `Done`, also where it is gone already; `NotHolder` where it is another attachment's."""

    path: str
    member: MemberId


class GroupUpdate(OperationStruct, frozen=True, tag=17):
    """Replace a member's metadata.  Answers `Done`, or `NotHolder` where this attachment has no such member."""

    path: str
    member: MemberId
    metadata: bytes


class MemberJoined(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    member: GroupMember


class MemberLeft(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    member: MemberId
    #: "left", "closed" (its session or process was) or "expired".
    reason: str


class MemberUpdated(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    member: MemberId
    metadata: bytes


class GroupInfo(QueryStruct, frozen=True, tag=11):
    """Answers `GroupState`."""

    path: str


class GroupState(AnswerStruct, frozen=True, tag=111):
    #: In the order in which they joined.
    members: tuple[GroupMember, ...]
