"""Topics that tell: who is subscribed hears of each message at once, and an ATOMIC publish waits for them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

import coord_core
from coord_core import Consistency
from coord_core.client import consuming
from coord_core.client.aio import AsyncClient
from coord_core.client.subscriptions import StateDelivered
from coord_core.errors import LimitExceeded, Unavailable
from coord_core.protocol.streams import Record
from coord_core.protocol.topics import INLINE_BYTES_MAX, MessagePublished, Retention, TopicRecord, TopicState
from coord_core.types import LogIndex, TopicNumber
from tests.client.fake import until
from tests.client.shells import ASYNC_ONLY, Shell
from tests.client.test_topics import close, next_of
from tests.server.support import Nodes


def atomic(topic: Any) -> Any:
    return topic.with_consistency(Consistency.ATOMIC)


async def test_listener_is_told_every_message_from_when_it_was_registered(shell: Shell, node: list[str]) -> None:
    """In order, short and long ones; those before are not told."""
    topic = shell.connect(node).topic("/t")
    await shell.go(topic.publish, b"before")
    heard: list[bytes] = []
    end = await shell.go(shell.connect(node).topic("/t").on_message, lambda message: heard.append(message.payload))
    contents = [bytes([number]) * (1 if number % 3 else INLINE_BYTES_MAX + 1) for number in range(12)]
    for content in contents:
        await shell.go(topic.publish, content)
    await until(lambda: len(heard) == len(contents))
    assert heard == contents
    await shell.go(end)
    await shell.go(topic.publish, b"after")
    assert heard == contents


async def test_listener_may_begin_with_what_is_there(shell: Shell, node: list[str]) -> None:
    """From the earliest message on, and then without a gap."""
    topic = shell.connect(node).topic("/t")
    for number in range(5):
        await shell.go(topic.publish, b"%d" % number)
    heard: list[bytes] = []
    await shell.go(shell.connect(node).topic("/t").on_message, lambda message: heard.append(message.payload), "earliest")
    await shell.go(topic.publish, b"5")
    await until(lambda: len(heard) == 6)
    assert heard == [b"%d" % number for number in range(6)]


async def test_atomic_publish_completes_when_all_listeners_have_returned(shell: Shell, node: list[str]) -> None:
    """The asynchronous one does not wait for them."""
    go_on, begun = threading.Event(), threading.Event()

    def listener(message: Any) -> None:
        begun.set()
        go_on.wait(20)

    await shell.go(shell.connect(node).topic("/t").on_message, listener)
    topic = shell.connect(node).topic("/t")
    assert topic.consistency is Consistency.ASYNCHRONOUS
    first = await asyncio.wait_for(shell.go(topic.publish, b"one"), 5)
    assert first.unacknowledged == ()
    publishing = shell.start(atomic(topic).publish, b"two")
    await until(begun.is_set)
    assert not publishing.done()
    go_on.set()
    second = await asyncio.wait_for(publishing, 5)
    assert (second.offset, second.unacknowledged) == (1, ())


async def test_atomic_publish_names_who_has_not_returned_in_time(shell: Shell, node: list[str]) -> None:
    """The message stands all the same."""
    go_on = threading.Event()
    await shell.go(shell.connect(node, label="the slow one").topic("/t").on_message, lambda message: go_on.wait(20))
    topic = atomic(shell.connect(node).topic("/t"))
    published = await shell.go(topic.publish, b"one", None, None, 0.3)
    go_on.set()
    (missing,) = published.unacknowledged
    assert (missing.owner.label, missing.reason) == ("the slow one", "deadline")
    assert [message.payload for message in await shell.go(topic.read)] == [b"one"]


async def test_atomic_publish_without_subscribers_completes_at_once(shell: Shell, node: list[str]) -> None:
    """There is nobody to wait for."""
    topic = atomic(shell.connect(node).topic("/t"))
    published = await asyncio.wait_for(shell.go(topic.publish, b"one"), 5)
    assert (published.offset, published.unacknowledged) == (0, ())


async def test_atomic_publish_out_of_a_listener_does_not_wait_for_itself(shell: Shell, node: list[str]) -> None:
    """A listener that answers on the topic it listens to."""
    client = shell.connect(node)
    topic, answers = client.topic("/t"), []

    async def on_loop(message: Any) -> None:
        if message.payload == b"question":
            answers.append(await atomic(topic).publish(b"answer"))

    def on_thread(message: Any) -> None:
        if message.payload == b"question":
            answers.append(atomic(topic).publish(b"answer"))

    await shell.go(topic.on_message, on_loop if hasattr(client, "__aenter__") else on_thread)
    await asyncio.wait_for(shell.go(atomic(shell.connect(node).topic("/t")).publish, b"question"), 10)
    await until(lambda: len(answers) == 1)
    assert answers[0].unacknowledged == ()


async def test_message_counts_as_told_when_the_next_one_is_asked_for(shell: Shell, node: list[str]) -> None:
    """Who iterates is a subscriber like any other."""
    topic = atomic(shell.connect(node).topic("/t"))
    consumer = shell.connect(node).topic("/t").subscribe("earliest")
    await shell.go(topic.publish, b"one")
    assert (await next_of(shell, consumer)).payload == b"one"
    waiting = shell.start(consumer.__anext__ if hasattr(consumer, "__anext__") else consumer.__next__)
    publishing = [shell.start(topic.publish, b"two")]
    assert (await asyncio.wait_for(waiting, 10)).payload == b"two"
    waiting = shell.start(consumer.__anext__ if hasattr(consumer, "__anext__") else consumer.__next__)
    assert (await asyncio.wait_for(publishing.pop(), 10)).unacknowledged == ()
    await shell.go(topic.publish, b"three", None, None, 0.1)
    assert (await asyncio.wait_for(waiting, 10)).payload == b"three"
    await close(shell, consumer)


@ASYNC_ONLY
async def test_listener_may_end_what_it_listens_to(node: list[str]) -> None:
    """From then on nobody waits for it."""
    async with AsyncClient(f"coord://{node[0]}/test") as client:
        topic, heard = client.topic("/t"), list[bytes]()

        async def listener(message: Any) -> None:
            heard.append(message.payload)
            await end()

        end = await topic.on_message(listener)
        told = await atomic(topic).publish(b"heard", timeout=5)
        assert {each.reason for each in told.unacknowledged} <= {"gone"}
        assert (await atomic(topic).publish(b"not heard", timeout=5)).unacknowledged == ()
        assert heard == [b"heard"]


@ASYNC_ONLY
async def test_listener_that_hears_nothing_more_is_not_silent_about_it(node: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for what its task raises."""

    class NothingMore(AsyncIterator[Any]):
        async def __anext__(self) -> Any:
            raise LimitExceeded("subscriptions: at most 100000")

    async with AsyncClient(f"coord://{node[0]}/test") as client:
        consumer, watch = cast(Any, NothingMore()), cast(Any, NothingMore())
        await client.topic("/t")._listen(consumer, print)
        await client.group("/g")._dispatch(watch)
    told = [record.getMessage() for record in caplog.records if "nothing more" in record.getMessage()]
    assert [("/t" in message, "/g" in message) for message in told] == [(True, False), (False, True)]


