"""One question of a command to the cluster: a client for it, and a loop."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from coord_core.cli.settings import Settings

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

_T = TypeVar("_T")


def client_of(settings: Settings) -> "AsyncClient":
    """Raises as `target_of` does."""
    from coord_core.cli.logs import log_as_command
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    log_as_command(settings)
    return AsyncClient(target_of(settings).url)


def run(client: "AsyncClient", call: Coroutine[Any, Any, _T]) -> _T:
    """Run the call, close the client, and return what came of it."""

    async def run() -> _T:
        async with client:
            return await call

    return asyncio.run(run())
