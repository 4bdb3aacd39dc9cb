"""Calls of members: from asking to the result, and what becomes of them when somebody ends."""

import pytest

from coord_core.machine import Machine, works
from coord_core.machine.bounds import WORK_BYTES_PER_MEMBER_MAX
from coord_core.protocol.groups import GroupJoin
from coord_core.protocol.results import Done, Failed, Result
from coord_core.protocol.streams import Joined, Subscribe
from coord_core.protocol.works import (
    WORK_DATA_BYTES_MAX,
    WorkAwait,
    WorkBegin,
    WorkCancel,
    WorkDone,
    WorkDue,
    WorkFinish,
    WorkScheduled,
    WorkSubmit,
)
from coord_core.types import MemberId, WorkId
from tests.machine.driver import OWNER, Log, Process, code


class Callee:
    """A process whose member takes calls."""

    def __init__(self, log: Log, process: Process | None = None) -> None:
        self.log = log
        self.process = process or log.open()
        joined = self.process.call(GroupJoin("/g", b"", OWNER, 0, False, True)).result
        assert isinstance(joined, Joined)
        self.member = joined.member
        self.process.subscribe("work", f"/g@{self.member}")
        self._since = log.index

    def told(self) -> list[WorkDue]:
        """Return what it was told to do so far."""
        found = self.log.read("work", f"/g@{self.member}", self._since)
        return [change for _, _, changes in found for change in changes if isinstance(change, WorkDue)]

    def begin(self, work: WorkId) -> Result | None:
        return self.process.call(WorkBegin("/g", self.member, work)).result

    def finish(self, work: WorkId, result: bytes = b"done", error: str = "") -> "list[tuple[int, int, Result]]":
        return list(self.process.call(WorkFinish("/g", self.member, work, result, error)).replies)


def submit(process: Process, member: MemberId, *, delay_ms: int | None = None, retry: bool = False) -> Result | None:
    return process.call(WorkSubmit("/g", member, "rebuild", b"arguments", delay_ms, retry)).result


def scheduled(process: Process, member: MemberId, delay_ms: int = 1_000, *, retry: bool = False) -> WorkId:
    result = submit(process, member, delay_ms=delay_ms, retry=retry)
    assert isinstance(result, WorkScheduled)
    return result.work


def test_call_is_told_to_its_member_alone_and_its_result_to_its_caller() -> None:
    log = Log()
    caller, callee, other = log.open(), Callee(log), Callee(log)
    assert submit(caller, callee.member) is None
    (due,) = callee.told()
    assert (due.name, due.arguments) == ("rebuild", b"arguments")
    assert other.told() == []
    assert callee.begin(due.work) == Done()
    assert callee.finish(due.work) == [(caller.attachment, caller.last_request, WorkDone(due.work, b"done", "", ""))]
    assert callee.finish(due.work) == []


def test_work_is_begun_once() -> None:
    """A member that is told twice, after a lost connection, must not call twice."""
    log = Log()
    caller, callee = log.open(), Callee(log)
    submit(caller, callee.member)
    (due,) = callee.told()
    callee.begin(due.work)
    assert code(callee.begin(due.work)) == "NotFound"


def test_only_its_member_begins_and_finishes_it() -> None:
    log = Log()
    caller, callee, other = log.open(), Callee(log), Callee(log)
    submit(caller, callee.member)
    (due,) = callee.told()
    assert code(other.begin(due.work)) == "NotFound"
    assert other.finish(due.work) == []
    assert code(caller.call(WorkBegin("/g", callee.member, due.work)).result) == "NotHolder"


def test_caller_of_a_member_that_leaves_before_it_begins_knows_that_nothing_was_done() -> None:
    log = Log()
    caller, callee, _ = log.open(), Callee(log), Callee(log)
    submit(caller, callee.member)
    ((_, _, answer),) = callee.process.expire().replies
    assert isinstance(answer, Failed)
    assert answer.code == "NotFound"


def test_caller_of_a_member_that_ends_after_it_has_begun_does_not_know() -> None:
    log = Log()
    caller, callee = log.open(), Callee(log)
    submit(caller, callee.member)
    callee.begin(callee.told()[0].work)
    ((attachment, request, answer),) = callee.process.expire().replies
    assert (attachment, request) == (caller.attachment, caller.last_request)
    assert isinstance(answer, Failed)
    assert answer.code == "OutcomeUnknown"


