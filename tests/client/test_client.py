"""What both clients promise, on the fake cluster and on a real node."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import coord_core
from coord_core import (
    AttachmentClosed,
    InvalidRequest,
    LimitExceeded,
    LockLost,
    NotHolder,
    OutcomeUnknown,
    SessionClosed,
    SessionExpired,
    SessionState,
    WrongType,
)
from coord_core.client import clock
from coord_core.client.sync_topic import Subscription
from coord_core.client.sync_watch import Watch
from tests.client.fake import until
from tests.client.shells import ASYNC_ONLY, AsyncShell, Shell

Addresses = list[str]


async def waiting(shell: Shell, lock: object, count: int) -> None:
    """Wait until so many wait for the lock."""
    async with asyncio.timeout(5):
        while len(await shell.go(lock.waiters)) != count:  # type: ignore[attr-defined]
            pass


# --- locks -----------------------------------------------------------------------------------------------------------------------


async def test_lock_is_granted_released_and_granted_again_with_a_higher_token(shell: Shell, addresses: Addresses) -> None:
    """The token rises over the lock's whole life."""
    lock = shell.connect(addresses).lock("/a")
    first = await shell.go(lock.acquire)
    assert lock.token == first.token
    assert first.path == "/a"
    await shell.go(lock.release)
    assert lock.token is None
    second = await shell.go(lock.acquire)
    assert second.token > first.token


async def test_two_handles_of_one_client_exclude_each_other(shell: Shell, addresses: Addresses) -> None:
    """A handle is a holder, not the process."""
    client = shell.connect(addresses)
    one, two = client.lock("/a"), client.lock("/a")
    await shell.go(one.acquire)
    assert await shell.go(two.try_lock) is None
    assert await shell.go(two.acquire, 0.01) is None
    await shell.go(one.release)
    assert await shell.go(two.try_lock) is not None


async def test_waiters_are_served_first_come_first(shell: Shell, addresses: Addresses) -> None:
    """Whatever client they come from."""
    holder = shell.connect(addresses).lock("/a")
    await shell.go(holder.acquire)
    locks = [shell.connect(addresses).lock("/a", label=f"waiter {number}") for number in range(3)]
    calls = []
    for count, lock in enumerate(locks, 1):
        calls.append(shell.start(lock.acquire))
        await waiting(shell, holder, count)
    assert [party.owner.label for party in await shell.go(holder.waiters)] == ["waiter 0", "waiter 1", "waiter 2"]
    await shell.go(holder.release)
    tokens = []
    for call, lock in zip(calls, locks, strict=True):
        tokens.append((await call).token)
        await shell.go(lock.release)
    assert tokens == sorted(tokens)


async def test_wait_that_times_out_leaves_the_queue(shell: Shell, addresses: Addresses) -> None:
    """A timed-out waiter that stays would be granted a lock that nobody releases (atomix 500)."""
    client = shell.connect(addresses)
    holder, waiter = client.lock("/a"), client.lock("/a")
    await shell.go(holder.acquire)
    assert await shell.go(waiter.acquire, 0.02) is None
    assert await shell.go(holder.waiters) == ()
    await shell.go(holder.release)
    assert await shell.go(holder.holder) is None


async def test_with_block_holds_and_releases(shell: Shell, addresses: Addresses) -> None:
    """The common case in one line."""
    client = shell.connect(addresses)
    lock = client.lock("/a")
    seen = []
    await shell.inside(lock, lambda grant: seen.append((grant.is_held_locally(), lock.token == grant.token)))
    assert seen == [(True, True)]
    assert await shell.go(lock.holder) is None


async def test_with_block_releases_where_its_body_raises(shell: Shell, addresses: Addresses) -> None:
    """And the body's exception is what comes out."""
    lock = shell.connect(addresses).lock("/a")

    def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await shell.inside(lock, fail)
    assert await shell.go(lock.holder) is None


async def test_holder_is_named_with_its_label(shell: Shell, addresses: Addresses) -> None:
    """The first question of whoever finds a lock busy (redisson 2116)."""
    lock = shell.connect(addresses).lock("/a", label="task 17")
    grant = await shell.go(lock.acquire)
    holder = await shell.go(lock.holder)
    assert (holder.owner.label, holder.token, holder.session) == ("task 17", grant.token, grant.session_id)
    assert await shell.go(lock.is_held, grant.token)
    assert not await shell.go(lock.is_held, grant.token - 1)


async def test_handle_that_holds_cannot_acquire_again(shell: Shell, addresses: Addresses) -> None:
    """It would wait for itself for ever."""
    lock = shell.connect(addresses).lock("/a")
    await shell.go(lock.acquire)
    with pytest.raises(InvalidRequest):
        await shell.go(lock.acquire)


async def test_release_without_a_grant_is_an_error(shell: Shell, addresses: Addresses) -> None:
    """Somebody else may hold it."""
    with pytest.raises(NotHolder):
        await shell.go(shell.connect(addresses).lock("/a").release)


