"""Topics: offsets, what is kept, what comes out to be stored, and consumer groups."""

from random import Random

import pytest

from coord_core.machine import Applied
from coord_core.machine.bounds import SEGMENTS_MAX, TOPIC_GROUPS_MAX
from coord_core.machine.segments import Segments
from coord_core.protocol.queries import SessionInfo, SessionState
from coord_core.protocol.results import Failed, NotGranted
from coord_core.protocol.topics import (
    EARLIEST,
    HEADERS_MAX,
    LATEST,
    PAYLOAD_BYTES_MAX,
    Claimed,
    ClaimRefused,
    Committed,
    Published,
    Retention,
    TopicClaim,
    TopicCommit,
    TopicConfigure,
    TopicCreate,
    TopicCreated,
    TopicDelete,
    TopicFetch,
    TopicFetched,
    TopicGroupDelete,
    TopicInfo,
    TopicList,
    TopicListing,
    TopicPublish,
    TopicRelease,
    TopicState,
)
from tests.machine.driver import OWNER, Log, Process, code
from tests.machine.traffic import TopicTraffic

FOREVER = Retention(age_ms=None)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def process(log: Log) -> Process:
    return log.open()


def publish(process: Process, payload: bytes = b"x", path: str = "/t") -> Published:
    published = process.call(TopicPublish(path, payload), low_water=process.last_request).result
    assert isinstance(published, Published)
    return published


def info(log: Log, path: str = "/t") -> TopicState:
    state = log.machine.query(TopicInfo(path))
    assert isinstance(state, TopicState)
    return state


def keep(process: Process, retention: Retention, path: str = "/t") -> Applied:
    return process.call(TopicCreate(path, retention))


# --- publishing ------------------------------------------------------------------------------------------------------------------


def test_offsets_rise_by_one_from_zero_and_the_record_comes_out_to_be_stored(log: Log, process: Process) -> None:
    """The machine keeps no payload: whoever applies the entry stores it."""
    for offset in range(3):
        applied = process.call(TopicPublish("/t", b"m%d" % offset, b"key", (("kind", b"test"),)))
        assert isinstance(applied.result, Published)
        assert (applied.result.offset, applied.result.revision) == (offset, log.index)
        ((topic, record),) = applied.records
        assert (topic, record.offset, record.revision, record.time_ms) == (applied.result.topic, offset, log.index, log.time_ms)
        assert (record.payload, record.key, record.headers) == (b"m%d" % offset, b"key", (("kind", b"test"),))
    assert (info(log).earliest, info(log).end) == (0, 3)


def test_a_publish_that_is_sent_again_is_applied_once(log: Log, process: Process) -> None:
    """Its answer is kept, and no second record comes out."""
    first = process.send(1, TopicPublish("/t", b"once"))
    again = process.send(1, TopicPublish("/t", b"once"))
    assert again.result == first.result
    assert again.records == ()
    assert info(log).end == 1


def test_a_topic_deleted_and_made_anew_has_another_number(log: Log, process: Process) -> None:
    """Offsets begin at 0 again, so only the number tells the old records from the new ones."""
    former = publish(process)
    deleted = process.call(TopicDelete("/t"))
    assert deleted.trimmed == [(former.topic, None)]
    later = publish(process)
    assert later.offset == former.offset == 0
    assert later.topic != former.topic


def test_creating_a_topic_that_is_there_changes_nothing(log: Log, process: Process) -> None:
    """Every process that uses it may create it first."""
    created = keep(process, Retention(records=5)).result
    again = keep(process, Retention(records=9)).result
    assert isinstance(created, TopicCreated)
    assert isinstance(again, TopicCreated)
    assert (created.created, again.created, again.topic) == (True, False, created.topic)
    assert info(log).retention.records == 5


@pytest.mark.parametrize(
    "operation",
    [
        TopicPublish("/t", b"x" * (PAYLOAD_BYTES_MAX + 1)),
        TopicPublish("/t", b"", b"k" * 2_000),
        TopicPublish("/t", b"", None, (("h", b""),) * (HEADERS_MAX + 1)),
        TopicPublish("/t", b"", None, (("h", b"x" * 20_000),)),
    ],
)
def test_a_message_over_a_bound_is_refused_and_makes_no_topic(log: Log, process: Process, operation: TopicPublish) -> None:
    """A refusal changes nothing."""
    applied = process.call(operation)
    assert code(applied.result) == "LimitExceeded"
    assert applied.records == ()
    assert info(log).topic == 0


