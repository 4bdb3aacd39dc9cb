"""Calling what the application registered: coroutine functions on the client's loop, others on the callback thread, one at a time.

A listener that raises is logged and counts as having worked off what it was told.  What it calls on its own client knows that it is
called by a listener (`is_inside`), so that it does not wait for itself.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

from coord_core.client.callbacks import CallbackThread

_log = logging.getLogger("coord.client")

#: A function or coroutine function.
Listener: TypeAlias = Callable[..., Any]

_inside: ContextVar[bool] = ContextVar("coord_inside_listener", default=False)


def is_inside() -> bool:
    """Whether the caller runs in a listener."""
    return _inside.get()


async def call_listener(thread: CallbackThread, listener: Listener, *arguments: object) -> None:
    """Return when the listener has returned or raised."""
    if inspect.iscoroutinefunction(listener):
        await _await(listener, *arguments)
    else:
        await _run(thread, listener, *arguments)


async def _await(listener: Listener, *arguments: object) -> None:
    token = _inside.set(True)
    try:
        await listener(*arguments)
    except Exception:  # noqa: BLE001 - the application's fault must not end the stream
        _log.exception("a listener raised")
    finally:
        _inside.reset(token)


async def _run(thread: CallbackThread, listener: Listener, *arguments: object) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def job() -> None:
        token = _inside.set(True)
        try:
            listener(*arguments)
        finally:
            _inside.reset(token)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

    thread.submit(job)
    await done.wait()
