"""Semaphores, rate limiters and the rest of locks: what both clients promise, on the fake cluster and on a real node."""

import asyncio
from fractions import Fraction
from typing import Any

import pytest

from coord_core import InvalidRequest, LockLost, LostError, NotHolder, RateLimiter, WrongType
from coord_core.client.limiter import AsyncRateLimiter
from coord_core.protocol.locks import ListCursor
from tests.client.fake import FakeCluster
from tests.client.shells import ASYNC_ONLY, AsyncShell, Shell

Addresses = list[str]


async def waiting(shell: Shell, handle: Any, count: int) -> None:
    """Wait until so many wait for what the handle is of."""
    async with asyncio.timeout(5):
        while len(await shell.go(handle.waiters)) != count:
            pass


# --- locks -----------------------------------------------------------------------------------------------------------------------


async def test_an_operator_takes_a_lock_from_its_holder(shell: Shell, addresses: Addresses) -> None:
    """The next waiter has it at once; the former holder is told by whom and why when it releases; its token is void for all."""
    holder = shell.connect(addresses).lock("/a", label="hangs")
    operator, next_one = shell.connect(addresses, label="alice").lock("/a"), shell.connect(addresses).lock("/a")
    grant = await shell.go(holder.acquire)
    call = shell.start(next_one.acquire)
    await waiting(shell, operator, 1)
    broken = await shell.go(operator.break_, grant.token, "the node is gone")
    assert broken.holder.label == "hangs"
    assert (await call).token > grant.token
    assert not await shell.go(operator.is_held, grant.token)
    with pytest.raises(LockLost):
        await shell.go(grant.check)
    with pytest.raises(LockLost, match="alice: the node is gone") as caught:
        await shell.go(holder.release)
    assert caught.value.details["reason"] == "the node is gone"


async def test_a_lock_that_went_on_meanwhile_is_not_broken(shell: Shell, addresses: Addresses) -> None:
    """Exactly the token that the operator saw."""
    lock, operator = shell.connect(addresses).lock("/a"), shell.connect(addresses).lock("/a")
    old = await shell.go(lock.acquire)
    await shell.go(lock.release)
    await shell.go(lock.acquire)
    with pytest.raises(NotHolder):
        await shell.go(operator.break_, old.token, "too late")
    with pytest.raises(InvalidRequest):
        await shell.go(operator.break_, lock.token, "")
    await shell.go(lock.check)


async def test_a_reentrant_handle_holds_until_it_was_released_as_often(shell: Shell, addresses: Addresses) -> None:
    """Counted here: the cluster hears of the first acquire and of the last release."""
    client = shell.connect(addresses)
    lock, other = client.lock("/a", reentrant=True), client.lock("/a")
    outer, inner = await shell.go(lock.acquire), await shell.go(lock.acquire)
    assert outer.token == inner.token
    await shell.go(lock.release)
    assert await shell.go(other.try_lock) is None
    await shell.go(lock.release)
    with pytest.raises(NotHolder):
        await shell.go(lock.release)
    assert await shell.go(other.try_lock) is not None


async def test_a_reentrant_handle_that_lost_the_lock_does_not_take_it_again_under_its_own_feet(
    shell: Shell, addresses: Addresses
) -> None:
    """The outer block believes that it held it all the time."""
    client, operator = shell.connect(addresses), shell.connect(addresses)
    lock = client.lock("/a", reentrant=True)
    await shell.go(lock.acquire)
    await shell.go(operator.end_session, client.session.session_id)
    with pytest.raises(LostError):
        await shell.go(client.lock("/b").acquire)
    with pytest.raises(LockLost):
        await shell.go(lock.acquire)
    with pytest.raises(LockLost):
        await shell.go(lock.release)
    assert await shell.go(lock.acquire) is not None


async def test_after_a_holder_with_a_delay_is_gone_nobody_gets_the_lock_for_so_long(shell: Shell, addresses: Addresses) -> None:
    """The handle asks for it; who waits is told nothing and waits; who looks is told why."""
    holder, operator = shell.connect(addresses), shell.connect(addresses)
    grant = await shell.go(holder.lock("/a", lock_delay=0.4).acquire)
    lock = operator.lock("/a")
    await shell.go(operator.end_session, holder.session.session_id)
    closed = await shell.go(lock.closure)
    assert (closed.reason, closed.token) == ("delay", grant.token)
    assert await shell.go(lock.try_lock) is None
    assert await shell.go(lock.acquire, 5) is not None


async def test_a_release_with_quarantine_lets_the_next_one_wait(shell: Shell, addresses: Addresses) -> None:
    """Also for the one that released."""
    lock = shell.connect(addresses).lock("/a")
    await shell.go(lock.acquire)
    await shell.go(lock.release, quarantine=0.3)
    assert (await shell.go(lock.closure)).reason == "quarantine"
    assert await shell.go(lock.try_lock) is None
    assert await shell.go(lock.acquire, 5) is not None


