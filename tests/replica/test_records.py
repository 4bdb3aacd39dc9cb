"""Records of topics between the machine and the disk: stored on every node, read by whoever leads."""

import random

import pytest

from coord_core.errors import StorageCorrupt
from coord_core.protocol.messages import Ask, Told
from coord_core.protocol.results import Failed
from coord_core.protocol.topics import (
    EARLIEST,
    Published,
    Retention,
    TopicConfigure,
    TopicCreate,
    TopicDelete,
    TopicFetch,
    TopicFetched,
    TopicPublish,
)
from coord_core.replica import RecordRead, SnapshotInstalled, fetches
from coord_core.replica import records as bounds
from coord_core.replica.transfer import RecordsAsk, RecordsPart
from coord_core.storage.records import Held
from coord_core.types import NodeId, TopicNumber
from tests.replica.nodes import Nodes

FOREVER = Retention(age_ms=None)


class Topics(Nodes):
    """Nodes, and one client that publishes and fetches."""

    fetches = 0

    def publish(self, count: int = 1, path: str = "/t", size: int = 20) -> Published:
        leader = self.elect()
        session = self.session(leader)
        for _ in range(count):
            payload = f"message {self._requests}".encode().ljust(size, b".")
            published = self.ask(leader, session, TopicPublish(path, payload))
            assert isinstance(published, Published)
            last = published
        return last

    def do(self, operation: object) -> object:
        leader = self.elect()
        return self.ask(leader, self.session(leader), operation)  # type: ignore[arg-type]

    def fetch(self, start: int = EARLIEST, path: str = "/t", records_max: int = 10_000, bytes_max: int = 500_000) -> TopicFetched:
        self.fetches += 1
        leader, seq = self.elect(), 500_000 + self.fetches
        self.replicas[leader].request(88, Ask(seq, TopicFetch(path, start, records_max, bytes_max)))
        self.wait(lambda: (88, seq) in self.answers)
        told = self.answers[88, seq]
        assert isinstance(told, Told)
        assert isinstance(told.answer, TopicFetched), told.answer
        return told.answer

    def offsets(self, start: int = EARLIEST, path: str = "/t") -> list[int]:
        found: list[int] = []
        while (fetched := self.fetch(start, path)).records:
            found += [record.offset for record in fetched.records]
            start = fetched.next
        return found

    def held(self, node: int) -> dict[TopicNumber, Held]:
        restored = self.disks[node].clone().load()
        assert restored is not None
        return dict(restored.held)


@pytest.fixture
def forget_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is stored stays in memory."""
    monkeypatch.setattr(bounds, "TAIL_RECORDS_MAX", 0)


def test_every_node_stores_what_was_published_soon_also_where_nothing_else_is_written() -> None:
    """An idle cluster writes once more, and then nothing."""
    nodes = Topics()
    topic = nodes.publish(5).topic
    nodes.advance(2_000)
    assert [nodes.held(node) for node in nodes.disks] == [{topic: Held(0, 5)}] * 3


def test_what_was_published_lately_is_read_without_the_disk() -> None:
    """Who reads at the end of a topic, as most do, must not wait for it."""
    nodes = Topics()
    nodes.publish(20)
    fetched = nodes.fetch()
    assert [record.offset for record in fetched.records] == list(range(20))
    assert (fetched.next, fetched.earliest, fetched.end) == (20, 0, 20)
    assert fetched.records[3].payload.startswith(b"message ")
    assert nodes.read_from_disk == 0


@pytest.mark.usefixtures("forget_at_once")
def test_older_records_come_from_the_disk_in_pieces() -> None:
    """As many as are asked for, one at least; and each says where to go on."""
    nodes = Topics()
    nodes.publish(20)
    nodes.advance(2_000)
    assert nodes.offsets() == list(range(20))
    assert nodes.read_from_disk > 0
    fetched = nodes.fetch(7, records_max=3)
    assert ([record.offset for record in fetched.records], fetched.next) == ([7, 8, 9], 10)
    assert [record.offset for record in nodes.fetch(7, bytes_max=1).records] == [7]


def test_a_fetch_at_the_end_is_empty_and_of_no_topic_says_so() -> None:
    """Its reader comes again."""
    nodes = Topics()
    nodes.publish(2)
    fetched = nodes.fetch(2)
    assert (fetched.records, fetched.next, fetched.end) == ((), 2, 2)
    assert nodes.fetch(0, path="/none").topic == 0


@pytest.mark.usefixtures("forget_at_once")
@pytest.mark.parametrize("moment_ms", [0, 50, 300, 2_000])
def test_all_records_are_there_once_after_all_nodes_lost_power(moment_ms: int) -> None:
    """Those that were stored, and those that were only in the log: they are made from it again."""
    nodes = Topics()
    nodes.publish(30)
    nodes.advance(moment_ms)
    for node in list(nodes.disks):
        nodes.crash(node)
    for node in list(nodes.disks):
        nodes.start(node)
    nodes.publish(1)
    assert nodes.offsets() == list(range(31))
    nodes.advance(2_000)
    assert [list(nodes.held(node).values()) for node in nodes.disks] == [[Held(0, 31)]] * 3


@pytest.mark.usefixtures("forget_at_once")
def test_records_outlive_the_log_from_which_they_were_made() -> None:
    """A snapshot trims the log when they are stored; a restarted node has them, and goes on."""
    nodes = Topics()
    nodes.publish(100)
    nodes.advance(2_000)
    assert all(nodes.replicas[node].status().snapshot_index > 50 for node in nodes.disks)
    for node in list(nodes.disks):
        nodes.crash(node)
        nodes.start(node)
    nodes.publish(3)
    assert nodes.offsets() == list(range(103))


@pytest.mark.usefixtures("forget_at_once")
def test_a_topic_that_was_deleted_leaves_no_rows_also_over_a_restart() -> None:
    """Its rows go when it suits; a node that stopped before has them still, and finds that they are nobody's."""
    nodes = Topics()
    former = nodes.publish(10).topic
    kept = nodes.publish(10, "/u").topic
    nodes.advance(2_000)
    nodes.crash(3)
    nodes.do(TopicDelete("/t"))
    nodes.publish(60, "/u")
    nodes.advance(2_000)
    nodes.start(3)
    nodes.advance(2_000)
    nodes.publish(1, "/u")
    nodes.advance(2_000)
    for node in nodes.disks:
        assert former not in nodes.held(node)
        assert nodes.held(node)[kept] == Held(0, 71)


