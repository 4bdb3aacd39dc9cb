"""One suite for the async and the blocking client: `await shell.go(lock.acquire, 0)` means the same with both.

The blocking client runs on a thread, because the cluster of these tests runs on the test's own loop.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import coord_core


class Shell(ABC):
    def __init__(self) -> None:
        self.clients: list[Any] = []

    def connect(self, addresses: list[str], rest: str = "/test", **options: Any) -> Any:
        client = self.make(f"coord://{','.join(addresses)}{rest}", **options)
        self.clients.append(client)
        return client

    @abstractmethod
    def make(self, url: str, **options: Any) -> Any:
        """Return a new client."""

    @abstractmethod
    def start(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        """Begin a call."""

    @abstractmethod
    async def inside(self, manager: Any, body: Callable[[Any], None]) -> None:
        """Run `with manager as entered: body(entered)`."""

    async def go(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call and wait for the result."""
        return await self.start(method, *args, **kwargs)

    async def close_all(self) -> None:
        for client in self.clients:
            await self.go(client.close, 0.5)
        self.clients.clear()


class AsyncShell(Shell):
    def make(self, url: str, **options: Any) -> Any:
        return coord_core.AsyncClient(url, **options)

    def start(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.ensure_future(method(*args, **kwargs))
        return future

    async def inside(self, manager: Any, body: Callable[[Any], None]) -> None:
        async with manager as entered:
            body(entered)


class SyncShell(Shell):
    def __init__(self) -> None:
        super().__init__()
        self._threads = ThreadPoolExecutor(32)

    def make(self, url: str, **options: Any) -> Any:
        return coord_core.Client(url, **options)

    def start(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        return asyncio.wrap_future(self._threads.submit(partial(method, *args, **kwargs)))

    async def inside(self, manager: Any, body: Callable[[Any], None]) -> None:
        def run() -> None:
            with manager as entered:
                body(entered)

        await self.start(run)

    async def close_all(self) -> None:
        await super().close_all()
        self._threads.shutdown(wait=False)
        self._threads = ThreadPoolExecutor(32)


#: For what only coroutines can do, such as being cancelled.
ASYNC_ONLY = pytest.mark.parametrize("shell", [AsyncShell], ids=["async"], indirect=True)
