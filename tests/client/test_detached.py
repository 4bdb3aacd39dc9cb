"""Detached sessions as programs use them, with both clients: what a process holds passes to the next one."""

import asyncio
from typing import Any

import pytest

from coord_core import Detached, InvalidRequest, LeadershipLost, LockLost, SessionState, Superseded
from tests.client.fake import until
from tests.client.shells import ASYNC_ONLY, Shell


def worker(shell: Shell, node: list[str], attempt: int = 1, name: str = "/etl/load", rest: str = "/test?ttl=2s") -> Any:
    return shell.connect(node, rest, detached=Detached(name, attempt))


async def test_lock_passes_with_its_token_from_process_to_process(shell: Shell, node: list[str]) -> None:
    """From worker to trigger to worker; the last one gives it back."""
    first = worker(shell, node)
    token = (await shell.go(first.lock("/l").acquire)).token
    await shell.go(first.hand_off)
    second = worker(shell, node)
    lock = second.lock("/l")
    grant = await shell.go(lock.acquire)
    assert grant.token == token
    await shell.go(grant.check)
    await shell.go(second.hand_off, 5)
    last = worker(shell, node)
    lock = last.lock("/l")
    assert (await shell.go(lock.acquire)).token == token
    await shell.go(lock.release)
    assert await shell.go(lock.holder) is None


async def test_handed_off_client_is_closed_and_holds_nothing(shell: Shell, node: list[str]) -> None:
    client = worker(shell, node)
    grant = await shell.go(client.lock("/l").acquire)
    await shell.go(client.hand_off)
    assert not grant.is_held_locally()
    assert client.session.state is SessionState.CLOSED


async def test_process_whose_session_another_takes_up_hears_it_within_a_third_of_its_ttl(shell: Shell, node: list[str]) -> None:
    """A stalled trigger that goes on: it must stop, and what it does on its way out must harm nobody."""
    stalled = worker(shell, node)
    lock = stalled.lock("/l")
    grant = await shell.go(lock.acquire)
    successor = worker(shell, node)
    held = await shell.go(successor.lock("/l").acquire)
    await until(lambda: stalled.session.state is SessionState.LOST, 5)
    assert not grant.is_held_locally()
    with pytest.raises((Superseded, LockLost)):
        await shell.go(lock.release)
    with pytest.raises(Superseded):
        await shell.go(stalled.lock("/other").acquire)
    await shell.go(stalled.close)
    await shell.go(held.check)


async def test_process_that_is_refused_the_hand_off_has_stopped(shell: Shell, node: list[str]) -> None:
    """It was replaced; what it held is kept from strangers only until it says that it believes in it no more."""
    first, second = worker(shell, node), worker(shell, node)
    await shell.go(first.lock("/l").acquire)
    lock = second.lock("/l")
    await shell.go(lock.acquire)
    with pytest.raises(Superseded):
        await shell.go(first.hand_off)
    await shell.go(lock.release)
    assert await shell.go(shell.connect(node).lock("/l").acquire, 0) is not None


async def test_lower_attempt_is_refused(shell: Shell, node: list[str]) -> None:
    await shell.go(worker(shell, node, attempt=2).wait_connected, 5)
    with pytest.raises(Superseded) as caught:
        await shell.go(worker(shell, node, attempt=1).wait_connected, 5)
    assert caught.value.details["by"] == "attempt"


async def test_later_attempt_has_the_lock_when_the_earlier_one_says_that_it_has_stopped(shell: Shell, node: list[str]) -> None:
    """It is told that it was superseded; that it has stopped, it says by closing its client."""
    first = worker(shell, node, rest="/test?ttl=30s")
    await shell.go(first.lock("/l").acquire)
    second = worker(shell, node, attempt=2, rest="/test?ttl=30s")
    waiting = shell.start(second.lock("/l").acquire)
    await shell.go(second.wait_connected, 5)
    with pytest.raises(Superseded):
        await shell.go(first.lock("/x").acquire)
    assert not waiting.done()
    await shell.go(first.close)
    assert (await waiting).token