def test_what_retention_has_passed_goes_from_every_disk() -> None:
    """And is not read any more before it has gone."""
    nodes = Topics()
    nodes.do(TopicCreate("/t", Retention(records=10, age_ms=None)))
    topic = nodes.publish(50).topic
    assert nodes.offsets() == list(range(40, 50))
    nodes.advance(2_000)
    assert [nodes.held(node) for node in nodes.disks] == [{topic: Held(40, 50)}] * 3


@pytest.mark.usefixtures("forget_at_once")
@pytest.mark.parametrize("lost", [slice(0, 5), slice(3, 4), slice(0, 10)])
def test_a_leader_whose_records_are_missing_stops(lost: slice) -> None:
    """It would serve a gap as if nothing had been published there."""
    nodes = Topics()
    nodes.publish(10)
    nodes.advance(2_000)
    for disk in nodes.disks.values():
        for records in disk._records.values():
            del records[lost]
    with pytest.raises(StorageCorrupt, match="some are missing"):
        nodes.fetch(0)


def test_memory_of_what_was_published_is_bounded() -> None:
    """Whatever was stored goes when there is more than so much."""
    nodes = Topics(1)
    nodes.publish(30, size=200_000)
    nodes.publish(30, path="/u", size=200_000)
    tail = nodes.replicas[1]._records
    nodes.advance(2_000)
    assert tail._bytes <= bounds.TAIL_BYTES_MAX
    assert sum(map(len, tail._recent.values())) == len(tail._order)
    assert nodes.offsets() == nodes.offsets(path="/u") == list(range(30))


def test_an_ill_formed_fetch_is_refused() -> None:
    """By the machine's rules, as any other query."""
    nodes = Topics(1)
    leader = nodes.elect()
    nodes.replicas[leader].request(88, Ask(1, TopicFetch("/t", -7)))
    nodes.settle()
    told = nodes.answers[88, 1]
    assert isinstance(told, Told)
    assert isinstance(told.answer, Failed)


# --- snapshots -------------------------------------------------------------------------------------------------------------------


def parts(nodes: Topics) -> list[RecordsPart]:
    return [message for message in nodes.sent if isinstance(message, RecordsPart)]


def behind(nodes: Topics, before: int = 0, meanwhile: int = 120) -> TopicNumber:
    """Have node 3 miss so much that it needs a snapshot; it had the first `before` records."""
    nodes.do(TopicCreate("/t", Retention(records=640, age_ms=None)))
    if before:
        nodes.publish(before)
        nodes.advance(2_000)
    nodes.elect()
    if nodes.elect() == 3:
        nodes.replicas[3].transfer_leadership(NodeId(1))
        nodes.wait(lambda: nodes.elect() != 3)
    nodes.crash(3)
    topic = nodes.publish(meanwhile).topic
    nodes.advance(2_000)
    nodes.sent.clear()
    return topic


