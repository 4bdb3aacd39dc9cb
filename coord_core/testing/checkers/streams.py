"""Streams: all that happened to a resource is told, once and in order, or its state instead; and nothing that did not happen.

The truth is made of the resources' states, which the first machine to apply an entry is asked for.  What that machine says of its
streams is held to it: the records of an entry must say the difference that it made, and whoever was subscribed must have one.  What
clients are handed is held to those records and states.  Times are compared as moments of cluster time, not as "since".
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import msgspec

from coord_core.client.subscriptions import Delivery, StateDelivered, SubscriptionEnded
from coord_core.errors import SubscriptionLost
from coord_core.machine import Applied, Machine
from coord_core.machine.streams import Record as MachineRecord
from coord_core.machine.streams import StreamName
from coord_core.protocol.commands import Call, CloseAttachment, Command
from coord_core.protocol.elections import (
    Candidate,
    ElectionEnter,
    ElectionState,
    ElectionTransfer,
    Entered,
)
from coord_core.protocol.groups import GroupJoin
from coord_core.protocol.operations import FREEING
from coord_core.protocol.streams import Change, Joined, Record, Subscribe, Subscribed
from coord_core.testing.checkers.states import NOTHING, State, after, look, since, told_of
from coord_core.testing.simulator import Violation
from coord_core.types import AttachmentId, SessionId, SubscriptionId

_revision = attrgetter("revision")
_decode_change = msgspec.msgpack.Decoder(Change).decode


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription, as the log has it."""

    id: SubscriptionId
    stream: StreamName
    session: SessionId
    attachment: AttachmentId
    #: The entry that ended it; 0 while it lives.
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    """A member that was announced, and whom it was announced to."""

    revision: int
    wait_ms: int
    audience: tuple[SubscriptionId, ...]
    from_listener: bool


@dataclass(slots=True)
class Truth:
    """What really happened to one resource."""

    #: Its state after each entry that changed it.
    indexes: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    #: The last record, or the beginning of the stream.
    last: int = 0
    #: Whoever stands before it can only be told the state.
    floor: int = 0
    #: Of an election: the highest epoch, and those that an operator's word ended, not the end of the leader.
    epoch: int = 0
    handed_on: set[int] = field(default_factory=set)
    waiting: tuple[Candidate, ...] = ()
    subscribed: dict[SubscriptionId, Subscription] = field(default_factory=dict)

    def state_at(self, index: int) -> State | None:
        at = bisect_right(self.indexes, index)
        return self.states[at - 1] if at else None

    def next_after(self, revision: int) -> Record | None:
        at = bisect_right(self.records, revision, key=_revision)
        return self.records[at] if at < len(self.records) else None


@dataclass(slots=True, eq=False)
class Follower:
    """A subscription as one client follows it."""

    who: str
    subscription: Subscription
    #: Whether its process still follows it.
    stands: Callable[[], bool]
    #: The last revision handed out; 0: the state is to come first.
    cursor: int
    #: The last revision of which the client said that it was worked off.
    said: int = 0


