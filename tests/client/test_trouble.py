"""What both clients do when nodes fail, answers do not come, and callers go away; on the fake cluster, which can be told to."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coord_core import (
    AsyncClient,
    AuthenticationFailed,
    InvalidConfig,
    LockLost,
    OutcomeUnknown,
    SessionExpired,
    SessionState,
    Unavailable,
)
from coord_core.client.clocks import clock_ms
from coord_core.client.driver import reason_of
from coord_core.protocol.commands import Call, CloseSession
from coord_core.protocol.operations import Cancel, LockAcquire, LockRelease
from tests.client.fake import FakeCluster, until
from tests.client.shells import ASYNC_ONLY, AsyncShell, Shell

pytestmark = pytest.mark.usefixtures("closing")


@pytest.fixture
async def closing(fake: FakeCluster, shell: Shell) -> AsyncIterator[None]:
    """Close the clients while the cluster still stands."""
    yield
    fake.holds = False
    await shell.close_all()


def operations(fake: FakeCluster) -> list[type]:
    return [type(call.operation) for call in fake.calls]


# --- failover --------------------------------------------------------------------------------------------------------------------


async def test_call_goes_through_a_change_of_leader(fake: FakeCluster, shell: Shell) -> None:
    """The caller notices nothing."""
    value = shell.connect(fake.addresses).value("/v")
    await shell.go(value.set, b"1")
    fake.lead(2)
    second = await shell.go(value.set, b"2")
    await fake.nodes[1].kill()
    fake.lead(3)
    assert await shell.go(value.set, b"3") > second


async def test_waiting_acquire_survives_its_leader_and_keeps_its_place(fake: FakeCluster, shell: Shell) -> None:
    """Sent again under its number it finds its place in the queue, never a second one."""
    holder, waiter = shell.connect(fake.addresses).lock("/a"), shell.connect(fake.addresses).lock("/a")
    await shell.go(holder.acquire)
    wait = shell.start(waiter.acquire)
    await until(lambda: len(fake.calls) == 2)
    await fake.nodes[0].kill()
    fake.lead(2)
    await until(lambda: len(fake.calls) >= 3)
    assert len(await shell.go(holder.waiters)) == 1
    await shell.go(holder.release)
    assert await wait is not None


async def test_session_and_grant_outlive_a_lost_connection(fake: FakeCluster, shell: Shell) -> None:
    """A lost connection elects nobody."""
    client = shell.connect(fake.addresses)
    lock = client.lock("/a")
    grant = await shell.go(lock.acquire)
    believed: list[tuple[SessionState, bool]] = []
    client.session.on_state_change(lambda state: believed.append((state, grant.is_held_locally())))
    fake.nodes[0].cut()
    await until(lambda: len(believed) == 2)
    assert believed == [(SessionState.SUSPENDED, True), (SessionState.CONNECTED, True)]
    await shell.go(grant.check)
    assert client.session.session_id == grant.session_id


async def test_first_seed_may_be_dead(fake: FakeCluster, shell: Shell) -> None:
    """One that answers is enough."""
    client = shell.connect(["127.0.0.1:1", fake.addresses[2]])
    await shell.go(client.wait_connected, 5)


async def test_wait_connected_says_why_it_did_not(shell: Shell) -> None:
    """And is over in time."""
    client = shell.connect(["127.0.0.1:1"])
    with pytest.raises(Unavailable, match=re.escape("127.0.0.1:1: Connection refused")):
        await shell.go(client.wait_connected, 0.1)


async def test_call_without_a_cluster_ends_in_its_time_and_says_why(shell: Shell) -> None:
    """`?timeout=` is for calls that have none of their own."""
    value = shell.connect(["127.0.0.1:1"], "/ns?timeout=100ms").value("/v")
    for method, arguments in ((value.set, [b"x"]), (value.get, [])):
        with pytest.raises(Unavailable, match="refused"):
            await shell.go(method, *arguments)


async def test_wrong_token_is_told_and_never_shown(shell: Shell) -> None:
    """At once: it stays wrong."""
    cluster = await FakeCluster(2, token="right").start()
    client = shell.make(f"coord://s3cr3t@{','.join(cluster.addresses)}/ns")
    assert "s3cr3t" not in repr(client)
    with pytest.raises(AuthenticationFailed) as caught:
        await shell.go(client.wait_connected, 5)
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(AuthenticationFailed):
        await shell.go(client.lock("/a").acquire)
    await shell.go(client.close)
    await cluster.stop()


async def test_tls_files_that_cannot_be_read_are_named(shell: Shell) -> None:
    """At the first use."""
    client = shell.make("coords://127.0.0.1:1?ca=/does/not/exist.pem")
    with pytest.raises(InvalidConfig, match="No such file"):
        await shell.go(client.wait_connected, 1)


async def test_busy_cluster_delays_and_does_not_fail(fake: FakeCluster, shell: Shell) -> None:
    """The client backs off by itself."""
    client = shell.connect(fake.addresses)
    await shell.go(client.wait_connected, 5)
    fake.busy = 4
    await shell.go(client.lock("/a").acquire)
    assert fake.busy == 0


@ASYNC_ONLY
async def test_client_that_could_not_close_in_time_gives_up_for_good(fake: FakeCluster, shell: AsyncShell) -> None:
    """Its session expires by itself; nothing goes on connecting behind the application's back."""
    client = shell.connect(fake.addresses)
    await client.wait_connected()
    driver = client.driver()
    fake.holds = True
    await client.close(0.01)
    assert not driver.finished.done()
    for later_ms in (5_000, 6_000):
        driver.session.tick(clock_ms() + later_ms)
        driver.flush()
    assert driver.connection is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


