"""Streams: what happened to a resource, in order and without gaps, for those who subscribed (spec: one way in, one way out)."""

import msgspec
import pytest

from coord_core.machine import Machine, bounds
from coord_core.machine import streams as streams_module
from coord_core.machine.streams import Behind, Stretch
from coord_core.protocol.base import VALUE_BYTES_MAX
from coord_core.protocol.elections import ElectionInfo, ElectionState, LeaderElected, LeaderGone
from coord_core.protocol.groups import GroupInfo, GroupState, MemberJoined, MemberLeft
from coord_core.protocol.locks import LockChanged
from coord_core.protocol.operations import Cancel, LockRelease, ValueSet
from coord_core.protocol.queries import ValueState
from coord_core.protocol.results import Done
from coord_core.protocol.streams import Subscribe, Unsubscribe
from coord_core.protocol.values import ValueChanged
from coord_core.types import FencingToken, LogIndex, RequestNumber
from tests.machine.driver import Log, Process, changes, code
from tests.machine.test_snapshot import restored, written
from tests.machine.traffic import StreamTraffic


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def watcher(log: Log) -> Process:
    return log.open()


@pytest.fixture
def writer(log: Log) -> Process:
    return log.open()


def test_nothing_is_kept_of_what_nobody_watches(log: Log, writer: Process) -> None:
    """A million locks and values cost no records; what is watched does."""
    writer.set("/v", b"one")
    assert log.machine.streams.records() == []


def test_each_record_has_its_entrys_index_and_names_the_one_before(log: Log, watcher: Process, writer: Process) -> None:
    """So that whoever reads on sees that nothing is missing in between."""
    begun = watcher.subscribe("value", "/v")
    writer.set("/v", b"one")
    first = log.index
    writer.set("/other", b"")
    writer.delete("/v")
    assert log.read("value", "/v", begun) == [
        (first, begun, (ValueChanged(first, b"one"),)),
        (log.index, first, (ValueChanged(0, b""),)),
    ]
    assert log.read("value", "/v", first) == [(log.index, first, (ValueChanged(0, b""),))]


def test_what_came_of_an_entry_is_not_changed_by_the_next(watcher: Process, writer: Process) -> None:
    """Who keeps what an entry did must not find in it what a later one does."""
    watcher.subscribe("value", "/v")
    before = writer.call(ValueSet("/w", b""))
    after = writer.call(ValueSet("/v", b""))
    assert (list(before.emitted), list(after.emitted)) == ([], [("value", "/v")])


def test_subscribing_to_what_is_not_there_yet(log: Log, watcher: Process, writer: Process) -> None:
    """Who watches for a leader to come may come first."""
    begun = watcher.subscribe("value", "/v")
    assert log.read("value", "/v", begun) == []


def test_value_that_outlives_its_ttl_is_told(log: Log, watcher: Process, writer: Process) -> None:
    """A timer is an entry like any other."""
    begun = watcher.subscribe("value", "/v")
    writer.set("/v", b"one", ttl_ms=50)
    written_at = log.index
    log.wait(50)
    assert log.read("value", "/v", begun)[-1] == (log.index, written_at, (ValueChanged(0, b""),))


def test_kind_must_be_one_that_is_told(watcher: Process) -> None:
    """The refusal names those that are."""
    applied = watcher.call(Subscribe("session", "/v"))
    assert code(applied.result) == "InvalidRequest"


def test_path_of_another_kind_is_refused(watcher: Process, writer: Process) -> None:
    """Watching a value as if it were an election can only be a mistake."""
    writer.set("/v", b"")
    assert code(watcher.call(Subscribe("election", "/v")).result) == "WrongType"


def test_stream_goes_with_its_last_subscriber(log: Log, watcher: Process, writer: Process) -> None:
    """And its records with it: what was watched once does not stay."""
    one, two = watcher.subscribe("value", "/v"), writer.subscribe("value", "/v")
    writer.set("/v", b"one")
    assert watcher.call(Unsubscribe(one)).result == Done()
    assert len(log.machine.streams.records()) == 1
    applied = writer.call(Unsubscribe(two))
    assert applied.unsubscribed == [two]
    assert log.machine.streams.records() == []
    assert log.machine.streams.subscription(two) is None


def test_unsubscribing_twice_or_what_is_anothers_does_nothing(log: Log, watcher: Process, writer: Process) -> None:
    """A resend must not fail, and nobody ends what is not his."""
    one = watcher.subscribe("value", "/v")
    assert writer.call(Unsubscribe(one)).result == Done()
    assert log.machine.streams.subscription(one) is not None
    for _ in range(2):
        assert watcher.call(Unsubscribe(one)).result == Done()
    assert log.machine.streams.subscription(one) is None


def test_subscription_ends_with_its_attachment(log: Log, watcher: Process) -> None:
    """A dead watcher must not keep what it would have read, nor an announcement waiting."""
    one = watcher.subscribe("value", "/v")
    assert watcher.expire().unsubscribed == [one]
    assert log.machine.streams.records() == []


