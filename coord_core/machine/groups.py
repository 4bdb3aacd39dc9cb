"""Membership groups: who is there, and everyone there is told.

Rules:
- A group exists while it has a member.  A member belongs to an attachment and leaves with it, in the same entry.
- A member is also a subscription, under the same number: it ends with it.
- A member may take calls (`works`): what it is to do is part of its group, and a stream of its own.
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
from coord_core.machine.timers import Timers
from coord_core.machine.works import KIND, Errands, Work, WorkRow, Works, check_finish, due_state
from coord_core.machine.works import rows as work_rows
from coord_core.machine.works import size as work_size
from coord_core.machine.works import state as work_states
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
from coord_core.protocol.works import WorkAwait, WorkBegin, WorkCancel, WorkFinish, WorkState, WorkSubmit
from coord_core.types import AttachmentId, MemberId, RequestNumber, SubscriptionId

_DONE = Done()

#: Of NUMBER_MAX.
_NUMBER_DIGITS_MAX = 16

#: About what a member takes besides its metadata and owner.
_MEMBER_BYTES = 64


class Member:
    __slots__ = ("attachment", "callable", "id", "metadata", "owner", "path", "request", "since_ms", "size")

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
        #: It takes calls.
        self.callable = False


class Group(Named):
    __slots__ = ("members", "size", "works")

    kind: ClassVar[str] = "group"

    def __init__(self) -> None:
        #: In the order in which they joined, which is that of their numbers.
        self.members: dict[MemberId, Member] = {}
        #: Bytes of all members.
        self.size = 0
        #: What its members are to do, or have done without anybody having asked for the result.
        self.works = Works()


class MemberRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member in a snapshot.  The path is its group's."""

    id: MemberId
    attachment: AttachmentId
    request: RequestNumber
    #: None: the attachment's.
    owner: Owner | None
    metadata: bytes
    since_ms: int
    callable: bool = False


class GroupRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A group in a snapshot."""

    path: str
    #: In the order in which they joined.
    members: list[MemberRow]
    works: list[WorkRow] = []


_decode = msgspec.msgpack.Decoder(list[GroupRow]).decode


class Groups:
    __slots__ = ("_entry", "_errands", "_members", "_names", "_sessions", "_streams")

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, timers: Timers, streams: Streams) -> None:
        self._errands = Errands(entry, sessions, names, timers, streams)
        self._entry = entry
        self._sessions = sessions
        self._names = names
        self._streams = streams
        # The members of each attachment that has any.
        self._members: dict[AttachmentId, dict[MemberId, Member]] = {}

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {
            GroupJoin: self._join,
            GroupLeave: self._leave,
            GroupUpdate: self._update,
            WorkSubmit: self._submit,
            WorkBegin: self._begin,
            WorkFinish: self._finish,
            WorkCancel: self._cancel,
            WorkAwait: self._await,
        }

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {GroupInfo: self._info}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {Group.kind: self._state, KIND: self._due}

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
        member.callable = operation.callable
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

    # --- work of members: what becomes of it is `works`' matter ------------------------------------------------------------------

    def _submit(self, attachment: Attachment, request: RequestNumber, operation: WorkSubmit) -> Result | None:
        group = self._names.find(operation.path, Group)
        if isinstance(group, Failed):
            return group
        member = None if group is None else group.members.get(operation.member)
        if group is None or member is None:
            message = f"{operation.path} has no member {operation.member}"
            return refusals.refuse(errors.NotFound, message, path=operation.path, member=operation.member)
        if not member.callable:
            return refusals.invalid("member", f"{operation.member} of {operation.path} takes no calls")
        return self._errands.submit(attachment, request, operation, group.works)

    def _begin(self, attachment: Attachment, request: RequestNumber, operation: WorkBegin) -> Result:
        member = self._find(attachment, operation.path, operation.member)
        if isinstance(member, Failed):
            return member
        if member is None:
            return _not_a_member(operation.path, operation.member)
        return self._errands.begin(operation, self._group_of(member).works)

    def _finish(self, attachment: Attachment, request: RequestNumber, operation: WorkFinish) -> Result:
        fault = check_finish(operation)
        if fault is not None:
            return fault
        member = self._find(attachment, operation.path, operation.member)
        if member is None or isinstance(member, Failed):
            return member or _DONE
        return self._errands.finish(operation, self._group_of(member).works)

    def _cancel(self, attachment: Attachment, request: RequestNumber, operation: WorkCancel) -> Result:
        group = self._names.find(operation.path, Group)
        return group if isinstance(group, Failed) else self._errands.cancel(operation, Works() if group is None else group.works)

    def _await(self, attachment: Attachment, request: RequestNumber, operation: WorkAwait) -> Result | None:
        group = self._names.find(operation.path, Group)
        if isinstance(group, Failed):
            return group
        return self._errands.wait(attachment, request, operation, Works() if group is None else group.works)

    def _due(self, path: str) -> WorkState | Failed:
        group_path, _, number = path.rpartition("@")
        if not (number.isascii() and number.isdecimal() and len(number) <= _NUMBER_DIGITS_MAX):
            return refusals.invalid("path", "must be a group's, an @ and the number of a member")
        group = self._names.find(group_path, Group)
        if isinstance(group, Failed):
            return group
        return WorkState(()) if group is None else due_state(group.works, MemberId(int(number)))

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
        heirs = [it.id for it in group.members.values() if it.callable and it.attachment.alive]
        self._errands.member_ended(member.path, group.works, member.id, heirs)
        self._drop_if_empty(member.path, group)
        self._streams.end(SubscriptionId(member.id))
        self._streams.emit(_stream(member.path), MemberLeft(member.id, reason))

    def _drop_if_empty(self, path: str, group: Group) -> None:
        if not group.members:
            self._errands.group_ended(group.works)
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
        # First: who ends in this entry is told nothing any more.
        for attachment in ended:
            self._submitter_ended(attachment, answer)
        for attachment in ended:
            members = self._members.get(attachment.id, {})
            for number in sorted(members):
                self._remove(members[number], reason)

    def _submitter_ended(self, attachment: Attachment, answer: Result) -> None:
        for path, work in self._errands.submitted(attachment):
            self._give_up(path, work, attachment, answer)

    def _give_up(self, path: str, work: Work, attachment: Attachment, answer: Result) -> None:
        group = self._names.get(path)
        assert type(group) is Group, "work ends with its group"
        if work.request:
            self._entry.reply(attachment, work.request, answer)
        self._errands.submitter_ended(path, group.works, work)

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """A member is a process."""
        self.attachments_ended([attachment], answer)

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        for member in self._members.get(attachment.id, {}).values():
            if member.request == request:
                attachment.window.settle(request, answer)
                self._remove(member, "left")
                return True
        for path, work in self._errands.submitted(attachment):
            if work.request == request:
                if work.is_call:
                    self._give_up(path, work, attachment, answer)
                else:
                    self._names.get(path)  # it changes
                    self._errands.stop_waiting(work, answer)
                return True
        return False

    def holdings(self, attachment: Attachment) -> int:
        return len(self._members.get(attachment.id, ()))

    def state(self) -> list[Any]:
        return [_group_state(path, group) for path, group in self.all()]

    @property
    def named(self) -> type[Group]:
        return Group

    def row(self, path: str, group: Group) -> tuple[GroupRow, int]:
        row = GroupRow(path, [_row(member) for member in group.members.values()], work_rows(group.works))
        return row, len(path) + group.size + work_size(group.works)

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[GroupRow] = decode(_decode, rows)
        for row in found:
            group = Group()
            for one in row.members:
                self._add(group, self._restored(row.path, one))
            self._errands.restore(row.path, group.works, row.works)
            self._names.restore(row.path, group)
        return len(found)

    def _restored(self, path: str, row: MemberRow) -> Member:
        attachment = self._sessions.attachment(row.attachment)
        member = Member(row.id, path, attachment, row.request, row.owner or attachment.owner)
        member.metadata, member.since_ms, member.callable = row.metadata, row.since_ms, row.callable
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


def _group_state(path: str, group: Group) -> tuple[Any, ...]:
    state = (path, group.size, [_member_state(member) for member in group.members.values()])
    return (*state, work_states(group.works)) if group.works.by_id else state


def _member_state(member: Member) -> tuple[Any, ...]:
    owner = msgspec.structs.astuple(member.owner)
    state = (member.id, member.attachment.id, member.request, owner, member.metadata, member.since_ms)
    return (*state, True) if member.callable else state


def _row(member: Member) -> MemberRow:
    owner = None if member.owner == member.attachment.owner else member.owner
    return MemberRow(member.id, member.attachment.id, member.request, owner, member.metadata, member.since_ms, member.callable)
