"""Membership groups: who is there, and everyone there is told.

Rules:
- A group exists while it has a member.  A member belongs to an attachment and leaves with it, in the same entry.
- A member is also a subscription, under the same number: it ends with it.
- A join is announced: its answer names who was subscribed before, and waits for them (`protocol.streams`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from coord_core import errors
from coord_core.machine import refusals
from coord_core.machine.bounds import GROUP_BYTES_MAX, MEMBERS_PER_GROUP_MAX
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.names import Named, Names
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.stream import decode
from coord_core.machine.streams import StreamName, Streams
from coord_core.protocol.base import Owner
from coord_core.protocol.groups import (
    MEMBER_METADATA_BYTES_MAX,
    GroupInfo,
    GroupJoin,
    GroupLeave,
    GroupMember,
    GroupState,
    GroupUpdate,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
)
from coord_core.protocol.locks import ListedLock
from coord_core.protocol.results import Done, Failed, Result
from coord_core.protocol.streams import ANNOUNCE_WAIT_MS_MAX, Joined
from coord_core.types import AttachmentId, MemberId, RequestNumber, SubscriptionId

_DONE = Done()

#: About what a member takes besides its metadata and owner.
_MEMBER_BYTES = 64


class Member:
    __slots__ = ("attachment", "id", "metadata", "owner", "path", "request", "since_ms", "size")

    def __init__(self, number: MemberId, path: str, attachment: Attachment, request: RequestNumber, owner: Owner) -> None:
        self.id = number
        self.path = path
        self.attachment = attachment
        self.request = request
        self.owner = owner
        self.metadata = b""
        #: Cluster time at which it joined.
        self.since_ms = 0
        #: Bytes that it takes of its group's.
        self.size = 0


class Group(Named):
    __slots__ = ("members", "size")

    kind: ClassVar[str] = "group"

    def __init__(self) -> None:
        #: In the order in which they joined, which is that of their numbers.
        self.members: dict[MemberId, Member] = {}
        #: Bytes of all members.
        self.size = 0


class MemberRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member in a snapshot.  The path is its group's."""

    id: MemberId
    attachment: AttachmentId
    request: RequestNumber
    #: None: the attachment's.
    owner: Owner | None
    metadata: bytes
    since_ms: int


class GroupRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A group in a snapshot."""

    path: str
    #: In the order in which they joined.
    members: list[MemberRow]


_decode = msgspec.msgpack.Decoder(list[GroupRow]).decode


class Groups:
    __slots__ = ("_entry", "_members", "_names", "_sessions", "_streams")

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, streams: Streams) -> None:
        self._entry = entry
        self._sessions = sessions
        self._names = names
        self._streams = streams
        # The members of each attachment that has any.
        self._members: dict[AttachmentId, dict[MemberId, Member]] = {}

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {GroupJoin: self._join, GroupLeave: self._leave, GroupUpdate: self._update}

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {GroupInfo: self._info}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {Group.kind: self._state}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _join(self, attachment: Attachment, request: RequestNumber, operation: GroupJoin) -> Result:
        path = operation.path
        fault = _check_join(operation) or self._streams.check_room(Group.kind, path)
        if fault is not None:
            return fault
        group = self._names.find(path, Group)
        if isinstance(group, Failed):
            return group
        size = _MEMBER_BYTES + len(operation.metadata) + _owner_bytes(operation.owner)
        fault = _check_room(group, size)
        if fault is None and group is None:
            group = Group()
            fault = self._names.bind(path, group)
        if fault is not None or group is None:
            return fault or _DONE
        name = _stream(path)
        audience = self._streams.audience(name, attachment.session if operation.from_listener else None)
        answer = self._streams.subscribe(name, attachment)
        if isinstance(answer, Failed):
            self._drop_if_empty(path, group)
            return answer
        member = Member(MemberId(self._entry.index), path, attachment, request, operation.owner)
        member.metadata, member.since_ms, member.size = operation.metadata, self._entry.time_ms, size
        self._add(group, member)
        self._streams.emit(name, MemberJoined(self._told(member)))
        wait_ms = operation.announce_ms
        return Joined(self._entry.index, wait_ms, audience if wait_ms else (), (), member.id)

    def _leave(self, attachment: Attachment, request: RequestNumber, operation: GroupLeave) -> Result:
        member = self._find(attachment, operation.path, operation.member)
        if isinstance(member, Failed):
            return member
        if member is not None:
            self._remove(member, "left")
        return _DONE

    def _update(self, attachment: Attachment, request: RequestNumber, operation: GroupUpdate) -> Result:
        member = self._find(attachment, operation.path, operation.member)
        if isinstance(member, Failed):
            return member
        if member is None:
            return _not_a_member(operation.path, operation.member)
        group, grown = self._group_of(member), len(operation.metadata) - len(member.metadata)
        fault = _check_metadata(operation.metadata) or _check_bytes(group, grown)
        if fault is not None:
            return fault
        member.metadata = operation.metadata
        member.size += grown
        group.size += grown
        self._streams.emit(_stream(member.path), MemberUpdated(member.id, member.metadata))
        return _DONE

    # --- what happens to a member ------------------------------------------------------------------------------------------------

    def _find(self, attachment: Attachment, path: str, number: MemberId) -> Member | Failed | None:
        """Return the attachment's member; None where the group has none of that number."""
        group = self._names.find(path, Group)
        if group is None or isinstance(group, Failed):
            return group
        member = group.members.get(number)
        if member is not None and member.attachment is not attachment:
            return _not_a_member(path, number)
        return member

    def _remove(self, member: Member, reason: str) -> None:
        group = self._group_of(member)
        del group.members[member.id]
        group.size -= member.size
        members = self._members[member.attachment.id]
        del members[member.id]
        if not members:
            del self._members[member.attachment.id]
        self._drop_if_empty(member.path, group)
        self._streams.end(SubscriptionId(member.id))
        self._streams.emit(_stream(member.path), MemberLeft(member.id, reason))

    def _drop_if_empty(self, path: str, group: Group) -> None:
        if not group.members:
            self._names.get(path)
            self._names.drop(path)

    def _group_of(self, member: Member) -> Group:
        group = self._names.get(member.path)
        assert type(group) is Group, "a member's group exists as long as the member"
        return group

    def _add(self, group: Group, member: Member) -> None:
        group.members[member.id] = member
        group.size += member.size
        self._members.setdefault(member.attachment.id, {})[member.id] = member

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        reason = "expired" if answer.code == errors.SessionExpired.__name__ else "closed"
        for attachment in ended:
            members = self._members.get(attachment.id, {})
            for number in sorted(members):
                self._remove(members[number], reason)

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """A member is a process."""
        self.attachments_ended([attachment], answer)

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        for member in self._members.get(attachment.id, {}).values():
            if member.request == request:
                attachment.window.settle(request, answer)
                self._remove(member, "left")
                return True
        return False

    def holdings(self, attachment: Attachment) -> int:
        return len(self._members.get(attachment.id, ()))

    def state(self) -> list[Any]:
        return [(path, group.size, [_member_state(member) for member in group.members.values()]) for path, group in self.all()]

    @property
    def named(self) -> type[Group]:
        return Group

    def row(self, path: str, group: Group) -> tuple[GroupRow, int]:
        return GroupRow(path, [_row(member) for member in group.members.values()]), len(path) + group.size

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[GroupRow] = decode(_decode, rows)
        for row in found:
            group = Group()
            for one in row.members:
                self._add(group, self._restored(row.path, one))
            self._names.restore(row.path, group)
        return len(found)

    def _restored(self, path: str, row: MemberRow) -> Member:
        attachment = self._sessions.attachment(row.attachment)
        member = Member(row.id, path, attachment, row.request, row.owner or attachment.owner)
        member.metadata, member.since_ms = row.metadata, row.since_ms
        member.size = _MEMBER_BYTES + len(row.metadata) + _owner_bytes(member.owner)
        return member

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Group]]:
        """Return every group with its path, in order of paths."""
        return self._names.of_type(Group)

    def listed(self, path: str, group: Group) -> ListedLock:
        return ListedLock(path, Group.kind, MEMBERS_PER_GROUP_MAX, len(group.members), None, 0)

    def _info(self, query: GroupInfo) -> GroupState | Failed:
        return self._state(query.path)

    def _state(self, path: str) -> GroupState | Failed:
        group = self._names.find(path, Group)
        if isinstance(group, Failed):
            return group
        return GroupState(() if group is None else tuple(map(self._told, group.members.values())))

    def _told(self, member: Member) -> GroupMember:
        attachment, since_ms = member.attachment, self._entry.time_ms - member.since_ms
        return GroupMember(member.id, attachment.session, attachment.number, member.owner, member.metadata, since_ms)


def _stream(path: str) -> StreamName:
    return Group.kind, path


def _check_join(operation: GroupJoin) -> Failed | None:
    fault = refusals.check_owner(operation.owner) or _check_metadata(operation.metadata)
    if fault is None and not 0 <= operation.announce_ms <= ANNOUNCE_WAIT_MS_MAX:
        return refusals.invalid("announce_ms", f"must be between 0 and {ANNOUNCE_WAIT_MS_MAX} ms")
    return fault


def _check_metadata(metadata: bytes) -> Failed | None:
    if len(metadata) > MEMBER_METADATA_BYTES_MAX:
        return refusals.over_limit("bytes of a member's metadata", MEMBER_METADATA_BYTES_MAX, len(metadata))
    return None


def _check_room(group: Group | None, size: int) -> Failed | None:
    if group is None:
        return None
    if len(group.members) >= MEMBERS_PER_GROUP_MAX:
        return refusals.over_limit("members of a group", MEMBERS_PER_GROUP_MAX, len(group.members) + 1)
    return _check_bytes(group, size)


def _check_bytes(group: Group, grown: int) -> Failed | None:
    if grown > 0 and group.size + grown > GROUP_BYTES_MAX:
        return refusals.over_limit("bytes of a group's members", GROUP_BYTES_MAX, group.size + grown)
    return None


def _not_a_member(path: str, number: MemberId) -> Failed:
    message = f"this process has no member {number} in {path}"
    return refusals.refuse(errors.NotHolder, message, path=path, member=number)


def _owner_bytes(owner: Owner) -> int:
    return refusals.utf8_length(owner.host) + refusals.utf8_length(owner.label)


def _member_state(member: Member) -> tuple[Any, ...]:
    owner = msgspec.structs.astuple(member.owner)
    return member.id, member.attachment.id, member.request, owner, member.metadata, member.since_ms


def _row(member: Member) -> MemberRow:
    owner = None if member.owner == member.attachment.owner else member.owner
    return MemberRow(member.id, member.attachment.id, member.request, owner, member.metadata, member.since_ms)
