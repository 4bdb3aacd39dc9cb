"""Values: bytes under a path, with a version and, where wanted, an end.

The version is the index of the entry that wrote the value, so a value deleted and written anew never has an old version again, and
version 0 means that there is none.  A value belongs to nobody: it stays when its writer ends.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec

from coord_core.machine import refusals
from coord_core.machine.bounds import NUMBER_MAX, VALUES_BYTES_MAX, VALUES_MAX
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.names import Named, Names
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.sessions import Attachment
from coord_core.machine.stream import decode
from coord_core.machine.streams import Streams
from coord_core.machine.timers import Timer, TimerRow, Timers
from coord_core.protocol.operations import VALUE_BYTES_MAX, ValueDelete, ValueSet
from coord_core.protocol.queries import ValueGet, ValueState
from coord_core.protocol.results import Done, Failed, Result, ValueConflict, ValueWritten
from coord_core.protocol.values import ValueChanged
from coord_core.types import RequestNumber

_DONE = Done()


class Value(Named):
    __slots__ = ("content", "timer", "version")

    kind: ClassVar[str] = "value"

    def __init__(self) -> None:
        self.content = b""
        #: Index of the entry that wrote it.
        self.version = 0
        #: Set where the last write gave it a TTL.
        self.timer: Timer | None = None


class ValueRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value in a snapshot."""

    path: str
    version: int
    content: bytes
    timer: TimerRow | None


_decode = msgspec.msgpack.Decoder(list[ValueRow]).decode

#: About what a row takes besides path and content.
_ROW_BYTES = 16


class Values:
    __slots__ = ("_bytes", "_count", "_entry", "_names", "_streams", "_timers")

    def __init__(self, entry: CurrentEntry, names: Names, timers: Timers, streams: Streams) -> None:
        self._entry = entry
        self._names = names
        self._timers = timers
        self._streams = streams
        self._count = 0
        # Bytes of all contents.
        self._bytes = 0

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {ValueSet: self._set, ValueDelete: self._delete}

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {ValueGet: self._get}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {Value.kind: self._state}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _set(self, attachment: Attachment, request: RequestNumber, operation: ValueSet) -> Result:
        fault = _check_set(operation)
        if fault is not None:
            return fault
        value = self._names.find(operation.path, Value)
        if isinstance(value, Failed):
            return value
        if not _matches(value, operation.expected):
            return _conflict(value)
        fault = self._check_room(value, len(operation.value))
        if fault is not None:
            return fault
        if value is None:
            value = Value()
            fault = self._names.bind(operation.path, value)
            if fault is not None:
                return fault
            self._count += 1
        return self._write(value, operation)

    def _delete(self, attachment: Attachment, request: RequestNumber, operation: ValueDelete) -> Result:
        fault = _check_expected(operation.expected)
        if fault is not None:
            return fault
        value = self._names.find(operation.path, Value)
        if isinstance(value, Failed):
            return value
        if not _matches(value, operation.expected):
            return _conflict(value)
        if value is not None:
            self._unset_timer(value)
            self._drop(operation.path, value)
        return _DONE

    # --- what happens to a value -------------------------------------------------------------------------------------------------

    def _write(self, value: Value, operation: ValueSet) -> ValueWritten:
        self._unset_timer(value)
        self._bytes += len(operation.value) - len(value.content)
        value.content = operation.value
        value.version = self._entry.index
        if operation.ttl_ms is not None:
            on_due = partial(self._outlived, operation.path, value)
            value.timer = self._timers.set(self._entry.time_ms + operation.ttl_ms, on_due)
        if self._streams.by_name:
            self._streams.emit((Value.kind, operation.path), ValueChanged(value.version, value.content))
        return ValueWritten(value.version)

    def _outlived(self, path: str, value: Value) -> None:
        found = self._names.get(path)
        assert found is value, "a value's timer ends with the value"
        value.timer = None
        self._drop(path, value)

    def _drop(self, path: str, value: Value) -> None:
        self._names.drop(path)
        self._count -= 1
        self._bytes -= len(value.content)
        if self._streams.by_name:
            self._streams.emit((Value.kind, path), ValueChanged(0, b""))

    def _unset_timer(self, value: Value) -> None:
        if value.timer is not None:
            self._timers.cancel(value.timer)
            value.timer = None

    def _check_room(self, value: Value | None, length: int) -> Failed | None:
        total = self._bytes + length - (0 if value is None else len(value.content))
        if total > VALUES_BYTES_MAX:
            return refusals.over_limit("bytes of all values", VALUES_BYTES_MAX, total)
        if value is None and self._count >= VALUES_MAX:
            return refusals.over_limit("values", VALUES_MAX, self._count + 1)
        return None

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        """A value is nobody's: there is nothing to free, and nobody waits."""

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """A value is nobody's."""

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        """A write is not undone: others may have read it."""
        return False

    def holdings(self, attachment: Attachment) -> int:
        return 0

    def state(self) -> list[Any]:
        return [(path, value.version, value.content, _timer_row(value)) for path, value in self.all()]

    @property
    def named(self) -> type[Value]:
        return Value

    def row(self, path: str, value: Value) -> tuple[ValueRow, int]:
        return ValueRow(path, value.version, value.content, _timer_row(value)), _ROW_BYTES + len(path) + len(value.content)

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[ValueRow] = decode(_decode, rows)
        for row in found:
            value = Value()
            value.content, value.version = row.content, row.version
            if row.timer is not None:
                value.timer = self._timers.restore(row.timer, partial(self._outlived, row.path, value))
            self._names.restore(row.path, value)
            self._bytes += len(row.content)
        self._count += len(found)
        return len(found)

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Value]]:
        """Return every value with its path, in order of paths."""
        return self._names.of_type(Value)

    def _get(self, query: ValueGet) -> ValueState | Failed:
        return self._state(query.path)

    def _state(self, path: str) -> ValueState | Failed:
        value = self._names.find(path, Value)
        if value is None:
            return ValueState(0, b"")
        if isinstance(value, Failed):
            return value
        return ValueState(value.version, value.content)


def _check_set(operation: ValueSet) -> Failed | None:
    if len(operation.value) > VALUE_BYTES_MAX:
        return refusals.over_limit("bytes of a value", VALUE_BYTES_MAX, len(operation.value))
    if operation.ttl_ms is not None:
        fault = refusals.check_duration("ttl_ms", operation.ttl_ms, 1)
        if fault is not None:
            return fault
    return _check_expected(operation.expected)


def _check_expected(expected: int | None) -> Failed | None:
    if expected is not None and not 0 <= expected <= NUMBER_MAX:
        return refusals.invalid("expected", "must be a version, or 0 for no value")
    return None


def _matches(value: Value | None, expected: int | None) -> bool:
    return expected is None or expected == (0 if value is None else value.version)


def _conflict(value: Value | None) -> ValueConflict:
    return ValueConflict(0, b"") if value is None else ValueConflict(value.version, value.content)


def _timer_row(value: Value) -> TimerRow | None:
    return None if value.timer is None else value.timer.row()
