"""Topics: what their users publish passes through here and comes out as records; kept is only where each topic begins and ends.

Rules:
- A record's content is not part of the state.  It leaves `apply` as `Applied.records`, to be stored by every node, and what
  retention has passed as `Applied.trimmed`; whoever keeps records follows both.
- A topic stays until it is deleted, also when it is empty: its offsets must not begin anew.  Its number, the index of the entry
  that made it, tells a topic from a later one under the same path.
- `segments` says what is kept, `cursors` how far groups have read.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec

from coord_core import errors
from coord_core.machine import cursors, refusals
from coord_core.machine.bounds import TOPICS_MAX
from coord_core.machine.cursors import Cursors, Group, GroupRow
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.logs import Logs
from coord_core.machine.names import Named, Names
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.segments import SegmentRow, Segments
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.stream import decode
from coord_core.machine.streams import Streams
from coord_core.machine.timers import Timer, TimerRow, Timers
from coord_core.protocol.results import Done, Failed, Result
from coord_core.protocol.streams import ANNOUNCE_WAIT_MS_MAX, Announced
from coord_core.protocol.topics import (
    EARLIEST,
    FETCH_BYTES_MAX,
    FETCH_RECORDS_MAX,
    HEADERS_BYTES_MAX,
    HEADERS_MAX,
    INLINE_BYTES_MAX,
    KEY_BYTES_MAX,
    LATEST,
    PAYLOAD_BYTES_MAX,
    RETENTION_AGE_MS_MIN,
    RETENTION_BYTES_MAX,
    RETENTION_RECORDS_MAX,
    TOPICS_LISTED_MAX,
    MessagePublished,
    Published,
    Retention,
    TopicClaim,
    TopicCommit,
    TopicConfigure,
    TopicCreate,
    TopicCreated,
    TopicDelete,
    TopicDeleted,
    TopicFetch,
    TopicFetched,
    TopicGroupDelete,
    TopicInfo,
    TopicList,
    TopicListing,
    TopicPublish,
    TopicRecord,
    TopicRelease,
    TopicState,
    TopicSummary,
)
from coord_core.types import RequestNumber, TopicNumber

_DONE = Done()

#: What a record counts as besides payload, key and headers: about what it takes on the disk.
RECORD_BYTES = 48

#: About what a topic, a segment and a group take in a snapshot.
_ROW_BYTES, _SEGMENT_BYTES, _GROUP_BYTES = 64, 24, 32

_DEFAULT = Retention()


class Topic(Named):
    __slots__ = ("groups", "kept", "number", "timer")

    kind: ClassVar[str] = "topic"

    def __init__(self, number: TopicNumber, kept: Segments) -> None:
        self.number = number
        self.kept = kept
        self.groups: dict[str, Group] = {}
        #: When the oldest records may be too old; None where none will be.
        self.timer: Timer | None = None


class TopicRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A topic in a snapshot."""

    path: str
    number: TopicNumber
    retention: Retention
    end: int
    segments: list[SegmentRow]
    groups: list[GroupRow]
    timer: TimerRow | None


_decode = msgspec.msgpack.Decoder(list[TopicRow]).decode


