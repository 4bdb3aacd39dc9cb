"""What both clients promise of topics, on a real node."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from coord_core import Consistency, InvalidRequest, LimitExceeded, NotFound, NotHolder, WrongType
from tests.client.shells import ASYNC_ONLY, Shell

Addresses = list[str]

pytestmark = pytest.mark.parametrize("addresses", ["real"], indirect=True)


async def publish(shell: Shell, topic: Any, *payloads: bytes) -> None:
    for payload in payloads:
        await shell.go(topic.publish, payload)


async def next_of(shell: Shell, subscription: Any) -> Any:
    call = subscription.__anext__ if hasattr(subscription, "__anext__") else subscription.__next__
    return await asyncio.wait_for(shell.go(call), 10)


def all_of(subscription: Any) -> Any:
    """Iterate to the end, in the client's own way."""
    if hasattr(subscription, "__next__"):
        return list(subscription)

    async def collect() -> list[Any]:
        return [message async for message in subscription]

    return collect()


async def close(shell: Shell, subscription: Any) -> None:
    await shell.go(subscription.aclose if hasattr(subscription, "aclose") else subscription.close)


async def test_messages_are_read_as_they_were_published(shell: Shell, addresses: Addresses) -> None:
    """In order, with key and headers, and with about when."""
    topic = shell.connect(addresses).topic("/t")
    first = await shell.go(topic.publish, b"one")
    second = await shell.go(topic.publish, b"two", {"kind": "test", "raw": b"\xff"}, "key")
    assert (first.offset, second.offset) == (0, 1)
    assert second.revision > first.revision
    one, two = await shell.go(topic.read)
    assert (one.offset, one.revision, one.payload, one.key, dict(one.headers)) == (0, first.revision, b"one", None, {})
    assert (two.payload, two.key, dict(two.headers)) == (b"two", b"key", {"kind": b"test", "raw": b"\xff"})
    assert one.published_at <= two.published_at


async def test_reading_begins_where_it_is_told(shell: Shell, addresses: Addresses) -> None:
    """And ends at the limit, or where the topic does."""
    topic = shell.connect(addresses).topic("/t")
    await publish(shell, topic, *(b"%d" % number for number in range(10)))

    async def offsets(from_: Any, limit: int = 1_000) -> list[int]:
        return [message.offset for message in await shell.go(topic.read, from_, limit)]

    assert await offsets("earliest", 3) == [0, 1, 2]
    assert await offsets(7) == [7, 8, 9]
    assert await offsets("latest") == []
    assert await offsets(timedelta(hours=1)) == list(range(10))
    with pytest.raises(InvalidRequest):
        await offsets("yesterday")
    with pytest.raises(InvalidRequest):
        await offsets(-4)


async def test_a_topic_that_is_not_there_is_empty_and_has_no_info(shell: Shell, addresses: Addresses) -> None:
    """Whoever reads may come before whoever writes."""
    topic = shell.connect(addresses).topic("/none")
    assert await shell.go(topic.read) == []
    assert await shell.go(topic.info) is None
    assert await shell.go(topic.committed, "g") is None
    with pytest.raises(NotFound):
        await shell.go(topic.commit, "g", 0)
    with pytest.raises(NotFound):
        await shell.go(topic.configure)


async def test_a_topic_keeps_what_it_was_created_or_configured_to_keep(shell: Shell, addresses: Addresses) -> None:
    """`info` says how much there is."""
    topic = shell.connect(addresses).topic("/t")
    assert await shell.go(topic.create, max_records=5, max_age=None)
    assert not await shell.go(topic.create)
    await publish(shell, topic, *(b"x" for _ in range(20)))
    info = await shell.go(topic.info)
    assert (info.earliest, info.end, info.retention.records, info.retention.age_ms) == (15, 20, 5, None)
    await shell.go(topic.configure, max_records=2)
    assert [message.offset for message in await shell.go(topic.read)] == [18, 19]
    await shell.go(topic.delete)
    assert await shell.go(topic.info) is None
    assert (await shell.go(topic.publish, b"anew")).offset == 0


