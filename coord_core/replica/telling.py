"""What clients are told unasked, and the answers that wait until they have been told: `watches` and `announcements` put together.

The order matters: who an entry unsubscribed is forgotten before the entry's own announcement is looked at, and what an entry
emitted is pushed after it.  Acknowledgements go from the followers to the announcements once a turn.
"""

from collections.abc import Sequence

from coord_core.machine import Applied, Machine
from coord_core.protocol.commands import Call
from coord_core.protocol.groups import GroupJoin
from coord_core.protocol.messages import Acknowledge, Follow, Redirect, ServerMessage
from coord_core.protocol.streams import AnnouncedStruct
from coord_core.protocol.topics import TopicPublish
from coord_core.replica.announcements import Announcements
from coord_core.replica.pending import Origin
from coord_core.replica.watches import Watches

Pushes = list[tuple[int, ServerMessage]]


class Telling:
    """Of one node, whether it leads or not."""

    __slots__ = ("_pushed_records_max", "_strays", "announcements", "watches")

    def __init__(self, pushed_records_max: int) -> None:
        self._pushed_records_max = pushed_records_max
        self.watches = Watches(pushed_records_max)
        self.announcements = Announcements()
        # Connections that would follow more than there may be.
        self._strays: list[int] = []

    # --- events ------------------------------------------------------------------------------------------------------------------

    def follow(self, connection: int, message: Follow) -> None:
        if not self.watches.follow(connection, message):
            self._strays.append(connection)

    def acknowledge(self, connection: int, message: Acknowledge) -> None:
        self.watches.acknowledge(connection, message)

    def connection_closed(self, connection: int) -> None:
        self.watches.closed(connection)

    def ended(self, applied: Applied) -> None:
        """An entry may have ended subscriptions."""
        if applied.unsubscribed:
            self.watches.unsubscribed(applied.unsubscribed)
            self.announcements.gone(applied.unsubscribed)

    def emitted(self, applied: Applied) -> None:
        """An entry may have added to streams."""
        if applied.emitted:
            self.watches.emitted(applied.emitted)

    def announce(self, origin: Origin, call: Call, result: AnnouncedStruct, machine: Machine, lease_ms: int) -> None:
        """Answer a call when the audience of its result has acknowledged."""
        from_listener = isinstance(call.operation, GroupJoin | TopicPublish) and call.operation.from_listener
        self.announcements.announce(origin, call.session, result, machine, lease_ms, from_listener=from_listener)

    # --- a turn ------------------------------------------------------------------------------------------------------------------

    def is_active(self) -> bool:
        """Whether a turn has to look here."""
        return bool(self._strays) or not self.watches.is_empty or self.announcements.is_active

    def has_work(self, *, leads: bool, ready: bool) -> bool:
        """Whether one more turn would do something now.  A node that leads, but is not ready, keeps its followers until it is."""
        if self._strays:
            return True
        if ready:
            return self.watches.has_work or bool(self.watches.acknowledged)
        return not leads and not self.watches.is_empty

    def tell(self, machine: Machine, lease_ms: int) -> tuple[Pushes, Sequence[tuple[int, ServerMessage]]]:
        """Return what a leader that is ready has to push, and the answers that need not wait any more."""
        pushes = self.watches.push(machine)
        self.announcements.acknowledged(self.watches.acknowledged)
        self.watches.acknowledged = []
        self.announcements.expire(lease_ms)
        return pushes, self.announcements.take_replies()

    def send_strays(self, leader: str) -> Pushes:
        """Send those away that would follow too much."""
        strays, self._strays = self._strays, []
        return [(connection, Redirect(0, leader)) for connection in strays]

    # --- the end of a leadership -------------------------------------------------------------------------------------------------

    def redirect(self, leader: str) -> Pushes:
        """Send every follower to the leader; nobody follows anything here any more."""
        if self.watches.is_empty:
            return []
        pushes, self.watches = self.watches.redirect(leader), Watches(self._pushed_records_max)
        return pushes

    def drain(self) -> list[Origin]:
        """Forget who waits for an announcement; return them, in order of asking."""
        waiting, self.announcements = self.announcements, Announcements()
        return waiting.drain()
