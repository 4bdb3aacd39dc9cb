"""Pushing what happened: from a revision on, within a window, to the connection that follows, by the leader alone."""

from typing import Any

import pytest

from coord_core.protocol.commands import Attempt, Call, CloseSession, OpenDetached
from coord_core.protocol.elections import ElectionEnter
from coord_core.protocol.groups import GroupJoin
from coord_core.protocol.messages import Acknowledge, Follow, NotSubscribed, Records, Redirect, Resync
from coord_core.protocol.operations import Operation, ValueSet
from coord_core.protocol.queries import ValueState
from coord_core.protocol.streams import Joined, Subscribe, Subscribed, Unsubscribe
from coord_core.replica import watches as watches_module
from coord_core.replica.announcements import Announcements
from coord_core.types import AttachmentId, LogIndex, RequestNumber, SessionId, SubscriptionId
from tests.machine.driver import Log
from tests.replica.harness import OWNER, Driver, call

WRITER, WATCHER = 1, 2


class Client:
    """One session on one connection of a leader."""

    def __init__(self, driver: Driver, node: int, connection: int, ttl_ms: int = 60_000) -> None:
        self.driver, self.node, self.connection = driver, node, connection
        self.session: SessionId = driver.open(node, ttl_ms=ttl_ms, connection=connection, seq=1)
        self.requests = 0

    def send(self, operation: Operation) -> int:
        """Submit; return the seq of the answer."""
        self.requests += 1
        return self.send_again(self.requests, operation)

    def send_again(self, request: int, operation: Operation) -> int:
        seq = 100 + request
        self.driver.submit(self.node, self.connection, seq, call(self.session, request, operation))
        self.driver.settle()
        return seq

    def do(self, operation: Operation) -> Any:
        return self.driver.result(self.connection, self.send(operation))

    def subscribe(self, kind: str, path: str) -> SubscriptionId:
        subscribed = self.do(Subscribe(kind, path))
        assert isinstance(subscribed, Subscribed)
        return subscribed.subscription

    def follow(self, subscription: int, after: int = 0, acknowledged: int | None = None) -> None:
        """`acknowledged`: None: all of it."""
        worked_off = after if acknowledged is None else acknowledged
        message = Follow(AttachmentId(self.session), SubscriptionId(subscription), LogIndex(after), LogIndex(worked_off))
        self.driver.replicas[self.node].follow(self.connection, message)
        self.driver.settle(2)

    def acknowledge(self, subscription: int, revision: int) -> None:
        message = Acknowledge(SubscriptionId(subscription), LogIndex(revision))
        self.driver.replicas[self.node].acknowledge(self.connection, message)
        self.driver.settle(2)

    def pushed(self) -> list[Any]:
        """What came since the last time."""
        mine = [push for connection, push in self.driver.pushes if connection == self.connection]
        self.driver.pushes = [push for push in self.driver.pushes if push[0] != self.connection]
        return mine

    def revisions(self) -> list[int]:
        return [record.revision for push in self.pushed() if isinstance(push, Records) for record in push.records]


@pytest.fixture
def driver() -> Driver:
    driver = Driver(nodes=1)
    driver.elect()
    return driver


@pytest.fixture
def writer(driver: Driver) -> Client:
    return Client(driver, 1, WRITER)


@pytest.fixture
def watcher(driver: Driver) -> Client:
    return Client(driver, 1, WATCHER)


def test_follower_is_told_the_state_first_and_then_what_happens(writer: Client, watcher: Client) -> None:
    """Without a gap between the two: what the state does not have yet comes as a record."""
    writer.do(ValueSet("/v", b"one"))
    subscription = watcher.subscribe("value", "/v")
    watcher.follow(subscription)
    (resync,) = watcher.pushed()
    assert isinstance(resync, Resync)
    assert isinstance(resync.state, ValueState)
    assert resync.state.value == b"one"
    written = writer.do(ValueSet("/v", b"two"))
    (records,) = watcher.pushed()
    assert [(record.revision, record.previous <= resync.revision) for record in records.records] == [(written.version, True)]


