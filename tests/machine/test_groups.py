"""The group: who is there, who came and who went, and a join that waits for the others (spec: DistributedMembershipGroup)."""

import pytest

from coord_core.machine import groups
from coord_core.machine import names as names_module
from coord_core.protocol.groups import (
    MEMBER_METADATA_BYTES_MAX,
    GroupInfo,
    GroupJoin,
    GroupLeave,
    GroupState,
    GroupUpdate,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
)
from coord_core.protocol.operations import Cancel
from coord_core.protocol.results import Done, Result
from coord_core.types import MemberId, RequestNumber
from tests.machine.driver import OWNER, Log, Process, code
from tests.machine.test_snapshot import restored, written


@pytest.fixture
def log() -> Log:
    return Log()


def leave(process: Process, member: int) -> Result | None:
    return process.call(GroupLeave("/g", MemberId(member))).result


def test_members_are_listed_in_the_order_in_which_they_joined(log: Log) -> None:
    """A member's number is the index of its join, so it is nobody else's, ever."""
    one, two = log.open().join(), log.open().join()
    assert log.members() == [one.member, two.member]
    assert int(two.member) == log.index


def test_member_has_its_metadata_and_owner(log: Log) -> None:
    """What others need to reach it, and people to find it."""
    process = log.open()
    process.join(metadata=b"port 80")
    log.wait(70)
    state = log.machine.query(GroupInfo("/g"))
    assert isinstance(state, GroupState)
    (member,) = state.members
    assert (member.session, member.attachment, member.owner) == (process.session, process.attachment, OWNER)
    assert (member.metadata, member.since_ms) == (b"port 80", 70)


def test_join_names_those_who_were_subscribed_before_as_its_audience(log: Log) -> None:
    """They are to be told before it completes: members, and who only listens."""
    first = log.open().join()
    listener = log.open().subscribe("group", "/g")
    log.open().subscribe("group", "/other")
    joined = log.open().join(announce_ms=30_000)
    assert (joined.revision, joined.wait_ms) == (log.index, 30_000)
    assert list(map(int, joined.audience)) == [first.member, listener]
    assert joined.unacknowledged == ()


def test_join_that_does_not_wait_has_no_audience(log: Log) -> None:
    """Who does not wait asks for no answer's delay, and no room in its cache."""
    log.open().join()
    assert log.open().join(announce_ms=0).audience == ()


def test_join_out_of_a_listener_does_not_wait_for_its_own_session(log: Log) -> None:
    """The listener cannot return before the join does."""
    other = log.open().join()
    process = log.open()
    process.join()
    joined = process.attach().join(announce_ms=1, from_listener=True)
    assert list(map(int, joined.audience)) == [other.member]


def test_joins_leaves_and_updates_are_told(log: Log) -> None:
    """One record each, with what is needed to follow the group."""
    first = log.open().join()
    process = log.open()
    second = process.join(metadata=b"a")
    process.call(GroupUpdate("/g", second.member, b"b"))
    leave(process, second.member)
    told = [change for _, _, changes in log.read("group", "/g", first.member) for change in changes]
    assert isinstance(told[0], MemberJoined)
    assert told[0].member.member == second.member
    assert told[1:] == [MemberUpdated(second.member, b"b"), MemberLeft(second.member, "left")]


@pytest.mark.parametrize(("end", "reason"), [("expire", "expired"), ("close", "closed"), ("close_attachment", "closed")])
def test_member_leaves_with_its_process_and_others_are_told_why(log: Log, end: str, reason: str) -> None:
    """A dead member is out in the entry that ends its session."""
    first = log.open().join()
    process = log.open()
    second = process.join()
    getattr(process, end)()
    assert log.members() == [first.member]
    assert log.read("group", "/g", second.member)[0][2] == (MemberLeft(second.member, reason),)


def test_leaving_twice_is_fine_and_for_another_is_refused(log: Log) -> None:
    """A resend finds it done; a mistake throws nobody out."""
    one, two = log.open(), log.open()
    first = one.join()
    assert code(leave(two, first.member)) == "NotHolder"
    assert leave(one, first.member) == Done()
    assert leave(one, first.member) == Done()
    assert code(one.call(GroupUpdate("/g", first.member, b"")).result) == "NotHolder"


def test_cancelled_join_is_undone(log: Log) -> None:
    """Its caller turned away: nobody would answer for that member."""
    first = log.open().join()
    process = log.open()
    second = process.join()
    process.call(Cancel(RequestNumber(process.last_request)))
    assert log.members() == [first.member]
    assert log.read("group", "/g", second.member)[0][2] == (MemberLeft(second.member, "left"),)


def test_cancelled_join_weighs_nothing_any_more(log: Log) -> None:
    """Its answer named an audience, which counts towards the attachment's bound only while it is kept: what went on counting would
    refuse requests on this node that one from a snapshot accepts.
    """
    for _ in range(3):
        log.open().join()
    process = log.open()
    assert len(process.join(announce_ms=1_000).audience) == 3
    process.call(Cancel(RequestNumber(1)))
    window = log.machine._sessions.attachment(process.attachment).window
    assert window._value_bytes == 0
    copy = restored(written(log.machine))._sessions.attachment(process.attachment).window
    assert copy._value_bytes == window._value_bytes


def test_empty_group_is_gone(log: Log) -> None:
    """Names do not pile up."""
    process = log.open()
    leave(process, process.join().member)
    assert process.set("/g", b"now a value") is not None
    assert log.value("/g").value == b"now a value"


def test_bounds_of_a_group(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is told of a group goes into one frame."""
    process = log.open()
    assert code(process.call(GroupJoin("/g", bytes(MEMBER_METADATA_BYTES_MAX + 1), OWNER, 0)).result) == "LimitExceeded"
    assert code(process.call(GroupJoin("/g", b"", OWNER, -1)).result) == "InvalidRequest"
    monkeypatch.setattr(groups, "GROUP_BYTES_MAX", 300)
    member = process.join().member
    process.join()
    assert code(process.call(GroupJoin("/g", bytes(200), OWNER, 0)).result) == "LimitExceeded"
    assert code(process.call(GroupUpdate("/g", member, bytes(200))).result) == "LimitExceeded"
    monkeypatch.setattr(groups, "MEMBERS_PER_GROUP_MAX", 2)
    assert code(process.call(GroupJoin("/g", b"", OWNER, 0)).result) == "LimitExceeded"


def test_join_that_finds_no_room_for_its_names_leaves_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group without members would stay for ever."""
    process = log.open()
    monkeypatch.setattr(names_module, "NAMES_MAX", 1)
    assert code(process.call(GroupJoin("/g", b"", OWNER, 0)).result) == "LimitExceeded"
    assert log.members() == []


def test_snapshot_has_the_group(log: Log) -> None:
    """Members, their order and their subscriptions are the same on a node that is made from it."""
    process = log.open()
    first, second = process.join(metadata=b"x"), log.open().join()
    twin = Log()
    twin.machine, twin.index, twin.time_ms = restored(written(log.machine)), log.index, log.time_ms
    assert twin.members() == [first.member, second.member]
    process.log = twin
    process.expire()
    assert twin.members() == [second.member]
