"""The membership group: `AsyncDistributedMembershipGroup`, and the `AsyncJoinedMember` of one who has joined.

The rule: a member is a member of the cluster's group for as long as its session lives, wherever connections go; when the session is
lost the member is gone for good, and whoever wants to be a member again joins again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from coord_core.client.feed import Feed, call
from coord_core.client.listeners import Listener, call_listener, is_inside
from coord_core.client.paths import announce_ms
from coord_core.client.watch import AsyncWatch
from coord_core.client.works import AsyncRemoteMember, Callbacks, Callee
from coord_core.errors import CoordError, LostError, OutcomeUnknown
from coord_core.protocol.base import Owner
from coord_core.protocol.groups import (
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
from coord_core.protocol.queries import Answer
from coord_core.protocol.streams import Change, Joined, Unacknowledged
from coord_core.types import LogIndex, MemberId, SubscriptionId

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

_log = logging.getLogger("coord.client")

C = TypeVar("C", bound=Callable[..., Any])

KIND = "group"

#: How long a join waits for those who were there before.
ANNOUNCE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class GroupChange:
    """Something happened to a group."""

    #: "joined", "updated" or "left".
    what: str
    member: GroupMember
    #: Of one who left: "left", "closed" or "expired"; "unknown" where only its absence was noticed.
    reason: str = ""


class AsyncJoinedMember:
    """This process's part in a group.  Ends with `leave`, or with the session."""

    def __init__(self, client: "AsyncClient", path: str, joined: Joined, callbacks: Callbacks) -> None:
        self.path = path
        #: The log index of the join: nobody else's, ever.
        self.member: MemberId = joined.member
        #: Who was there before and had not worked off the news of this join when it completed.
        self.unacknowledged: Sequence[Unacknowledged] = joined.unacknowledged
        self._client = client
        self._full_path = client.full_path(path)
        self._left = False
        # What it hears is acknowledged at once: listeners have a subscription of their own.
        self._feed = Feed(client.driver(), SubscriptionId(joined.member), LogIndex(joined.member))
        self._following = asyncio.get_running_loop().create_task(self._follow())
        self._callee = Callee(client, self._full_path, self.member, callbacks) if callbacks else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.member} of {self.path}{'' if self.is_member_locally() else ', gone'}>"

    def is_member_locally(self) -> bool:
        """Tell whether this process may believe that it is a member: it has not left, and its session is not lost."""
        return not self._left and self._feed.ended is None

    async def wait_gone(self) -> None:
        """Return when it is no member any more."""
        await asyncio.shield(self._following)

    async def leave(self) -> None:
        """Leave the group; does nothing where it is gone already.

        Raises `OutcomeUnknown` (not confirmed in time: it is sent on until the cluster has it, or the session is over).
        """
        if not self.is_member_locally():
            return
        self._left = True
        self._feed.close()
        if self._callee is not None:
            self._callee.stop()
        try:
            await self._client.driver().call(GroupLeave(self._full_path, self.member))[1]
        except LostError:
            pass  # It went with the session.
        except OutcomeUnknown as error:
            if "lost" not in error.details:
                raise

    async def update(self, metadata: bytes) -> None:
        """Replace the metadata; the others are told.

        Raises as every write does, and `NotHolder` where it is no member any more.
        """
        await call(self._client.driver(), GroupUpdate(self._full_path, self.member, metadata), self._full_path)

    async def _follow(self) -> None:
        try:
            while True:
                self._feed.acknowledge(await self._feed.get())
        except LostError:
            return


