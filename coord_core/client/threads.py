"""An event loop on a thread of its own, and the way of blocking callers into it.

The rule: a caller that is interrupted while it waits (Ctrl-C, an exception from a signal handler) leaves nothing behind: its
coroutine is cancelled, and what it had got by then is handed to `undo`.
"""

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from coord_core.client import forks
from coord_core.errors import InvalidRequest, SessionClosed

_log = logging.getLogger("coord.client")
_T = TypeVar("_T")

Undo = Callable[[Any], Coroutine[Any, Any, object]]


_new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
# Imported here, not by the thread that needs it first: a process forked while another thread imports a module inherits the import's
# lock, and waits for ever when it imports the same.
with contextlib.suppress(ImportError):  # not installed on this platform
    import uvloop

    _new_loop = uvloop.new_event_loop


class _Waiter:
    """One blocking call: its coroutine runs on the loop, its caller waits for the lock `_done`."""

    __slots__ = ("_abandoned", "_context", "_coroutine", "_done", "_error", "_finish_anyway", "_result", "_task", "_undo")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], undo: Undo | None, *, finish: bool) -> None:
        self._coroutine = coroutine
        self._undo = undo
        self._finish_anyway = finish
        # What the caller runs in, such as a listener, its coroutine runs in as well.
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[Any] | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._abandoned = False
        # Held until there is an outcome: cheaper than a condition, and a waiting acquire lets signal handlers run.
        self._done = threading.Lock()
        self._done.acquire()

    # On the caller's thread.

    def wait(self) -> None:
        self._done.acquire()

    def outcome(self) -> Any:
        error, self._error = self._error, None  # Else the exception and its traceback would keep each other alive.
        if error is not None:
            raise error
        return self._result

    # On the loop's thread.

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(self._finish)

    def abandon(self) -> None:
        """The caller has gone.  Always comes after `start`."""
        assert self._task is not None
        self._abandoned = True
        if self._task.done():
            self._undo_result()
        elif not self._finish_anyway:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._error = SessionClosed("the client was closed")
        elif (error := task.exception()) is not None:
            self._error = error
        else:
            self._result = task.result()
            if self._abandoned:
                self._undo_result()
        self._done.release()

    def _undo_result(self) -> None:
        if self._undo is not None and self._result is not None:
            undoing = asyncio.get_running_loop().create_task(self._undo(self._result))
            undoing.add_done_callback(_log_failure)


class LoopThread:
    """A daemon thread that runs an event loop until stopped."""

    def __init__(self) -> None:
        self._loop = _new_loop()
        self._born = forks.generation()
        self._thread = threading.Thread(target=self._run, name="coord-client", daemon=True)
        # Guards `_stopping`: what is put on the loop before it stops is run or cancelled, what comes later is refused.
        self._door = threading.Lock()
        self._stopping = False
        forks.keep(self)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, _T], undo: Undo | None = None, *, finish: bool = False) -> _T:
        """Run the coroutine on the loop and return its result.

        Where the caller is interrupted, the coroutine is cancelled, or with `finish` goes on alone; `undo` gets what it returned
        too late for its caller.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise InvalidRequest("a blocking call on the client's own thread would wait for itself")
        waiter = _Waiter(coroutine, undo, finish=finish)
        self._put(waiter.start, coroutine)
        try:
            waiter.wait()
        except BaseException:  # Ctrl-C, or what a signal handler raised
            self._put(waiter.abandon)
            raise
        result: _T = waiter.outcome()
        return result

    def begin(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run the coroutine on the loop and do not wait for it."""
        self._put(_Waiter(coroutine, None, finish=True).start, coroutine)

    def stop(self) -> None:
        """End the thread; callable from any thread, also this one."""
        with self._door:
            if not self._stopping:
                self._stopping = True
                self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _put(self, job: Callable[[], None], coroutine: Coroutine[Any, Any, Any] | None = None) -> None:
        with self._door:
            if not self._stopping:
                self._loop.call_soon_threadsafe(job)
                return
        if coroutine is not None:
            coroutine.close()
            raise SessionClosed("this client was closed")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            _cancel_all(self._loop)
            self._loop.close()
            forks.let_go(self, self._born)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.warning("what an interrupted call had got could not be given back: %s", task.exception())
