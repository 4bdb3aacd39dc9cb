"""Streams: what happens to resources, kept for those who subscribed, as long as there is room.

A stream is one resource's changes, named by kind and path.  It exists while somebody is subscribed to it, whether or not the
resource does; so nothing is written down for what nobody watches.  Its records stand in a ring that all streams share: what goes
over the bound pushes out the oldest, whosever it is.  A subscriber that has read as far as `floor` can go on; another must be told
the present state instead.

Rules:
- One record an entry and stream, numbered by the entry's index: a reader that has a revision has all of it.
- The ring's order is that of the changes.  A stream without subscribers is gone, and its records with it: they count no more, and
  their places in the ring are passed over.
- A resource changes itself first and then calls `emit`, `subscribe` or `end`, which look up names of their own (see `names`).
- Records never change after their entry: a snapshot takes the list of them as it begins, and writes them later.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

import msgspec

from coord_core import errors
from coord_core.machine import refusals
from coord_core.machine.bounds import (
    RING_BYTES_MAX,
    RING_RECORDS_MAX,
    SUBSCRIBERS_PER_STREAM_MAX,
    SUBSCRIPTIONS_MAX,
)
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.names import Named, Names
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.stream import decode
from coord_core.protocol.queries import Answer
from coord_core.protocol.results import Done, Failed, Result
from coord_core.protocol.streams import Change, Subscribe, Subscribed, Unsubscribe
from coord_core.types import AttachmentId, LogIndex, RequestNumber, SessionId, SubscriptionId

#: Kind and path.
StreamName: TypeAlias = tuple[str, str]

#: The kind of the rows of records in a snapshot.
RECORD = "record"

_DONE = Done()
_revision = attrgetter("revision")
_encode = msgspec.msgpack.Encoder().encode

#: About what a record and a subscription take in a snapshot besides their contents.
_ROW_BYTES = 48

#: Places in the ring of records that are gone: with so many more than records, or with as many bytes in them as the ring may have,
#: it is packed.
_EMPTY_PLACES_MAX = 4_096


class Record:
    """What one entry did to one resource."""

    __slots__ = ("changes", "previous", "revision", "size", "stream")

    def __init__(self, stream: "Stream", revision: LogIndex, previous: LogIndex) -> None:
        self.stream = stream
        self.revision = revision
        self.previous = previous
        #: Encoded: what they take is known, and they go out as they are.
        self.changes: list[msgspec.Raw] = []
        self.size = 0


class Subscription:
    __slots__ = ("attachment", "id", "request", "stream")

    def __init__(self, number: SubscriptionId, stream: "Stream", attachment: Attachment, request: RequestNumber | None) -> None:
        self.id = number
        self.stream = stream
        self.attachment = attachment
        #: With which it was asked for; None where it belongs to something that was (a member, a candidate).
        self.request = request


class Stream(Named):
    __slots__ = ("ended_at", "first", "floor", "last", "name", "records", "subscriptions")

    kind: ClassVar[str] = "stream"

    def __init__(self, name: StreamName, index: LogIndex) -> None:
        self.name = name
        #: By number, which rises.
        self.subscriptions: dict[SubscriptionId, Subscription] = {}
        #: What is left of it in the ring, from `first` on; what lies before is gone: never more than what is left.
        self.records: list[Record] = []
        self.first = 0
        #: Revision of the last record; of its beginning, where there was none.
        self.last = index
        #: Who has read as far as this can go on reading.
        self.floor = index
        #: The entry with which it ended; 0 while it lives.
        self.ended_at = LogIndex(0)

    def left(self) -> list[Record]:
        """Return the records that are still in the ring."""
        return self.records[self.first :]

    def forget_first(self) -> None:
        self.floor = self.records[self.first].revision
        self.first += 1
        if 2 * self.first > len(self.records):
            del self.records[: self.first]
            self.first = 0

    def after(self, revision: LogIndex, most: int) -> list[Record]:
        """Return the first `most` records that come after a revision."""
        at = bisect_right(self.records, revision, lo=self.first, key=_revision)
        return self.records[at : at + most]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The records that follow a revision, as many as were asked for."""

    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Behind:
    """The ring has moved on: the present state instead, which counts for everything up to `revision`."""

    revision: LogIndex
    state: Answer


class SubscriptionRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A subscription in a snapshot."""

    id: SubscriptionId
    attachment: AttachmentId
    request: RequestNumber | None


class StreamRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stream in a snapshot, without its records."""

    kind: str
    path: str
    last: LogIndex
    floor: LogIndex
    subscriptions: list[SubscriptionRow]


class RecordRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record in a snapshot.  They come in the ring's order, after all streams."""

    kind: str
    path: str
    revision: LogIndex
    previous: LogIndex
    changes: list[msgspec.Raw]


_decode_streams = msgspec.msgpack.Decoder(list[StreamRow]).decode
_decode_records = msgspec.msgpack.Decoder(list[RecordRow]).decode


class Streams:
    __slots__ = (
        "_bytes",
        "_count",
        "_empty_bytes",
        "_entry",
        "_names",
        "_of_attachment",
        "_ring",
        "_sessions",
        "_subscriptions",
        "by_name",
        "ring_records_max",
        "watchable",
    )

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names) -> None:
        self._entry = entry
        self._sessions = sessions
        self._names = names
        #: What is told of a resource to one who cannot be told what happened, by kind.  Whatever is in here can be subscribed to.
        self.watchable: dict[str, StateOf] = {}
        #: Every stream.  While there is none, nobody need say what happens.
        self.by_name: dict[StreamName, Stream] = {}
        self._subscriptions: dict[SubscriptionId, Subscription] = {}
        self._of_attachment: dict[AttachmentId, dict[SubscriptionId, Subscription]] = {}
        self._ring: deque[Record] = deque()
        # Of the records in the ring whose streams live: how many, and their bytes.
        self._count = 0
        self._bytes = 0
        # Of those whose streams have ended.
        self._empty_bytes = 0
        #: Every replica must agree: only a simulation that makes all of them alike sets another.
        self.ring_records_max = RING_RECORDS_MAX

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {Subscribe: self._subscribe, Unsubscribe: self._unsubscribe}

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _subscribe(self, attachment: Attachment, request: RequestNumber, operation: Subscribe) -> Result:
        state_of = self.watchable.get(operation.kind)
        if state_of is None:
            return refusals.invalid("kind", f"must be one of {', '.join(sorted(self.watchable))}")
        state = state_of(operation.path)
        if isinstance(state, Failed):
            return state
        fault = self.check_room(operation.kind, operation.path)
        if fault is not None:
            return fault
        return self.subscribe((operation.kind, operation.path), attachment, request)

    def _unsubscribe(self, attachment: Attachment, request: RequestNumber, operation: Unsubscribe) -> Result:
        found = self._of_attachment.get(attachment.id, {}).get(operation.subscription)
        if found is None:
            return _DONE
        if found.request is None:
            return refusals.invalid("subscription", "belongs to a member or candidate, and ends with it")
        self._end(found)
        return _DONE

    # --- for the resources -------------------------------------------------------------------------------------------------------

    def check_room(self, kind: str, path: str) -> Failed | None:
        """Return why nobody more can subscribe to a stream, or None."""
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            return refusals.over_limit("subscriptions", SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_MAX + 1)
        stream = self.by_name.get((kind, path))
        if stream is not None and len(stream.subscriptions) >= SUBSCRIBERS_PER_STREAM_MAX:
            return refusals.over_limit("subscribers of a stream", SUBSCRIBERS_PER_STREAM_MAX, SUBSCRIBERS_PER_STREAM_MAX + 1)
        return None

    def subscribe(self, name: StreamName, attachment: Attachment, request: RequestNumber | None = None) -> Result:
        """Subscribe an attachment, under the entry's index; `check_room` has been asked.

        Without `request` it is for a resource to end it; its attachment's end ends it in any case.
        """
        index = self._entry.index
        stream = self.by_name.get(name)
        if stream is None:
            stream = Stream(name, index)
            key = _key(name)
            self._names.look_up(key)
            fault = self._names.bind(key, stream)
            if fault is not None:
                return fault
            self.by_name[name] = stream
        else:
            self._names.will_change(_key(name), stream)
        self._add(Subscription(SubscriptionId(index), stream, attachment, request))
        return Subscribed(SubscriptionId(index))

    def end(self, subscription: SubscriptionId) -> None:
        """End a resource's subscription, where its attachment's end has not done so."""
        found = self._subscriptions.get(subscription)
        if found is not None:
            self._end(found)

    def audience(self, name: StreamName, but: SessionId | None = None) -> tuple[SubscriptionId, ...]:
        """Return who is subscribed now, except the subscriptions of one session."""
        stream = self.by_name.get(name)
        if stream is None:
            return ()
        found = stream.subscriptions
        if but is None:
            return tuple(found)
        return tuple(number for number, subscription in found.items() if subscription.attachment.session != but)

    def emit(self, name: StreamName, change: Change) -> None:
        """Write down what happened to a resource, if anybody is subscribed."""
        stream = self.by_name.get(name)
        if stream is None:
            return
        self._names.will_change(_key(name), stream)
        index = self._entry.index
        if stream.records and stream.records[-1].revision == index:
            record = stream.records[-1]
        else:
            record = self._append(stream, index)
        data = _encode(change)
        record.changes.append(msgspec.Raw(data))
        record.size += len(data)
        self._bytes += len(data)
        self._make_room()

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _append(self, stream: Stream, index: LogIndex) -> Record:
        record = Record(stream, index, stream.last)
        stream.last = index
        stream.records.append(record)
        self._ring.append(record)
        self._count += 1
        self._entry.emitted.append(stream.name)
        return record

    def _make_room(self) -> None:
        # Those of the entry at hand stay, however large: more of it may be added to them.  There is one for each stream at most.
        ring, index = self._ring, self._entry.index
        while (self._count > self.ring_records_max or self._bytes > RING_BYTES_MAX) and ring[0].revision < index:
            record = ring.popleft()
            stream = record.stream
            if stream.ended_at:
                self._empty_bytes -= record.size
                continue
            self._names.will_change(_key(stream.name), stream)
            assert stream.records[stream.first] is record, "the ring and its streams have the same order"
            stream.forget_first()
            self._count -= 1
            self._bytes -= record.size

    def _add(self, subscription: Subscription) -> None:
        subscription.stream.subscriptions[subscription.id] = subscription
        self._subscriptions[subscription.id] = subscription
        self._of_attachment.setdefault(subscription.attachment.id, {})[subscription.id] = subscription

    def _end(self, subscription: Subscription) -> None:
        stream, attachment = subscription.stream, subscription.attachment
        self._names.will_change(_key(stream.name), stream)
        del stream.subscriptions[subscription.id]
        del self._subscriptions[subscription.id]
        of_attachment = self._of_attachment[attachment.id]
        del of_attachment[subscription.id]
        if not of_attachment:
            del self._of_attachment[attachment.id]
        self._entry.unsubscribed.append(subscription.id)
        if not stream.subscriptions:
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        stream.ended_at = self._entry.index
        del self.by_name[stream.name]
        key = _key(stream.name)
        self._names.look_up(key)
        self._names.drop(key)
        records = stream.left()
        self._count -= len(records)
        size = sum(record.size for record in records)
        self._bytes -= size
        self._empty_bytes += size
        stream.records = []  # or a stream and its records would keep each other
        stream.first = 0
        if len(self._ring) > 2 * self._count + _EMPTY_PLACES_MAX or self._empty_bytes > RING_BYTES_MAX:
            self._ring = deque(self._living())
            self._empty_bytes = 0

    def _living(self) -> Iterator[Record]:
        return (record for record in self._ring if not record.stream.ended_at)

    # --- reading -----------------------------------------------------------------------------------------------------------------

    def subscription(self, number: SubscriptionId) -> Subscription | None:
        return self._subscriptions.get(number)

    def read(self, name: StreamName, after: LogIndex, records_max: int, bytes_max: int) -> Stretch | Behind:
        """Return what follows revision `after`: at most so much, at least one record where there is any."""
        stream = self.by_name[name]
        if after < stream.floor:
            return Behind(self._entry.index, self.watchable[name[0]](name[1]))
        found = stream.after(after, records_max)
        size = 0
        for count, record in enumerate(found):
            size += record.size
            if count and size > bytes_max:
                return Stretch(found[:count])
        return Stretch(found)

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        for attachment in ended:
            of_attachment = self._of_attachment.get(attachment.id, {})
            for number in sorted(of_attachment):
                self._end(of_attachment[number])

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """A listener is in a process.  The subscriptions of candidates and members are theirs to end."""
        of_attachment = self._of_attachment.get(attachment.id, {})
        for number in sorted(of_attachment):
            if of_attachment[number].request is not None:
                self._end(of_attachment[number])

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        for subscription in self._of_attachment.get(attachment.id, {}).values():
            if subscription.request == request:
                self._end(subscription)
                attachment.window.settle(request, answer)
                return True
        return False

    def holdings(self, attachment: Attachment) -> int:
        """A subscription keeps nobody from anything."""
        return 0

    def state(self) -> Any:
        ring = [(record.stream.name, record.revision, record.previous, record.changes) for record in self._living()]
        return [(key, *_stream_state(stream)) for key, stream in self.all()], ring

    @property
    def named(self) -> type[Stream]:
        return Stream

    def row(self, path: str, stream: Stream) -> tuple[StreamRow, int]:
        kind, resource = stream.name
        rows = [SubscriptionRow(found.id, found.attachment.id, found.request) for found in stream.subscriptions.values()]
        row = StreamRow(kind, resource, stream.last, stream.floor, rows)
        return row, len(path) + _ROW_BYTES * (1 + len(rows))

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[StreamRow] = decode(_decode_streams, rows)
        for row in found:
            name = (row.kind, row.path)
            stream = self.by_name[name] = Stream(name, row.last)
            stream.floor = row.floor
            self._names.restore(_key(name), stream)
            for sub in row.subscriptions:
                self._add(Subscription(sub.id, stream, self._sessions.attachment(sub.attachment), sub.request))
        return len(found)

    # --- records in snapshots ----------------------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """Return all records there are now, in the ring's order."""
        return list(self._living())

    def restore_records(self, rows: msgspec.Raw) -> int:
        """Take up records from a snapshot, after all streams.  Raises `StorageCorrupt`."""
        found: list[RecordRow] = decode(_decode_records, rows)
        for row in found:
            stream = self.by_name.get((row.kind, row.path))
            if stream is None:
                raise errors.StorageCorrupt(f"the snapshot has a record of {row.kind} {row.path}, to which nobody is subscribed")
            record = Record(stream, row.revision, row.previous)
            record.changes = row.changes
            record.size = sum(len(bytes(change)) for change in row.changes)
            stream.records.append(record)
            self._ring.append(record)
            self._bytes += record.size
        self._count += len(found)
        return len(found)

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Stream]]:
        """Return every stream with its key among the names, in order of keys."""
        return self._names.of_type(Stream)


def record_row(record: Record) -> tuple[RecordRow, int]:
    """Return a record as a snapshot has it, and about how many bytes that is."""
    kind, path = record.stream.name
    return RecordRow(kind, path, record.revision, record.previous, record.changes), _ROW_BYTES + len(path) + record.size


def _key(name: StreamName) -> str:
    """The stream's name among the names; no path begins like this."""
    return f"{name[0]}:{name[1]}"


def _stream_state(stream: Stream) -> tuple[Any, ...]:
    subscriptions = [(found.id, found.attachment.id, found.request) for found in stream.subscriptions.values()]
    return stream.last, stream.floor, subscriptions