async def test_what_does_not_fit_is_refused_before_it_is_sent(shell: Shell, addresses: Addresses) -> None:
    """Clearer and earlier than by the cluster."""
    topic = shell.connect(addresses).topic("/t")
    many = {str(number): "" for number in range(100)}
    for arguments in ((b"x" * 300_000,), (b"", {"h": b"x" * 20_000}), (b"", None, "k" * 2_000), (b"", many)):
        with pytest.raises(LimitExceeded):
            await shell.go(topic.publish, *arguments)
    with pytest.raises(InvalidRequest):
        await shell.go(topic.publish, "text")
    largest = b"x" * 256 * 1024
    await shell.go(topic.publish, largest)
    assert (await shell.go(topic.read))[0].payload == largest
    await shell.go(shell.clients[0].value("/v").set, b"value")
    with pytest.raises(WrongType):
        await shell.go(shell.clients[0].topic("/v").publish, b"x")


async def test_a_group_goes_on_where_it_has_committed(shell: Shell, addresses: Addresses) -> None:
    """Forward only, unless somebody seeks."""
    topic = shell.connect(addresses).topic("/t")
    await publish(shell, topic, *(b"%d" % number for number in range(10)))
    assert await shell.go(topic.commit, "g", 6) == 6
    assert await shell.go(topic.commit, "g", 2) == 6
    assert await shell.go(topic.committed, "g") == 6
    (group,) = (await shell.go(topic.info)).groups
    assert (group.name, group.committed, group.lag, group.owner) == ("g", 6, 4, None)
    assert await shell.go(topic.seek, "g", "earliest") == 0
    assert await shell.go(topic.seek, "g", "latest") == 10
    assert await shell.go(topic.seek, "g", 3) == 3
    await shell.go(topic.forget_group, "g")
    assert (await shell.go(topic.info)).groups == ()


async def test_a_claimed_group_is_one_processs(shell: Shell, addresses: Addresses) -> None:
    """Another is told who has it; what is taken over is lost to the former."""
    mine, other = shell.connect(addresses).topic("/t", label="mine"), shell.connect(addresses).topic("/t")
    await publish(shell, mine, b"x")
    claim = await shell.go(mine.claim, "g")
    assert claim.committed is None
    assert await shell.go(other.claim, "g") is None
    with pytest.raises(NotHolder):
        await shell.go(other.commit, "g", 1)
    (group,) = (await shell.go(other.info)).groups
    assert group.owner.label == "mine"
    taken = await shell.go(other.claim, "g", takeover=True)
    assert taken.token > claim.token
    with pytest.raises(NotHolder):
        await shell.go(mine.commit, "g", 1)
    await shell.go(other.release, "g")
    assert (await shell.go(mine.claim, "g")).token > taken.token


async def test_subscribing_gives_what_is_there_and_what_comes(shell: Shell, addresses: Addresses) -> None:
    """From the beginning, or only what is published from now on."""
    topic = shell.connect(addresses).topic("/t")
    await publish(shell, topic, b"old")
    all_of_it = topic.subscribe("earliest")
    assert (await next_of(shell, all_of_it)).payload == b"old"
    pending = shell.start(all_of_it.__anext__ if hasattr(all_of_it, "__anext__") else all_of_it.__next__)
    await publish(shell, topic, b"new")
    assert (await asyncio.wait_for(pending, 10)).payload == b"new"


@pytest.mark.parametrize("there", [True, False], ids=["a topic", "none yet"])
async def test_what_comes_after_the_start_is_given_and_nothing_before_it(shell: Shell, addresses: Addresses, there: bool) -> None:
    """Also where somebody publishes before the first message is asked for, and where the topic is made only then."""
    topic = shell.connect(addresses).topic("/t")
    if there:
        await publish(shell, topic, b"before")
    subscription = topic.subscribe()
    await shell.go(subscription.start)
    await publish(shell, topic, b"after")
    assert (await next_of(shell, subscription)).payload == b"after"


