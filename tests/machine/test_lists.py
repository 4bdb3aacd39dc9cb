"""Lists of locks and sessions come in parts that are small and quick."""

import pytest

from coord_core.machine import lists
from coord_core.protocol.locks import ListCursor, ListedLock, LockList, LockParty, LockRows, SessionList, SessionRows
from coord_core.protocol.messages import CLIENT_FRAME_BYTES_MAX, Told
from coord_core.protocol.operations import LockRelease, Owner
from coord_core.types import FencingToken, SessionId
from coord_core.wire.codec import encode_messages
from tests.machine.driver import OWNER, Log


def parts(log: Log, prefix: str = "", rows_max: int = 500) -> list[LockRows]:
    """Ask until there is no more."""
    found, cursor = [], ListCursor()
    while True:
        answer = log.machine.query(LockList(prefix, rows_max, cursor))
        assert isinstance(answer, LockRows)
        found.append(answer)
        if answer.next is None:
            return found
        cursor = answer.next


@pytest.mark.parametrize("rows_max", [-5, 1, 7, 500])
def test_every_lock_and_semaphore_is_told_once_however_small_the_parts(rows_max: int) -> None:
    """And nothing else: values and rate limiters hold nothing for anybody."""
    log = Log()
    process = log.open()
    for number in range(60):
        process.hold(f"/locks/{number}")
        process.taken(path=f"/semaphores/{number}")
        process.set(f"/values/{number}", b"")
    process.spend()
    found = parts(log, rows_max=rows_max)
    assert all(len(part.rows) <= max(1, rows_max) for part in found)
    paths = [row.path for part in found for row in part.rows]
    assert sorted(paths) == sorted(f"/{kind}/{number}" for kind in ("locks", "semaphores") for number in range(60))
    assert sorted(row.path for part in parts(log, "/locks/1") for row in part.rows) == sorted(
        f"/locks/{number}" for number in (1, *range(10, 20))
    )


def test_a_row_says_who_holds_since_when_and_how_many_wait() -> None:
    """What an operator looks for first, of both kinds; a closed lock says until when."""
    log = Log()
    holder, waiter = log.open(), log.open()
    token = holder.hold("/l")
    waiter.acquire("/l")
    permits = holder.taken(2, 3)
    log.wait(20)
    rows = {row.path: row for part in parts(log) for row in part.rows}
    party = LockParty(holder.session, holder.attachment, OWNER, 20, token)
    assert rows["/l"] == ListedLock("/l", "lock", 1, 1, party, 1)
    assert rows["/s"] == ListedLock("/s", "semaphore", 3, 2, LockParty(holder.session, holder.attachment, OWNER, 20, permits), 0)
    holder.call(LockRelease("/l", token, 50))
    (row,) = parts(log, "/l")[0].rows or parts(log, "/l")[-1].rows
    assert (row.holder, row.taken) == (None, 0)
    assert row.closed is not None
    assert row.closed.left_ms == 50


def test_a_part_looks_at_a_bounded_number_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix that fits nothing must not make the node look at two million names in one turn."""
    monkeypatch.setattr(lists, "NAMES_LISTED_MAX", 10)
    log = Log()
    process = log.open()
    for number in range(200):
        process.hold(f"/l/{number}")
    found = parts(log, "/nothing")
    assert len(found) > 10
    assert not any(part.rows for part in found)


def test_the_largest_part_fits_into_a_frame() -> None:
    """500 locks with the longest names and owners."""
    log = Log()
    process = log.open(owner=Owner("h" * 255, 2**53 - 1, "l" * 512))
    owner = Owner("h" * 255, 2**53 - 1, "l" * 512)
    for number in range(501):
        process.acquire(f"/{number:0511}", owner=owner)
    for _ in range(501):
        log.open(owner=owner)
    rows = parts(log)[0]
    assert len(rows.rows) == 500
    assert len(encode_messages([Told(1, rows)])) < CLIENT_FRAME_BYTES_MAX
    sessions = log.machine.query(SessionList())
    assert isinstance(sessions, SessionRows)
    assert (len(sessions.rows), sessions.more) == (500, True)
    assert len(encode_messages([Told(1, sessions)])) < CLIENT_FRAME_BYTES_MAX


def test_sessions_come_in_order_with_what_they_hold() -> None:
    """Whose session it is says its first process."""
    log = Log()
    first, second = log.open(owner=Owner("host-7", 1, "web")), log.open()
    first.attach().hold("/l")
    second.taken(path="/s")
    second.hold("/m")
    one = log.machine.query(SessionList(rows_max=1))
    assert isinstance(one, SessionRows)
    (row,) = one.rows
    assert (row.session, row.owner, row.attachments, row.holdings, one.more) == (
        first.session,
        Owner("host-7", 1, "web"),
        2,
        1,
        True,
    )
    two = log.machine.query(SessionList(row.session))
    assert isinstance(two, SessionRows)
    assert [(row.session, row.holdings) for row in two.rows] == [(second.session, 2)]
    assert (two.more, log.machine.query(SessionList(SessionId(second.session)))) == (False, SessionRows((), False))


def test_a_cursor_of_another_world_ends_the_list() -> None:
    """Whatever a client sends is answered."""
    log = Log()
    log.open().hold("/l")
    for cursor in (ListCursor(10**9), ListCursor(-1), ListCursor(3, "\ud800")):
        assert isinstance(log.machine.query(LockList("", 10, cursor)), LockRows)
    assert FencingToken(0) == 0