class Topics:
    __slots__ = ("_cursors", "_entry", "_logs", "_names", "_paths", "_streams", "_timers", "by_number")

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, timers: Timers, streams: Streams, logs: Logs) -> None:
        self._entry = entry
        self._logs = logs
        self._streams = streams
        self._names = names
        self._timers = timers
        self._cursors = Cursors(entry, sessions)
        #: Every topic.
        self.by_number: dict[TopicNumber, Topic] = {}
        # In order, for listings.
        self._paths: list[str] = []

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {
            TopicCreate: self._create,
            TopicConfigure: self._configure,
            TopicPublish: self._publish,
            TopicDelete: self._delete,
            TopicCommit: self._commit,
            TopicClaim: self._claim,
            TopicRelease: self._release,
            TopicGroupDelete: self._delete_group,
        }

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {TopicInfo: self._info, TopicList: self._list, TopicFetch: self._fetch}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {Topic.kind: self._state}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _create(self, attachment: Attachment, request: RequestNumber, operation: TopicCreate) -> Result:
        fault = _check_retention(operation.retention)
        if fault is not None:
            return fault
        topic = self._names.find(operation.path, Topic)
        if isinstance(topic, Failed):
            return topic
        if topic is not None:
            return TopicCreated(topic.number, created=False)
        topic = self._make(operation.path, operation.retention)
        return topic if isinstance(topic, Failed) else TopicCreated(topic.number, created=True)

    def _configure(self, attachment: Attachment, request: RequestNumber, operation: TopicConfigure) -> Result:
        fault = _check_retention(operation.retention)
        if fault is not None:
            return fault
        topic = self._existing(operation.path)
        if isinstance(topic, Failed):
            return topic
        topic.kept.configure(operation.retention)
        self._trim(topic)
        self._unset_timer(topic)
        self._set_timer(operation.path, topic)
        return _DONE

    def _publish(self, attachment: Attachment, request: RequestNumber, operation: TopicPublish) -> Result:
        size = _size(operation)
        if type(size) is Failed:
            return size
        topic = self._names.find(operation.path, Topic)
        if type(topic) is not Topic:
            topic = self._make(operation.path, _DEFAULT) if topic is None else topic
            if isinstance(topic, Failed):
                return topic
        entry, kept = self._entry, topic.kept
        offset = kept.append(size, entry.time_ms)
        record = TopicRecord(offset, entry.index, entry.time_ms, operation.payload, operation.key, operation.headers)
        entry.records.append((topic.number, record))
        self._trim(topic)
        if topic.timer is None:
            self._set_timer(operation.path, topic)
        if self._streams.by_name:
            self._tell(operation.path, record, size)
        if operation.announce_ms:
            return self._announced(attachment, operation, offset, topic)
        return Published(offset, entry.index, topic.number)

    def _tell(self, path: str, record: TopicRecord, size: int) -> None:
        inline = record if size <= INLINE_BYTES_MAX else None
        self._streams.emit((Topic.kind, path), MessagePublished(record.offset, inline))

    def _announced(self, attachment: Attachment, operation: TopicPublish, offset: int, topic: Topic) -> Announced:
        but = attachment.session if operation.from_listener else None
        audience = self._streams.audience((Topic.kind, operation.path), but)
        return Announced(self._entry.index, operation.announce_ms, audience, (), offset, topic.number)

    def _delete(self, attachment: Attachment, request: RequestNumber, operation: TopicDelete) -> Result:
        topic = self._names.find(operation.path, Topic)
        if isinstance(topic, Failed):
            return topic
        if topic is not None:
            self._unset_timer(topic)
            self._cursors.topic_deleted(topic)
            self._names.drop(operation.path)
            del self.by_number[topic.number], self._logs[topic.number]
            del self._paths[bisect_right(self._paths, operation.path) - 1]
            self._entry.trimmed.append((topic.number, None))
            self._streams.emit((Topic.kind, operation.path), TopicDeleted(topic.number))
        return _DONE

    def _commit(self, attachment: Attachment, request: RequestNumber, operation: TopicCommit) -> Result:
        topic = self._existing(operation.path)
        return topic if isinstance(topic, Failed) else self._cursors.commit(attachment, topic, operation)

    def _claim(self, attachment: Attachment, request: RequestNumber, operation: TopicClaim) -> Result:
        topic = self._existing(operation.path)
        return topic if isinstance(topic, Failed) else self._cursors.claim(attachment, request, topic, operation)

    def _release(self, attachment: Attachment, request: RequestNumber, operation: TopicRelease) -> Result:
        return self._if_there(operation.path, lambda topic: self._cursors.release(attachment, topic, operation))

    def _delete_group(self, attachment: Attachment, request: RequestNumber, operation: TopicGroupDelete) -> Result:
        return self._if_there(operation.path, lambda topic: self._cursors.delete(attachment, topic, operation))

    # --- what happens to a topic -------------------------------------------------------------------------------------------------

    def _make(self, path: str, retention: Retention) -> Topic | Failed:
        """Make a topic under the path looked up last, which is free."""
        if len(self.by_number) >= TOPICS_MAX:
            return refusals.over_limit("topics", TOPICS_MAX, len(self.by_number) + 1)
        topic = Topic(TopicNumber(self._entry.index), Segments(retention))
        fault = self._names.bind(path, topic)
        if fault is not None:
            return fault
        self._add(path, topic)
        return topic

    def _add(self, path: str, topic: Topic) -> None:
        self.by_number[topic.number] = topic
        self._logs[topic.number] = topic.kept
        self._paths.insert(bisect_right(self._paths, path), path)

    def _existing(self, path: str) -> Topic | Failed:
        topic = self._names.find(path, Topic)
        if topic is None:
            return refusals.refuse(errors.NotFound, f"there is no topic {path}", path=path)
        return topic

    def _if_there(self, path: str, change: Callable[[Topic], Result]) -> Result:
        topic = self._names.find(path, Topic)
        if topic is None:
            return _DONE
        return topic if isinstance(topic, Failed) else change(topic)

    def _trim(self, topic: Topic) -> None:
        if topic.kept.trim(self._entry.time_ms):
            self._entry.trimmed.append((topic.number, topic.kept.earliest))

    def _set_timer(self, path: str, topic: Topic) -> None:
        due_ms = topic.kept.goes_at_ms()
        if due_ms is not None:
            topic.timer = self._timers.set(due_ms, partial(self._aged, path, topic))

    def _unset_timer(self, topic: Topic) -> None:
        if topic.timer is not None:
            self._timers.cancel(topic.timer)
            topic.timer = None

    def _aged(self, path: str, topic: Topic) -> None:
        """The oldest segment is too old, unless it has got younger records meanwhile."""
        found = self._names.get(path)
        assert found is topic, "a topic's timer ends with the topic"
        topic.timer = None
        self._trim(topic)
        self._set_timer(path, topic)

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        for claim in cursors.claimed_paths(ended, self._cursors):
            self._cursors.end(self._topic_at(claim.path), claim)

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """A consumer is a process.  What it committed stays."""
        self.attachments_ended([attachment], answer)

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        """A claim is given up; what was published stays, others may have read it."""
        for claim in self._cursors.of_attachment(attachment):
            if claim.request == request:
                attachment.window.settle(request, answer)
                self._cursors.end(self._topic_at(claim.path), claim)
                return True
        return False

    def _topic_at(self, path: str) -> Topic:
        topic = self._names.get(path)
        assert type(topic) is Topic, "a claim ends with its topic"
        return topic

    def holdings(self, attachment: Attachment) -> int:
        return len(self._cursors.of_attachment(attachment))

    def state(self) -> list[Any]:
        return [
            (
                path,
                topic.number,
                msgspec.to_builtins(topic.kept.retention),
                topic.kept.state(),
                cursors.state(topic),
                _timer_row(topic),
            )
            for path, topic in self.all()
        ]

    @property
    def named(self) -> type[Topic]:
        return Topic

    def row(self, path: str, topic: Topic) -> tuple[TopicRow, int]:
        kept = topic.kept
        row = TopicRow(path, topic.number, kept.retention, kept.end, kept.rows(), cursors.rows(topic), _timer_row(topic))
        groups = sum(_GROUP_BYTES + len(name) for name in topic.groups)
        return row, _ROW_BYTES + len(path) + _SEGMENT_BYTES * len(kept) + groups

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[TopicRow] = decode(_decode, rows)
        for row in found:
            topic = Topic(row.number, Segments(row.retention, row.end, row.segments))
            for group in row.groups:
                self._cursors.restore(row.path, topic, group)
            if row.timer is not None:
                topic.timer = self._timers.restore(row.timer, partial(self._aged, row.path, topic))
            self._names.restore(row.path, topic)
            self._add(row.path, topic)
        return len(found)

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Topic]]:
        """Return every topic with its path, in order of paths."""
        return self._names.of_type(Topic)

    def place(self, query: TopicFetch, now_ms: int) -> TopicFetched | Failed:
        """Return the answer to a fetch without its records: those from `next` on up to `end` belong into it."""
        topic = self._names.find(query.path, Topic)
        if isinstance(topic, Failed):
            return topic
        fault = _check_fetch(query)
        if fault is not None:
            return fault
        if topic is None:
            return TopicFetched(TopicNumber(0), (), 0, 0, 0, now_ms)
        kept = topic.kept
        return TopicFetched(topic.number, (), _start(query, kept, now_ms), kept.earliest, kept.end, now_ms)

    def _fetch(self, query: TopicFetch) -> TopicFetched | Failed:
        return self.place(query, self._entry.time_ms)

    def _info(self, query: TopicInfo) -> TopicState | Failed:
        return self._state(query.path)

    def _state(self, path: str) -> TopicState | Failed:
        topic = self._names.find(path, Topic)
        if isinstance(topic, Failed):
            return topic
        now_ms = self._entry.time_ms
        if topic is None:
            return TopicState(TopicNumber(0), 0, 0, 0, _DEFAULT, (), now_ms)
        kept = topic.kept
        return TopicState(topic.number, kept.earliest, kept.end, kept.bytes, kept.retention, cursors.told(topic), now_ms)

    def _list(self, query: TopicList) -> TopicListing:
        begin = max(bisect_right(self._paths, query.after), bisect_left(self._paths, query.prefix))
        most = max(0, min(query.limit, TOPICS_LISTED_MAX))
        found: list[TopicSummary] = []
        for path in self._paths[begin : begin + most + 1]:
            if not path.startswith(query.prefix):
                break
            found.append(self._summary(path))
        return TopicListing(tuple(found[:most]), len(found) > most)

    def _summary(self, path: str) -> TopicSummary:
        topic = self._topic_at(path)
        kept = topic.kept
        return TopicSummary(path, topic.number, kept.earliest, kept.end, kept.bytes, len(topic.groups))


