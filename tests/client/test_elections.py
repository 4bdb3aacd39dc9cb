"""Elections as programs use them, with both clients: who leads, who is next, and when it is over."""

import asyncio
from typing import Any

import pytest

from coord_core import InvalidRequest, LeadershipLost, NotHolder, SessionClosed, SessionExpired
from coord_core.client.aio import AsyncClient
from tests.client.fake import until
from tests.client.shells import ASYNC_ONLY, Shell
from tests.server.support import Nodes


async def test_candidates_lead_in_the_order_in_which_they_entered(shell: Shell, node: list[str]) -> None:
    """Entering completes at once: the candidate can be elected, whether or not it is."""
    one, two, three = (shell.connect(node).election("/e") for _ in range(3))
    first, second, third = [await shell.go(election.enter) for election in (one, two, three)]
    assert first.is_leader_locally()
    assert first.epoch == first.candidate
    assert (second.epoch, third.epoch) == (None, None)
    assert [candidate.candidate for candidate in await shell.go(one.candidates)] == [second.candidate, third.candidate]
    await shell.go(first.resign)
    assert await shell.go(second.wait_elected, 5) is not None
    await shell.go(second.resign)
    assert await shell.go(third.wait_elected, 5) is not None


async def test_epochs_rise_and_the_old_one_is_no_leaders_from_then_on(shell: Shell, node: list[str]) -> None:
    """`is_leader(epoch)` asks the cluster: whoever holds an old epoch hears no, whoever asks."""
    election, other = shell.connect(node).election("/e"), shell.connect(node).election("/e")
    first, second = await shell.go(election.enter), await shell.go(other.enter)
    old = first.epoch
    assert await shell.go(other.is_leader, old)
    await shell.go(first.resign)
    new = await shell.go(second.wait_elected, 5)
    assert new > old
    assert not await shell.go(other.is_leader, old)
    assert not await shell.go(election.is_leader, old)
    assert await shell.go(election.is_leader, new)


async def test_next_candidate_leads_when_the_leaders_client_is_closed(shell: Shell, node: list[str]) -> None:
    """What a session held goes with it, in the same entry."""
    client, other = shell.connect(node), shell.connect(node)
    await shell.go(client.election("/e").enter)
    second = await shell.go(other.election("/e").enter)
    await shell.go(client.close)
    assert await shell.go(second.wait_elected, 5) is not None
    assert second.is_leader_locally()


async def test_waiting_to_be_elected_ends_when_its_time_is_over(shell: Shell, node: list[str]) -> None:
    """And leaves the candidate where it was."""
    election = shell.connect(node).election("/e")
    await shell.go(election.enter)
    second = await shell.go(election.enter)
    assert await shell.go(second.wait_elected, 0.05) is None
    assert [candidate.candidate for candidate in await shell.go(election.candidates)] == [second.candidate]


async def test_nobody_is_elected_out_of_a_candidacy_that_is_over(shell: Shell, node: list[str]) -> None:
    """Who waits for it hears why, instead of waiting for ever."""
    client = shell.connect(node)
    election = client.election("/e")
    first = await shell.go(election.enter)
    waiting = await shell.go(election.enter)
    wait = shell.start(waiting.wait_elected)
    await shell.go(waiting.resign)
    with pytest.raises(SessionClosed):
        await wait
    assert first.is_leader_locally()
    await shell.go(client.close)
    assert not first.is_leader_locally()
    assert first.epoch is None


async def test_listener_is_called_with_the_epoch_and_again_when_it_is_over(shell: Shell, node: list[str]) -> None:
    """`on_election` completes once the process can be elected; what follows is told."""
    heard: list[tuple[str, int]] = []
    holder = await shell.go(shell.connect(node).election("/e").enter)
    election = shell.connect(node).election("/e")
    await shell.go(
        election.on_election, lambda epoch: heard.append(("elected", epoch)), lambda epoch: heard.append(("lost", epoch))
    )
    assert heard == []
    with pytest.raises(InvalidRequest):
        await shell.go(election.on_election, print)
    await shell.go(holder.resign)
    await until(lambda: len(heard) == 1)
    epoch = heard[0][1]
    assert heard == [("elected", epoch)]
    await shell.go(shell.connect(node).election("/e").enter)
    await shell.go(election.transfer)
    await until(lambda: len(heard) == 2)
    assert heard[1] == ("lost", epoch)
    await shell.go(election.resign)


async def test_leadership_is_handed_to_the_candidate_that_is_named(shell: Shell, node: list[str]) -> None:
    """Under the epoch that was seen and no other; the former leader waits behind the others."""
    election = shell.connect(node).election("/e")
    first, second, third = [await shell.go(election.enter) for _ in range(3)]
    epoch = first.epoch
    await shell.go(election.transfer, third.candidate, epoch=epoch)
    assert await shell.go(third.wait_elected, 5) is not None
    await until(lambda: first.epoch is None)
    with pytest.raises(NotHolder):
        await shell.go(election.transfer, second.candidate, epoch=epoch)
    with pytest.raises(InvalidRequest):
        await shell.go(election.transfer, 999)
    assert [candidate.candidate for candidate in await shell.go(election.candidates)] == [second.candidate, first.candidate]