async def test_later_attempt_has_the_lock_when_the_lease_of_the_earlier_one_is_over(shell: Shell, node: list[str]) -> None:
    """Nobody renews it, though the earlier process lives and would."""
    first = worker(shell, node)
    grant = await shell.go(first.lock("/l").acquire)
    second = worker(shell, node, attempt=2)
    lock = second.lock("/l")
    assert await shell.go(lock.acquire, 10) is not None
    assert not grant.is_held_locally()


async def test_later_attempt_that_fences_has_the_lock_at_once(shell: Shell, node: list[str]) -> None:
    old = await shell.go(worker(shell, node, rest="/test?ttl=30s").lock("/l").acquire)
    second = worker(shell, node, attempt=2)
    new = await shell.go(second.lock("/l", takeover="fence").acquire, 0)
    assert new.token > old.token


async def test_later_attempt_leads_at_once_in_a_new_epoch(shell: Shell, node: list[str]) -> None:
    first = worker(shell, node, rest="/test?ttl=30s")
    old = await shell.go(first.election("/e").enter)
    election = worker(shell, node, attempt=2).election("/e")
    new = await shell.go(election.enter)
    assert new.epoch > old.epoch
    assert not await shell.go(election.is_leader, old.epoch)


async def test_leadership_passes_with_its_epoch_from_process_to_process(shell: Shell, node: list[str]) -> None:
    """Nobody else hears of it."""
    first = worker(shell, node)
    epoch = (await shell.go(first.election("/e").enter)).epoch
    await shell.go(first.hand_off)
    second = worker(shell, node)
    candidacy = await shell.go(second.election("/e").enter)
    assert candidacy.epoch == epoch
    assert candidacy.is_leader_locally()
    await shell.go(candidacy.resign)
    assert await shell.go(second.election("/e").leader) is None


async def test_session_that_nobody_takes_up_ends(shell: Shell, node: list[str]) -> None:
    first = worker(shell, node)
    await shell.go(first.lock("/l").acquire)
    await shell.go(first.hand_off, 0.3)
    assert await shell.go(shell.connect(node).lock("/l").acquire, 10) is not None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"detached": Detached("no-path")}, "path"),
        ({"detached": Detached("/job", -1)}, "attempt"),
        ({"detached": Detached("/job", 1.5)}, "attempt"),  # type: ignore[arg-type]
        ({"detached": Detached("/job", True)}, "attempt"),
        ({"detached": Detached("/job", 1, "x" * 200)}, "instance"),
        ({"detached": Detached("/job", 1, "\ud800")}, "instance"),
        ({"detached": Detached("/job\ud800")}, "path"),
        ({"detached": Detached("/job"), "session_id": 7}, "detached"),
    ],
)
def test_what_names_no_session_is_refused_before_anything_is_sent(shell: Shell, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shell.connect(["127.0.0.1:1"], **options)
    assert caught.value.details["field"] == field


async def test_takeover_and_hold_are_checked(shell: Shell, node: list[str]) -> None:
    client = shell.connect(node)
    with pytest.raises(InvalidRequest):
        client.lock("/l", takeover="steal")
    with pytest.raises(InvalidRequest):
        client.election("/e", takeover="")
    await shell.go(client.wait_connected, 5)
    with pytest.raises(InvalidRequest, match="not detached"):
        await shell.go(client.hand_off)
    with pytest.raises(InvalidRequest):
        await shell.go(client.hand_off, 0)


@ASYNC_ONLY
async def test_body_that_leads_is_cancelled_when_another_process_takes_the_session_up(shell: Shell, node: list[str]) -> None:
    first = worker(shell, node)
    second = worker(shell, node)

    async def lead() -> None:
        async with first.election("/e").lead():
            await second.wait_connected(5)
            await asyncio.Event().wait()

    with pytest.raises(LeadershipLost):
        await lead()


@ASYNC_ONLY
async def test_listener_and_watch_of_a_client_at_its_end_are_not_tried_for_ever(shell: Shell, node: list[str]) -> None:
    """There is no other session to come."""
    first = worker(shell, node)
    watch = first.lock("/l").watch()
    assert await anext(watch) is None
    await worker(shell, node).wait_connected(5)
    with pytest.raises(Superseded):
        await asyncio.wait_for(anext(watch), 10)
