"""Topics on real processes: what was acknowledged is there exactly once, in its place, whoever is killed."""

import contextlib
import threading
from collections.abc import Iterable
from types import TracebackType

import pytest

import coord_core
from coord_core import CoordError, TopicMessage
from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S, Nodes

pytestmark = pytest.mark.xdist_group("cluster")


class Publisher:
    """Context manager: publishes numbered messages from entry to exit, on threads of its own."""

    def __init__(self, client: coord_core.Client, path: str, threads: int = 4) -> None:
        self._topic = client.topic(path)
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._publish, args=(number,), daemon=True) for number in range(threads)]
        #: Payloads by offset.
        self.acknowledged: dict[int, bytes] = {}

    def __enter__(self) -> "Publisher":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def wait_more(self, count: int = 100) -> None:
        enough = len(self.acknowledged) + count
        until(lambda: len(self.acknowledged) >= enough, PATIENCE_S, f"{count} more acknowledged messages")

    def check(self) -> None:
        """Every acknowledged message is in its place, and no message is in two."""
        found = everything(self._topic)
        assert [message.offset for message in found] == list(range(len(found)))
        payloads = [message.payload for message in found]
        assert len(set(payloads)) == len(payloads), "a message is there twice"
        wrong = {offset: payload for offset, payload in self.acknowledged.items() if payloads[offset] != payload}
        assert not wrong, f"acknowledged, and not there: {wrong}"

    def _publish(self, thread: int) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            payload = b"%d/%d" % (thread, number)
            try:
                published = self._topic.publish(payload, {"thread": str(thread)})
            except CoordError:
                continue
            self.acknowledged[published.offset] = payload


def everything(topic: "coord_core.DistributedTopic") -> list[TopicMessage]:
    found: list[TopicMessage] = []
    while more := topic.read(len(found), 10_000):
        found += more
    return found


def read_into(seen: list[TopicMessage], messages: Iterable[TopicMessage]) -> None:
    """Until the client is closed."""
    with contextlib.suppress(CoordError):
        seen.extend(messages)


def test_all_nodes_killed_at_once_have_every_message_once():
    """Again and again, at whatever moment: on the disk as records, or only in the log."""
    with Nodes(3) as nodes:
        nodes.start_all()
        with nodes.connect() as client:
            with Publisher(client, "/t") as publisher:
                for _ in range(3):
                    publisher.wait_more()
                    nodes.kill(*nodes.names)
                    for name in nodes.names:
                        nodes.start(name)
                    publisher.wait_more()
            nodes.wait_level()
            publisher.check()


def test_a_consumer_is_given_every_message_in_order_over_the_death_of_leaders():
    """As long as it lives itself it is given each once; it neither asks nor knows who leads."""
    with Nodes(3) as nodes:
        nodes.start_all()
        with nodes.connect() as client, nodes.connect() as consumer:
            seen: list[TopicMessage] = []
            with Publisher(client, "/t", threads=2) as publisher:
                messages = consumer.topic("/t").subscribe("earliest")
                reading = threading.Thread(target=read_into, args=(seen, messages), daemon=True)
                reading.start()
                for _ in range(2):
                    publisher.wait_more(50)
                    nodes.kill(leader := nodes.wait_leader())
                    publisher.wait_more(50)
                    nodes.start(leader)
            published = everything(client.topic("/t"))
            until(lambda: len(seen) >= len(published), PATIENCE_S, "the consumer has come to the end")
            assert [(message.offset, message.payload) for message in seen] == [(each.offset, each.payload) for each in published]
            publisher.check()