@ASYNC_ONLY
async def test_listener_that_cannot_begin_claims_no_group(node: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody could be the group's consumer, as long as this process lives."""

    async def subscribe(*arguments: object) -> None:
        raise Unavailable("no leader was reached in time")

    async with AsyncClient(f"coord://{node[0]}/test") as client, AsyncClient(f"coord://{node[0]}/test") as other:
        await client.topic("/t").publish(b"x")
        monkeypatch.setattr(consuming, "subscribe", subscribe)
        with pytest.raises(Unavailable):
            await client.topic("/t").on_message(print, group="g")
        assert await other.topic("/t").claim("g") is not None


@ASYNC_ONLY
async def test_groups_consumer_goes_on_with_a_topic_that_was_deleted_under_its_hands(node: list[str]) -> None:
    """What it has worked off cannot be committed any more: that is no reason to end."""
    async with AsyncClient(f"coord://{node[0]}/test") as client:
        topic = client.topic("/t")
        await topic.publish(b"old")
        consumer = topic.subscribe("earliest", group="g")
        assert (await anext(consumer)).payload == b"old"
        await topic.delete()
        coming = asyncio.ensure_future(anext(consumer))
        for _ in range(3):
            await topic.info()  # behind the commit, which finds no topic
        await topic.publish(b"new")
        assert (await asyncio.wait_for(coming, 10)).payload == b"new"
        await consumer.aclose()


async def test_consumer_goes_on_with_a_topic_that_was_deleted_and_made_anew(shell: Shell, node: list[str]) -> None:
    """From its beginning, which nobody has read."""
    topic = shell.connect(node).topic("/t")
    consumer = shell.connect(node).topic("/t").subscribe("earliest")
    for content in (b"a", b"b", b"c"):
        await shell.go(topic.publish, content)
    seen = [await next_of(shell, consumer) for _ in range(3)]
    waiting = shell.start(consumer.__anext__ if hasattr(consumer, "__anext__") else consumer.__next__)
    await shell.go(topic.delete)
    for content in (b"new a", b"new b"):
        await shell.go(topic.publish, content)
    seen.append(await asyncio.wait_for(waiting, 10))
    seen.append(await next_of(shell, consumer))
    assert [message.payload for message in seen] == [b"a", b"b", b"c", b"new a", b"new b"]
    await close(shell, consumer)


async def test_listeners_hear_every_message_once_while_leaders_die(shell: Shell, nodes: Nodes) -> None:
    """Whatever fails over: no message is lost, none comes twice, and an ATOMIC publish still waits."""
    addresses = [server.client_address for server in await nodes.cluster("n1", "n2", "n3")]
    heard: list[bytes] = []
    await shell.go(shell.connect(addresses).topic("/t").on_message, lambda message: heard.append(message.payload))
    topic = atomic(shell.connect(addresses).topic("/t"))
    for number in range(40):
        if number in (10, 25):
            leader = await nodes.leader()
            await nodes.kill(leader.config.name).stop()
            await nodes.start(leader.config.name)
        published = await shell.go(topic.publish, b"%d" % number)
        assert published.unacknowledged == ()
        assert heard[-1] == b"%d" % number
    assert heard == [b"%d" % number for number in range(40)]


@pytest.mark.parametrize("number", [0, 9], ids=["gone", "made anew"])
async def test_consumer_that_subscribes_after_the_topic_was_deleted_begins_anew(number: int) -> None:
    """Whatever it learns from the present state alone: it must not wait for the offset at which the former topic ended."""
    async with coord_core.AsyncClient("coord://127.0.0.1:1/") as client:
        consumer = client.topic("/t").subscribe("earliest")
        consumer._start, consumer._number = 3, TopicNumber(7)
        consumer.take(StateDelivered(LogIndex(20), TopicState(TopicNumber(number), 0, 0, 0, Retention(), (), 0)))
        record = TopicRecord(0, LogIndex(21), 0, b"new")
        consumer.take(Record(LogIndex(21), LogIndex(20), (MessagePublished(0, record),)))
        assert [message.payload for _, message in consumer._fresh] == [b"new"]
