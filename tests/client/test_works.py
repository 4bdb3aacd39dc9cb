"""Calls of members as programs use them, with both clients: they run there, and what comes of them comes back."""

import asyncio
import sys
import threading
from typing import Any

import pytest

from coord_core import InvalidRequest, LimitExceeded, NotFound, OutcomeUnknown, RemoteError
from coord_core.client.works import outcome
from coord_core.protocol.works import WorkDone
from coord_core.types import WorkId
from tests.client.fake import until
from tests.client.shells import ASYNC_ONLY, Shell


def add(one: int, other: int) -> int:
    return one + other


async def raises() -> None:
    raise ValueError("there is no such table")


async def joined(shell: Shell, node: list[str], **callbacks: Any) -> Any:
    group = shell.connect(node).group("/g")
    for name, function in callbacks.items():
        group.callback(name)(function)
    return await shell.go(group.join)


def caller(shell: Shell, node: list[str], member: Any) -> Any:
    return shell.connect(node).group("/g").member(member)


async def test_callback_runs_on_its_member_and_its_result_comes_back(shell: Shell, node: list[str]) -> None:
    """Plain functions and coroutine functions; not on the other member."""
    ran: list[str] = []

    async def who(name: str) -> dict[str, str]:
        ran.append(name)
        return {"who": name}

    first = await joined(shell, node, add=add, who=who)
    await joined(shell, node, add=add)
    remote = caller(shell, node, first)
    assert await shell.go(remote.execute, "add", 2, 3) == 5
    assert await shell.go(remote.execute, "who", "first") == {"who": "first"}
    assert ran == ["first"]


async def test_exception_comes_back_by_name(shell: Shell, node: list[str]) -> None:
    member = await joined(shell, node, raises=raises, add=add)
    remote = caller(shell, node, member)
    with pytest.raises(RemoteError, match="raises raised ValueError: there is no such table") as caught:
        await shell.go(remote.execute, "raises")
    assert caught.value.details == {"type": "ValueError", "message": "there is no such table"}
    with pytest.raises(RemoteError) as caught:
        await shell.go(remote.execute, "unheard of")
    assert caught.value.details["type"] == "LookupError"
    with pytest.raises(RemoteError) as caught:
        await shell.go(remote.execute, "add", 1)
    assert caught.value.details["type"] == "TypeError"