@pytest.mark.parametrize("seconds", [-1, 86_401, float("nan")])
async def test_how_long_a_lock_can_be_closed_is_checked_before_anything_is_sent(
    shell: Shell, addresses: Addresses, seconds: float
) -> None:
    """A slip of the keyboard must not close a lock for years; and the lock stays held."""
    client = shell.connect(addresses)
    with pytest.raises(InvalidRequest):
        client.lock("/a", lock_delay=seconds)
    lock = client.lock("/a")
    await shell.go(lock.acquire)
    with pytest.raises(InvalidRequest):
        await shell.go(lock.release, quarantine=seconds)
    await shell.go(lock.check)


# --- semaphores ------------------------------------------------------------------------------------------------------------------


async def test_as_many_hold_as_there_are_permits_and_the_next_goes_on_when_one_comes_back(
    shell: Shell, addresses: Addresses
) -> None:
    """Grants have tokens that rise, and stand until released."""
    client = shell.connect(addresses)
    handles = [client.semaphore("/s", 2) for _ in range(3)]
    first, second = await shell.go(handles[0].acquire), await shell.go(handles[1].acquire)
    assert await shell.go(handles[2].try_acquire) is None
    call = shell.start(handles[2].acquire)
    await waiting(shell, handles[0], 1)
    assert await shell.go(handles[2].is_held, first.token)
    await shell.go(handles[0].release)
    third = await call
    assert first.token < second.token < third.token
    await shell.go(third.check)
    assert third.is_held_locally()
    assert not await shell.go(handles[2].is_held, first.token)
    with pytest.raises(LockLost):
        await shell.go(first.check)
    with pytest.raises(NotHolder):
        await shell.go(handles[0].release)


async def test_leaving_the_block_gives_the_permits_back(shell: Shell, addresses: Addresses) -> None:
    """A context manager, of as many as the handle was made for."""
    client = shell.connect(addresses)
    handle, other = client.semaphore("/s", 3, permits=3), client.semaphore("/s", 3)
    await shell.inside(handle, lambda grant: None)
    assert await shell.go(other.try_acquire) is not None


async def test_a_wait_for_permits_that_times_out_leaves_the_queue(shell: Shell, addresses: Addresses) -> None:
    """And lets those behind it go on."""
    client = shell.connect(addresses)
    holder, greedy, modest = client.semaphore("/s", 2), client.semaphore("/s", 2, permits=2), client.semaphore("/s", 2)
    await shell.go(holder.acquire)
    assert await shell.go(greedy.acquire, 0.05) is None
    assert await shell.go(modest.try_acquire) is not None


async def test_the_limit_can_be_set_for_all(shell: Shell, addresses: Addresses) -> None:
    """More let those go on who wait; it stays, and can be taken back."""
    client = shell.connect(addresses)
    one, two = client.semaphore("/s", 1), client.semaphore("/s", 1)
    await shell.go(one.acquire)
    call = shell.start(two.acquire)
    await waiting(shell, one, 1)
    await shell.go(one.set_limit, 2)
    assert await call is not None
    await shell.go(one.release)
    await shell.go(two.release)
    assert (await shell.go(one.state)).limit == 2
    await shell.go(one.set_limit, None)
    assert (await shell.go(one.state)).limit is None


async def test_permits_go_with_their_session(shell: Shell, addresses: Addresses) -> None:
    """A closed client holds nothing any more, and knows it."""
    holder, other = shell.connect(addresses), shell.connect(addresses)
    grant = await shell.go(holder.semaphore("/s", 1).acquire)
    await shell.go(holder.close)
    assert not grant.is_held_locally()
    assert await shell.go(other.semaphore("/s", 1).acquire, 5) is not None


async def test_a_semaphore_is_no_lock(shell: Shell, addresses: Addresses) -> None:
    """A name has one type for as long as it is in use."""
    client = shell.connect(addresses)
    await shell.go(client.semaphore("/s", 1).acquire)
    with pytest.raises(WrongType):
        await shell.go(client.lock("/s").acquire)
    with pytest.raises(InvalidRequest):
        await shell.go(client.semaphore("/t", 1, permits=2).acquire)