async def test_check_passes_while_held_and_raises_after_release(shell: Shell, addresses: Addresses) -> None:
    """Of the grant itself, whoever has the handle now."""
    lock = shell.connect(addresses).lock("/a")
    grant = await shell.go(lock.acquire)
    await shell.go(grant.check)
    await shell.go(lock.check)
    await shell.go(lock.release)
    assert not grant.is_held_locally()
    for check in (grant.check, lock.check):
        with pytest.raises(LockLost):
            await shell.go(check)


async def test_namespaces_do_not_share_names(shell: Shell, addresses: Addresses) -> None:
    """It is put before every path."""
    one, two = shell.connect(addresses, "/one").lock("/a"), shell.connect(addresses, "/two").lock("/a")
    assert await shell.go(one.try_lock) is not None
    assert await shell.go(two.try_lock) is not None


@pytest.mark.parametrize("path", ["", "a", "/", "/" + "x" * 600])
async def test_bad_path_is_refused_before_anything_is_sent(path: str, shell: Shell) -> None:
    """Where the mistake was made."""
    client = shell.connect(["127.0.0.1:1"])
    with pytest.raises(InvalidRequest):
        client.lock(path)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_bad_timeout_is_refused(timeout: float, shell: Shell, addresses: Addresses) -> None:
    """Not taken for "for ever"."""
    with pytest.raises(InvalidRequest):
        await shell.go(shell.connect(addresses).lock("/a").acquire, timeout)


# --- values ----------------------------------------------------------------------------------------------------------------------


async def test_value_is_written_read_compared_and_deleted(shell: Shell, addresses: Addresses) -> None:
    """The whole life of one."""
    value = shell.connect(addresses).value("/v")
    assert await shell.go(value.get) is None
    version = await shell.go(value.set, b"one")
    assert await shell.go(value.get) == (version, b"one")
    assert await shell.go(value.compare_and_set, 0, b"two") is None
    second = await shell.go(value.compare_and_set, version, b"two")
    assert second is not None
    assert second > version
    assert await shell.go(value.delete, version) is False
    assert await shell.go(value.delete) is True
    assert await shell.go(value.get) is None


async def test_value_goes_after_its_ttl(shell: Shell, addresses: Addresses) -> None:
    """In cluster time, by itself."""
    value = shell.connect(addresses).value("/v")
    await shell.go(value.set, b"x", 0.05)
    other = shell.connect(addresses).value("/other")
    async with asyncio.timeout(5):
        while await shell.go(value.get) is not None:
            await shell.go(other.set, b"time passes with entries")


async def test_name_of_a_lock_is_not_one_of_a_value(shell: Shell, addresses: Addresses) -> None:
    """A clear error, not a surprise."""
    client = shell.connect(addresses)
    await shell.go(client.lock("/a").acquire)
    with pytest.raises(WrongType):
        await shell.go(client.value("/a").set, b"x")


async def test_value_over_the_bound_is_refused(shell: Shell) -> None:
    """Before anything is sent."""
    value = shell.connect(["127.0.0.1:1"]).value("/v")
    with pytest.raises(LimitExceeded):
        await shell.go(value.set, b"x" * (256 * 1024 + 1))
    with pytest.raises(InvalidRequest):
        await shell.go(value.set, "text")


# --- session and cluster ---------------------------------------------------------------------------------------------------------


async def test_session_is_opened_with_the_first_use(shell: Shell, addresses: Addresses) -> None:
    """Not before: a client at module level costs nothing."""
    client = shell.connect(addresses, "/ns?ttl=3s")
    assert (client.session.state, client.session.session_id) == (SessionState.CONNECTING, None)
    await shell.go(client.wait_connected, 5)
    assert client.session.state is SessionState.CONNECTED
    assert client.session.session_id == client.session.attachment_id
    assert client.session.ttl == 3
    assert 0 < client.session.lease_deadline - clock() < 3


async def test_listener_hears_of_states_in_order_on_a_thread_of_its_own(shell: Shell, addresses: Addresses) -> None:
    """A callback that blocks must not starve keep-alives."""
    client = shell.connect(addresses)
    heard: list[tuple[SessionState, str]] = []
    client.session.on_state_change(lambda state: heard.append((state, threading.current_thread().name)))
    await shell.go(client.wait_connected, 5)
    await shell.go(client.close)
    await until(lambda: len(heard) == 2)
    assert heard == [(SessionState.CONNECTED, "coord-callbacks"), (SessionState.CLOSED, "coord-callbacks")]


async def test_listener_that_raises_does_not_silence_the_others(shell: Shell, addresses: Addresses) -> None:
    """Its fault is logged."""
    client = shell.connect(addresses)
    heard: list[SessionState] = []

    def fail(_: SessionState) -> None:
        raise ZeroDivisionError

    client.session.on_state_change(fail)
    client.session.on_state_change(heard.append)
    await shell.go(client.wait_connected, 5)
    await until(lambda: heard == [SessionState.CONNECTED])


async def test_close_frees_what_the_client_held(shell: Shell, addresses: Addresses) -> None:
    """At once, for whoever waits."""
    one, two = shell.connect(addresses), shell.connect(addresses)
    grant = await shell.go(one.lock("/a").acquire)
    wait = shell.start(two.lock("/a").acquire)
    await waiting(shell, two.lock("/a"), 1)
    await shell.go(one.close)
    assert (await wait).token > grant.token