def catches_up(nodes: Topics) -> None:
    nodes.start(3)
    nodes.wait(nodes.are_level)
    nodes.advance(2_000)
    assert nodes.noted(SnapshotInstalled, 3)


def leads(nodes: Topics, node: int) -> None:
    """Have one node lead, and read from it."""
    nodes.replicas[nodes.elect()].transfer_leadership(NodeId(node))
    nodes.wait(lambda: nodes.elect() == node)


@pytest.mark.usefixtures("forget_at_once")
def test_a_node_that_lacks_everything_gets_all_records_with_the_snapshot() -> None:
    """And serves them when it leads."""
    nodes = Topics()
    topic = behind(nodes)
    catches_up(nodes)
    assert nodes.held(3)[topic] == Held(0, 120)
    leads(nodes, 3)
    assert nodes.offsets() == list(range(120))


@pytest.mark.usefixtures("forget_at_once")
def test_a_node_gets_only_the_records_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of bounded size, each when the one before is on its disk: a topic may have gigabytes."""
    monkeypatch.setattr(fetches, "FETCH_RECORDS_MAX", 7)
    nodes = Topics()
    topic = behind(nodes, before=40)
    catches_up(nodes)
    sent = [record.offset for part in parts(nodes) for record in part.records]
    assert sent == list(range(40, 40 + len(sent)))
    assert len(sent) > 50
    assert max(len(part.records) for part in parts(nodes)) == 7
    assert nodes.held(3)[topic] == Held(0, 160)
    leads(nodes, 3)
    assert nodes.offsets() == list(range(160))


@pytest.mark.usefixtures("forget_at_once")
@pytest.mark.parametrize("seed", range(6))
def test_lost_and_repeated_messages_cost_time_only(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower asks again where the leader offers again."""
    monkeypatch.setattr(fetches, "FETCH_RECORDS_MAX", 11)
    nodes, draw = Topics(), random.Random(seed)
    topic = behind(nodes)
    nodes.passes = lambda message: not isinstance(message, RecordsPart | RecordsAsk) or draw.random() < 0.6
    catches_up(nodes)
    assert nodes.held(3)[topic] == Held(0, 120)


@pytest.mark.usefixtures("forget_at_once")
def test_a_transfer_goes_on_after_a_restart_and_with_another_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on the disk is not sent again: records are the same on every node."""
    monkeypatch.setattr(fetches, "FETCH_RECORDS_MAX", 10)
    nodes = Topics()
    topic = behind(nodes)
    nodes.passes = lambda message: not isinstance(message, RecordsPart) or message.offset < 50
    nodes.start(3)
    nodes.wait(lambda: topic in nodes.held(3) and nodes.held(3)[topic].end == 50)
    assert not nodes.noted(SnapshotInstalled, 3)
    nodes.crash(3)
    former = nodes.elect()
    leads(nodes, 3 - former)
    nodes.passes = lambda message: True
    nodes.sent.clear()
    catches_up(nodes)
    sent = [record.offset for part in parts(nodes) for record in part.records]
    assert sent == list(range(50, 50 + len(sent)))
    leads(nodes, 3)
    assert nodes.offsets() == list(range(120))


@pytest.mark.usefixtures("forget_at_once")
def test_what_retention_passes_meanwhile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot says that it is there; nobody needs it any more, and nobody waits for it."""
    monkeypatch.setattr(fetches, "FETCH_RECORDS_MAX", 10)
    nodes = Topics()
    topic = behind(nodes)
    nodes.passes = lambda message: not isinstance(message, RecordsPart) or message.offset < 30
    nodes.start(3)
    nodes.wait(lambda: topic in nodes.held(3) and nodes.held(3)[topic].end == 30)
    nodes.do(TopicConfigure("/t", Retention(records=20, age_ms=None)))
    nodes.passes = lambda message: True
    nodes.wait(nodes.are_level)
    nodes.advance(2_000)
    assert nodes.noted(SnapshotInstalled, 3)
    leads(nodes, 3)
    assert nodes.fetch().earliest >= 90
    assert nodes.offsets() == nodes.offsets(0) == list(range(nodes.fetch().earliest, 120))


@pytest.mark.usefixtures("forget_at_once")
def test_a_topic_that_is_deleted_meanwhile_holds_up_nobody() -> None:
    """Its records are not sent, and those that were go again."""
    nodes = Topics()
    topic = behind(nodes)
    nodes.passes = lambda message: not isinstance(message, RecordsPart)
    nodes.start(3)
    nodes.wait(lambda: any(isinstance(message, RecordsAsk) for message in nodes.sent))
    nodes.do(TopicDelete("/t"))
    nodes.passes = lambda message: True
    nodes.wait(nodes.are_level)
    nodes.publish(1, "/u")
    nodes.advance(2_000)
    assert topic not in nodes.held(3)