@ASYNC_ONLY
async def test_acquire_that_is_cancelled_in_the_turn_of_its_grant_and_of_the_clients_end_is_cancelled(
    fake: FakeCluster, shell: AsyncShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grant went with the session: there is nothing to give back, and no error may take the cancellation's place."""
    client = shell.connect(fake.addresses)
    await client.wait_connected()
    driver = client.driver()
    resolve = driver._resolve
    acquiring = asyncio.create_task(client.lock("/a").acquire())

    def granted_at_the_end(call: Any, outcome: Any) -> None:
        resolve(call, outcome)
        acquiring.cancel()
        driver.session.close(clock_ms())

    monkeypatch.setattr(driver, "_resolve", granted_at_the_end)
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    await client.close(0.1)


@ASYNC_ONLY
async def test_attached_client_whose_lease_cannot_be_told_is_lost_when_the_last_known_one_ends(
    fake: FakeCluster, shell: AsyncShell, caplog: pytest.LogCaptureFixture
) -> None:
    """An error there is no reason to believe on without end."""
    keeper = shell.connect(fake.addresses)
    await keeper.wait_connected()
    until_s, works = clock_ms() / 1000 + 0.5, True

    def lease() -> float:
        if not works:
            raise OSError("the board is gone")
        return until_s

    session_id = keeper.session.session_id
    client = AsyncClient(f"coord://{','.join(fake.addresses)}", session_id=session_id, lease=lease)
    await client.wait_connected(5)
    grant = await client.lock("/a").acquire()
    assert grant is not None
    works = False
    await until(lambda: client.session.state is SessionState.LOST)
    assert not grant.is_held_locally()
    assert "the board is gone" in caplog.text
    await client.close(0.1)


# --- loss ------------------------------------------------------------------------------------------------------------------------


async def test_expired_session_is_lost_and_its_grant_with_it(fake: FakeCluster, shell: Shell) -> None:
    """The next call opens a new session."""
    client = shell.connect(fake.addresses, "/ns?ttl=500ms")
    lock = client.lock("/a")
    grant = await shell.go(lock.acquire)
    fake.expire(grant.session_id)
    await until(lambda: client.session.state is SessionState.LOST)
    assert not grant.is_held_locally()
    with pytest.raises(LockLost):
        await shell.go(lock.release)
    again = await shell.go(lock.acquire)
    assert again.session_id != grant.session_id
    assert again.token > grant.token


async def test_lease_ends_locally_while_the_cluster_is_silent(fake: FakeCluster, shell: Shell) -> None:
    """Nobody needs to say so; and the first thing said afterwards closes the old session."""
    client = shell.connect(fake.addresses, "/ns?ttl=500ms")
    lock = client.lock("/a")
    grant = await shell.go(lock.acquire)
    fake.holds = True
    await until(lambda: client.session.state is SessionState.LOST)
    assert not grant.is_held_locally()
    with pytest.raises(LockLost):
        await shell.go(grant.check)
    fake.holds = False
    await until(lambda: CloseSession(grant.session_id) in fake.log)


async def test_check_that_nobody_answers_ends_with_the_lease(fake: FakeCluster, shell: Shell) -> None:
    """Whoever asks whether to go on must hear of the loss when it happens, not when the question has grown old."""
    client = shell.connect(fake.addresses, "/ns?ttl=500ms&timeout=60s")
    grant = await shell.go(client.lock("/a").acquire)
    fake.holds = True
    with pytest.raises(LockLost):
        await shell.go(grant.check)
    fake.holds = False


async def test_with_block_whose_lock_was_lost_says_so_at_its_end(fake: FakeCluster, shell: Shell) -> None:
    """Its body was not protected all the time; its own exception would go first."""
    client = shell.connect(fake.addresses)
    loop = asyncio.get_running_loop()

    def lose(grant: Any) -> None:
        if isinstance(shell, AsyncShell):
            fake.expire(grant.session_id)
        else:
            asyncio.run_coroutine_threadsafe(expire(grant.session_id), loop).result()

    async def expire(session: int) -> None:
        fake.expire(session)

    with pytest.raises(LockLost):
        await shell.inside(client.lock("/a"), lose)


async def test_acquire_that_waits_when_its_session_is_lost_is_told(fake: FakeCluster, shell: Shell) -> None:
    """Its outcome is known: nothing is held."""
    await shell.go(shell.connect(fake.addresses, "/ns").lock("/a").acquire)
    client = shell.connect(fake.addresses, "/ns?ttl=500ms")
    wait = shell.start(client.lock("/a").acquire)
    await until(lambda: len(fake.calls) == 2)
    fake.expire(client.session.session_id)
    with pytest.raises(SessionExpired):
        await wait


# --- callers that go away --------------------------------------------------------------------------------------------------------


@ASYNC_ONLY
async def test_cancelled_acquire_leaves_the_queue(fake: FakeCluster, shell: AsyncShell) -> None:
    """Its caller has gone: a grant would be held by nobody."""
    client = shell.connect(fake.addresses)
    await client.lock("/a").acquire()
    waiter = client.lock("/a")
    wait = shell.start(waiter.acquire)
    await until(lambda: len(fake.calls) == 2)
    wait.cancel()
    await asyncio.wait([wait])
    await until(lambda: operations(fake) == [LockAcquire, LockAcquire, Cancel])
    assert await waiter.waiters() == ()


@ASYNC_ONLY
async def test_grant_that_crosses_the_cancellation_is_given_back(fake: FakeCluster, shell: AsyncShell) -> None:
    """At every turn of the loop between the call and its answer: nothing stays behind."""
    client = shell.connect(fake.addresses)
    await client.wait_connected()
    for turns in range(12):
        lock = client.lock(f"/a{turns}")
        wait = shell.start(lock.acquire)
        for _ in range(turns):
            await asyncio.sleep(0)
        if not wait.cancel():
            await lock.release()
        await asyncio.wait([wait])
        if not wait.cancelled():
            continue
        assert lock.token is None
        async with asyncio.timeout(5):
            while await lock.holder() is not None:
                pass


@ASYNC_ONLY
async def test_acquire_under_a_timeout_of_asyncio_leaves_nothing(fake: FakeCluster, shell: AsyncShell) -> None:
    """`asyncio.timeout` cancels like any other."""
    client = shell.connect(fake.addresses)
    holder, waiter = client.lock("/a"), client.lock("/a")
    await holder.acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await waiter.acquire()
    await holder.release()
    assert await waiter.holder() is None


async def test_unanswered_write_is_unknown_and_withdrawn(fake: FakeCluster, shell: Shell) -> None:
    """Applied here, as it happens; the caller is told to look."""
    client = shell.connect(fake.addresses, "/ns?timeout=100ms")
    value = client.value("/v")
    await shell.go(value.set, b"1")
    fake.holds = True
    with pytest.raises(OutcomeUnknown):
        await shell.go(value.set, b"2")
    fake.holds = False
    await until(lambda: Cancel in operations(fake))


async def test_release_that_is_not_confirmed_still_happens(fake: FakeCluster, shell: Shell) -> None:
    """However long the cluster is gone, within the session's life."""
    client = shell.connect(fake.addresses, "/ns?timeout=100ms")
    lock = client.lock("/a")
    await shell.go(lock.acquire)
    await fake.nodes[0].kill()
    fake.leader = None
    with pytest.raises(OutcomeUnknown):
        await shell.go(lock.release)
    fake.lead(2)
    await until(lambda: LockRelease in operations(fake))


async def test_numbers_and_marks_are_those_of_exactly_once(fake: FakeCluster, shell: Shell) -> None:
    """On the wire: rising numbers, and a mark that follows the answers."""
    value = shell.connect(fake.addresses).value("/v")
    for _ in range(3):
        await shell.go(value.set, b"x")
    sent = [(call.request, call.low_water) for call in fake.log if isinstance(call, Call)]
    assert sent == [(1, 0), (2, 1), (3, 2)]


@pytest.mark.parametrize(
    ("verify_code", "verify_message", "hint"),
    [(20, "unable to get local issuer certificate", "?ca=FILE"), (64, "IP address mismatch, certificate is not valid for 'h'", "")],
)
def test_a_certificate_that_does_not_hold_is_told_with_what_may_be_missing(
    verify_code: int, verify_message: str, hint: str
) -> None:
    """The authority can be named; where the certificate is another host's, naming one does not help."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = verify_code, verify_message
    said = reason_of(error)
    assert said.startswith(f"TLS: the node's certificate does not hold: {verify_message}")
    assert ("--cacert" in said and hint in said) == bool(hint)
