"""What a client follows: how far each subscription has come, and what of it is to be said to the cluster.

The rules: every record is handed on once and in order, whatever connections break; a gap is asked for again, never passed over;
what was handed on is acknowledged when the application has worked it off, not before.  Subscriptions end with the session.  Pure.
"""

from dataclasses import dataclass
from typing import TypeAlias

from coord_core.errors import LostError, SubscriptionLost
from coord_core.protocol.messages import Acknowledge, ClientMessage, Follow, NotSubscribed, Records, Resync
from coord_core.protocol.queries import Answer
from coord_core.protocol.streams import Record
from coord_core.types import AttachmentId, LogIndex, SubscriptionId


@dataclass(frozen=True, slots=True)
class StateDelivered:
    """Instead of what happened: how it is, up to `revision`."""

    revision: LogIndex
    state: Answer


@dataclass(frozen=True, slots=True)
class SubscriptionEnded:
    """Nothing more comes: its session, or the subscription, is gone."""

    error: LostError


Delivery: TypeAlias = Record | StateDelivered | SubscriptionEnded


class _Followed:
    __slots__ = ("acknowledged", "cursor", "is_said", "said")

    def __init__(self, after: LogIndex) -> None:
        #: The last revision handed on; 0: the state is to come first.
        self.cursor = after
        #: The last revision worked off, and the last that the present connection was told of.
        self.acknowledged = self.said = after
        #: The present connection knows that it is to push.
        self.is_said = False


class Subscriptions:
    """The subscriptions of one session."""

    def __init__(self) -> None:
        self._followed: dict[SubscriptionId, _Followed] = {}
        # Those with something to be said, in the order in which it came up.
        self._due: dict[SubscriptionId, _Followed] = {}
        #: What came, in order, for the driver to hand out.
        self.deliveries: list[tuple[SubscriptionId, Delivery]] = []

    def add(self, subscription: SubscriptionId, after: LogIndex) -> None:
        """Follow from the record after a revision on; 0: from the present state."""
        self._followed[subscription] = self._due[subscription] = _Followed(after)

    def remove(self, subscription: SubscriptionId) -> None:
        self._followed.pop(subscription, None)
        self._due.pop(subscription, None)

    def acknowledge(self, subscription: SubscriptionId, revision: LogIndex) -> None:
        """The application has worked off everything up to a revision that was handed on."""
        followed = self._followed.get(subscription)
        if followed is not None and followed.acknowledged < revision <= followed.cursor:
            followed.acknowledged = revision
            self._due[subscription] = followed

    def received(self, message: Records | Resync | NotSubscribed) -> None:
        followed = self._followed.get(message.subscription)
        if followed is None or not followed.is_said:
            return  # Of what was given up here, or will come again from where it stands.
        if isinstance(message, NotSubscribed):
            self.remove(message.subscription)
            error = SubscriptionLost("the cluster does not know the subscription any more")
            self.deliveries.append((message.subscription, SubscriptionEnded(error)))
        elif isinstance(message, Resync):
            followed.cursor = message.revision
            self.deliveries.append((message.subscription, StateDelivered(message.revision, message.state)))
        else:
            self._records(message, followed)

    def _records(self, message: Records, followed: _Followed) -> None:
        for record in message.records:
            if record.revision <= followed.cursor:
                continue
            if record.previous > followed.cursor:
                followed.is_said = False
                self._due[message.subscription] = followed
                return
            followed.cursor = record.revision
            self.deliveries.append((message.subscription, record))

    def messages(self, attachment: AttachmentId) -> list[ClientMessage]:
        """Return what is to be said on the present connection."""
        messages: list[ClientMessage] = []
        for subscription, followed in self._due.items():
            if not followed.is_said:
                followed.is_said = True
                messages.append(Follow(attachment, subscription, followed.cursor, followed.acknowledged))
            elif followed.said < followed.acknowledged:
                messages.append(Acknowledge(subscription, followed.acknowledged))
            followed.said = followed.acknowledged
        self._due.clear()
        return messages

    def connection_lost(self) -> None:
        """The next connection must be told everything again."""
        for followed in self._followed.values():
            followed.is_said = False
        self._due = dict(self._followed)

    def session_lost(self, error: LostError) -> None:
        for subscription in self._followed:
            self.deliveries.append((subscription, SubscriptionEnded(error)))
        self._followed.clear()
        self._due.clear()