@pytest.mark.parametrize("retention", [Retention(bytes=0), Retention(records=0), Retention(age_ms=10), Retention(bytes=2**60)])
def test_a_retention_that_is_none_is_refused(process: Process, retention: Retention) -> None:
    """The bytes are always bounded: the disk is."""
    assert code(keep(process, retention).result) == "InvalidRequest"


def test_a_name_in_use_as_something_else_is_refused(log: Log, process: Process) -> None:
    """A name is bound to one type."""
    process.set("/v", b"value")
    for operation in (TopicPublish("/v", b"x"), TopicCreate("/v"), TopicDelete("/v"), TopicCommit("/v", "g", 0)):
        assert code(process.call(operation).result) == "WrongType"
    assert isinstance(log.machine.query(TopicInfo("/v")), Failed)


# --- retention -------------------------------------------------------------------------------------------------------------------


def test_what_is_kept_by_number_is_at_least_that_and_at_most_a_64th_more(log: Log, process: Process) -> None:
    """Exact below 64."""
    keep(process, Retention(records=10, age_ms=None))
    keep(process, Retention(records=640, age_ms=None), "/u")
    for count in range(1, 900):
        publish(process)
        publish(process, path="/u")
        assert info(log).end - info(log).earliest == min(count, 10)
        assert min(count, 640) <= info(log, "/u").end - info(log, "/u").earliest <= 650


def test_what_is_kept_by_bytes_is_at_most_that_but_always_the_newest(log: Log, process: Process) -> None:
    """Whoever sets a limit of bytes has so much room and no more; a topic that can keep nothing is of no use."""
    keep(process, Retention(bytes=10_000, age_ms=None))
    for _ in range(300):
        publish(process, b"x" * 52)
        assert info(log).bytes <= 10_000
    assert info(log).bytes > 9_000
    publish(process, b"x" * 20_000)
    assert info(log).end - info(log).earliest == 1


def test_what_is_too_old_goes_by_the_clusters_clock_without_another_message(log: Log, process: Process) -> None:
    """A timer of the machine: so every node lets go in the same entry."""
    keep(process, Retention(age_ms=10_000))
    topic = publish(process).topic
    log.wait(5_000)
    publish(process)
    assert log.machine.next_deadline_ms() == log.time_ms + 5_000
    assert log.wait(4_999).trimmed == ()
    assert log.wait(1).trimmed == [(topic, 1)]
    assert log.wait(5_000).trimmed == [(topic, 2)]
    assert (info(log).earliest, info(log).end, info(log).bytes) == (2, 2, 0)
    assert log.machine.next_deadline_ms() is None
    assert publish(process).offset == 2


def test_a_topic_that_may_keep_less_lets_go_at_once(log: Log, process: Process) -> None:
    """Whoever needs room does not want to wait for the next message."""
    keep(process, Retention(records=1_000, age_ms=None))
    topic = publish(process).topic
    for _ in range(99):
        publish(process)
    assert process.call(TopicConfigure("/t", Retention(records=30, age_ms=None))).trimmed == [(topic, info(log).earliest)]
    assert 30 <= info(log).end - info(log).earliest <= 45
    log.wait(1_000)
    process.call(TopicConfigure("/t", Retention(age_ms=1_000)))
    assert info(log).earliest == 100
    assert code(process.call(TopicConfigure("/none", FOREVER)).result) == "NotFound"


@pytest.mark.parametrize("seed", range(5))
def test_segments_stay_few_whatever_is_configured(seed: int) -> None:
    """A topic of any length takes a few kilobytes of memory."""
    draw, time_ms = Random(seed), 0
    kept = Segments(FOREVER)
    for _ in range(8_000):
        time_ms += draw.choice([0, 1, 10, 500])
        kept.append(draw.choice([1, 100, 10_000]), time_ms)
        kept.trim(time_ms)
        if draw.random() < 0.01:
            sizes, counts = draw.choice([10_000, 10**6, 10**9]), draw.choice([None, 10, 1_000])
            kept.configure(Retention(sizes, counts, draw.choice([None, 1_000, 10**6])))
        assert len(kept) <= SEGMENTS_MAX


