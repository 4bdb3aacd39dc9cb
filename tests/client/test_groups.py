"""Groups and watches as programs use them, with both clients: who is there, and what happens to it."""

import asyncio
import threading
from typing import Any

import pytest

import coord_core
from coord_core import Consistency, InvalidRequest, NotFound, NotHolder, WrongType
from coord_core.client.aio import AsyncClient
from tests.client.fake import until
from tests.client.shells import ASYNC_ONLY, Shell
from tests.client.test_elections import next_of
from tests.server.support import Nodes

# --- groups ----------------------------------------------------------------------------------------------------------------------


async def test_members_are_listed_with_who_they_are_and_what_they_say(shell: Shell, node: list[str]) -> None:
    """In the order in which they joined."""
    group = shell.connect(node, label="worker").group("/g")
    first = await shell.go(group.join, b"one")
    second = await shell.go(shell.connect(node).group("/g", label="other").join, b"two")
    members = await shell.go(group.members)
    assert [(member.member, member.metadata) for member in members] == [(first.member, b"one"), (second.member, b"two")]
    assert [member.owner.label for member in members] == ["worker", "other"]
    assert first.unacknowledged == second.unacknowledged == ()


async def test_member_leaves_and_is_gone(shell: Shell, node: list[str]) -> None:
    """Leaving twice does nothing."""
    group = shell.connect(node).group("/g")
    member = await shell.go(group.join)
    assert member.is_member_locally()
    for _ in range(2):
        await shell.go(member.leave)
    assert not member.is_member_locally()
    assert await shell.go(group.members) == ()
    with pytest.raises(NotHolder):
        await shell.go(member.update, b"")


async def test_listeners_are_told_who_comes_and_who_goes(shell: Shell, node: list[str]) -> None:
    """Those who were there before are not told as coming."""
    group = shell.connect(node).group("/g")
    await shell.go(group.join)
    heard: list[tuple[str, int]] = []
    end = await shell.go(group.on_join, lambda member: heard.append(("joined", member.member)))
    await shell.go(group.on_leave, lambda member: heard.append(("left", member.member)))
    other = shell.connect(node)
    second = await shell.go(other.group("/g").join)
    await shell.go(other.close)
    await until(lambda: len(heard) == 2)
    assert heard == [("joined", second.member), ("left", second.member)]
    end()
    third = await shell.go(group.join)
    await shell.go(third.leave)
    await until(lambda: len(heard) == 3)
    assert heard[2] == ("left", third.member)


async def test_join_completes_when_the_listeners_elsewhere_have_returned(shell: Shell, node: list[str]) -> None:
    """Existing members are notified before join completes: a listener that is still at work holds it up."""
    group = shell.connect(node).group("/g")
    begun, go_on = threading.Event(), threading.Event()

    def listener(member: Any) -> None:
        begun.set()
        go_on.wait(20)

    await shell.go(group.on_join, listener)
    joining = shell.start(shell.connect(node).group("/g").join)
    await until(begun.is_set)
    assert len(await shell.go(group.members)) == 1
    assert not joining.done()
    go_on.set()
    assert (await asyncio.wait_for(joining, 5)).unacknowledged == ()


async def test_listener_that_raises_counts_as_told(shell: Shell, node: list[str]) -> None:
    """One process' fault must not keep the others out; the next is told again."""
    group = shell.connect(node).group("/g")
    heard: list[int] = []

    def listener(member: Any) -> None:
        heard.append(member.member)
        raise RuntimeError("the application's own fault")

    await shell.go(group.on_join, listener)
    members = [await shell.go(shell.connect(node).group("/g").join) for _ in range(2)]
    assert heard == [member.member for member in members]
    assert [member.unacknowledged for member in members] == [(), ()]


async def test_join_names_who_has_not_returned_in_time(shell: Shell, node: list[str]) -> None:
    """The member is in; whom to look at is said."""
    slow = shell.connect(node, label="the slow one")
    go_on = threading.Event()
    await shell.go(slow.group("/g").on_join, lambda member: go_on.wait(20))
    member = await shell.go(shell.connect(node).group("/g").join, b"", 0.3)
    go_on.set()
    (missing,) = member.unacknowledged
    assert (missing.owner.label, missing.reason) == ("the slow one", "deadline")
    assert member.is_member_locally()
    for timeout in (-1, 601):
        with pytest.raises(InvalidRequest):
            await shell.go(slow.group("/g").join, b"", timeout)