def test_cancelled_subscription_is_ended(log: Log, watcher: Process) -> None:
    """Its caller turned away before the answer came: nobody would ever read it."""
    one = watcher.subscribe("value", "/v")
    assert watcher.call(Cancel(RequestNumber(watcher.last_request))).unsubscribed == [one]


def test_all_that_one_entry_does_to_a_resource_is_one_record(log: Log, watcher: Process, writer: Process) -> None:
    """Whoever has a revision has all of it: no cursor can stand between two members of one expired session."""
    one, two = writer.join(), writer.join()
    begun = watcher.subscribe("group", "/g")
    writer.expire()
    gone = (MemberLeft(one.member, "expired"), MemberLeft(two.member, "expired"))
    assert log.read("group", "/g", begun) == [(log.index, log.index - 2, gone)]


def test_full_ring_pushes_out_the_oldest_whosever_they_are(log: Log, watcher: Process, writer: Process) -> None:
    """Who has read it goes on; who has not is told the present state, which counts for all up to now."""
    log.machine.streams.ring_records_max = 3
    begun = watcher.subscribe("value", "/v")
    watcher.subscribe("value", "/w")
    writer.set("/v", b"1")
    first = log.index
    for name in ("/w", "/v", "/w"):
        writer.set(name, b"2")
    read = log.machine.streams.read
    assert read(("value", "/v"), LogIndex(begun), 10, 1 << 20) == Behind(log.index, ValueState(log.index - 1, b"2"))
    assert [revision for revision, _, _ in log.read("value", "/v", first)] == [log.index - 1]


def test_records_of_the_entry_at_hand_push_out_each_other_never(log: Log, watcher: Process, writer: Process) -> None:
    """One entry may do more than there is room for: it goes on adding to what it began, and all of it is told."""
    log.machine.streams.ring_records_max = 1
    begun = [watcher.subscribe("group", path) for path in ("/g", "/h")]
    members = [writer.join(path) for path in ("/g", "/h", "/g")]
    writer.expire()
    gone = [MemberLeft(member.member, "expired") for member in members]
    assert log.read("group", "/g", log.index - 1) == [(log.index, members[2].member, (gone[0], gone[2]))]
    assert log.read("group", "/h", log.index - 1) == [(log.index, members[1].member, (gone[1],))]
    watcher.call(Unsubscribe(begun[0]))
    assert [record.stream.name[1] for record in log.machine.streams.records()] == ["/h"]