# --- consumer groups -------------------------------------------------------------------------------------------------------------


def commit(process: Process, offset: int, group: str = "g", *, seek: bool = False) -> int:
    committed = process.call(TopicCommit("/t", group, offset, seek)).result
    assert isinstance(committed, Committed)
    return committed.offset


def test_a_cursor_moves_forward_unless_its_mover_seeks(log: Log, process: Process) -> None:
    """A commit that was held up must not give the group again what it has worked off."""
    for _ in range(10):
        publish(process)
    assert [commit(process, 4), commit(process, 2), commit(process, 7)] == [4, 4, 7]
    assert commit(process, 1, seek=True) == 1
    (cursor,) = info(log).groups
    assert (cursor.name, cursor.committed, cursor.lag, cursor.owner) == ("g", 1, 9, None)


def test_a_cursor_is_never_beyond_the_end(process: Process) -> None:
    """It would skip what is not published yet."""
    publish(process)
    assert commit(process, 1) == 1
    assert code(process.call(TopicCommit("/t", "g", 2)).result) == "InvalidRequest"
    assert code(process.call(TopicCommit("/none", "g", 0)).result) == "NotFound"


def test_only_who_has_claimed_a_group_moves_its_cursor(log: Log, process: Process) -> None:
    """Two processes of one service that both believe to be the consumer: the second is told, and the first is not overtaken."""
    other = log.open()
    publish(process)
    claimed = process.call(TopicClaim("/t", "g", OWNER)).result
    assert isinstance(claimed, Claimed)
    assert claimed == process.call(TopicClaim("/t", "g", OWNER)).result
    assert code(other.call(TopicCommit("/t", "g", 1)).result) == "NotHolder"
    assert code(other.call(TopicCommit("/t", "g", 0, seek=True)).result) == "NotHolder"
    assert code(other.call(TopicGroupDelete("/t", "g")).result) == "NotHolder"
    refused = other.call(TopicClaim("/t", "g", OWNER)).result
    assert isinstance(refused, ClaimRefused)
    assert commit(process, 1) == 1
    taken = other.call(TopicClaim("/t", "g", OWNER, takeover=True)).result
    assert isinstance(taken, Claimed)
    assert taken.token > claimed.token
    assert taken.committed == 1
    assert code(process.call(TopicCommit("/t", "g", 1)).result) == "NotHolder"


@pytest.mark.parametrize("end", ["close", "expire", "close_attachment", "release", "cancel"])
def test_a_claim_ends_with_its_attachment_and_what_was_committed_stays(log: Log, process: Process, end: str) -> None:
    """The next consumer goes on where the dead one was."""
    other = log.open()
    publish(process)
    process.call(TopicClaim("/t", "g", OWNER))
    request = process.last_request
    process.call(TopicClaim("/t", "fresh", OWNER))
    commit(process, 1)
    state = log.machine.query(SessionInfo(process.session))
    assert isinstance(state, SessionState)
    assert state.holdings == 2
    match end:
        case "release":
            process.call(TopicRelease("/t", "g"))
            process.call(TopicRelease("/t", "fresh"))
        case "cancel":
            process.cancel(request)
            process.cancel(request + 1)
            assert isinstance(process.send(request, TopicClaim("/t", "g", OWNER)).result, NotGranted)
        case _:
            getattr(process, end)()
    assert [(cursor.name, cursor.committed, cursor.owner) for cursor in info(log).groups] == [("g", 1, None)]
    assert isinstance(other.call(TopicClaim("/t", "g", OWNER)).result, Claimed)


