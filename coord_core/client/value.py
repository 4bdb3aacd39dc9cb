"""A small replicated value with a version: `AsyncDistributedValue`; `sync` has the blocking form."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from coord_core.client import paths
from coord_core.client.watch import AsyncWatch
from coord_core.protocol.operations import ValueDelete, ValueSet
from coord_core.protocol.queries import Answer, ValueGet, ValueState
from coord_core.protocol.results import Done, ValueConflict, ValueWritten
from coord_core.protocol.streams import Change
from coord_core.protocol.values import ValueChanged
from coord_core.types import LogIndex

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

KIND = "value"


class Versioned(NamedTuple):
    """A value and the log index of its last write."""

    version: int
    value: bytes


class AsyncDistributedValue:
    """A handle of the value at `path`.  Calls through one handle take effect in the order in which they are made.

    Every write raises `Unavailable`, `DiskFull` or `Busy` (not applied), `OutcomeUnknown` (sent and not answered in time, or the
    session was lost meanwhile: read before trying again), `SessionExpired` (not applied), `WrongType`, `LimitExceeded`.
    """

    def __init__(self, client: "AsyncClient", path: str) -> None:
        self.path = path
        self._client = client
        self._full_path = client.full_path(path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    async def get(self) -> Versioned | None:
        """Return the value, linearizably; None where there is none.  Raises `Unavailable`."""
        state: ValueState = await self._client.driver().ask(ValueGet(self._full_path), self)
        return Versioned(state.version, state.value) if state.version else None

    async def set(self, value: bytes, ttl: float | None = None) -> int:
        """Write, whatever was there; gone after `ttl` seconds without another write.  Return the new version."""
        result: ValueWritten = await self._write(ValueSet(self._full_path, paths.value(value), paths.ttl_ms(ttl)))
        return result.version

    async def compare_and_set(self, expected_version: int, value: bytes, ttl: float | None = None) -> int | None:
        """Write where the present version is `expected_version` (0: where there is no value).

        Return the new version, or None where another was there.
        """
        write = ValueSet(self._full_path, paths.value(value), paths.ttl_ms(ttl), expected_version)
        result: ValueWritten | ValueConflict = await self._write(write)
        return result.version if isinstance(result, ValueWritten) else None

    async def delete(self, expected: int | None = None) -> bool:
        """Delete; with `expected`, only that version.  Return False where another version was there."""
        result: Done | ValueConflict = await self._write(ValueDelete(self._full_path, expected))
        return isinstance(result, Done)

    def watch(self) -> "AsyncWatch[Versioned | None]":
        """Return the value after each change, beginning with the present one: `async for value in handle.watch()`.

        None: there is none.
        """
        return AsyncWatch(self._client, KIND, self._full_path, ValueView())

    async def _write(self, operation: ValueSet | ValueDelete) -> Any:
        driver = self._client.driver()
        call, future = driver.call(operation, self)
        try:
            return await future
        except asyncio.CancelledError:
            driver.withdraw(call, future, self._full_path)
            raise


class ValueView:
    """What is there, told when it changes."""

    def __init__(self) -> None:
        # Of the last one told, 0: none; None: nothing was told yet.
        self._version: int | None = None

    def state(self, state: Answer, revision: LogIndex) -> Sequence[Versioned | None]:
        assert isinstance(state, ValueState)
        return self._tell(state.version, state.value)

    def change(self, change: Change, revision: LogIndex) -> Sequence[Versioned | None]:
        assert isinstance(change, ValueChanged)
        return self._tell(change.version, change.value)

    def _tell(self, version: int, value: bytes) -> Sequence[Versioned | None]:
        if version == self._version:
            return ()
        self._version = version
        return (Versioned(version, value) if version else None,)