async def test_a_group_without_its_consumer_is_taken_up_by_the_next(shell: Shell, addresses: Addresses) -> None:
    """What was handed out and not worked off comes again, nothing else does."""
    client, other = shell.connect(addresses), shell.connect(addresses)
    topic = client.topic("/t")
    await publish(shell, topic, *(b"%d" % number for number in range(5)))
    first = topic.subscribe("earliest", group="g")
    for expected in (b"0", b"1", b"2"):
        assert (await next_of(shell, first)).payload == expected
    second = other.topic("/t").subscribe("earliest", group="g")
    pending = shell.start(second.__anext__ if hasattr(second, "__anext__") else second.__next__)
    await close(shell, first)
    assert (await asyncio.wait_for(pending, 10)).payload == b"2"
    assert (await next_of(shell, second)).payload == b"3"
    await close(shell, second)
    assert await shell.go(topic.committed, "g") == 3


async def test_a_subscriber_goes_on_with_a_topic_that_is_made_anew(shell: Shell, addresses: Addresses) -> None:
    """From its beginning: nobody has read that."""
    topic = shell.connect(addresses).topic("/t")
    await publish(shell, topic, b"a", b"b", b"c")
    subscription = topic.subscribe("earliest")
    assert [(await next_of(shell, subscription)).payload for _ in range(3)] == [b"a", b"b", b"c"]
    await shell.go(topic.delete)
    await publish(shell, topic, b"anew")
    assert (await next_of(shell, subscription)).payload == b"anew"


async def test_topics_are_listed_by_prefix_without_the_namespace(shell: Shell, addresses: Addresses) -> None:
    """Others' namespaces are not seen."""
    client, stranger = shell.connect(addresses), shell.connect(addresses, "/other")
    for path in ("/b/2", "/b/1", "/a"):
        await publish(shell, client.topic(path), b"x")
    await publish(shell, stranger.topic("/b/3"), b"x")
    assert [found.path for found in await shell.go(client.topics)] == ["/a", "/b/1", "/b/2"]
    assert [(found.path, found.end) for found in await shell.go(client.topics, "/b", 1)] == [("/b/1", 1)]


@ASYNC_ONLY
async def test_publishes_of_one_handle_share_the_way(shell: Shell, addresses: Addresses) -> None:
    """A hundred under way at a time, each with its own place."""
    topic = shell.connect(addresses).topic("/t")
    published = await asyncio.gather(*(topic.publish(b"%d" % number) for number in range(500)))
    assert sorted(each.offset for each in published) == list(range(500))
    messages = await topic.read()
    assert [message.payload for message in messages] == [b"%d" % number for number in range(500)]


async def test_iterating_ends_when_it_or_the_client_is_closed(shell: Shell, addresses: Addresses) -> None:
    """As a watch does; one that waits for a message, or for its group, does not wait on."""
    client = shell.connect(addresses)
    topic = client.topic("/t")
    await publish(shell, topic, b"x")
    holder = shell.connect(addresses).topic("/t")
    await shell.go(holder.claim, "g")
    for subscription in (topic.subscribe(), topic.subscribe(group="g")):
        pending = shell.start(all_of, subscription)
        await shell.go(topic.info)  # behind what the iteration began with
        await close(shell, subscription)
        assert await asyncio.wait_for(pending, 10) == []
    await shell.go(holder.release, "g")
    assert (await shell.go(topic.info)).groups == ()
    pending = shell.start(all_of, topic.subscribe())
    await shell.go(client.close)
    assert await asyncio.wait_for(pending, 10) == []


async def test_only_the_groups_consumer_is_waited_for(shell: Shell, addresses: Addresses) -> None:
    """One that stands by works nothing off, and one that was taken over from does not any more."""
    topic = shell.connect(addresses).topic("/t").with_consistency(Consistency.ATOMIC)
    await publish(shell, topic, b"x")
    heard: list[bytes] = []
    consumers = [shell.connect(addresses).topic("/t") for _ in range(2)]
    for consumer in consumers:
        await shell.go(consumer.on_message, lambda message: heard.append(message.payload), group="g")
    assert (await shell.go(topic.publish, b"y", timeout=5)).unacknowledged == ()
    assert heard == [b"y"]
    await shell.go(consumers[1].claim, "g", takeover=True)
    for payload in (b"z", b"!"):
        told = await shell.go(topic.publish, payload, timeout=10)
        assert {each.reason for each in told.unacknowledged} <= {"gone"}
