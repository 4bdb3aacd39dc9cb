"""Calls of a group's members: `AsyncRemoteMember` for who calls, `Callee` for the member that is called.

The rule: only names and data travel.  A member runs what it has registered itself, says so before it begins, and never begins the
same work twice; what it does not finish because its session is lost, nobody knows about.
"""

import asyncio
import contextlib
import inspect
import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from coord_core.client.feed import Feed, Item, call, subscribe
from coord_core.client.subscriptions import StateDelivered
from coord_core.errors import CoordError, InvalidRequest, LostError, NotFound, OutcomeUnknown, RemoteError, RetryableError
from coord_core.protocol.works import (
    WORK_DATA_BYTES_MAX,
    WORK_MESSAGE_BYTES_MAX,
    WORK_NAME_BYTES_MAX,
    WorkAwait,
    WorkBegin,
    WorkCancel,
    WorkDone,
    WorkDue,
    WorkFinish,
    WorkScheduled,
    WorkState,
    WorkSubmit,
)
from coord_core.types import MemberId, WorkId

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

_log = logging.getLogger("coord.client")

KIND = "work"

#: A function or coroutine function, by the name under which it is called.
Callbacks: TypeAlias = Mapping[str, Callable[..., Any]]

#: Of one member, at the same time; the rest waits in the cluster.  Plain functions run one after the other in any case.
RUNNING_MAX = 16
#: After nobody answered, before subscribing again.
_PAUSE_S = 0.2
_DELAY_S_MAX = 10 * 365 * 24 * 3600

_decode = msgspec.msgpack.decode


class AsyncRemoteMember:
    """A member of a group, as others call it.  Made by `AsyncDistributedMembershipGroup.member`; making one sends nothing."""

    def __init__(self, client: "AsyncClient", path: str, member: MemberId) -> None:
        self.path = path
        #: The log index of its join.
        self.member = member
        self._client = client
        self._full_path = client.full_path(path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.member} of {self.path}>"

    async def execute(self, name: str, *args: Any, timeout: float | None = None, retry: bool = False) -> Any:
        """Have the member call what it has registered under a name; return the result.

        Arguments and result are what msgpack has: None, booleans, numbers, text, bytes, lists, dictionaries; at most 16 KiB.

        `timeout` in seconds: `TimeoutError`; a call that has not begun when the cluster hears of that never will, one that has goes
        on.  `retry`: should the member end before it has finished, the next one that takes calls does it, so perhaps twice.

        Raises `RemoteError` (the callback raised; `details["type"]` names what), `NotFound` (no such member, or it left before it
        began: not done), `OutcomeUnknown` (it ended after it had begun, or this client lost its session), `InvalidRequest` (it
        takes no calls), `LimitExceeded`, and as every write does.
        """
        operation = WorkSubmit(self._full_path, self.member, name, _encode(args), None, retry)
        async with asyncio.timeout(timeout):
            return outcome(await call(self._client.driver(), operation, self._full_path), name)

    async def schedule(self, delay: float, name: str, *args: Any, retry: bool = False) -> "AsyncScheduledWork":
        """Have the member call it `delay` seconds from now, by the cluster's clock; completes when that is stored.

        It is done though this client ends, or leaders do, as long as the member lives (with `retry`: any member).  Raises as
        `execute` does before anything is done.
        """
        if not 0 <= delay <= _DELAY_S_MAX:
            raise InvalidRequest(f"a delay is a number of seconds from 0: {delay!r}", field="delay")
        operation = WorkSubmit(self._full_path, self.member, name, _encode(args), math.ceil(delay * 1000), retry)
        scheduled = await call(self._client.driver(), operation, self._full_path)
        assert isinstance(scheduled, WorkScheduled)
        return AsyncScheduledWork(self._client, self.path, scheduled.work, name)


class AsyncScheduledWork:
    """What `schedule` has stored."""

    def __init__(self, client: "AsyncClient", path: str, work: WorkId, name: str) -> None:
        self.path = path
        #: The log index at which it was submitted.
        self.work = work
        self._client = client
        self._full_path = client.full_path(path)
        self._name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.work} of {self.path}: {self._name}>"

    async def result(self, timeout: float | None = None) -> Any:
        """Return what came of it, when it is done; once, and only to the client that scheduled it.

        Raises as `AsyncRemoteMember.execute` does; `NotFound` also where it was cancelled, or its result was told already.  After
        `TimeoutError` it can be asked again.
        """
        operation = WorkAwait(self._full_path, self.work)
        async with asyncio.timeout(timeout):
            return outcome(await call(self._client.driver(), operation, self._full_path), self._name)

    async def cancel(self) -> bool:
        """Withdraw it; return False where it has begun, or is over.  Raises as every write does."""
        try:
            await call(self._client.driver(), WorkCancel(self._full_path, self.work), self._full_path)
        except NotFound:
            return False
        return True


