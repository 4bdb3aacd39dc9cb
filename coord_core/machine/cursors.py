"""Consumer groups of topics: how far each has read, and who may say so.

Rules:
- A cursor moves forward only, unless its mover says that it seeks; it is never beyond the topic's end.
- A group may be *claimed* by one attachment: then nobody else moves its cursor, until the claim is released, taken over, or its
  attachment ends.  What was committed stays: it belongs to the topic.
- A claim has a token, the index of its entry: tokens rise over the group's life.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from coord_core import errors
from coord_core.machine import refusals
from coord_core.machine.bounds import TOPIC_GROUPS_MAX
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.logs import Kept
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.protocol.base import Owner
from coord_core.protocol.results import Done, Failed, Result
from coord_core.protocol.topics import (
    GROUP_NAME_BYTES_MAX,
    Claimed,
    ClaimRefused,
    Committed,
    GroupCursor,
    TopicClaim,
    TopicCommit,
    TopicGroupDelete,
    TopicRelease,
)
from coord_core.types import AttachmentId, RequestNumber

_DONE = Done()


class Claim:
    __slots__ = ("attachment", "group", "owner", "path", "request", "since_ms", "token")

    def __init__(self, path: str, group: str, attachment: Attachment, request: RequestNumber, owner: Owner) -> None:
        self.path = path
        self.group = group
        self.attachment = attachment
        self.request = request
        self.owner = owner
        self.token = 0
        #: Cluster time.
        self.since_ms = 0


class Group:
    __slots__ = ("claim", "committed")

    def __init__(self) -> None:
        #: The offset of the next record for it; None before its first commit.
        self.committed: int | None = None
        self.claim: Claim | None = None


class ClaimRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    attachment: AttachmentId
    request: RequestNumber
    owner: Owner
    token: int
    since_ms: int


class Consumed(Protocol):
    """What groups consume: a topic, or the deliveries of a parking lot."""

    groups: dict[str, Group]

    @property
    def kept(self) -> Kept: ...


class GroupRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A consumer group in a snapshot."""

    name: str
    committed: int | None
    claim: ClaimRow | None