def test_groups_of_a_topic_are_bounded_and_can_be_forgotten(log: Log, process: Process) -> None:
    """Names made from host names pile up."""
    publish(process)
    for number in range(TOPIC_GROUPS_MAX):
        commit(process, 0, f"g{number}")
    assert code(process.call(TopicCommit("/t", "one more", 0)).result) == "LimitExceeded"
    assert code(process.call(TopicClaim("/t", "one more", OWNER)).result) == "LimitExceeded"
    process.call(TopicGroupDelete("/t", "g7"))
    assert commit(process, 1, "one more") == 1
    assert code(process.call(TopicCommit("/t", "", 0)).result) == "InvalidRequest"


def test_deleting_a_topic_ends_its_groups_and_claims(log: Log, process: Process) -> None:
    """What was claimed is held by nobody any more."""
    publish(process)
    process.call(TopicClaim("/t", "g", OWNER))
    process.call(TopicDelete("/t"))
    publish(process)
    assert info(log).groups == ()
    process.close()


# --- looking ---------------------------------------------------------------------------------------------------------------------


def place(log: Log, start: int, ago_ms: int | None = None, path: str = "/t") -> TopicFetched:
    placed = log.machine.topics.place(TopicFetch(path, start, ago_ms=ago_ms), log.time_ms)
    assert isinstance(placed, TopicFetched)
    return placed


def test_a_fetch_begins_with_what_is_kept(log: Log, process: Process) -> None:
    """What retention has passed is left out; what is not there yet is waited for."""
    keep(process, Retention(records=10, age_ms=None))
    for _ in range(30):
        publish(process)
    starts = [place(log, start).next for start in (EARLIEST, 0, 5, 25, 30, 99, LATEST)]
    assert starts == [20, 20, 20, 25, 30, 30, 30]
    assert place(log, 0, path="/none").topic == 0
    assert isinstance(log.machine.query(TopicFetch("/t", -3)), Failed)
    assert isinstance(log.machine.query(TopicFetch("/t", 0, records_max=0)), Failed)


def test_a_fetch_by_time_begins_at_or_little_before_it(log: Log, process: Process) -> None:
    """At the beginning of a segment: never too late."""
    keep(process, Retention(age_ms=64_000))
    for _ in range(60):
        publish(process)
        log.time_ms += 1_000
    for ago_s in range(60):
        assert 60 - ago_s - 2 <= place(log, 0, ago_s * 1_000).next <= 60 - ago_s
    assert place(log, 0, 10**9).next == 0


def test_topics_are_listed_in_order_by_prefix_in_pieces(log: Log, process: Process) -> None:
    """A dashboard pages through them."""
    for path in ("/b/2", "/a", "/b", "/b/1", "/c", "/b/3"):
        publish(process, path=path)

    def listed(prefix: str, after: str = "", limit: int = 100) -> tuple[list[str], bool]:
        listing = log.machine.query(TopicList(prefix, after, limit))
        assert isinstance(listing, TopicListing)
        return [topic.path for topic in listing.topics], listing.more

    assert listed("/") == (["/a", "/b", "/b/1", "/b/2", "/b/3", "/c"], False)
    assert listed("/b/", limit=2) == (["/b/1", "/b/2"], True)
    assert listed("/b/", "/b/2", 2) == (["/b/3"], False)
    process.call(TopicDelete("/b/1"))
    assert listed("/b") == (["/b", "/b/2", "/b/3"], False)


@pytest.mark.parametrize("seed", range(8))
def test_records_that_come_out_are_those_that_the_state_says_there_are(seed: int) -> None:
    """A store that follows `records` and `trimmed` has of every topic exactly the offsets from its earliest to its end."""
    traffic, log = TopicTraffic(seed), Log()
    stored: dict[int, list[int]] = {}
    for _ in range(800):
        log.time_ms, command = traffic.next()
        applied = log.apply(command)
        traffic.hear(command, applied)
        for topic, record in applied.records:
            offsets = stored.setdefault(topic, [])
            assert not offsets or record.offset == offsets[-1] + 1
            offsets.append(record.offset)
        for topic, earliest in applied.trimmed:
            stored[topic] = [] if earliest is None else [offset for offset in stored[topic] if offset >= earliest]
        kept = {topic: list(range(earliest, end)) for topic, earliest, end in log.machine.logs.ranges()}
        assert {topic: offsets for topic, offsets in stored.items() if offsets} == {t: o for t, o in kept.items() if o}