async def test_who_is_waited_for_has_the_time_that_was_said(shell: Shell, node: list[str]) -> None:
    """Also where calls that wait for nobody have less."""
    go_on = threading.Event()
    slow = shell.connect(node)
    await shell.go(slow.group("/g").on_join, lambda member: go_on.wait(20))
    await shell.go(slow.topic("/t").on_message, lambda message: go_on.wait(20))
    hasty = shell.connect(node, "/test?timeout=300ms")
    atomic = hasty.topic("/t").with_consistency(Consistency.ATOMIC)
    told = [await shell.go(hasty.group("/g").join, b"", 1), await shell.go(atomic.publish, b"x", timeout=1)]
    go_on.set()
    assert [[each.reason for each in one.unacknowledged] for one in told] == [["deadline"], ["deadline"]]


async def test_join_out_of_a_listener_does_not_wait_for_itself(shell: Shell, node: list[str]) -> None:
    """A listener may use the client; it would wait for its own return."""
    client = shell.connect(node)
    group = client.group("/g")
    joined: list[Any] = []

    async def on_loop(member: Any) -> None:
        if not joined:
            joined.append(None)
            joined.append(await group.join(b"nested"))

    def on_thread(member: Any) -> None:
        if not joined:
            joined.append(None)
            joined.append(group.join(b"nested"))

    await shell.go(group.on_join, on_loop if hasattr(client, "__aenter__") else on_thread)
    await asyncio.wait_for(shell.go(shell.connect(node).group("/g").join), 10)
    await until(lambda: len(joined) == 2)
    assert joined[1].unacknowledged == ()


async def test_changes_are_told_with_what_is_known_of_the_member(shell: Shell, node: list[str]) -> None:
    """Also who left, and why."""
    watch = shell.connect(node).group("/g").changes()
    await shell.go(watch.start)
    client = shell.connect(node)
    joining = shell.start(client.group("/g").join, b"one")
    first = await next_of(shell, watch)
    following = [shell.start(watch.__anext__ if hasattr(watch, "__anext__") else watch.__next__)]
    member = await joining
    await shell.go(member.update, b"two")
    second = await asyncio.wait_for(following.pop(), 5)
    await shell.go(client.close)
    third = await next_of(shell, watch)
    assert [(change.what, change.member.metadata, change.reason) for change in (first, second, third)] == [
        ("joined", b"one", ""),
        ("updated", b"two", ""),
        ("left", b"two", "closed"),
    ]


async def test_path_of_another_kind_is_refused(shell: Shell, node: list[str]) -> None:
    """Whoever watches, joins or enters by mistake hears what the path is."""
    client = shell.connect(node)
    await shell.go(client.value("/v").set, b"")
    for call in (client.group("/v").join, client.group("/v").changes().start, client.election("/v").enter):
        with pytest.raises(WrongType):
            await shell.go(call)


# --- watches ---------------------------------------------------------------------------------------------------------------------


async def test_value_is_watched_from_its_present_state_on(shell: Shell, node: list[str]) -> None:
    """Each write once and in order; None where there is none."""
    value = shell.connect(node).value("/v")
    await shell.go(value.set, b"one")
    watch = shell.connect(node).value("/v").watch()
    seen = [await next_of(shell, watch)]
    for content in (b"two", b"three"):
        await shell.go(value.set, content)
    await shell.go(value.delete)
    seen += [await next_of(shell, watch) for _ in range(3)]
    assert [None if one is None else one.value for one in seen] == [b"one", b"two", b"three", None]
    await shell.go(watch.aclose if hasattr(watch, "aclose") else watch.close)


async def test_holders_of_a_lock_are_watched(shell: Shell, node: list[str]) -> None:
    """Beginning with the present one; None where it is free."""
    lock, other = shell.connect(node).lock("/l"), shell.connect(node).lock("/l", label="other")
    watch = shell.connect(node).lock("/l").watch()
    seen = [await next_of(shell, watch)]
    first = await shell.go(lock.acquire)
    waiting = shell.start(other.acquire)
    async with asyncio.timeout(5):
        while not await shell.go(lock.waiters):
            pass
    await shell.go(lock.release)
    second = await waiting
    await shell.go(other.release)
    seen += [await next_of(shell, watch) for _ in range(3)]
    assert [None if holder is None else holder.token for holder in seen] == [None, first.token, second.token, None]
    assert seen[2].owner.label == "other"


