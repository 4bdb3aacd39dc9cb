"""Announcements: answers that wait until an audience has acknowledged what they tell.

The entry that is announced names its audience in its result, which is kept like any other: asked again, it says the same.  The wait
is the leader's and is never logged.  It ends when everybody has acknowledged the revision, has gone, or when the time is over; the
answer then names who has not.  After a failover the caller asks again, the audience follows again with what it had acknowledged,
and the new leader waits anew.

Two that wait for each other need not: a listener that joins as well waits for whoever is about to join, and that one waits for the
listener.  So a call out of a listener does not wait for those whose own joins wait for its session; they hear of it when they have
joined.

Bound: WAITS_MAX; one more is answered at once, with its whole audience as unacknowledged.
"""

import heapq
from collections.abc import Sequence
from itertools import count

import msgspec

from coord_core.machine import Machine
from coord_core.protocol.base import Owner
from coord_core.protocol.messages import Reply, ServerMessage
from coord_core.protocol.results import Result
from coord_core.protocol.streams import AnnouncedStruct, Joined, Unacknowledged
from coord_core.replica.pending import Origin
from coord_core.types import LogIndex, SessionId, SubscriptionId

WAITS_MAX = 16_384


class _Wait:
    __slots__ = ("from_listener", "missing", "origin", "outstanding", "own", "result", "session", "sessions")

    def __init__(self, origin: Origin, session: SessionId, result: AnnouncedStruct, *, from_listener: bool) -> None:
        self.origin = origin
        #: The caller's, and whether it is one of its listeners that called.
        self.session = session
        self.from_listener = from_listener
        self.result = result
        #: The subscription that the caller will have with the answer, if any.
        self.own = SubscriptionId(result.member) if isinstance(result, Joined) else None
        self.outstanding: dict[SubscriptionId, Owner] = {}
        #: Those of whom are outstanding, or were.
        self.sessions: set[SessionId] = set()
        #: Those who have gone without a word.
        self.missing: list[Unacknowledged] = []


class Announcements:
    """The waits of one leadership."""

    def __init__(self) -> None:
        self._waits: dict[int, _Wait] = {}
        # Of those who wait and will have a subscription with the answer.
        self._own: dict[SubscriptionId, int] = {}
        self._numbers = count(1)
        self._of_subscription: dict[SubscriptionId, dict[int, _Wait]] = {}
        # (deadline, number); of waits that are over they are dropped when their time comes.
        self._deadlines: list[tuple[int, int]] = []
        # How far each follower has got.  Kept of those who are waited for, or followed lately: an acknowledgement may come first.
        self._acknowledged: dict[SubscriptionId, LogIndex] = {}
        self._replies: list[tuple[int, ServerMessage]] = []

    @property
    def is_active(self) -> bool:
        """Whether anybody waits, or waits for an answer that is ready."""
        return bool(self._waits or self._replies)

    # --- events ------------------------------------------------------------------------------------------------------------------

    def announce(
        self,
        origin: Origin,
        session: SessionId,
        result: AnnouncedStruct,
        machine: Machine,
        lease_ms: int,
        *,
        from_listener: bool = False,
    ) -> None:
        """Answer a call of that session when the audience has acknowledged."""
        wait = _Wait(origin, session, result, from_listener=from_listener)
        for number in result.audience:
            subscription = machine.streams.subscription(number)
            if subscription is None:
                wait.missing.append(Unacknowledged(number, "gone"))
            elif self._acknowledged.get(number, 0) < result.revision:
                wait.outstanding[number] = subscription.attachment.owner
                wait.sessions.add(subscription.attachment.session)
        self._untangle(wait)
        if not wait.outstanding or len(self._waits) >= WAITS_MAX:
            self._answer(wait)
            return
        key = next(self._numbers)
        self._waits[key] = wait
        if wait.own is not None:
            self._own[wait.own] = key
        for number in wait.outstanding:
            self._of_subscription.setdefault(number, {})[key] = wait
        heapq.heappush(self._deadlines, (lease_ms + result.wait_ms, key))

    def _untangle(self, wait: _Wait) -> None:
        """Let listeners not wait for those who wait for them: both would stand until their time is over."""
        if wait.from_listener:
            for number in [number for number in wait.outstanding if number in self._own]:
                if wait.session in self._waits[self._own[number]].sessions:
                    del wait.outstanding[number]
        if wait.own is None:
            return
        # Or the other way round: a new leader hears of them in any order.
        for key, other in list(self._of_subscription.get(wait.own, {}).items()):
            if other.from_listener and other.session in wait.sessions:
                del other.outstanding[wait.own]
                self._left(wait.own, key, other)

    def acknowledged(self, acknowledged: Sequence[tuple[SubscriptionId, LogIndex]]) -> None:
        """Followers have acknowledged up to these revisions."""
        for number, revision in acknowledged:
            if revision <= self._acknowledged.get(number, 0):
                continue
            self._acknowledged[number] = revision
            for key, wait in list(self._of_subscription.get(number, {}).items()):
                if wait.result.revision <= revision:
                    del wait.outstanding[number]
                    self._left(number, key, wait)

    def gone(self, subscriptions: Sequence[SubscriptionId]) -> None:
        """An entry has ended these subscriptions."""
        for number in subscriptions:
            self._acknowledged.pop(number, None)
            for key, wait in list(self._of_subscription.get(number, {}).items()):
                wait.missing.append(Unacknowledged(number, "gone", wait.outstanding.pop(number)))
                self._left(number, key, wait)

    def expire(self, lease_ms: int) -> None:
        """End the waits whose time is over."""
        while self._deadlines and self._deadlines[0][0] <= lease_ms:
            key = heapq.heappop(self._deadlines)[1]
            wait = self._waits.pop(key, None)
            if wait is None:
                continue  # It was answered before.
            for number in wait.outstanding:
                self._forget(number, key)
            self._answer(wait)

    def drain(self) -> list[Origin]:
        """Return who must be sent to the next leader, in order of asking.  Nothing of this is of use afterwards."""
        return [wait.origin for wait in self._waits.values()]

    # --- answers -----------------------------------------------------------------------------------------------------------------

    def take_replies(self) -> list[tuple[int, ServerMessage]]:
        replies, self._replies = self._replies, []
        return replies

    def _left(self, number: SubscriptionId, key: int, wait: _Wait) -> None:
        self._forget(number, key)
        if not wait.outstanding:
            del self._waits[key]
            self._answer(wait)

    def _forget(self, number: SubscriptionId, key: int) -> None:
        waits = self._of_subscription[number]
        del waits[key]
        if not waits:
            del self._of_subscription[number]

    def _answer(self, wait: _Wait) -> None:
        if wait.own is not None:
            self._own.pop(wait.own, None)
        late = [Unacknowledged(number, "deadline", owner) for number, owner in wait.outstanding.items()]
        named = tuple(sorted([*wait.missing, *late], key=lambda one: one.subscription))
        result: Result = msgspec.structs.replace(wait.result, audience=(), unacknowledged=named)  # type: ignore[assignment]
        self._replies.append((wait.origin[0], Reply(wait.origin[1], result)))