@ASYNC_ONLY
@pytest.mark.parametrize("kind", ["lock", "semaphore"])
async def test_a_grant_whose_task_is_cancelled_as_it_comes_is_given_back(
    shell: AsyncShell, addresses: Addresses, kind: str
) -> None:
    """In whatever turn of the loop the two meet: nobody holds what nobody knows of."""
    client = shell.connect(addresses)

    def handle() -> Any:
        return client.lock("/x") if kind == "lock" else client.semaphore("/x", 1)

    for turns in range(12):
        task = asyncio.ensure_future(handle().acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            break  # the grant came first, and its caller has it
        free = handle()
        assert await free.acquire(5) is not None
        await free.release()


# --- rate limiters ---------------------------------------------------------------------------------------------------------------


async def test_a_burst_goes_through_and_then_the_limiter_says_how_long_to_wait(shell: Shell, addresses: Addresses) -> None:
    """A decision is true or false, and tells when to come back."""
    limiter = shell.connect(addresses).rate_limiter("/r", Fraction(1, 1000), burst=2)
    assert [bool(await shell.go(limiter.try_acquire)) for _ in range(2)] == [True, True]
    decision = await shell.go(limiter.try_acquire)
    assert not decision
    assert 900 < decision.retry_after <= 1_000
    assert await shell.go(limiter.acquire, 1, 0.05) is False
    state = await shell.go(limiter.state)
    assert (state.level, state.burst, state.waiters_total) == (0, 2, 0)


async def test_who_waits_for_a_permit_gets_it_when_it_is_there(shell: Shell, addresses: Addresses) -> None:
    """By the cluster's clock."""
    limiter = shell.connect(addresses).rate_limiter("/r", 20, burst=1)
    assert await shell.go(limiter.acquire)
    assert await shell.go(limiter.acquire, 1, 5)


@pytest.mark.parametrize(("rate", "burst"), [(0, None), (-1, None), (float("inf"), None), (float("nan"), None), (1e-9, 1), (1, 0)])
def test_rates_that_make_no_sense_are_refused(rate: float, burst: int | None) -> None:
    """Before anything is sent."""
    from coord_core import Client

    with pytest.raises(InvalidRequest):
        Client("coord://127.0.0.1:1").rate_limiter("/r", rate, burst)


@pytest.mark.parametrize(
    ("rate", "exact"), [(5, (1, 200)), (0.1, (1, 10_000)), (10 / 60, (1, 6_000)), (Fraction(1, 3), (1, 3_000)), (2.5, (1, 400))]
)
def test_a_rate_is_sent_as_an_exact_fraction(rate: float, exact: tuple[int, int]) -> None:
    """Ten a minute are ten a minute, though 1/6 is no float."""
    from coord_core import Client

    limiter = Client("coord://127.0.0.1:1").rate_limiter("/r", rate)
    assert isinstance(limiter, RateLimiter)
    inner: AsyncRateLimiter = limiter._inner
    assert (inner._permits, inner._per_ms) == exact


# --- lists -----------------------------------------------------------------------------------------------------------------------


async def test_locks_and_semaphores_are_listed_in_parts(shell: Shell, addresses: Addresses) -> None:
    """Of this namespace, by prefix; `next` goes on where the last part ended."""
    client, other = shell.connect(addresses), shell.connect(addresses, "/elsewhere")
    for number in range(5):
        await shell.go(client.lock(f"/jobs/{number}", label=f"job {number}").acquire)
    await shell.go(client.semaphore("/pool", 3).acquire)
    await shell.go(other.lock("/jobs/9").acquire)
    everything = await shell.go(client.list_locks)
    assert [(row.path, row.kind) for row in everything.rows] == [
        *((f"/test/jobs/{number}", "lock") for number in range(5)),
        ("/test/pool", "semaphore"),
    ]
    assert everything.next is None
    assert everything.rows[2].holder.owner.label == "job 2"
    found: list[str] = []
    cursor: ListCursor | None = ListCursor()
    while cursor is not None:
        part = await shell.go(client.list_locks, "/jobs/", limit=2, after=cursor)
        assert len(part.rows) <= 2
        found += [row.path for row in part.rows]
        cursor = part.next
    assert sorted(found) == [f"/test/jobs/{number}" for number in range(5)]


async def test_sessions_are_listed_and_can_be_ended(shell: Shell, addresses: Addresses) -> None:
    """All that a session holds is free at once; one that is not there is said not to be."""
    clients = [shell.connect(addresses, label=f"client {number}") for number in range(3)]
    for number, client in enumerate(clients):
        await shell.go(client.lock(f"/{number}").acquire)
    listing = await shell.go(clients[0].list_sessions)
    assert [row.owner.label for row in listing.rows] == [f"client {number}" for number in range(3)]
    assert [row.holdings for row in listing.rows] == [1, 1, 1]
    part = await shell.go(clients[0].list_sessions, limit=2)
    assert (len(part.rows), part.next) == (2, part.rows[-1].session)
    session = clients[2].session.session_id
    assert await shell.go(clients[0].end_session, session) is True
    assert await shell.go(clients[0].end_session, session) is False
    assert await shell.go(clients[0].lock("/2").holder) is None


@ASYNC_ONLY
async def test_an_acquire_that_is_not_answered_in_time_is_withdrawn_whatever_it_is_of(shell: AsyncShell, fake: FakeCluster) -> None:
    """The local clock ends what the cluster does not answer; no permit stays behind."""
    client = shell.connect(fake.addresses, "/test?timeout=200ms")
    await client.wait_connected()
    fake.holds = True
    calls = client.semaphore("/s", 1).acquire(0.01), client.rate_limiter("/r", 1).acquire(1, 0.01)
    assert list(await asyncio.gather(*calls)) == [None, False]
    fake.holds = False
    fake.lead(2)
    for node in fake.nodes[:1]:
        await node.kill()
    assert await client.semaphore("/s", 1).acquire(5) is not None
