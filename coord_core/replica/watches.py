"""Pushing: which connection follows which subscription, and how far it has got.

Only a leader that is ready pushes.  It keeps a cursor for each follower and nothing else: the records are the machine's, and who
reads slowly is given more only when it has acknowledged what it was given, so it holds nobody up and takes no room.

A node that does not lead sends followers away with a `Redirect` whose seq is 0; a leader that is not ready keeps them until it is.

Bounds: a follower has PUSHED_RECORDS_MAX records or PUSHED_BYTES_MAX bytes unacknowledged, but always one; one that comes with some
from another connection gets more when it has worked them off.  A connection has CONNECTION_BYTES_MAX; a turn pushes to
FOLLOWERS_A_TURN, and STATES_A_TURN states, which may be large.  Over FOLLOWERS_MAX, a connection that would follow more is
redirected, as if this node did not lead: it comes again.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from msgspec import structs

from coord_core.machine import Machine
from coord_core.machine.streams import Behind, StreamName, Stretch
from coord_core.protocol.messages import (
    Acknowledge,
    Follow,
    NotSubscribed,
    Records,
    Redirect,
    Resync,
    ServerMessage,
)
from coord_core.protocol.streams import Record
from coord_core.raft.zero import START
from coord_core.types import LogIndex, SubscriptionId

PUSHED_RECORDS_MAX = 256
PUSHED_BYTES_MAX = 64 * 1024
CONNECTION_BYTES_MAX = 4 * 1024 * 1024
FOLLOWERS_A_TURN = 1_000
STATES_A_TURN = 64
FOLLOWERS_MAX = 100_000

K = TypeVar("K")

#: What a state counts as, which is pushed instead of records: its size is not known, and there is one at a time.
_STATE_BYTES = 4_096
_RECORD_BYTES = 16


@dataclass(slots=True)
class Follower:
    """One subscription and the connection on which it is followed."""

    subscription: SubscriptionId
    connection: int
    stream: StreamName
    #: Pushed as far as this.
    cursor: LogIndex
    #: Revisions that were pushed and are not acknowledged, with their sizes.
    unacknowledged: deque[tuple[LogIndex, int]] = field(default_factory=deque)
    unacknowledged_bytes: int = 0
    #: What it was given on another connection goes as far as this, and is not worked off: it gets nothing more before.  0: it is.
    owes: LogIndex = START

    def has_room(self, records_max: int) -> bool:
        if self.owes:
            return False
        if not self.unacknowledged:
            return True
        return len(self.unacknowledged) < records_max and self.unacknowledged_bytes < PUSHED_BYTES_MAX


class Watches:
    """The followers of one leadership."""

    def __init__(self, records_max: int = PUSHED_RECORDS_MAX) -> None:
        self._records_max = records_max
        # What was asked since the last turn, or before this leader was ready.
        self._asked: dict[tuple[int, SubscriptionId], Follow] = {}
        self._followers: dict[SubscriptionId, Follower] = {}
        self._of_connection: dict[int, dict[SubscriptionId, Follower]] = {}
        self._of_stream: dict[StreamName, dict[SubscriptionId, Follower]] = {}
        self._connection_bytes: dict[int, int] = {}
        # Who may have something to be pushed, in order of turn.
        self._due: dict[SubscriptionId, Follower] = {}
        #: How far each of those that were acknowledged since it was last looked at has got.
        self.acknowledged: list[tuple[SubscriptionId, LogIndex]] = []

    # --- events ------------------------------------------------------------------------------------------------------------------

    def follow(self, connection: int, message: Follow) -> bool:
        """A connection wants to follow a subscription; False where there are too many."""
        if len(self._asked) + len(self._followers) >= FOLLOWERS_MAX:
            return False
        self._asked.pop((connection, message.subscription), None)
        self._asked[connection, message.subscription] = message
        return True

    def acknowledge(self, connection: int, message: Acknowledge) -> None:
        asked = self._asked.get((connection, message.subscription))
        if asked is not None:
            # Of what was pushed before; it is not said again.
            acknowledged = max(asked.acknowledged, message.revision)
            self._asked[connection, message.subscription] = structs.replace(asked, acknowledged=acknowledged)
            return
        follower = self._followers.get(message.subscription)
        if follower is None or follower.connection != connection:
            return
        if 0 < follower.owes <= message.revision:
            follower.owes = START
            self._due[follower.subscription] = follower
        unacknowledged, freed = follower.unacknowledged, 0
        while unacknowledged and unacknowledged[0][0] <= message.revision:
            freed += unacknowledged.popleft()[1]
        if freed:
            was_full = self._connection_bytes[connection] >= CONNECTION_BYTES_MAX
            self._free(follower, freed)
            self._due.update(self._of_connection[connection] if was_full else {follower.subscription: follower})
        # Never beyond what it was given: a client that is wrong about itself completes nothing that others wait for.
        self.acknowledged.append((message.subscription, min(message.revision, follower.cursor)))

    def closed(self, connection: int) -> None:
        """A connection is gone, with all that it followed."""
        for follower in list(self._of_connection.get(connection, {}).values()):
            self._forget(follower)
        if self._asked:
            self._asked = {key: asked for key, asked in self._asked.items() if key[0] != connection}

    def emitted(self, streams: Sequence[StreamName]) -> None:
        """An entry has added to these streams."""
        for stream in streams:
            self._due.update(self._of_stream.get(stream, ()))

    def unsubscribed(self, subscriptions: Sequence[SubscriptionId]) -> None:
        """An entry has ended these subscriptions."""
        for subscription in subscriptions:
            follower = self._followers.get(subscription)
            if follower is not None:
                self._forget(follower)

    def redirect(self, leader: str) -> list[tuple[int, ServerMessage]]:
        """Send everyone to the leader.  Nothing of this is of use afterwards."""
        connections = dict.fromkeys([*self._of_connection, *(connection for connection, _ in self._asked)])
        return [(connection, Redirect(0, leader)) for connection in connections]

    # --- pushing -----------------------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return not self._followers and not self._asked

    @property
    def has_work(self) -> bool:
        return bool(self._asked or self._due)

    def push(self, machine: Machine) -> list[tuple[int, ServerMessage]]:
        """Return what is to be pushed now, by a leader that is ready."""
        pushes: list[tuple[int, ServerMessage]] = []
        # Taken off the front all together: one by one, each look for the first would pass over all that went before.
        for key, message in list(islice(self._asked.items(), FOLLOWERS_A_TURN)):
            del self._asked[key]
            self._begin(key[0], message, machine, pushes)
        states = 0
        for subscription, follower in list(islice(self._due.items(), FOLLOWERS_A_TURN)):
            del self._due[subscription]
            states += self._push(follower, machine, pushes)
            if states >= STATES_A_TURN:
                break
        return pushes

    def _begin(self, connection: int, message: Follow, machine: Machine, pushes: list[tuple[int, ServerMessage]]) -> None:
        number = message.subscription
        subscription = machine.streams.subscription(number)
        if subscription is None or subscription.attachment.number != message.attachment:
            pushes.append((connection, NotSubscribed(number)))
            return
        former = self._followers.get(number)
        if former is not None:
            if former.connection > connection:
                return  # It came late: connections are numbered as they come, and a client has one at a time.
            self._forget(former)
        if message.after > machine.index:
            # Nobody has read what has not happened: a client that is wrong about itself is told from here on.
            message = structs.replace(message, after=machine.index)
        follower = Follower(number, connection, subscription.stream.name, message.after)
        self._followers[number] = follower
        self._connection_bytes.setdefault(connection, 0)
        self._of_connection.setdefault(connection, {})[number] = follower
        self._of_stream.setdefault(follower.stream, {})[number] = follower
        self._due[number] = follower
        if message.acknowledged < message.after:
            follower.owes = message.after
        self.acknowledged.append((number, min(message.acknowledged, message.after)))

    def _push(self, follower: Follower, machine: Machine, pushes: list[tuple[int, ServerMessage]]) -> bool:
        """Push the next records, as many as may be; there may be more.  Return whether it was a state."""
        if not follower.has_room(self._records_max) or self._connection_bytes[follower.connection] >= CONNECTION_BYTES_MAX:
            return False  # An acknowledgement makes it due again.
        records_max = self._records_max - len(follower.unacknowledged)
        bytes_max = PUSHED_BYTES_MAX - follower.unacknowledged_bytes
        found = machine.streams.read(follower.stream, follower.cursor, records_max, bytes_max)
        if isinstance(found, Behind):
            self._give(follower, found.revision, _STATE_BYTES)
            pushes.append((follower.connection, Resync(follower.subscription, found.revision, found.state)))
            self._due[follower.subscription] = follower
            return True
        if found.records:
            self._push_records(follower, found, pushes)
            self._due[follower.subscription] = follower
        return False

    def _push_records(self, follower: Follower, found: Stretch, pushes: list[tuple[int, ServerMessage]]) -> None:
        for record in found.records:
            self._give(follower, record.revision, record.size + _RECORD_BYTES)
        # Their changes are encoded already, and go out as they are.
        records = tuple(Record(record.revision, record.previous, record.changes) for record in found.records)  # type: ignore[arg-type]
        pushes.append((follower.connection, Records(follower.subscription, records)))

    def _give(self, follower: Follower, revision: LogIndex, size: int) -> None:
        follower.cursor = revision
        follower.unacknowledged.append((revision, size))
        follower.unacknowledged_bytes += size
        self._connection_bytes[follower.connection] += size

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _free(self, follower: Follower, size: int) -> None:
        follower.unacknowledged_bytes -= size
        self._connection_bytes[follower.connection] -= size

    def _forget(self, follower: Follower) -> None:
        number = follower.subscription
        was_full = self._connection_bytes[follower.connection] >= CONNECTION_BYTES_MAX
        self._free(follower, follower.unacknowledged_bytes)
        if was_full:
            self._due.update(self._of_connection[follower.connection])
        del self._followers[number]
        self._due.pop(number, None)
        _remove(self._of_connection, follower.connection, number)
        _remove(self._of_stream, follower.stream, number)
        if follower.connection not in self._of_connection:
            del self._connection_bytes[follower.connection]


def _remove(table: dict[K, dict[SubscriptionId, Follower]], key: K, number: SubscriptionId) -> None:
    followers = table[key]
    del followers[number]
    if not followers:
        del table[key]
