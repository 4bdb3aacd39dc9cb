"""The blocking forms of the group's classes; see `group`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from coord_core.client.group import ANNOUNCE_TIMEOUT_S, AsyncDistributedMembershipGroup, AsyncJoinedMember, GroupChange
from coord_core.client.listeners import Listener
from coord_core.client.sync_base import Blocking
from coord_core.client.sync_watch import Watch
from coord_core.client.works import AsyncRemoteMember, AsyncScheduledWork
from coord_core.protocol.groups import GroupMember
from coord_core.protocol.streams import Unacknowledged
from coord_core.types import MemberId, WorkId

C = TypeVar("C", bound=Callable[..., Any])


class JoinedMember(Blocking[AsyncJoinedMember]):
    """This process's part in a group.  Ends with `leave`, or with the session."""

    @property
    def member(self) -> MemberId:
        """The log index of the join: nobody else's, ever."""
        return self._inner.member

    @property
    def unacknowledged(self) -> Sequence[Unacknowledged]:
        """Who was there before and had not worked off the news of this join when it completed."""
        return self._inner.unacknowledged

    def is_member_locally(self) -> bool:
        """Tell whether this process may believe that it is a member: it has not left, and its session is not lost."""
        return self._inner.is_member_locally()

    def wait_gone(self) -> None:
        """Return when it is no member any more."""
        self._client.run(self._inner.wait_gone)

    def leave(self) -> None:
        """Leave the group; does nothing where it is gone already.  Raises as `AsyncJoinedMember.leave` does."""
        self._client.run(self._inner.leave, finish=True)

    def update(self, metadata: bytes) -> None:
        """Replace the metadata; the others are told.  Raises as `AsyncJoinedMember.update` does."""
        self._client.run(lambda: self._inner.update(metadata))


class DistributedMembershipGroup(Blocking[AsyncDistributedMembershipGroup]):
    """A handle of the group at `path`.  Made by `Client.group`; making one sends nothing."""

    def join(self, metadata: bytes = b"", timeout: float = ANNOUNCE_TIMEOUT_S) -> JoinedMember:
        """Become a member; completes when everybody who was there before has been told and their listeners have returned.

        Whoever has not returned within `timeout` seconds (0: do not wait), or is gone, is named in `unacknowledged`.  Raises as the
        async form does.
        """
        return JoinedMember(self._client, self._client.run(lambda: self._inner.join(metadata, timeout), AsyncJoinedMember.leave))

    def members(self) -> Sequence[GroupMember]:
        """Return the members in the order in which they joined, linearizably.  Raises `Unavailable`."""
        return self._client.run(self._inner.members)

    def callback(self, name: str = "") -> Callable[[C], C]:
        """Register a function that others may have this process call once it has joined: `@group.callback("rebuild")`.

        See `AsyncDistributedMembershipGroup.callback`.
        """
        return self._inner.callback(name)

    def member(self, member: GroupMember | JoinedMember | int) -> "RemoteMember":
        """Return a member of this group, to have it call something: `group.member(joined).execute("rebuild", 7)`."""
        number = member if isinstance(member, int) else member.member
        return RemoteMember(self._client, self._inner.member(number))

    def changes(self) -> "Watch[GroupChange]":
        """Return what happens to the group from now on.  A change counts as worked off when the next one is asked for."""
        return Watch(self._client, self._inner.changes())

    def on_join(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(member)` called, on the callback thread, for everyone who joins; return a function that ends it.

        A join elsewhere completes when the listener has returned.
        """
        return self._client.run(lambda: self._inner.on_join(listener))

    def on_leave(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(member)` called for everyone who leaves, or whose session ends; return a function that ends it."""
        return self._client.run(lambda: self._inner.on_leave(listener))


class RemoteMember(Blocking[AsyncRemoteMember]):
    """A member of a group, as others call it."""

    @property
    def member(self) -> MemberId:
        """The log index of its join."""
        return self._inner.member

    def execute(self, name: str, *args: Any, timeout: float | None = None, retry: bool = False) -> Any:
        """Have the member call what it has registered under a name; return the result.  Raises as the async form does."""
        return self._client.run(lambda: self._inner.execute(name, *args, timeout=timeout, retry=retry))

    def schedule(self, delay: float, name: str, *args: Any, retry: bool = False) -> "ScheduledWork":
        """Have the member call it `delay` seconds from now, by the cluster's clock.  Raises as the async form does."""
        return ScheduledWork(self._client, self._client.run(lambda: self._inner.schedule(delay, name, *args, retry=retry)))


class ScheduledWork(Blocking[AsyncScheduledWork]):
    """What `schedule` has stored."""

    @property
    def work(self) -> WorkId:
        """The log index at which it was submitted."""
        return self._inner.work

    def result(self, timeout: float | None = None) -> Any:
        """Return what came of it, when it is done; once.  Raises as the async form does."""
        return self._client.run(lambda: self._inner.result(timeout))

    def cancel(self) -> bool:
        """Withdraw it; return False where it has begun, or is over."""
        return self._client.run(self._inner.cancel)