async def test_callback_that_ends_in_an_odd_way_leaves_nobody_waiting(shell: Shell, node: list[str]) -> None:
    """`sys.exit`, a cancelled coroutine, an exception that cannot be written: told, and the member takes the next call."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def mutter() -> None:
        raise Mute

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def exits() -> None:
        sys.exit(1)

    odd = {"leave": lambda: sys.exit(1), "exits": exits, "cancelled": cancelled, "mutter": mutter, "dry": lambda: next(iter(()))}
    member = await joined(shell, node, **odd, add=add)
    remote = caller(shell, node, member)
    told = {"leave": "SystemExit", "exits": "SystemExit", "cancelled": "CancelledError", "mutter": "Mute", "dry": "RuntimeError"}
    for name, error in told.items():
        with pytest.raises(RemoteError) as caught:
            await shell.go(remote.execute, name, timeout=10)
        assert caught.value.details["type"] == error
    assert await shell.go(remote.execute, "add", 1, 1) == 2


async def test_result_that_cannot_be_told_is_an_error_and_not_silence(shell: Shell, node: list[str]) -> None:
    member = await joined(shell, node, large=lambda: bytes(100_000), odd=lambda: object())
    remote = caller(shell, node, member)
    for name, error in (("large", "ValueError"), ("odd", "TypeError")):
        with pytest.raises(RemoteError) as caught:
            await shell.go(remote.execute, name)
        assert caught.value.details["type"] == error


def test_result_that_is_none_is_the_members_fault_and_says_so() -> None:
    """A member of another making may answer with any bytes."""
    with pytest.raises(RemoteError, match="cannot be read"):
        outcome(WorkDone(WorkId(1), b"\xc1", "", ""), "rebuild")


async def test_scheduled_work_runs_later_and_tells_its_result_once(shell: Shell, node: list[str]) -> None:
    member = await joined(shell, node, add=add)
    work = await shell.go(caller(shell, node, member).schedule, 0.2, "add", 20, 22)
    assert await shell.go(work.result, 10) == 42
    with pytest.raises(NotFound):
        await shell.go(work.result)


async def test_cancelled_work_does_not_run(shell: Shell, node: list[str]) -> None:
    ran: list[int] = []
    member = await joined(shell, node, run=ran.append)
    remote = caller(shell, node, member)
    work = await shell.go(remote.schedule, 0.3, "run", 1)
    assert await shell.go(work.cancel)
    assert not await shell.go(work.cancel)
    later = await shell.go(remote.schedule, 0.4, "run", 2)
    await shell.go(later.result, 10)
    assert ran == [2]


async def test_scheduled_work_is_done_though_its_client_is_closed(shell: Shell, node: list[str]) -> None:
    done = threading.Event()
    member = await joined(shell, node, run=done.set)
    client = shell.connect(node)
    await shell.go(client.group("/g").member(member).schedule, 0.2, "run")
    await shell.go(client.close)
    assert await asyncio.to_thread(done.wait, 10)


async def test_who_takes_no_calls_is_not_called(shell: Shell, node: list[str]) -> None:
    member = await joined(shell, node)
    remote = caller(shell, node, member)
    with pytest.raises(InvalidRequest, match="takes no calls"):
        await shell.go(remote.execute, "add", 1, 2)
    with pytest.raises(NotFound):
        await shell.go(caller(shell, node, 1).execute, "add")
    with pytest.raises(InvalidRequest):
        await shell.go(remote.execute, "add", object())
    with pytest.raises((InvalidRequest, LimitExceeded)):
        await shell.go(remote.execute, "add", bytes(100_000))
    with pytest.raises(InvalidRequest):
        await shell.go(remote.schedule, -1, "add")


async def test_caller_does_not_know_what_a_member_did_that_ended_after_it_began(shell: Shell, node: list[str]) -> None:
    began, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        may_end.wait(20)

    client = shell.connect(node)
    group = client.group("/g")
    group.callback("hang")(hang)
    member = await shell.go(group.join)
    call = shell.start(caller(shell, node, member).execute, "hang")
    assert await asyncio.to_thread(began.wait, 10)
    await shell.go(client.close)
    may_end.set()
    with pytest.raises(OutcomeUnknown):
        await call


async def test_what_may_be_done_twice_is_done_by_the_next_member(shell: Shell, node: list[str]) -> None:
    began, may_end = threading.Event(), threading.Event()

    def hang() -> str:
        began.set()
        may_end.wait(20)
        return "first"

    client = shell.connect(node)
    group = client.group("/g")
    group.callback("where")(hang)
    member = await shell.go(group.join)
    await joined(shell, node, where=lambda: "second")
    remote = caller(shell, node, member)
    call = shell.start(remote.execute, "where", retry=True)
    assert await asyncio.to_thread(began.wait, 10)
    await shell.go(client.close)
    may_end.set()
    assert await call == "second"


@ASYNC_ONLY
async def test_call_whose_time_is_over_is_never_begun(shell: Shell, node: list[str]) -> None:
    """Sixteen run at a time: the next one has not begun, and does not begin later."""
    ran: list[int] = []
    goes_on = asyncio.Event()

    async def wait(number: int) -> None:
        ran.append(number)
        await goes_on.wait()

    member = await joined(shell, node, wait=wait)
    client = shell.connect(node)
    remote = client.group("/g").member(member)
    calls = [asyncio.ensure_future(remote.execute("wait", number)) for number in range(16)]
    await until(lambda: len(ran) == 16, 10)
    with pytest.raises(TimeoutError):
        await remote.execute("wait", 16, timeout=0.1)
    # Behind the withdrawal, on the same connection: by then the cluster has heard of it.
    await client.value("/behind").set(b"")
    goes_on.set()
    await asyncio.gather(*calls)
    await remote.execute("wait", 17)
    assert sorted(ran) == [*range(16), 17]