class Cursors:
    """What is done to groups; what they consume is handed in."""

    __slots__ = ("_claims", "_entry", "_sessions")

    def __init__(self, entry: CurrentEntry, sessions: Sessions) -> None:
        self._entry = entry
        self._sessions = sessions
        # The claims of each attachment that has any, by path and group.
        self._claims: dict[AttachmentId, dict[tuple[str, str], Claim]] = {}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def commit(self, attachment: Attachment, topic: Consumed, operation: TopicCommit) -> Result:
        group = self._usable(attachment, topic, operation.group)
        if isinstance(group, Failed):
            return group
        if not 0 <= operation.offset <= topic.kept.end:
            return refusals.invalid("offset", f"must be between 0 and {topic.kept.end}, where the topic ends")
        if group is None:
            group = topic.groups[operation.group] = Group()
        if operation.seek or group.committed is None or operation.offset > group.committed:
            group.committed = operation.offset
        return Committed(group.committed)

    def claim(self, attachment: Attachment, request: RequestNumber, topic: Consumed, operation: TopicClaim) -> Result:
        fault = refusals.check_owner(operation.owner)
        if fault is not None:
            return fault
        group = self._find(topic, operation.group)
        if isinstance(group, Failed):
            return group
        former = None if group is None else group.claim
        if former is not None and former.attachment is attachment:
            return Claimed(former.token, None if group is None else group.committed)
        if former is not None and not operation.takeover:
            return ClaimRefused(former.owner, self._entry.time_ms - former.since_ms)
        if group is None:
            group = topic.groups[operation.group] = Group()
        if former is not None:
            self._drop(former)
        claim = Claim(operation.path, operation.group, attachment, request, operation.owner)
        claim.token, claim.since_ms = self._entry.index, self._entry.time_ms
        self._add(group, claim)
        return Claimed(claim.token, group.committed)

    def release(self, attachment: Attachment, topic: Consumed, operation: TopicRelease) -> Result:
        group = topic.groups.get(operation.group)
        if group is not None and group.claim is not None and group.claim.attachment is attachment:
            self._give_up(topic, group.claim)
        return _DONE

    def delete(self, attachment: Attachment, topic: Consumed, operation: TopicGroupDelete) -> Result:
        group = self._usable(attachment, topic, operation.group)
        if isinstance(group, Failed):
            return group
        if group is not None:
            if group.claim is not None:
                self._drop(group.claim)
            del topic.groups[operation.group]
        return _DONE

    # --- what happens to claims --------------------------------------------------------------------------------------------------

    def topic_deleted(self, topic: Consumed) -> None:
        for group in topic.groups.values():
            if group.claim is not None:
                self._drop(group.claim)

    def of_attachment(self, attachment: Attachment) -> list[Claim]:
        """Return its claims, in the order in which it made them."""
        return list(self._claims.get(attachment.id, {}).values())

    def end(self, topic: Consumed, claim: Claim) -> None:
        """A claim's attachment has ended, or the claim was withdrawn."""
        self._give_up(topic, claim)

    def _give_up(self, topic: Consumed, claim: Claim) -> None:
        group = topic.groups[claim.group]
        group.claim = None
        self._drop(claim)
        if group.committed is None:
            # It remembers nothing.
            del topic.groups[claim.group]

    def _add(self, group: Group, claim: Claim) -> None:
        group.claim = claim
        self._claims.setdefault(claim.attachment.id, {})[claim.path, claim.group] = claim

    def _drop(self, claim: Claim) -> None:
        claims = self._claims[claim.attachment.id]
        del claims[claim.path, claim.group]
        if not claims:
            del self._claims[claim.attachment.id]

    def _usable(self, attachment: Attachment, topic: Consumed, name: str) -> Group | Failed | None:
        """Return the group where this attachment may move or delete it; None where there is none and may be one."""
        group = self._find(topic, name)
        if isinstance(group, Group) and group.claim is not None and group.claim.attachment is not attachment:
            owner = group.claim.owner
            message = f"group {name} is claimed by process {owner.pid} on {owner.host}"
            return refusals.refuse(errors.NotHolder, message, group=name, host=owner.host, pid=owner.pid)
        return group

    @staticmethod
    def _find(topic: Consumed, name: str) -> Group | Failed | None:
        group = topic.groups.get(name)
        return _check_new(topic, name) if group is None else group

    # --- snapshots and looking ---------------------------------------------------------------------------------------------------

    def restore(self, path: str, topic: Consumed, row: GroupRow) -> None:
        """Raises KeyError where the attachment of its claim is missing."""
        group = topic.groups[row.name] = Group()
        group.committed = row.committed
        if row.claim is not None:
            attachment = self._sessions.attachment(row.claim.attachment)
            claim = Claim(path, row.name, attachment, row.claim.request, row.claim.owner)
            claim.token, claim.since_ms = row.claim.token, row.claim.since_ms
            self._add(group, claim)


def rows(topic: Consumed) -> list[GroupRow]:
    return [GroupRow(name, group.committed, _claim_row(group.claim)) for name, group in topic.groups.items()]


def state(topic: Consumed) -> list[Any]:
    """Plain data, equal for equal states: the order in which groups came about does not matter."""
    return sorted((row.name, row.committed, msgspec.to_builtins(row.claim)) for row in rows(topic))


def told(topic: Consumed) -> tuple[GroupCursor, ...]:
    """The groups as people are told of them, by name."""
    return tuple(_told(topic, name, topic.groups[name]) for name in sorted(topic.groups))


def _told(topic: Consumed, name: str, group: Group) -> GroupCursor:
    at = max(group.committed or 0, topic.kept.earliest)
    return GroupCursor(name, group.committed, topic.kept.end - at, None if group.claim is None else group.claim.owner)


def _claim_row(claim: Claim | None) -> ClaimRow | None:
    return None if claim is None else ClaimRow(claim.attachment.id, claim.request, claim.owner, claim.token, claim.since_ms)


def _check_new(topic: Consumed, name: str) -> Failed | None:
    length = refusals.utf8_length(name)
    if not 1 <= length <= GROUP_NAME_BYTES_MAX:
        return refusals.invalid("group", f"must be 1 to {GROUP_NAME_BYTES_MAX} bytes of UTF-8")
    if len(topic.groups) >= TOPIC_GROUPS_MAX:
        return refusals.over_limit("consumer groups of a topic", TOPIC_GROUPS_MAX, len(topic.groups) + 1)
    return None


def claimed_paths(ended: Sequence[Attachment], cursors: Cursors) -> list[Claim]:
    """Return the claims of all that ended, in order."""
    return [claim for attachment in ended for claim in cursors.of_attachment(attachment)]