class Callee:
    """Does what a member is told to do, until the member is gone."""

    def __init__(self, client: "AsyncClient", full_path: str, member: MemberId, callbacks: Callbacks) -> None:
        self._client = client
        self._full_path = full_path
        self._member = member
        self._callbacks = callbacks
        self._slots = asyncio.Semaphore(RUNNING_MAX)
        self._running: dict[WorkId, asyncio.Task[None]] = {}
        self._serving = asyncio.get_running_loop().create_task(self._serve())

    def stop(self) -> None:
        """Begin nothing more.  What has begun goes on to its end."""
        self._serving.cancel()

    async def _serve(self) -> None:
        while not self._client.is_over():
            try:
                feed = await subscribe(self._client.driver(), KIND, f"{self._full_path}@{self._member}")
                await self._listen(feed)
            except (RetryableError, OutcomeUnknown) as error:
                _log.debug("cannot hear yet what member %d of %s is to do: %s", self._member, self._full_path, error.message)
                await asyncio.sleep(_PAUSE_S)
            except LostError:
                return  # The member went with its session.
            except CoordError as error:
                _log.error("member %d of %s takes no calls: %s", self._member, self._full_path, error.message)
                return

    async def _listen(self, feed: Feed) -> None:
        try:
            while True:
                item = await feed.get()
                for due in _due(item):
                    if due.work not in self._running:
                        await self._start(due)
                feed.acknowledge(item)
        finally:
            feed.close()

    async def _start(self, due: WorkDue) -> None:
        await self._slots.acquire()
        task = self._running[due.work] = asyncio.get_running_loop().create_task(self._do(due))
        task.add_done_callback(lambda _: self._done(due.work))

    def _done(self, work: WorkId) -> None:
        del self._running[work]
        self._slots.release()

    async def _do(self, due: WorkDue) -> None:
        driver = self._client.driver()
        try:
            await driver.call(WorkBegin(self._full_path, self._member, due.work))[1]
            finish = await self._called(due)
            await driver.call(finish)[1]
        except NotFound:
            _log.debug("%s was withdrawn before member %d began", due.name, self._member)
        except CoordError as error:
            _log.warning("what came of %s on member %d cannot be told: %s", due.name, self._member, error.message)

    async def _called(self, due: WorkDue) -> WorkFinish:
        try:
            callback = self._callbacks.get(due.name)
            if callback is None:
                raise LookupError(f"member {self._member} has no callback {due.name!r}")
            result = await self._run(callback, _decode(due.arguments))
            data = msgspec.msgpack.encode(result)
            if len(data) > WORK_DATA_BYTES_MAX:
                raise ValueError(f"the result of {due.name} has {len(data)} bytes, at most {WORK_DATA_BYTES_MAX} can be told")
        except BaseException as error:
            if _is_cancelled(error):
                raise
            _log.info("%s raised %s", due.name, type(error).__name__)
            return self._finish(due, b"", type(error).__name__, _text(error))
        return self._finish(due, data, "", "")

    def _finish(self, due: WorkDue, result: bytes, error: str, message: str) -> WorkFinish:
        return WorkFinish(
            self._full_path, self._member, due.work, result, _cut(error, WORK_NAME_BYTES_MAX), _cut(message, WORK_MESSAGE_BYTES_MAX)
        )

    async def _run(self, callback: Callable[..., Any], arguments: list[Any]) -> Any:
        if inspect.iscoroutinefunction(callback):
            return await callback(*arguments)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def job() -> None:
            try:
                came: tuple[Any, BaseException | None] = (callback(*arguments), None)
            except BaseException as error:  # noqa: BLE001 - told to the caller; the thread has others to call
                came = (None, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, done, came)

        self._client.callbacks.submit(job)
        result, error = await done
        if error is not None:
            raise error
        return result


def _settle(done: "asyncio.Future[tuple[Any, BaseException | None]]", came: tuple[Any, BaseException | None]) -> None:
    if not done.done():
        done.set_result(came)


def _is_cancelled(error: BaseException) -> bool:
    """Whether it is this task that is to end, not only what it called."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the application's own fault, and no reason to leave a caller waiting
        return "it cannot be written"


def _due(item: Item) -> tuple[WorkDue, ...]:
    if isinstance(item, StateDelivered):
        assert isinstance(item.state, WorkState)
        return item.state.due
    return tuple(change for change in item.changes if isinstance(change, WorkDue))


def _encode(args: tuple[Any, ...]) -> bytes:
    try:
        data = msgspec.msgpack.encode(args)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"the arguments cannot be sent: {error}", field="args") from error
    if len(data) > WORK_DATA_BYTES_MAX:
        raise InvalidRequest(f"the arguments have {len(data)} bytes, at most {WORK_DATA_BYTES_MAX} can be sent", field="args")
    return data


def outcome(done: object, name: str) -> Any:
    assert isinstance(done, WorkDone)
    if done.error:
        raise RemoteError(f"{name} raised {done.error}: {done.message}", type=done.error, message=done.message)
    try:
        return _decode(done.result)
    except msgspec.DecodeError as error:
        message = f"what {name} returned cannot be read: {error}"
        raise RemoteError(message, type=type(error).__name__, message=str(error)) from error


def _cut(text: str, most: int) -> str:
    return text.encode(errors="replace")[:most].decode(errors="ignore")