def test_follower_that_says_where_it_stands_gets_what_follows(writer: Client, watcher: Client) -> None:
    """Each revision once, in order: this is how a watcher goes on after a reconnect."""
    subscription = watcher.subscribe("value", "/v")
    versions = [writer.do(ValueSet("/v", bytes([number]))).version for number in range(5)]
    watcher.follow(subscription, after=versions[1])
    assert watcher.revisions() == versions[2:]


def test_nothing_is_pushed_without_following(writer: Client, watcher: Client) -> None:
    """A subscription says what; a connection must say where to."""
    watcher.subscribe("value", "/v")
    writer.do(ValueSet("/v", b""))
    assert watcher.pushed() == []


def test_the_last_connection_that_follows_gets_the_records(driver: Driver, writer: Client, watcher: Client) -> None:
    """A client that has reconnected must not lose them to its old connection."""
    subscription = watcher.subscribe("value", "/v")
    watcher.follow(subscription)
    watcher.pushed()
    old, watcher.connection = watcher.connection, 77
    watcher.follow(subscription, after=subscription)
    written = writer.do(ValueSet("/v", b""))
    assert watcher.revisions() == [written.version]
    assert not [push for connection, push in driver.pushes if connection == old]


def test_what_an_older_connection_says_late_changes_nothing(driver: Driver, writer: Client, watcher: Client) -> None:
    """A client has one connection at a time; what was on its way on the one before must not take the records from it."""
    subscription = watcher.subscribe("value", "/v")
    old, watcher.connection = watcher.connection, 77
    watcher.follow(subscription, after=subscription)
    watcher.connection = old
    watcher.follow(subscription, after=subscription)
    driver.replicas[1].connection_closed(old)
    watcher.connection = 77
    written = writer.do(ValueSet("/v", b""))
    assert watcher.revisions() == [written.version]


def test_whoever_takes_a_detached_session_up_follows_though_it_connected_first(driver: Driver) -> None:
    """The age of a connection says which is a client's later one; of two processes it says nothing."""
    replica = driver.replicas[1]
    entered = {}
    for connection, actor in ((6, b"former"), (5, b"latter")):
        driver.submit(1, connection, 1, OpenDetached("job", Attempt(1), 60_000, OWNER, actor))
        driver.settle()
        opened = driver.result(connection, 1)
        request = RequestNumber(opened.request_last + 1)
        entering = ElectionEnter("/e", OWNER)
        driver.submit(1, connection, 2, Call(opened.session, opened.attachment, request, RequestNumber(0), (), entering))
        driver.settle()
        entered[connection] = driver.result(connection, 2)
        replica.follow(connection, Follow(opened.attachment, entered[connection].candidate, LogIndex(0), LogIndex(0)))
        driver.settle(2)
    assert entered[5] == entered[6], "the candidacy has passed on"
    assert [connection for connection, push in driver.pushes if isinstance(push, Resync)] == [6, 5]


def test_closed_connection_is_pushed_nothing(driver: Driver, writer: Client, watcher: Client) -> None:
    """And leaves nothing behind on the node."""
    subscription = watcher.subscribe("value", "/v")
    watcher.follow(subscription)
    driver.replicas[1].connection_closed(watcher.connection)
    watcher.pushed()
    writer.do(ValueSet("/v", b""))
    assert watcher.pushed() == []
    assert driver.replicas[1]._telling.watches.is_empty


@pytest.mark.parametrize("pushed", [True, False])
def test_node_goes_on_when_connections_that_follow_close(driver: Driver, writer: Client, watcher: Client, *, pushed: bool) -> None:
    """Whatever was pushed to them; and when the subscriptions end later."""
    subscriptions = [watcher.subscribe("value", "/v"), watcher.subscribe("value", "/w")]
    for subscription in subscriptions:
        watcher.follow(subscription, after=subscription)
    if pushed:
        writer.do(ValueSet("/v", b""))
    driver.replicas[1].connection_closed(watcher.connection)
    watcher.connection = 78
    for subscription in subscriptions:
        watcher.follow(subscription, after=subscription)
        watcher.do(Unsubscribe(subscription))
    assert driver.replicas[1]._telling.watches.is_empty
    assert driver.replicas[1]._telling.watches._connection_bytes == {}