class AsyncDistributedMembershipGroup:
    """A handle of the group at `path`.  Made by `AsyncClient.group`; making one sends nothing."""

    def __init__(self, client: "AsyncClient", path: str, owner: Owner) -> None:
        self.path = path
        self._client = client
        self._full_path = client.full_path(path)
        self._owner = owner
        self._callbacks: dict[str, Callable[..., Any]] = {}
        self._listeners: list[tuple[str, Listener]] = []
        self._watch: AsyncWatch[GroupChange] | None = None
        self._dispatching: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    async def join(self, metadata: bytes = b"", timeout: float = ANNOUNCE_TIMEOUT_S) -> AsyncJoinedMember:
        """Become a member; completes when everybody who was there before has been told and their listeners have returned.

        Whoever has not returned within `timeout` seconds (0: do not wait), or is gone, is named in `unacknowledged`; it is
        a member in any case.  Raises `Unavailable`, `Busy` or `DiskFull` (not applied), `SessionExpired`, `OutcomeUnknown`,
        `WrongType`, `LimitExceeded`.
        """
        callbacks = dict(self._callbacks)
        operation = GroupJoin(self._full_path, metadata, self._owner, announce_ms(timeout), is_inside(), bool(callbacks))
        joined = await call(self._client.driver(), operation, self._full_path)
        assert isinstance(joined, Joined)
        return AsyncJoinedMember(self._client, self.path, joined, callbacks)

    def callback(self, name: str = "") -> Callable[[C], C]:
        """Register a function, or coroutine function, that others may have this process call once it has joined.

        `@group.callback("rebuild")`; without a name under that of the function.  Only what is registered when a member joins is
        called.  Plain functions run one after the other on the callback thread, coroutine functions up to sixteen at a time.
        """

        def register(function: C) -> C:
            self._callbacks[name or function.__name__] = function
            return function

        return register

    def member(self, member: GroupMember | AsyncJoinedMember | int) -> AsyncRemoteMember:
        """Return a member of this group, to have it call something: `group.member(joined).execute("rebuild", 7)`."""
        number = member if isinstance(member, int) else member.member
        return AsyncRemoteMember(self._client, self.path, MemberId(number))

    async def members(self) -> Sequence[GroupMember]:
        """Return the members in the order in which they joined, linearizably.  Raises `Unavailable`."""
        state: GroupState = await self._client.driver().ask(GroupInfo(self._full_path))
        return state.members

    def changes(self) -> "AsyncWatch[GroupChange]":
        """Return what happens to the group from now on: `async for change in group.changes()`.

        A change counts as worked off, and a join that waits for it goes on, when the next one is asked for.
        """
        return AsyncWatch(self._client, KIND, self._full_path, GroupView())

    async def on_join(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(member)` called for everyone who joins from now on; return a function that ends it.

        A join elsewhere completes when the listener has returned.  Raises as every call does.
        """
        return await self._listen("joined", listener)

    async def on_leave(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(member)` called for everyone who leaves, or whose session ends; return a function that ends it."""
        return await self._listen("left", listener)

    # --- inside ------------------------------------------------------------------------------------------------------------------

    async def _listen(self, what: str, listener: Listener) -> Callable[[], None]:
        entry = (what, listener)
        async with self._starting:
            if self._dispatching is None or self._dispatching.done():
                watch = self._watch = self.changes()
                await watch.start()
                self._dispatching = asyncio.get_running_loop().create_task(self._dispatch(watch))
        self._listeners.append(entry)

        def end() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return end

    async def _dispatch(self, watch: AsyncWatch[GroupChange]) -> None:
        try:
            async for change in watch:
                for what, listener in list(self._listeners):
                    if what == change.what:
                        await call_listener(self._client.callbacks, listener, change.member)
                watch.done()
        except CoordError as error:  # there is nobody else whom it could be told
            _log.error("the listeners of %s hear nothing more: %s", self.path, error.message)


class GroupView:
    """Who is there, as it was told last."""

    def __init__(self) -> None:
        # None: nothing was told yet, and whoever is there was there before.
        self._members: dict[MemberId, GroupMember] | None = None

    def state(self, state: Answer, revision: LogIndex) -> Iterable[GroupChange]:
        assert isinstance(state, GroupState)
        present = {member.member: member for member in state.members}
        before, self._members = self._members, present
        if before is None:
            return ()
        left = [GroupChange("left", member, "unknown") for number, member in before.items() if number not in present]
        joined = [GroupChange("joined", member) for number, member in present.items() if number not in before]
        updated = [
            GroupChange("updated", member)
            for number, member in present.items()
            if number in before and before[number].metadata != member.metadata
        ]
        return [*left, *joined, *updated]

    def change(self, change: Change, revision: LogIndex) -> Iterable[GroupChange]:
        members = self._members = {} if self._members is None else self._members
        match change:
            case MemberJoined(member):
                members[member.member] = member
                return (GroupChange("joined", member),)
            case MemberLeft(number, reason):
                gone = members.pop(number, None)
                return () if gone is None else (GroupChange("left", gone, reason),)
            case MemberUpdated(number, metadata):
                return self._updated(members, number, metadata)
        raise AssertionError(f"{change!r} does not happen to groups")

    @staticmethod
    def _updated(members: dict[MemberId, GroupMember], number: MemberId, metadata: bytes) -> Iterable[GroupChange]:
        former = members.get(number)
        if former is None:
            return ()
        member = members[number] = GroupMember(
            former.member, former.session, former.attachment, former.owner, metadata, former.since_ms
        )
        return (GroupChange("updated", member),)