async def test_leaders_are_observed_one_after_the_other_beginning_with_the_present_one(shell: Shell, node: list[str]) -> None:
    """None where nobody leads."""
    client = shell.connect(node)
    election = client.election("/e")
    watch = shell.connect(node).election("/e").observe()
    await shell.go(watch.start)
    seen = [await next_of(shell, watch)]
    first = await shell.go(election.enter)
    epoch = first.epoch
    second = await shell.go(election.enter)
    await shell.go(first.resign)
    await shell.go(second.wait_elected, 5)
    second_epoch = second.epoch
    await shell.go(second.resign)
    seen += [await next_of(shell, watch) for _ in range(3)]
    assert [None if leader is None else leader.epoch for leader in seen] == [None, epoch, second_epoch, None]


def _hear(heard: list[tuple[str, int]], what: str, epoch: int) -> None:
    heard.append((what, epoch))


async def next_of(shell: Shell, watch: Any) -> Any:
    """The next thing that a watch tells, with either client."""
    return await asyncio.wait_for(shell.go(watch.__anext__ if hasattr(watch, "__anext__") else watch.__next__), 5)


@ASYNC_ONLY
async def test_who_does_not_lead_any_more_when_it_asks_is_told_so_at_once(node: list[str]) -> None:
    """Between being elected and waiting for the end of it, leadership may be handed on: that must not be missed."""
    async with AsyncClient(f"coord://{node[0]}/test") as client:
        await client.election("/e").enter()
        second = await client.election("/e").enter()
        assert isinstance(await asyncio.wait_for(second.wait_deposed(), 5), LeadershipLost)


async def test_context_is_entered_when_this_process_leads_and_left_by_resigning(shell: Shell, node: list[str]) -> None:
    """Whoever is next leads when the body is done."""
    election = shell.connect(node).election("/e")
    epochs = []
    for _ in range(2):
        await shell.inside(election.lead(5), lambda leadership: epochs.append((leadership.epoch, leadership.is_leader_locally())))
    assert [led for _, led in epochs] == [True, True]
    assert epochs[1][0] > epochs[0][0]
    assert await shell.go(election.leader) is None


async def test_entering_the_context_in_vain_leaves_the_election(shell: Shell, node: list[str]) -> None:
    """Who gave up must not be elected later."""
    election = shell.connect(node).election("/e")
    await shell.go(election.enter)
    with pytest.raises(TimeoutError):
        await shell.inside(election.lead(0.05), lambda leadership: None)
    assert await shell.go(election.candidates) == ()


@ASYNC_ONLY
async def test_body_is_cancelled_when_leadership_is_handed_on(shell: Shell, node: list[str]) -> None:
    """A coroutine can be stopped from outside; it must not go on as if it still led."""
    election, other = shell.connect(node).election("/e"), shell.connect(node).election("/e")
    await_cancel = asyncio.Event()

    async def body() -> None:
        async with election.lead() as leadership:
            second = await other.enter()
            await other.transfer(second.candidate, epoch=leadership.epoch)
            await_cancel.set()
            await asyncio.sleep(60)

    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(body(), 10)
    assert await_cancel.is_set()
    assert await election.candidates() == ()


@ASYNC_ONLY
async def test_cancelling_the_body_from_outside_is_no_loss_of_leadership(shell: Shell, node: list[str]) -> None:
    """A task that its own program cancels ends as cancelled, and has resigned."""
    election = shell.connect(node).election("/e")
    inside = asyncio.Event()

    async def body() -> None:
        async with election.lead():
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(body())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await election.leader() is None


@ASYNC_ONLY
async def test_cancelled_entering_leaves_no_candidate(shell: Shell, node: list[str]) -> None:
    """Nobody would resign for it, whether its answer was on its way or had just come."""
    client = shell.connect(node)
    election, other = client.election("/e"), shell.connect(node).election("/e")
    await client.wait_connected(5)
    for turns in range(30):
        entering = asyncio.ensure_future(election.enter())
        for _ in range(turns):
            await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait([entering])
        if not entering.cancelled():
            await entering.result().resign()
    async with asyncio.timeout(5):
        while await other.leader() is not None:
            pass


async def test_election_survives_the_death_of_the_raft_leader(shell: Shell, nodes: Nodes, three: list[str]) -> None:
    """Sessions outlive a failover, and so does leadership; candidates hear of their election from the next node."""
    election, other = shell.connect(three).election("/e"), shell.connect(three).election("/e")
    first, second = await shell.go(election.enter), await shell.go(other.enter)
    epoch = first.epoch
    leader = await nodes.leader()
    nodes.kill(leader.config.name)
    assert await shell.go(other.is_leader, epoch)
    assert first.is_leader_locally()
    assert second.epoch is None
    await shell.go(first.resign)
    assert await shell.go(second.wait_elected, 5) > epoch


async def test_lost_session_ends_the_candidacy_and_a_registration_enters_anew(shell: Shell, nodes: Nodes, node: list[str]) -> None:
    """Whoever wants to lead for ever says so once; a single candidacy is over for good."""
    heard: list[int] = []
    client = shell.connect(node, "/test?ttl=500ms")
    candidacy = await shell.go(client.election("/once").enter)
    election = client.election("/e")
    await shell.go(election.on_election, heard.append)
    await until(lambda: len(heard) == 1)
    killed = nodes.kill("n1")
    assert isinstance(await shell.go(candidacy.wait_deposed), SessionExpired)
    assert not candidacy.is_leader_locally()
    with pytest.raises(SessionExpired):
        await shell.go(candidacy.wait_elected, 1)
    await killed.stop()
    await nodes.start("n1")
    await until(lambda: len(heard) == 2, 20)
    assert heard[1] > heard[0]
    await shell.go(election.resign)