@pytest.mark.parametrize("what", ["unknown", "another's"])
def test_following_what_is_not_ones_own_is_refused(writer: Client, watcher: Client, what: str) -> None:
    """A client that is wrong about itself hears so, instead of silence."""
    subscription = writer.subscribe("value", "/v") if what == "another's" else 5
    watcher.follow(subscription)
    assert watcher.pushed() == [NotSubscribed(SubscriptionId(subscription))]


def test_slow_follower_is_given_a_window_and_more_when_it_acknowledges(writer: Client, watcher: Client) -> None:
    """It takes no room on the node however far behind it is."""
    subscription = watcher.subscribe("value", "/v")
    watcher.follow(subscription, after=subscription)
    size = watches_module.PUSHED_BYTES_MAX // 4
    versions = [writer.do(ValueSet("/v", bytes(size))).version for _ in range(10)]
    given = watcher.revisions()
    assert given == versions[: len(given)]
    assert 1 < len(given) < 6
    watcher.acknowledge(subscription, given[0])
    more = watcher.revisions()
    assert more == versions[len(given) : len(given) + len(more)]
    assert more
    while len(given) + len(more) < 10:
        watcher.acknowledge(subscription, more[-1])
        more += watcher.revisions()
    assert given + more == versions


def test_follower_that_reconnects_is_given_no_second_window(writer: Client, watcher: Client) -> None:
    """What a client holds and has not worked off is bounded, however often its connection breaks."""
    subscription = watcher.subscribe("value", "/v")
    watcher.follow(subscription, after=subscription)
    versions = [writer.do(ValueSet("/v", b"")).version for _ in range(4)]
    assert watcher.revisions() == versions
    watcher.connection = 77
    watcher.follow(subscription, after=versions[3], acknowledged=versions[0])
    later = writer.do(ValueSet("/v", b"")).version
    assert watcher.revisions() == []
    watcher.acknowledge(subscription, versions[2])
    assert watcher.revisions() == []
    watcher.acknowledge(subscription, versions[3])
    assert watcher.revisions() == [later]


def test_record_larger_than_the_window_gets_through(writer: Client, watcher: Client) -> None:
    """One at a time."""
    subscription = watcher.subscribe("value", "/v")
    watcher.follow(subscription, after=subscription)
    versions = [writer.do(ValueSet("/v", bytes(200_000))).version for _ in range(2)]
    assert watcher.revisions() == versions[:1]
    watcher.acknowledge(subscription, versions[0])
    assert watcher.revisions() == versions[1:]