def _start(query: TopicFetch, kept: Segments, now_ms: int) -> int:
    if query.ago_ms is not None:
        return kept.at(now_ms - query.ago_ms)
    if query.start == LATEST:
        return kept.end
    # One from beyond the end waits there: what was deleted and made anew is another topic.
    return min(max(query.start, kept.earliest), kept.end)


def _size(operation: TopicPublish) -> int | Failed:
    """Return what the record counts as."""
    if not 0 <= operation.announce_ms <= ANNOUNCE_WAIT_MS_MAX:
        return refusals.invalid("announce_ms", f"must be between 0 and {ANNOUNCE_WAIT_MS_MAX} ms")
    size = len(operation.payload)
    if size > PAYLOAD_BYTES_MAX:
        return refusals.over_limit("bytes of a message", PAYLOAD_BYTES_MAX, size)
    if operation.key is not None:
        if len(operation.key) > KEY_BYTES_MAX:
            return refusals.over_limit("bytes of a message's key", KEY_BYTES_MAX, len(operation.key))
        size += len(operation.key)
    if operation.headers:
        headers = _headers_size(operation)
        return headers if isinstance(headers, Failed) else size + headers + RECORD_BYTES
    return size + RECORD_BYTES


def _headers_size(operation: TopicPublish) -> int | Failed:
    headers = operation.headers
    if len(headers) > HEADERS_MAX:
        return refusals.over_limit("headers of a message", HEADERS_MAX, len(headers))
    if any(refusals.utf8_length(name) < 0 for name, _ in headers):
        return refusals.invalid("headers", "names must be UTF-8")
    size = sum(refusals.utf8_length(name) + len(value) for name, value in headers)
    if size > HEADERS_BYTES_MAX:
        return refusals.over_limit("bytes of a message's headers", HEADERS_BYTES_MAX, size)
    return size