@pytest.mark.usefixtures("forget_at_once")
def test_nothing_is_removed_from_a_disk_while_a_snapshot_is_sent_from_it() -> None:
    """The snapshot names it."""
    nodes = Topics()
    topic = behind(nodes)
    nodes.passes = lambda message: not isinstance(message, RecordsPart)
    nodes.start(3)
    nodes.wait(lambda: any(isinstance(message, RecordsAsk) for message in nodes.sent))
    nodes.do(TopicConfigure("/t", Retention(records=20, age_ms=None)))
    nodes.advance(2_000)
    leader = nodes.elect()
    assert nodes.held(leader)[topic].first == 0
    nodes.passes = lambda message: True
    nodes.wait(nodes.are_level)
    nodes.publish(1, "/u")
    nodes.advance(2_000)
    assert nodes.held(leader)[topic].first >= 80


@pytest.mark.usefixtures("forget_at_once")
def test_a_leader_that_is_not_ready_sends_records_too() -> None:
    """It needs this follower to commit anything: each would wait for the other for ever."""
    nodes = Topics()
    topic = behind(nodes)
    leader = nodes.elect()
    nodes.crash(1)
    nodes.crash(2)
    nodes.advance(500, nodes=(3,))
    nodes.start(leader)
    nodes.start(3)
    nodes.wait(lambda: nodes.replicas[leader].status().ready)
    nodes.advance(2_000)
    assert nodes.held(3)[topic] == Held(0, 120)


@pytest.mark.usefixtures("forget_at_once")
def test_what_a_follower_has_applied_and_not_stored_comes_before_what_is_sent_to_it() -> None:
    """Else it would be taken for something that is stored, and be lost."""
    nodes = Topics()
    topic = nodes.publish(10).topic
    nodes.advance(2_000)
    if nodes.elect() == 3:
        leads(nodes, 1)
    nodes.publish(5)
    nodes.settle()
    assert nodes.held(3)[topic] == Held(0, 10), "the last five wait for a write"
    nodes.cut.add(3)
    nodes.publish(100)
    nodes.cut.clear()
    nodes.wait(nodes.are_level)
    nodes.advance(2_000)
    assert nodes.noted(SnapshotInstalled, 3)
    nodes.crash(3)
    nodes.start(3)
    leads(nodes, 3)
    assert nodes.offsets() == list(range(115))


@pytest.mark.usefixtures("forget_at_once")
def test_what_retention_passes_while_the_disk_is_asked_is_no_damage() -> None:
    """The disk may still have it, or not any more: who asked asks again."""
    nodes = Topics(1)
    nodes.do(TopicCreate("/t", Retention(records=640, age_ms=None)))
    topic = nodes.publish(100).topic
    nodes.advance(2_000)
    replica, found = nodes.replicas[1], list[list[int]]()
    old = nodes.disks[1].read_records(topic, 0, 5, 1_000)
    nodes.do(TopicConfigure("/t", Retention(records=2, age_ms=None)))
    earliest = nodes.fetch().earliest
    assert earliest > 5
    kept = nodes.disks[1].read_records(topic, earliest, 100, 100_000)
    for records in (old, kept):
        replica._fetches._waiting[7] = (lambda records: found.append([record.offset for record in records]), True)
        replica.records_read(RecordRead(7, topic, 0, 5, 1_000), records)
    assert found == [[], list(range(earliest, 100))]


@pytest.mark.usefixtures("forget_at_once")
@pytest.mark.parametrize("gone", [slice(0, 60), slice(0, None)])
def test_a_restarted_leader_sends_what_its_disk_has_left(gone: slice) -> None:
    """Its machine has not come again to the entry that let go of the rest: that is no damage, and the follower comes to it too."""
    nodes = Topics()
    behind(nodes)
    leader = nodes.elect()
    nodes.crash(1)
    nodes.crash(2)
    for node in (1, 2):
        for records in nodes.disks[node]._records.values():
            del records[gone]
        nodes.disks[node]._records = {topic: records for topic, records in nodes.disks[node]._records.items() if records}
    nodes.start(leader)
    nodes.start(3)
    nodes.wait(lambda: nodes.replicas[leader].status().ready)
    assert nodes.noted(SnapshotInstalled, 3)
    sent = [record.offset for part in parts(nodes) for record in part.records]
    assert sent == list(range(60, 60 + len(sent)))