def test_connection_with_many_slow_followers_is_bounded(
    driver: Driver, writer: Client, watcher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one connection leaves unread is bounded, however much it follows; all of it comes when it acknowledges."""
    monkeypatch.setattr(watches_module, "CONNECTION_BYTES_MAX", 10_000)
    subscriptions = [watcher.subscribe("value", f"/v{number}") for number in range(8)]
    for subscription in subscriptions:
        watcher.follow(subscription, after=subscription)
    for number in range(8):
        writer.do(ValueSet(f"/v{number}", bytes(4_000)))
    first = watcher.pushed()
    assert len(first) == 3
    got = list(first)
    while first:
        for push in first:
            watcher.acknowledge(push.subscription, push.records[-1].revision)
        first = watcher.pushed()
        got += first
    assert sorted(push.subscription for push in got) == sorted(subscriptions)


def test_connection_whose_slow_followers_go_has_room_for_the_others(
    writer: Client, watcher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else makes it due: it has nothing to acknowledge, and its stream may be still for ever."""
    monkeypatch.setattr(watches_module, "CONNECTION_BYTES_MAX", 4_000)
    slow, other = watcher.subscribe("value", "/slow"), watcher.subscribe("value", "/other")
    for subscription in (slow, other):
        watcher.follow(subscription, after=subscription)
    writer.do(ValueSet("/slow", bytes(4_000)))
    version = writer.do(ValueSet("/other", b"")).version
    assert [push.subscription for push in watcher.pushed()] == [slow]
    watcher.do(Unsubscribe(slow))
    assert watcher.revisions() == [version]


def test_no_turn_begins_with_all_who_follow_or_tells_all_of_them_the_state(
    writer: Client, watcher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover all come at once: the others' turns must not wait for them; nobody is passed over."""
    monkeypatch.setattr(watches_module, "FOLLOWERS_A_TURN", 2)
    monkeypatch.setattr(watches_module, "STATES_A_TURN", 1)
    subscriptions = [watcher.subscribe("value", f"/v{number}") for number in range(5)]
    replica = watcher.driver.replicas[watcher.node]
    for subscription in subscriptions:
        replica.follow(watcher.connection, Follow(AttachmentId(watcher.session), subscription, LogIndex(0), LogIndex(0)))
    assert [len(replica.turn(watcher.driver.now_ms).pushes) for _ in range(7)] == [1, 1, 1, 1, 1, 0, 0]


def test_follower_that_fell_behind_the_ring_is_told_the_state(driver: Driver, writer: Client, watcher: Client) -> None:
    """It ends in the right state, and goes on with records from there."""
    driver.replicas[1].machine.streams.ring_records_max = 3
    subscription = watcher.subscribe("value", "/v")
    for number in range(10):
        last = writer.do(ValueSet("/v", bytes([number]))).version
    watcher.follow(subscription, after=subscription)
    (resync,) = watcher.pushed()
    assert isinstance(resync, Resync)
    assert resync.state == ValueState(last, bytes([9]))
    watcher.acknowledge(subscription, resync.revision)
    written = writer.do(ValueSet("/v", b"")).version
    assert watcher.revisions() == [written]


def test_follower_of_a_node_that_does_not_lead_is_sent_to_the_leader() -> None:
    """An idle watcher has no request whose answer could tell it."""
    driver = Driver(nodes=3)
    leader = driver.elect()
    other = next(node for node in driver.replicas if node != leader)
    message = Follow(AttachmentId(5), SubscriptionId(5), LogIndex(0), LogIndex(0))
    driver.replicas[other].follow(9, message)
    driver.turn(other)
    assert driver.pushes == [(9, Redirect(0, f"127.0.0.1:{7400 + leader}"))]
    assert not driver.replicas[other].has_work()


def test_followers_go_on_at_the_next_leader_from_where_they_stood() -> None:
    """Each revision once, whoever leads."""
    driver = Driver(nodes=3)
    leader = driver.elect()
    writer, watcher = Client(driver, leader, WRITER), Client(driver, leader, WATCHER)
    subscription = watcher.subscribe("value", "/v")
    watcher.follow(subscription, after=subscription)
    first = writer.do(ValueSet("/v", b"one")).version
    assert watcher.revisions() == [first]
    driver.replicas[leader].transfer_leadership(next(node for node in driver.replicas if node != leader))  # type: ignore[arg-type]
    driver.settle(20)
    successor = driver.elect()
    assert successor != leader
    assert [type(push) for push in watcher.pushed()] == [Redirect], "to whom is not known yet"
    writer.node = watcher.node = successor
    second = writer.do(ValueSet("/v", b"two")).version
    watcher.follow(subscription, after=first)
    assert watcher.revisions() == [second]


def test_more_followers_than_there_may_be_are_sent_away(writer: Client, watcher: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come again, as if this node did not lead; nothing grows without bound."""
    monkeypatch.setattr(watches_module, "FOLLOWERS_MAX", 1)
    one, two = watcher.subscribe("value", "/v"), watcher.subscribe("value", "/w")
    watcher.follow(one)
    watcher.pushed()
    watcher.follow(two)
    assert watcher.pushed() == [Redirect(0, "127.0.0.1:7401")]


# --- announcements ---------------------------------------------------------------------------------------------------------------


def join(client: Client, wait_ms: int = 30_000) -> int:
    return client.send(GroupJoin("/g", b"", OWNER, wait_ms))


def joined(client: Client, seq: int) -> Joined | None:
    result = client.driver.answers.get((client.connection, seq))
    return None if result is None else result.result  # type: ignore[attr-defined]


def test_join_waits_until_those_before_have_acknowledged(writer: Client, watcher: Client) -> None:
    """Received is not enough: acknowledged means that their listeners have returned."""
    member = joined(watcher, join(watcher))
    assert member is not None
    watcher.follow(member.member, after=member.revision)
    seq = join(writer)
    (revision,) = watcher.revisions()
    assert joined(writer, seq) is None
    watcher.acknowledge(member.member, revision)
    result = joined(writer, seq)
    assert result is not None
    assert (result.revision, result.audience, result.unacknowledged) == (revision, (), ())


def test_join_ends_when_its_time_is_over_and_names_who_is_late(driver: Driver, writer: Client, watcher: Client) -> None:
    """One stopped member must not keep others out; people want to know which one it was."""
    member = joined(watcher, join(watcher))
    assert member is not None
    watcher.follow(member.member, after=member.revision)
    seq = join(writer, wait_ms=5_000)
    driver.advance(4_900)
    assert joined(writer, seq) is None
    driver.advance(200)
    result = joined(writer, seq)
    assert result is not None
    (missing,) = result.unacknowledged
    assert (missing.subscription, missing.reason, missing.owner) == (SubscriptionId(member.member), "deadline", OWNER)


def test_join_ends_when_the_one_who_is_waited_for_has_gone(driver: Driver, writer: Client) -> None:
    """A dead session acknowledges nothing any more; it is named as gone."""
    watcher = Client(driver, 1, WATCHER, ttl_ms=1_000)
    member = joined(watcher, join(watcher))
    assert member is not None
    seq = join(writer)
    assert joined(writer, seq) is None
    driver.advance(2_000)
    result = joined(writer, seq)
    assert result is not None
    (missing,) = result.unacknowledged
    assert (missing.subscription, missing.reason, missing.owner) == (SubscriptionId(member.member), "gone", OWNER)


def test_following_from_what_has_not_happened_yet_completes_nothing(writer: Client, watcher: Client) -> None:
    """Nor is anything passed over that happens from then on."""
    own = joined(watcher, join(watcher))
    assert own is not None
    watcher.follow(own.member, after=1 << 50)
    seq = join(writer)
    assert joined(writer, seq) is None
    (revision,) = watcher.revisions()
    watcher.acknowledge(own.member, revision)
    assert joined(writer, seq) is not None


def test_acknowledging_more_than_was_pushed_completes_nothing(writer: Client, watcher: Client) -> None:
    """A client that counts wrongly must not say that it was told what it was not."""
    member = joined(watcher, join(watcher))
    assert member is not None
    seq = join(writer)
    watcher.acknowledge(member.member, 2**40)
    assert joined(writer, seq) is None
    watcher.follow(member.member, after=member.revision)
    watcher.acknowledge(member.member, 2**40)
    assert joined(writer, seq) is not None
    later = writer.send(GroupJoin("/g", b"", OWNER, 30_000, from_listener=True))
    assert joined(writer, later) is None, "it is told of this one only now"


@pytest.mark.parametrize("first", ["the listener's", "the other's"])
def test_listener_that_joins_and_who_is_about_to_join_do_not_wait_for_each_other(first: str) -> None:
    """The listener returns when its own join does, and the other's join waits for the listener: both would stand until the end.

    In either order: a new leader hears of both again, as it happens.
    """
    log = Log()
    listening, joining = log.open(), log.open()
    subscription = listening.subscribe("group", "/g")
    outer = joining.join(announce_ms=30_000)
    inner = listening.join(announce_ms=30_000, from_listener=True)
    assert list(map(int, inner.audience)) == [outer.member]
    announcements = Announcements()
    asked = [(1, joining, outer), (2, listening, inner)]
    for connection, process, result in asked if first == "the other's" else reversed(asked):
        from_listener = process is listening
        announcements.announce((connection, 1), process.session, result, log.machine, 0, from_listener=from_listener)
    assert [connection for connection, _ in announcements.take_replies()] == [2]
    announcements.acknowledged([(subscription, outer.revision)])
    assert [connection for connection, _ in announcements.take_replies()] == [1]
    assert not announcements.is_active


def test_what_is_acknowledged_right_after_following_counts(driver: Driver, writer: Client, watcher: Client) -> None:
    """A listener may return before the leader has taken note of who follows again: nobody would say it a second time."""
    member = joined(watcher, join(watcher))
    assert member is not None
    watcher.follow(member.member, after=member.revision)
    seq = join(writer)
    (revision,) = watcher.revisions()
    replica, subscription = driver.replicas[1], SubscriptionId(member.member)
    watcher.connection = 78
    replica.follow(78, Follow(AttachmentId(watcher.session), subscription, LogIndex(revision), LogIndex(member.revision)))
    replica.acknowledge(78, Acknowledge(subscription, LogIndex(revision)))
    driver.settle(2)
    result = joined(writer, seq)
    assert result is not None
    assert result.unacknowledged == ()


def test_members_that_join_at_a_time_wait_for_each_other(driver: Driver, writer: Client, watcher: Client) -> None:
    """Only a listener is excused: who was there at the entry is told, also where its own join has not completed."""
    first = joined(watcher, join(watcher))
    assert first is not None
    other = Client(driver, 1, 3)
    second = join(other)
    third = watcher.send(GroupJoin("/g", b"", OWNER, 30_000))
    watcher.follow(first.member, after=first.member)
    watcher.acknowledge(first.member, max(watcher.revisions()))
    second_joined = joined(other, second)
    assert second_joined is not None
    assert joined(watcher, third) is None
    other.follow(second_joined.member, after=second_joined.member)
    other.acknowledge(second_joined.member, max(other.revisions()))
    assert joined(watcher, third) is not None


def test_join_is_never_complete_early_across_a_failover() -> None:
    """The new leader knows neither who waits nor who has acknowledged: the caller asks again, the audience follows again."""
    driver = Driver(nodes=3)
    leader = driver.elect()
    writer, watcher, slow = (Client(driver, leader, connection) for connection in (1, 2, 3))
    members = []
    for client in (watcher, slow):
        member = joined(client, join(client, wait_ms=0))
        assert member is not None
        members.append(member.member)
        client.follow(member.member, after=member.revision)
    operation = GroupJoin("/g", b"", OWNER, 30_000)
    seq = writer.send(operation)
    revision = watcher.revisions()[-1]
    watcher.acknowledge(members[0], revision)
    driver.replicas[leader].transfer_leadership(next(node for node in driver.replicas if node != leader))  # type: ignore[arg-type]
    driver.settle(20)
    writer.node = watcher.node = slow.node = driver.elect()
    assert isinstance(driver.answers[writer.connection, seq], Redirect)
    watcher.follow(members[0], after=revision, acknowledged=revision)
    slow.follow(members[1], after=revision, acknowledged=members[1])
    del driver.answers[writer.connection, seq]
    writer.send_again(writer.requests, operation)
    assert (writer.connection, seq) not in driver.answers
    slow.acknowledge(members[1], revision)  # of what the former leader pushed
    result = joined(writer, seq)
    assert result is not None
    assert (result.revision, result.unacknowledged) == (revision, ())


def test_candidate_is_pushed_its_election(writer: Client, watcher: Client) -> None:
    """A candidate's number is its subscription's: it follows at once, without another entry."""
    writer.do(ElectionEnter("/e", OWNER))
    entered = watcher.do(ElectionEnter("/e", OWNER))
    watcher.follow(entered.candidate, after=entered.candidate)
    assert watcher.pushed() == []
    watcher.driver.submit(1, 1, 50, CloseSession(writer.session))
    watcher.driver.settle()
    (records,) = watcher.pushed()
    (change,) = records.records[0].changes
    assert (change.leader.candidate, change.leader.epoch) == (entered.candidate, records.records[0].revision)