async def test_resources_are_reached_by_their_class(shell: Shell, node: list[str]) -> None:
    """As in the manual: create, and get what exists; a name of another type is an error."""
    client = shell.connect(node)
    prefix = "Async" if hasattr(client, "__aenter__") else ""
    lock_class, topic_class, value_class = (
        getattr(coord_core, f"{prefix}Distributed{name}") for name in ("Lock", "Topic", "Value")
    )
    lock = await shell.go(client.create, "/l", lock_class)
    assert isinstance(lock, lock_class)
    with pytest.raises(NotFound):
        await shell.go(client.get, "/l", lock_class)
    await shell.go(lock.acquire)
    assert isinstance(await shell.go(client.get, "/l", lock_class), lock_class)
    for call in (client.create, client.get):
        with pytest.raises(WrongType):
            await shell.go(call, "/l", value_class)
    await shell.go(client.create, "/t", topic_class)
    assert isinstance(await shell.go(client.get, "/t", topic_class), topic_class)
    with pytest.raises(InvalidRequest):
        await shell.go(client.create, "/x", int)


async def test_watch_that_is_closed_elsewhere_ends(shell: Shell, node: list[str]) -> None:
    """A thread that waits in a `for` must be able to end."""
    client = shell.connect(node)
    watch = client.value("/v").watch()
    await next_of(shell, watch)
    waiting = shell.start(
        watch.__anext__ if hasattr(watch, "__anext__") else _next, *([] if hasattr(watch, "__anext__") else [watch])
    )
    await asyncio.sleep(0)
    await shell.go(watch.aclose if hasattr(watch, "aclose") else watch.close)
    with pytest.raises((StopAsyncIteration, EndOfWatch)):
        await asyncio.wait_for(waiting, 5)


@ASYNC_ONLY
async def test_watch_that_is_closed_while_it_subscribes_leaves_nobody_to_be_waited_for(node: list[str]) -> None:
    """The cluster's answer comes when nobody would end what it subscribed."""
    async with AsyncClient(f"coord://{node[0]}/test") as client, AsyncClient(f"coord://{node[0]}/test") as other:
        await client.wait_connected(10)
        watch = client.group("/g").changes()
        starting = asyncio.ensure_future(watch.start())
        await asyncio.sleep(0)
        await watch.aclose()
        await starting
        assert (await other.group("/g").join(timeout=2)).unacknowledged == ()


class EndOfWatch(Exception):
    """A StopIteration cannot be an outcome of a future."""


def _next(watch: Any) -> Any:
    try:
        return next(watch)
    except StopIteration:
        raise EndOfWatch from None


async def test_watcher_sees_every_revision_once_while_leaders_die(shell: Shell, nodes: Nodes, three: list[str]) -> None:
    """Streams go on from where they stood; nothing comes twice, nothing is left out."""
    writer = shell.connect(three).value("/v")
    watch = shell.connect(three).value("/v").watch()
    await shell.go(watch.start)
    versions = []
    for number in range(60):
        if number in (20, 40):
            leader = await nodes.leader()
            await restart(nodes, leader.config.name)
        versions.append(await shell.go(writer.set, str(number).encode()))
    seen = [await next_of(shell, watch) for _ in range(61)]
    assert [one.version for one in seen if one is not None] == versions


async def test_watch_goes_on_after_a_lost_session_with_the_difference(shell: Shell, nodes: Nodes, node: list[str]) -> None:
    """Nothing is passed over in silence: what happened meanwhile is worked out from the state."""
    watcher = shell.connect(node, "/test?ttl=500ms")
    keeper = shell.connect(node, "/test?ttl=60s")
    group = keeper.group("/g")
    first = await shell.go(group.join, b"first")
    watch = watcher.group("/g").changes()
    await shell.go(watch.start)
    updated = shell.start(watch.__anext__ if hasattr(watch, "__anext__") else watch.__next__)
    while not updated.done():
        await shell.go(first.update, b"still here")
    killed = nodes.kill("n1")
    await until(lambda: watcher.session.state.value == "lost", 10)
    await killed.stop()
    await nodes.start("n1")
    await shell.go(first.leave)
    changes = [updated.result()]
    while changes[-1].what == "updated":
        changes.append(await asyncio.wait_for(shell.go(watch.__anext__ if hasattr(watch, "__anext__") else watch.__next__), 20))
    assert (changes[-1].what, changes[-1].member.member) == ("left", first.member)


@ASYNC_ONLY
async def test_watch_is_an_asynchronous_iterator_and_context(shell: Shell, node: list[str]) -> None:
    """`async with` subscribes and ends; `async for` tells."""
    client = shell.connect(node)
    value = client.value("/v")
    async with value.watch() as watch:
        await value.set(b"one")
        async for one in watch:
            if one is not None:
                break
        assert one.value == b"one"
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def restart(nodes: Nodes, name: str) -> None:
    """End a node as a crash would, and start it again."""
    await nodes.kill(name).stop()
    await nodes.start(name)
