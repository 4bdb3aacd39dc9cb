"""The client in the form that a comparison with other systems takes: one object, `n` logical sessions told apart by a number.

The comparison loads this file by path and picks a class from `ADAPTERS`.  It may load it also where it measures another system, so
coord is imported only by `open`.  COORD_URL names the cluster.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coord_core import AsyncDistributedLock, AsyncDistributedValue


class CoordAio:
    """The async client: one session and one connection; each logical session has lock handles of its own."""

    mode = "async"
    peer = "coord"

    async def open(self, n: int) -> None:
        from coord_core import AsyncClient

        self.client = AsyncClient(os.environ["COORD_URL"])
        self.locks: dict[tuple[int, str], AsyncDistributedLock] = {}
        self.values: dict[str, AsyncDistributedValue] = {}
        await self.client.wait_connected(10)

    async def acquire(self, i: int, name: str) -> object:
        key = (i, name)
        lock = self.locks.get(key)
        if lock is None:
            lock = self.locks[key] = self.client.lock("/peers/" + name)
        await lock.acquire()
        return lock

    async def release(self, i: int, name: str, token: object) -> None:
        await self.locks[i, name].release()

    async def wlock(self, i: int) -> object:
        return await self.acquire(i, "the-lock")

    async def wunlock(self, i: int, token: object) -> None:
        await self.release(i, "the-lock", token)

    def _value(self, key: str) -> "AsyncDistributedValue":
        value = self.values.get(key)
        if value is None:
            value = self.values[key] = self.client.value("/peers/" + key)
        return value

    async def write(self, i: int, key: str, value: bytes) -> None:
        await self._value(key).set(value)

    async def read(self, i: int, key: str) -> None:
        await self._value(key).get()

    async def close(self) -> None:
        await self.client.close()


ADAPTERS = {"coord": CoordAio}