def test_ring_is_bounded_in_bytes_too(log: Log, watcher: Process, writer: Process) -> None:
    """Large values push out sooner."""
    watcher.subscribe("value", "/v")
    content = bytes(VALUE_BYTES_MAX)
    for _ in range(bounds.RING_BYTES_MAX // VALUE_BYTES_MAX + 5):
        writer.set("/v", content)
    kept = log.machine.streams.records()
    assert bounds.RING_BYTES_MAX - 2 * VALUE_BYTES_MAX < sum(record.size for record in kept) <= bounds.RING_BYTES_MAX


def test_records_of_streams_that_are_gone_take_no_room(log: Log, watcher: Process, writer: Process) -> None:
    """Otherwise a node that came out of a snapshot, which has none of them, would push out other records than the rest."""
    for _ in range(50):
        one = watcher.subscribe("value", "/v")
        writer.set("/v", b"")
        watcher.call(Unsubscribe(one))
    assert log.machine.streams.records() == []
    twin = restored(written(log.machine))
    assert twin.digest() == log.machine.digest()


def test_records_that_the_ring_has_let_go_of_are_not_kept_by_their_streams(log: Log, watcher: Process, writer: Process) -> None:
    """Nor by the ring, where their streams are gone: else many streams would keep a thousand large records each, for ever."""
    log.machine.streams.ring_records_max = 4
    for name in ("/a", "/b"):
        watcher.subscribe("value", name)
        for _ in range(10):
            writer.set(name, b"long ago")
    streams = log.machine.streams.by_name
    assert [len(streams["value", name].left()) for name in ("/a", "/b")] == [0, 4]
    assert len(streams["value", "/a"].records) == 0
    assert len(streams["value", "/b"].records) <= 8


def test_ring_lets_go_of_the_bytes_of_streams_that_are_gone(log: Log, watcher: Process, writer: Process) -> None:
    """Whoever subscribes, has much written and unsubscribes, again and again, takes no more than the ring may have twice."""
    content = bytes(VALUE_BYTES_MAX)
    for _ in range(bounds.RING_BYTES_MAX // VALUE_BYTES_MAX // 8 + 2):
        subscription = watcher.subscribe("value", "/v")
        for _ in range(8):
            writer.set("/v", content)
        watcher.call(Unsubscribe(subscription))
    assert sum(record.size for record in log.machine.streams._ring) <= bounds.RING_BYTES_MAX


def test_stretch_is_bounded_in_records_and_bytes_and_has_at_least_one(log: Log, watcher: Process, writer: Process) -> None:
    """What is pushed must fit into a frame; what alone is larger must still get through."""
    begun = watcher.subscribe("value", "/v")
    for _ in range(5):
        writer.set("/v", bytes(100))

    def length(records_max: int, bytes_max: int) -> int:
        found = log.machine.streams.read(("value", "/v"), LogIndex(begun), records_max, bytes_max)
        assert isinstance(found, Stretch)
        return len(found.records)

    assert [length(2, 1 << 20), length(10, 250), length(10, 1), length(10, 1 << 20)] == [2, 2, 1, 5]


def test_bounds_of_subscriptions(log: Log, watcher: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audience of an announcement stands in an answer that is kept."""
    monkeypatch.setattr(streams_module, "SUBSCRIBERS_PER_STREAM_MAX", 2)
    watcher.subscribe("group", "/g")
    watcher.join()
    for operation in (Subscribe("group", "/g"), Subscribe("group", "/g")):
        assert code(watcher.call(operation).result) == "LimitExceeded"
    monkeypatch.setattr(streams_module, "SUBSCRIPTIONS_MAX", 2)
    assert code(watcher.call(Subscribe("value", "/v")).result) == "LimitExceeded"


def test_snapshot_has_the_subscriptions_and_what_is_left_in_the_ring(log: Log, watcher: Process, writer: Process) -> None:
    """A node that is made from it pushes the same records as the others."""
    begun = watcher.subscribe("value", "/v")
    for content in (b"one", b"two"):
        writer.set("/v", content)
    twin = restored(written(log.machine))
    assert twin.digest() == log.machine.digest()
    found = twin.streams.read(("value", "/v"), LogIndex(begun), 10, 1 << 20)
    assert isinstance(found, Stretch)
    assert [changes(record)[0] for record in found.records] == [
        ValueChanged(log.index - 1, b"one"),
        ValueChanged(log.index, b"two"),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_following_the_records_leads_to_the_present_state(seed: int) -> None:
    """Whatever happens: a group's and an election's records, one after the other, make the state that a query tells."""
    traffic, log = StreamTraffic(seed), Log()
    observer = log.open()
    paths = {"group": "/g", "election": "/e"}
    cursors = {kind: int(observer.subscribe(kind, path)) for kind, path in paths.items()}
    members: list[int] = []
    leader = told = 0
    for _ in range(500):
        stamp, command = traffic.next()
        log.time_ms = max(log.time_ms, stamp)
        traffic.hear(command, log.apply(command))
        for kind in cursors:
            for revision, previous, happened in log.read(kind, paths[kind], cursors[kind]):
                assert previous <= cursors[kind] < revision, "a gap"
                cursors[kind] = revision
                for change in happened:
                    told += 1
                    match change:
                        case MemberJoined(member):
                            members.append(member.member)
                        case MemberLeft(number):
                            members.remove(number)
                        case LeaderElected(candidate):
                            assert (candidate.epoch, leader != revision) == (revision, True), "an epoch begins with its record"
                            leader = candidate.epoch
                        case LeaderGone(epoch):
                            assert epoch == leader
                            leader = 0
        group, election = log.machine.query(GroupInfo("/g")), log.machine.query(ElectionInfo("/e"))
        assert members == ([member.member for member in group.members] if isinstance(group, GroupState) else [])
        assert leader == (election.leader.epoch if isinstance(election, ElectionState) and election.leader else 0)
    assert told > 10, "too little happened for a verdict"


def test_change_that_nobody_could_decode_is_none(log: Log, watcher: Process, writer: Process) -> None:
    """Records are kept encoded and go out as they are: they decode as what the wire says."""
    watcher.subscribe("value", "/v")
    writer.set("/v", b"one")
    (record,) = log.machine.streams.records()
    assert record.size == sum(len(bytes(change)) for change in record.changes)
    assert msgspec.msgpack.decode(bytes(record.changes[0]))[0] == 1
    assert isinstance(log.machine, Machine)


def test_holders_of_a_lock_are_told_also_when_it_is_free_or_closed(log: Log, watcher: Process, writer: Process) -> None:
    """Each grant once; a hand-over is one record."""
    begun = watcher.subscribe("lock", "/l")
    token = writer.hold("/l")
    other = log.open()
    other.acquire("/l")
    writer.release(token, "/l")
    taken = log.index
    other.call(LockRelease("/l", FencingToken(taken), quarantine_ms=50))
    log.wait(50)
    told = [change for _, _, happened in log.read("lock", "/l", begun) for change in happened]
    assert all(isinstance(change, LockChanged) for change in told)
    tokens = [0 if change.holder is None else change.holder.token for change in told if isinstance(change, LockChanged)]
    assert tokens == [token, taken, 0, 0]
    closed = [change.closed.reason for change in told if isinstance(change, LockChanged) and change.closed]
    assert closed == ["quarantine"]