def _check_retention(retention: Retention) -> Failed | None:
    if not 1 <= retention.bytes <= RETENTION_BYTES_MAX:
        return refusals.invalid("retention", f"bytes must be between 1 and {RETENTION_BYTES_MAX}")
    if retention.records is not None and not 1 <= retention.records <= RETENTION_RECORDS_MAX:
        return refusals.invalid("retention", f"records must be between 1 and {RETENTION_RECORDS_MAX}, or none")
    if retention.age_ms is not None:
        return refusals.check_duration("retention", retention.age_ms, RETENTION_AGE_MS_MIN)
    return None


def _check_fetch(query: TopicFetch) -> Failed | None:
    if query.start < 0 and query.start not in (EARLIEST, LATEST):
        return refusals.invalid("start", "must be an offset, -1 for the earliest or -2 for the latest")
    if not 1 <= query.records_max <= FETCH_RECORDS_MAX:
        return refusals.invalid("records_max", f"must be between 1 and {FETCH_RECORDS_MAX}")
    if not 1 <= query.bytes_max <= FETCH_BYTES_MAX:
        return refusals.invalid("bytes_max", f"must be between 1 and {FETCH_BYTES_MAX}")
    return None


def _timer_row(topic: Topic) -> TimerRow | None:
    return None if topic.timer is None else topic.timer.row()