class StreamChecks:
    """`names` are all streams that clients subscribe to; `window`: how much a client has at most that it has not worked off."""

    def __init__(self, names: Sequence[StreamName], window: int) -> None:
        self._window = window
        self.truths = {name: Truth() for name in names}
        self.subscriptions: dict[SubscriptionId, Subscription] = {}
        self.joins: dict[int, Join] = {}
        #: Subscriptions to other streams, which are somebody else's to judge.
        self.others: set[int] = set()
        self.followers: list[Follower] = []
        #: How far each subscription was acknowledged, by what clients said.
        self.said: dict[SubscriptionId, int] = {}
        #: How often what was handed to clients: "record", "state" (the first), "resync".
        self.handed: Counter[str] = Counter()
        # The cluster time after each entry.
        self._times: dict[int, int] = {}

    # --- what entries do ----------------------------------------------------------------------------------------------------------

    def applied(self, machine: Machine, index: int, command: Command, applied: Applied) -> None:
        """An entry was applied for the first time anywhere."""
        self._times[index] = machine.time_ms
        for number in applied.unsubscribed:
            self._ended(number, index, command, applied)
        throughout = {name for name, truth in self.truths.items() if truth.subscribed}
        self._nobody_dead(command, applied)
        if type(command) is Call and type(applied.result) in (Subscribed, Entered, Joined):
            self._begun(machine, index, command, applied)
        self._machine_agrees(machine, index, applied)
        for name, truth in self.truths.items():
            self._judge(machine, name, truth, index, command, told_before=name in throughout)

    def _machine_agrees(self, machine: Machine, index: int, applied: Applied) -> None:
        alive = machine.streams.subscription
        wrong = [number for number in applied.unsubscribed if alive(number) is not None]
        for truth in self.truths.values():
            wrong += [number for number in truth.subscribed if alive(number) is None]
        if wrong:
            raise Violation(f"entry {index}: whether subscriptions {wrong} live is not clear")

    def _ended(self, number: SubscriptionId, index: int, command: Command, applied: Applied) -> None:
        if number in self.others:
            return
        subscription = self.subscriptions.get(number)
        if subscription is None or subscription.ended:
            raise Violation(f"entry {index} ends subscription {number}, which is none")
        own = type(command) is Call and command.attachment == subscription.attachment and type(command.operation) in FREEING
        closed = type(command) is CloseAttachment and command.attachment == subscription.attachment
        if not own and not closed and subscription.session not in applied.closed:
            raise Violation(f"entry {index} ends subscription {number} without a cause: {command}")
        subscription.ended = index
        del self.truths[subscription.stream].subscribed[number]

    def _nobody_dead(self, command: Command, applied: Applied) -> None:
        if not applied.closed and type(command) is not CloseAttachment:
            return
        closed = command.attachment if type(command) is CloseAttachment else 0
        for truth in self.truths.values():
            for subscription in truth.subscribed.values():
                if subscription.session in applied.closed or subscription.attachment == closed:
                    raise Violation(f"subscription {subscription.id} outlives its session or process")

    def _begun(self, machine: Machine, index: int, command: Call, applied: Applied) -> None:
        result = applied.result
        name = _subscribed_to(command)
        match result:
            case Subscribed(subscription=number) | Entered(candidate=number) | Joined(member=number) if number == index:
                pass
            case _:
                return  # An answer that was kept.
        found = machine.streams.subscription(SubscriptionId(index))
        if name is None or found is None or found.stream.name != name or found.attachment.id != command.attachment:
            raise Violation(f"{command} was answered with {result}, and is not subscribed")
        if name not in self.truths:
            self.others.add(index)
            return
        truth = self.truths[name]
        if isinstance(result, Joined):
            self._announced(index, command, result, truth)
        if not truth.subscribed:
            truth.last = index
        subscription = Subscription(found.id, name, command.session, command.attachment)
        truth.subscribed[found.id] = self.subscriptions[found.id] = subscription

    def _announced(self, index: int, command: Call, joined: Joined, truth: Truth) -> None:
        assert isinstance(command.operation, GroupJoin)
        wait_ms, but = command.operation.announce_ms, command.session if command.operation.from_listener else 0
        told = [number for number, found in truth.subscribed.items() if found.session != but]
        audience = tuple(told) if wait_ms else ()
        if (joined.revision, joined.wait_ms, joined.audience) != (index, wait_ms, audience):
            raise Violation(f"entry {index} is to be announced to {audience} for {wait_ms} ms, and was answered with {joined}")
        self.joins[index] = Join(index, wait_ms, audience, command.operation.from_listener)

    # --- what it means for a stream -----------------------------------------------------------------------------------------------

    def _judge(self, machine: Machine, name: StreamName, truth: Truth, index: int, command: Command, *, told_before: bool) -> None:
        state, waiting = look(machine, name)
        before = truth.states[-1] if truth.states else NOTHING[name[0]]
        record = None
        if truth.subscribed:
            record = self._record(machine, name, truth, index)
        if record is not None:
            said = after(before, record.changes, machine.time_ms)
            if told_of(said) != told_of(state):
                raise Violation(f"entry {index}: {name} is told as {said}, and is {state}")
            truth.records.append(record)
        elif told_before and truth.subscribed and told_of(before) != told_of(state):
            raise Violation(f"entry {index} makes {name} {state}, and nobody is told")
        if isinstance(state, ElectionState):
            assert isinstance(before, ElectionState)
            self._succeeds(name, truth, before.leader, state.leader, waiting, index, command)
        if state != before:
            truth.indexes.append(index)
            truth.states.append(state)

    @staticmethod
    def _record(machine: Machine, name: StreamName, truth: Truth, index: int) -> Record | None:
        """Return what the machine's stream has of this entry."""
        found = machine.streams.subscription(next(iter(truth.subscribed)))
        if found is None:
            raise Violation(f"entry {index} has lost the subscriptions to {name}")
        truth.floor = int(found.stream.floor)
        records = found.stream.left()
        if not records or records[-1].revision != index:
            return None
        record = _decoded(records[-1])
        if record.previous != truth.last:
            raise Violation(f"{name}: record {index} comes after {record.previous}, and the one before it is {truth.last}")
        truth.last = index
        return record

    @staticmethod
    def _succeeds(
        name: StreamName,
        truth: Truth,
        before: Candidate | None,
        leader: Candidate | None,
        waiting: tuple[Candidate, ...],
        index: int,
        command: Command,
    ) -> None:
        """Epochs rise, and who waited longest is next."""
        waited, truth.waiting = truth.waiting, waiting
        places = {candidate.candidate: place for place, candidate in enumerate(waited)}
        order = [places.get(candidate.candidate, len(places)) for candidate in waiting]
        if order != sorted(order):
            raise Violation(f"{name}: candidates do not wait in order of arrival: {[one.owner.label for one in waiting]}")
        if leader is None or (before is not None and leader.epoch == before.epoch):
            if leader is None and waiting:
                raise Violation(f"{name} is led by nobody, and {len(waiting)} would lead")
            return
        if leader.epoch != index or leader.epoch <= truth.epoch:
            raise Violation(f"{name}: epoch {leader.epoch} begins at {index} after epoch {truth.epoch}")
        truth.epoch = int(leader.epoch)
        if type(command) is Call and type(command.operation) is ElectionTransfer:
            truth.handed_on.add(0 if before is None else int(before.epoch))
            return
        ids = [candidate.candidate for candidate in waited]
        left = {candidate.candidate for candidate in waiting}
        longer = ids[: ids.index(leader.candidate)] if leader.candidate in ids else ids
        if left.intersection(longer):
            raise Violation(f"{name}: {leader.owner.label} was elected before {left.intersection(longer)}, who waited longer")

    # --- what clients are handed --------------------------------------------------------------------------------------------------

    def follows(self, who: str, number: SubscriptionId, after: int, stands: Callable[[], bool]) -> Follower:
        """A client follows a subscription that it was told of."""
        subscription = self.subscriptions.get(number)
        if subscription is None:
            raise Violation(f"{who} was told of subscription {number}, which the log does not have")
        follower = Follower(who, subscription, stands, after)
        self.followers.append(follower)
        return follower

    def delivered(self, follower: Follower, delivery: Delivery) -> None:
        """A client was handed something."""
        if isinstance(delivery, Record):
            self._judge_record(follower, delivery)
        elif isinstance(delivery, StateDelivered):
            self._judge_state(follower, delivery)
        elif isinstance(delivery, SubscriptionEnded):
            subscription = follower.subscription
            if isinstance(delivery.error, SubscriptionLost) and not subscription.ended:
                raise Violation(f"{follower.who} was told that subscription {subscription.id} is gone, and it is not")

    def _judge_record(self, follower: Follower, record: Record) -> None:
        subscription, name = follower.subscription, follower.subscription.stream
        following = self.truths[name].next_after(follower.cursor) if follower.cursor else None
        if record != following:
            raise Violation(f"{follower.who} has read {name} up to {follower.cursor} and was handed {record}; next is {following}")
        if subscription.ended and record.revision >= subscription.ended:
            raise Violation(f"{follower.who} was handed {record} of subscription {subscription.id}, ended at {subscription.ended}")
        follower.cursor = int(record.revision)
        self.handed["record"] += 1

    def _judge_state(self, follower: Follower, delivered: StateDelivered) -> None:
        name, revision = follower.subscription.stream, int(delivered.revision)
        truth = self.truths[name]
        if revision not in self._times or revision <= follower.cursor:
            raise Violation(f"{follower.who} has read {name} up to {follower.cursor} and was told the state at {revision}")
        if 0 < truth.floor <= follower.cursor:
            raise Violation(f"{follower.who} was told the state of {name}, though nothing after {follower.cursor} is forgotten")
        state, true = since(delivered.state, self._times[revision]), truth.state_at(revision) or NOTHING[name[0]]
        if state != true:
            raise Violation(f"{follower.who} was told at {revision} that {name} is {state}; it was {true}")
        self.handed["resync" if follower.cursor else "state"] += 1
        follower.cursor = revision

    def holds(self, follower: Follower, items: int) -> None:
        """A client has so much that it has not worked off."""
        if items > self._window:
            raise Violation(f"{follower.who} was given {items} of {follower.subscription.stream} that it has not worked off")

    def says(self, follower: Follower, revision: int) -> None:
        """A client says that it has worked off everything up to a revision."""
        follower.said = revision
        number = follower.subscription.id
        self.said[number] = max(revision, self.said.get(number, 0))

    def leads(self, path: str, epoch: int) -> bool:
        """Whether nobody but the leader itself, or the end of its session, has ended an epoch."""
        return epoch not in self.truths["election", path].handed_on

    # --- at the end ---------------------------------------------------------------------------------------------------------------

    def behind(self) -> list[str]:
        """Return who has not been handed all there is, or not been told that there is no more."""
        found = []
        for follower in self.followers:
            subscription, stream = follower.subscription, follower.subscription.stream
            if not follower.stands():
                continue
            if subscription.ended:
                found.append(f"{follower.who} does not know that subscription {subscription.id} is gone")
            elif follower.cursor < (last := max(self.truths[stream].last, subscription.id)):
                found.append(f"{follower.who} has read {stream} up to {follower.cursor} of {last}")
        return found

    def forgotten(self) -> list[str]:
        """Return the subscriptions that nobody follows."""
        followed = {follower.subscription.id for follower in self.followers if follower.stands()}
        living = [subscription for subscription in self.subscriptions.values() if not subscription.ended]
        return [f"nobody follows subscription {found.id} to {found.stream}" for found in living if found.id not in followed]


def _subscribed_to(command: Call) -> StreamName | None:
    match command.operation:
        case Subscribe(kind=kind, path=path):
            return kind, path
        case GroupJoin(path=path):
            return "group", path
        case ElectionEnter(path=path):
            return "election", path
        case _:
            return None


def _decoded(record: MachineRecord) -> Record:
    return Record(record.revision, record.previous, tuple(map(_decode_change, record.changes)))