@pytest.mark.parametrize("begun", [False, True])
def test_what_may_be_done_twice_goes_to_the_next_member(begun: bool) -> None:
    log = Log()
    caller, first, second = log.open(), Callee(log), Callee(log)
    submit(caller, first.member, retry=True)
    (due,) = first.told()
    if begun:
        first.begin(due.work)
    assert first.process.expire().replies == []
    assert [it.work for it in second.told()] == [due.work]
    assert second.begin(due.work) == Done()
    assert len(second.finish(due.work)) == 1


def test_work_that_moves_on_goes_to_members_that_have_room_for_it() -> None:
    """What a member is to do must go into one frame, from wherever it came; what nobody has room for is not done."""
    log = Log()
    first, second, third = Callee(log), Callee(log), Callee(log)
    caller = log.open()

    def fill(member: MemberId, most: int) -> int:
        large = WorkSubmit("/g", member, "rebuild", bytes(WORK_DATA_BYTES_MAX), 0, True)
        answers = [caller.call(large).result for _ in range(most)]
        return sum(isinstance(answer, WorkScheduled) for answer in answers)

    full = fill(first.member, 40)
    assert full < 40
    assert fill(second.member, full // 2) == full // 2
    first.process.expire()
    states = [log.machine._groups._due(f"/g@{callee.member}") for callee in (second, third)]
    assert [len(state.due) for state in states if not isinstance(state, Failed)] == [full, full // 2]
    second.process.expire()
    state = log.machine._groups._due(f"/g@{third.member}")
    assert not isinstance(state, Failed)
    assert len(state.due) == full, "and the others have failed"


def test_scheduled_work_is_told_when_its_time_has_come() -> None:
    log = Log()
    caller, callee = log.open(), Callee(log)
    work = scheduled(caller, callee.member, 5_000)
    assert caller.call(WorkAwait("/g", work)).result is None
    log.wait(4_999)
    assert callee.told() == []
    log.wait(1)
    assert [due.work for due in callee.told()] == [work]
    callee.begin(work)
    assert callee.finish(work, b"", "ValueError") == [
        (caller.attachment, caller.last_request, WorkDone(work, b"", "ValueError", ""))
    ]


def test_result_of_scheduled_work_waits_for_whoever_submitted_it() -> None:
    """Once: then it is forgotten, and the group keeps nothing of it."""
    log = Log()
    caller, callee = log.open(), Callee(log)
    before = log.machine._groups.state()
    work = scheduled(caller, callee.member, 0)
    callee.begin(work)
    callee.finish(work, b"42")
    assert caller.call(WorkAwait("/g", work)).result == WorkDone(work, b"42", "", "")
    assert code(caller.call(WorkAwait("/g", work)).result) == "NotFound"
    assert code(log.open().call(WorkAwait("/g", work)).result) == "NotFound"
    assert log.machine._groups.state() == before


def test_result_that_nobody_asked_for_goes_with_the_group() -> None:
    """Whoever submitted it may end long after the last member."""
    log = Log()
    caller, callee = log.open(), Callee(log)
    work = scheduled(caller, callee.member, 0)
    callee.begin(work)
    callee.finish(work)
    callee.process.expire()
    assert code(caller.call(WorkAwait("/g", work)).result) == "NotFound"
    caller.expire()


def test_scheduled_work_is_done_though_its_submitter_is_gone_and_a_call_is_not() -> None:
    log = Log()
    caller, callee = log.open(), Callee(log)
    before = log.machine._groups.state()
    submit(caller, callee.member)
    (called,) = callee.told()
    work = scheduled(caller, callee.member)
    caller.expire()
    assert code(callee.begin(called.work)) == "NotFound"
    log.wait(1_000)
    assert callee.begin(work) == Done()
    callee.finish(work)
    assert log.machine._groups.state() == before


def test_cancelled_work_is_not_begun() -> None:
    log = Log()
    caller, callee = log.open(), Callee(log)
    work = scheduled(caller, callee.member)
    assert caller.call(WorkCancel("/g", work)).result == Done()
    log.wait(2_000)
    assert callee.told() == []
    begun = scheduled(caller, callee.member, 0)
    callee.begin(begun)
    assert code(caller.call(WorkCancel("/g", begun)).result) == "NotFound"


def test_call_that_was_given_up_is_not_begun_and_one_that_was_begun_tells_nobody() -> None:
    log = Log()
    caller, callee = log.open(), Callee(log)
    submit(caller, callee.member)
    caller.cancel(caller.last_request)
    (due,) = callee.told()
    assert code(callee.begin(due.work)) == "NotFound"
    submit(caller, callee.member)
    due = callee.told()[-1]
    callee.begin(due.work)
    caller.cancel(caller.last_request)
    assert callee.finish(due.work) == []


def test_who_stops_waiting_for_scheduled_work_may_ask_again() -> None:
    log = Log()
    caller, callee = log.open(), Callee(log)
    work = scheduled(caller, callee.member, 0)
    caller.call(WorkAwait("/g", work))
    caller.cancel(caller.last_request)
    callee.begin(work)
    assert callee.finish(work, b"42") == []
    assert caller.call(WorkAwait("/g", work)).result == WorkDone(work, b"42", "", "")


def test_who_is_no_member_or_takes_no_calls_is_not_called() -> None:
    log = Log()
    caller = log.open()
    assert code(submit(caller, MemberId(7))) == "NotFound"
    silent = log.open().join("/g")
    assert code(submit(caller, silent.member)) == "InvalidRequest"


def test_what_a_member_has_not_begun_is_told_anew_to_one_who_fell_behind() -> None:
    """The state of its stream: what is due and not begun."""
    log = Log()
    caller, callee = log.open(), Callee(log)
    submit(caller, callee.member)
    submit(caller, callee.member)
    scheduled(caller, callee.member)
    first, second = callee.told()
    callee.begin(first.work)
    state = log.machine._groups._due(f"/g@{callee.member}")
    assert not isinstance(state, Failed)
    assert state.due == (second,)


@pytest.mark.parametrize("path", ["", "@", "g@7", "/g", "/g@", "/g@x", "/g@\u0663", f"/{'g' * 600}@7", f"/g@{'7' * 40}"])
def test_stream_of_what_cannot_be_a_member_is_refused(path: str) -> None:
    """Its name would be kept for as long as somebody is subscribed, however long it is."""
    assert code(Log().open().call(Subscribe("work", path)).result) in ("InvalidRequest", "LimitExceeded")


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one member's work in bytes, of one group's in number; of arguments and results."""
    monkeypatch.setattr(works, "WORKS_PER_GROUP_MAX", 40)
    log = Log()
    caller, callee, other = log.open(), Callee(log), Callee(log)
    large = WorkSubmit("/g", callee.member, "rebuild", bytes(WORK_DATA_BYTES_MAX), 1_000)
    refused = [caller.call(large).result for _ in range(WORK_BYTES_PER_MEMBER_MAX // WORK_DATA_BYTES_MAX)]
    assert code(refused[-1]) == "LimitExceeded"
    assert code(caller.call(WorkSubmit("/g", other.member, "x", bytes(WORK_DATA_BYTES_MAX + 1), 0)).result) == "LimitExceeded"
    results = [scheduled(log.open(), other.member) for _ in range(40 - len(refused) + 1)]
    assert code(submit(log.open(), other.member, delay_ms=1)) == "LimitExceeded"
    fault = other.process.call(WorkFinish("/g", other.member, results[0], bytes(WORK_DATA_BYTES_MAX + 1))).result
    assert code(fault) == "LimitExceeded"


def test_snapshot_has_it_all() -> None:
    log = Log()
    caller, callee = log.open(), Callee(log)
    submit(caller, callee.member)
    callee.begin(callee.told()[0].work)
    scheduled(caller, callee.member, 5_000)
    done = scheduled(caller, callee.member, 0)
    callee.begin(done)
    callee.finish(done, b"42")
    snapshot = log.machine.begin_snapshot(chunk_bytes=64)
    chunks = []
    while not snapshot.done:
        chunks += snapshot.step(1)
    restored = Machine.restore(chunks)
    assert restored.digest() == log.machine.digest()