async def test_closed_client_refuses_and_closes_again_in_peace(shell: Shell, addresses: Addresses) -> None:
    """`close` in a finally block must not hide the error before it."""
    client = shell.connect(addresses)
    lock = client.lock("/a")
    await shell.go(lock.acquire)
    await shell.go(client.close)
    await shell.go(client.close)
    with pytest.raises(SessionClosed):
        await shell.go(lock.holder)
    with pytest.raises(SessionClosed):
        await shell.go(client.lock("/b").acquire)


async def test_acquire_that_waits_when_the_client_closes_is_told(shell: Shell, addresses: Addresses) -> None:
    """Nothing is held, and nobody waits for ever."""
    holder, client = shell.connect(addresses), shell.connect(addresses)
    await shell.go(holder.lock("/a").acquire)
    wait = shell.start(client.lock("/a").acquire)
    await waiting(shell, holder.lock("/a"), 1)
    await shell.go(client.close)
    with pytest.raises(SessionClosed):
        await wait


async def test_status_and_members_need_no_session(shell: Shell, addresses: Addresses) -> None:
    """Any node answers, whether it leads or not; nodes that do not are named."""
    client = shell.connect([*addresses, "127.0.0.1:1"])
    report = await shell.go(client.status)
    assert report.leader is not None
    assert [node.error is None for node in report.nodes] == [True, False]
    assert {member.name for member in await shell.go(client.members)} == {"n1"}
    assert client.session.session_id is None


# --- several processes under one session -----------------------------------------------------------------------------------------


async def test_attached_client_holds_under_the_keepers_session(shell: Shell, addresses: Addresses) -> None:
    """One session a worker, one attachment a child."""
    keeper = shell.connect(addresses)
    await shell.go(keeper.wait_connected, 5)
    child = shell.connect(addresses, session_id=keeper.session.session_id, lease=lambda: keeper.session.lease_deadline)
    grant = await shell.go(child.lock("/a").acquire)
    assert grant.session_id == keeper.session.session_id
    assert grant.attachment_id != keeper.session.attachment_id
    assert grant.is_held_locally()
    assert await shell.go(keeper.lock("/a").try_lock) is None


async def test_closing_an_attachment_frees_its_locks_and_refuses_its_commands(shell: Shell, addresses: Addresses) -> None:
    """What a worker does for a dead child: a command of it still under way must not take effect."""
    keeper = shell.connect(addresses)
    await shell.go(keeper.wait_connected, 5)
    child = shell.connect(addresses, session_id=keeper.session.session_id, lease=lambda: keeper.session.lease_deadline)
    lock = child.lock("/a")
    await shell.go(lock.acquire)
    await shell.go(keeper.close_attachment, child.session.attachment_id)
    assert await shell.go(keeper.lock("/a").try_lock) is not None
    with pytest.raises((AttachmentClosed, LockLost)):
        await shell.go(lock.release)
    with pytest.raises(AttachmentClosed):
        await shell.go(child.lock("/b").acquire)


async def test_attached_client_is_lost_when_its_keeper_closes(shell: Shell, addresses: Addresses) -> None:
    """And does not open a session of its own."""
    keeper = shell.connect(addresses)
    await shell.go(keeper.wait_connected, 5)
    child = shell.connect(addresses, session_id=keeper.session.session_id, lease=lambda: keeper.session.lease_deadline)
    await shell.go(child.wait_connected, 5)
    await shell.go(keeper.close)
    with pytest.raises((SessionExpired, SessionClosed)):
        await shell.go(child.lock("/a").acquire)
    with pytest.raises((SessionExpired, SessionClosed, OutcomeUnknown)):
        await shell.go(child.wait_connected, 5)


@ASYNC_ONLY
async def test_many_calls_at_once_are_all_answered(shell: AsyncShell, addresses: Addresses) -> None:
    """More than the window holds."""
    client = shell.connect(addresses)
    values = [client.value(f"/v{number}") for number in range(3000)]
    versions = await asyncio.gather(*(value.set(b"x") for value in values))
    assert len(set(versions)) == 3000


def test_attach_wants_the_number_of_a_session() -> None:
    """`None` from a keeper that is not connected must not open a session of one's own."""
    with pytest.raises((InvalidRequest, TypeError)):
        coord_core.attach("coord://h", None, lambda: None)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        coord_core.attach("coord://h", 0, lambda: None)


@pytest.mark.parametrize("kind", [Subscription, Watch])
def test_iteration_that_the_end_of_the_client_finds_waiting_ends(kind: Any) -> None:
    """Wherever it waits: not only where the session's end reaches it, but also where the client's thread is stopped under it."""
    waits = threading.Event()

    class Inner:
        async def __anext__(self) -> object:
            waits.set()
            return await asyncio.Event().wait()

    client = coord_core.Client("coord://127.0.0.1:1")
    with ThreadPoolExecutor(1) as threads:
        pending = threads.submit(list, kind(client, Inner()))
        assert waits.wait(10)
        client.close()
        assert pending.result(10) == []
