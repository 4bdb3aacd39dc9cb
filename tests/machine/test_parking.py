"""Parking: pieces of work that wait outside of a lock's queue, and are called when it is free (ADR 14)."""

from random import Random
from typing import Any

import pytest

from coord_core.machine import Machine, bounds
from coord_core.protocol.commands import Call
from coord_core.protocol.operations import LockAcquire, LockRelease
from coord_core.protocol.parking import (
    MESSAGE_BYTES_MAX,
    WAITING_MAX,
    Delivery,
    Park,
    Parked,
    ParkedList,
    ParkedListing,
    ParkingClaim,
    ParkingCommit,
    ParkingFetch,
    ParkingFetched,
    ParkingFull,
    ParkingInfo,
    ParkingRelease,
    ParkingState,
    Unpark,
    Unparked,
)
from coord_core.protocol.results import Done
from coord_core.protocol.semaphores import SemaphoreSetLimit
from coord_core.protocol.topics import Claimed, ClaimRefused, Committed, MessagePublished
from coord_core.types import LogIndex, RequestNumber
from tests.machine.driver import OWNER, Log, Process, code
from tests.machine.test_snapshot import restored, written
from tests.machine.traffic import ParkingTraffic

LOT = "/lot"


@pytest.fixture
def log() -> Log:
    return Log()


def park(process: Process, name: str, key: str = "k", gate: str = "/l", message: bytes = b"m", **more: Any) -> Any:
    return process.call(Park(LOT, key, name, message, gate, **more)).result


def unpark(process: Process, name: str, key: str = "k") -> Any:
    return process.call(Unpark(LOT, key, name)).result


def consume(process: Process) -> Claimed:
    claimed = process.call(ParkingClaim(LOT, OWNER)).result
    assert isinstance(claimed, Claimed)
    return claimed


def commit(process: Process, offset: int) -> Any:
    return process.call(ParkingCommit(LOT, offset)).result


def placed(log: Log, start: int = 0) -> list[Delivery]:
    found = log.machine.parking.place(ParkingFetch(LOT, start))
    assert isinstance(found, tuple)
    return [each.delivery for each in found[1]]


def called(log: Log) -> list[str]:
    """The ids of what is called and not committed, in order."""
    return [delivery.id for delivery in placed(log)]


def waiting(log: Log, key: str = "k") -> list[str]:
    found = log.machine.query(ParkedList(LOT, key))
    assert isinstance(found, ParkedListing)
    assert found.total == len(found.pieces)
    return [piece.id for piece in found.pieces]


def info(log: Log) -> ParkingState:
    found = log.machine.query(ParkingInfo(LOT))
    assert isinstance(found, ParkingState)
    return found


def run(log: Log, consumer: Process, runner: Process) -> str:
    """Let the first piece that is called be committed, take the lock and give it back; return its id."""
    first = placed(log)[0]
    assert commit(consumer, first.offset + 1) == Committed(first.offset + 1)
    runner.release(runner.hold())
    return first.id


# --- calling ---------------------------------------------------------------------------------------------------------------------


def test_a_piece_waits_while_the_lock_is_held_and_is_called_in_the_entry_that_frees_it(log: Log) -> None:
    """Nothing has to be sent by anybody between the release and the call."""
    holder, worker = log.open(), log.open()
    token = holder.hold()
    assert park(worker, "one") == Parked(0, called=False, is_new=True)
    assert park(worker, "two") == Parked(1, called=False, is_new=True)
    assert (called(log), waiting(log)) == ([], ["one", "two"])
    holder.release(token)
    assert (called(log), waiting(log)) == (["one"], ["two"])


@pytest.mark.parametrize("end", [Process.expire, Process.close, Process.close_attachment])
def test_a_holder_that_dies_calls_the_next(log: Log, end: Any) -> None:
    """Nothing stays parked behind a SIGKILL."""
    holder, worker = log.open(), log.open()
    holder.hold()
    park(worker, "one")
    end(holder)
    assert called(log) == ["one"]


def test_a_lock_that_is_broken_or_opens_calls_the_next(log: Log) -> None:
    """Every way in which it becomes free."""
    holder, worker = log.open(), log.open()
    token = holder.hold()
    park(worker, "one")
    holder.break_lock(token)
    assert called(log) == ["one"]
    other = holder.hold("/other", delay_ms=50)
    park(worker, "two", "key two", "/other")
    assert other
    holder.expire()
    assert called(log) == ["one"], "it is closed"
    log.wait(50)
    assert called(log) == ["one", "two"]


def test_what_is_parked_when_the_lock_is_free_is_called_at_once(log: Log) -> None:
    """The release came between the failed try and the parking: no wake-up is lost."""
    worker = log.open()
    assert park(worker, "one") == Parked(0, called=True, is_new=True)
    assert called(log) == ["one"]
    assert park(worker, "two") == Parked(0, called=False, is_new=True), "one at a time, in order"


def test_a_lock_that_goes_from_waiter_to_waiter_is_not_free(log: Log) -> None:
    """Who stands in its queue has it first."""
    first, second, worker = log.open(), log.open(), log.open()
    token = first.hold()
    second.acquire()
    park(worker, "one")
    first.release(token)
    assert called(log) == []
    second.close()
    assert called(log) == ["one"]


def test_each_piece_is_run_once_and_in_order(log: Log) -> None:
    """Committed, granted, released: the next; and nothing is left of any of them at the end."""
    holder, worker, consumer = log.open(), log.open(), log.open()
    consume(consumer)
    token = holder.hold()
    names = [f"piece {number}" for number in range(20)]
    for name in names:
        park(worker, name)
    holder.release(token)
    assert [run(log, consumer, worker) for _ in names] == names
    consumer.call(ParkingRelease(LOT))
    assert len(log.machine._names) == 0
    assert not log.machine.logs


def test_the_next_is_not_called_before_the_last_is_committed_and_has_come(log: Log) -> None:
    """Else all of them were on their way through the broker at once."""
    worker, consumer = log.open(), log.open()
    consume(consumer)
    for name in ("one", "two"):
        park(worker, name)
    commit(consumer, 1)
    assert called(log) == [], "it has not come yet"
    token = worker.hold()
    assert called(log) == []
    worker.release(token)
    assert called(log) == ["two"]


def test_what_came_before_its_commit_arrived_is_not_waited_for(log: Log) -> None:
    """It was sent, ran, and only then its consumer's commit got through."""
    worker, consumer = log.open(), log.open()
    consume(consumer)
    for name in ("one", "two"):
        park(worker, name)
    worker.release(worker.hold())
    assert called(log) == ["one"]
    commit(consumer, 1)
    assert called(log) == ["two"]


def test_a_piece_that_never_comes_is_waited_for_as_long_as_its_grace_and_no_longer(log: Log) -> None:
    """Revoked, or lost by the broker: the lock is not reserved, and the others do not wait for ever."""
    worker, consumer = log.open(), log.open()
    consume(consumer)
    park(worker, "one", grace_ms=500)
    park(worker, "two")
    log.wait(10_000)
    assert called(log) == ["one"], "without a consumer it is not on its way"
    commit(consumer, 1)
    log.wait(499)
    assert called(log) == []
    log.wait(1)
    assert called(log) == ["two"]


def test_a_piece_that_was_overtaken_is_the_first_again_however_full_the_bay_is(log: Log) -> None:
    """Somebody was faster to the lock; it must not stand behind all who came after it."""
    worker, other, consumer = log.open(), log.open(), log.open()
    consume(consumer)
    for name in ("one", "two", "three"):
        park(worker, name)
    commit(consumer, 1)
    token = other.hold()
    assert park(worker, "one", waiting_max=2) == Parked(0, called=False, is_new=True)
    assert waiting(log) == ["one", "two", "three"]
    other.release(token)
    assert called(log) == ["one"]


def test_a_piece_that_comes_back_before_its_commit_is_kept(log: Log) -> None:
    """It was sent and found the lock taken, and its consumer commits a moment later: that must not be the end of it."""
    worker, other, consumer = log.open(), log.open(), log.open()
    consume(consumer)
    park(worker, "one")
    token = other.hold()
    assert park(worker, "one", message=b"again") == Parked(0, called=False, is_new=True)
    assert called(log) == [], "nobody else is handed it meanwhile"
    assert commit(consumer, 1) == Committed(1)
    assert waiting(log) == ["one"]
    other.release(token)
    assert called(log) == ["one"]


def test_keys_do_not_wait_for_each_other(log: Log) -> None:
    """Of two keys with one lock each has its turn; a key with another lock has nothing to do with either."""
    holder, worker = log.open(), log.open()
    token = holder.hold()
    for key in ("b", "a"):
        for name in ("one", "two"):
            park(worker, f"{key} {name}", key)
    park(worker, "c one", "c", "/free")
    assert called(log) == ["c one"]
    holder.release(token)
    assert called(log) == ["c one", "b one", "a one"]


def test_as_many_are_called_as_a_semaphore_has_permits(log: Log) -> None:
    """Of it as many may be on their way as can run."""
    holder, worker, consumer = log.open(), log.open(), log.open()
    consume(consumer)
    tokens = [holder.taken(limit=3, path="/s") for _ in range(3)]
    for number in range(6):
        park(worker, str(number), gate="/s")
    assert called(log) == []
    for token in tokens[:2]:
        holder.give(token)
    assert called(log) == ["0", "1"]
    commit(consumer, 2)
    worker.taken(limit=3, path="/s")
    assert called(log) == [], "one has come and runs, one is on its way, one runs as before"
    holder.give(tokens[2])
    assert called(log) == ["2"]
    worker.call(SemaphoreSetLimit("/s", 5))
    assert called(log) == ["2", "3", "4"]


def test_pieces_that_take_several_permits_are_called_when_there_are_so_many(log: Log) -> None:
    """Else one would be called, find too few, be parked and called again without end."""
    holder, worker = log.open(), log.open()
    tokens = [holder.taken(limit=3, path="/s") for _ in range(3)]
    park(worker, "one", gate="/s", permits=2)
    holder.give(tokens[0])
    assert called(log) == []
    holder.give(tokens[1])
    assert called(log) == ["one"]


# --- parking ---------------------------------------------------------------------------------------------------------------------


def test_what_is_parked_twice_waits_once(log: Log) -> None:
    """Its place is told; its message stays what it was, unless it is to be replaced."""
    holder, worker = log.open(), log.open()
    holder.hold()
    for name in ("one", "two"):
        park(worker, name)
    before = log.machine.parking.lots[LOT].bytes
    assert park(worker, "two", message=b"longer") == Parked(1, called=False, is_new=False)
    assert log.machine.parking.lots[LOT].bytes == before
    assert park(worker, "two", message=b"longer", replace=True) == Parked(1, called=False, is_new=False)
    assert log.machine.parking.lots[LOT].bytes == before + 5
    assert waiting(log) == ["one", "two"]


def test_a_key_is_full_where_its_caller_says_so(log: Log) -> None:
    """An answer, not an error."""
    holder, worker = log.open(), log.open()
    holder.hold()
    assert isinstance(park(worker, "one", waiting_max=1), Parked)
    assert park(worker, "two", waiting_max=1) == ParkingFull(1)
    assert isinstance(park(worker, "one", waiting_max=1), Parked)
    assert isinstance(park(worker, "two", "other key", "/other", waiting_max=1), Parked)


def test_ten_thousand_wait_for_one_key() -> None:
    """In order, with their messages beside the machine."""
    machine, log = Machine(), Log()
    holder = log.open()
    holder.hold()
    machine = log.machine
    for number in range(WAITING_MAX):
        operation = Park(LOT, "k", str(number), b"m" * 100, "/l")
        call = Call(holder.session, holder.attachment, RequestNumber(number + 2), RequestNumber(number + 1), (), operation)
        applied = machine.apply(LogIndex(log.index + number + 1), log.time_ms, call)
        assert applied.result == Parked(number, called=False, is_new=True)
        assert len(applied.records) == 1
    log.index = LogIndex(log.index + WAITING_MAX)
    holder.last_request = WAITING_MAX + 1
    assert holder.call(Park(LOT, "k", "more", b"", "/l")).result == ParkingFull(WAITING_MAX)
    assert len(machine.logs) == 10, "a bin has a thousand"


def test_unparked_is_gone_wherever_it_was(log: Log) -> None:
    """Waiting, called, on its way or expired; and the next is called where it stood in the way."""
    worker, consumer = log.open(), log.open()
    consume(consumer)
    for number in range(4):
        park(worker, str(number))
    assert unpark(worker, "2") == Unparked("waiting")
    assert unpark(worker, "2") == Unparked("")
    assert unpark(worker, "2", "no such key") == Unparked("")
    assert unpark(worker, "0") == Unparked("called")
    assert called(log) == ["1"]
    commit(consumer, 2)
    assert unpark(worker, "1") == Unparked("called")
    assert called(log) == ["3"]
    unpark(worker, "3")
    consumer.call(ParkingRelease(LOT))
    assert not log.machine.logs
    assert len(log.machine._names) == 0


def test_what_has_waited_long_enough_is_handed_out_as_expired_whoever_has_the_lock(log: Log) -> None:
    """Somebody waits for its result, and its consumer is the one to say that there will be none."""
    holder, worker, consumer = log.open(), log.open(), log.open()
    consume(consumer)
    token = holder.hold()
    park(worker, "impatient", wait_ms=100)
    park(worker, "patient")
    log.wait(100)
    assert [(each.id, each.expired, each.since_ms) for each in placed(log)] == [("impatient", True, 100)]
    assert waiting(log) == ["patient"]
    holder.release(token)
    assert called(log) == ["impatient", "patient"], "it has no place at the lock"
    commit(consumer, 2)
    assert [key.called for key in info(log).keys] == [1]


def test_who_is_called_does_not_expire(log: Log) -> None:
    """Its time to wait was over in time."""
    worker = log.open()
    park(worker, "one", wait_ms=100)
    log.wait(1_000)
    assert [(each.id, each.expired) for each in placed(log)] == [("one", False)]


def test_what_a_dead_session_parked_stays(log: Log) -> None:
    """It is data: the task's broker message is acknowledged."""
    holder, worker = log.open(), log.open()
    holder.hold()
    park(worker, "one")
    worker.expire()
    assert waiting(log) == ["one"]


# --- handing out -----------------------------------------------------------------------------------------------------------------


def test_a_lot_has_one_consumer_and_what_it_has_not_committed_goes_to_the_next(log: Log) -> None:
    """At least once, under the same number and id; what was committed never again."""
    worker, first, second = log.open(), log.open(), log.open()
    claimed = consume(first)
    assert isinstance(second.call(ParkingClaim(LOT, OWNER)).result, ClaimRefused)
    assert code(commit(second, 0)) == "NotHolder"
    for key in "abc":
        park(worker, key, key, f"/{key}")
    assert commit(first, 1) == Committed(1)
    first.expire()
    again = consume(second)
    assert again.token > claimed.token
    assert again.committed == 1
    assert [(each.offset, each.id) for each in placed(log, 1)] == [(1, "b"), (2, "c")]
    assert code(commit(second, 4)) == "InvalidRequest", "beyond the end"
    assert commit(second, 3) == Committed(3)
    assert placed(log) == []


def test_who_is_subscribed_is_told_of_every_delivery(log: Log) -> None:
    """A consumer need not ask again and again."""
    worker, consumer = log.open(), log.open()
    consume(consumer)
    consumer.subscribe("parking", LOT)
    token = worker.hold()
    park(worker, "one")
    assert log.read("parking", LOT, log.index - 1) == []
    worker.release(token)
    ((revision, _, changes),) = log.read("parking", LOT, log.index - 1)
    assert (revision, changes) == (log.index, (MessagePublished(0, None),))


def test_a_fetch_is_bounded_and_says_where_to_go_on(log: Log) -> None:
    """By number and by bytes; one is given in any case."""
    worker = log.open()
    for number in range(5):
        park(worker, str(number), str(number), f"/{number}", bytes(1_000))
    found = log.machine.parking.place(ParkingFetch(LOT, 1, deliveries_max=2))
    assert isinstance(found, tuple)
    assert ([each.delivery.offset for each in found[1]], found[0].next, found[0].end) == ([1, 2], 3, 5)
    found = log.machine.parking.place(ParkingFetch(LOT, 1, bytes_max=10))
    assert isinstance(found, tuple)
    assert ([each.delivery.offset for each in found[1]], found[0].next) == ([1], 2)
    empty = log.machine.parking.place(ParkingFetch(LOT, 5))
    assert isinstance(empty, tuple)
    assert (empty[0].next, empty[1]) == (5, [])
    assert log.machine.query(ParkingFetch("/none", 0)) == ParkingFetched(0, (), 0, 0)  # type: ignore[arg-type]


def test_what_there_is_can_be_looked_at(log: Log) -> None:
    """Which keys, how many wait, since when, and who consumes."""
    holder, worker, consumer = log.open(), log.open(), log.open()
    holder.hold()
    park(worker, "one", "b", wait_ms=500)
    log.wait(100)
    park(worker, "two", "b")
    park(worker, "three", "a", "/free")
    consume(consumer)
    state = info(log)
    assert [(each.key, each.gate, each.waiting, each.called, each.oldest_ms) for each in state.keys] == [
        ("a", "/free", 0, 1, 0),
        ("b", "/l", 2, 0, 100),
    ]
    assert (state.pieces, state.uncommitted, state.end, state.keys_total, state.consumer) == (3, 1, 1, 2, OWNER)
    listing = log.machine.query(ParkedList(LOT, "b", 1))
    assert isinstance(listing, ParkedListing)
    assert [(each.id, each.since_ms, each.left_ms) for each in listing.pieces] == [("one", 100, 400)]
    assert listing.total == 2
    assert [key.key for key in log.machine.query(ParkingInfo(LOT, "a")).keys] == ["b"]  # type: ignore[union-attr]


# --- messages and bounds ---------------------------------------------------------------------------------------------------------


def test_a_bin_goes_with_its_last_piece_and_not_with_others(log: Log) -> None:
    """One lock that is held for a day keeps one bin, not a day of everybody's messages."""
    holder, worker, consumer = log.open(), log.open(), log.open()
    consume(consumer)
    holder.hold("/long")
    message = bytes(bounds.BIN_BYTES // 4)
    park(worker, "long", "long", "/long", message)
    for number in range(8):
        park(worker, str(number), str(number), f"/{number}", message)
    first, second, third = log.machine.logs
    applied = consumer.call(ParkingCommit(LOT, 8))
    assert applied.trimmed == [(second, None), (third, None)]
    assert set(log.machine.logs) == {first}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"key": ""}, "InvalidRequest"),
        ({"key": "k" * 513}, "InvalidRequest"),
        ({"name": "i" * 256}, "InvalidRequest"),
        ({"message": bytes(MESSAGE_BYTES_MAX + 1)}, "LimitExceeded"),
        ({"gate": "l"}, "InvalidRequest"),
        ({"permits": 0}, "InvalidRequest"),
        ({"waiting_max": 0}, "InvalidRequest"),
        ({"waiting_max": WAITING_MAX + 1}, "InvalidRequest"),
        ({"wait_ms": 0}, "InvalidRequest"),
        ({"grace_ms": 0}, "InvalidRequest"),
    ],
)
def test_what_cannot_be_parked_is_refused_and_leaves_nothing(log: Log, change: dict[str, Any], error: str) -> None:
    """Whatever can come out of the log is answered."""
    assert code(park(log.open(), **{"name": "one", **change})) == error
    assert len(log.machine._names) == 0


def test_a_key_waits_for_one_gate_and_a_gate_can_be_waited_for(log: Log) -> None:
    """Pieces of one key stand in one line; a value is never free."""
    holder, worker = log.open(), log.open()
    holder.hold()
    park(worker, "one")
    assert code(park(worker, "two", gate="/other")) == "InvalidRequest"
    worker.set("/v", b"")
    assert code(park(worker, "two", "other", "/v")) == "WrongType"
    assert code(worker.call(Park("/v", "k", "two", b"", "/l")).result) == "WrongType"
    assert code(worker.call(ParkingClaim("/l", OWNER)).result) == "WrongType"


@pytest.mark.parametrize(
    ("bound", "what"),
    [
        ("PARKING_LOTS_MAX", "parking lots"),
        ("PIECES_PER_LOT_MAX", "pieces of a lot"),
        ("PIECES_MAX", "pieces of all lots"),
        ("PARKED_BYTES_PER_LOT_MAX", "bytes of a lot's messages"),
        ("PARKED_BYTES_MAX", "bytes of all lots' messages"),
    ],
)
def test_what_goes_over_a_bound_is_refused(log: Log, monkeypatch: pytest.MonkeyPatch, bound: str, what: str) -> None:
    """By name; and there is room again when something has gone."""
    monkeypatch.setattr(f"coord_core.machine.lots.{bound}", 100 if "BYTES" in bound else 1)
    holder = log.open()
    holder.hold()
    assert isinstance(park(holder, "one"), Parked)
    path = "/another" if "LOT" in bound and "PER" not in bound else LOT
    refused = holder.call(Park(path, "k", "two", b"mm", "/l")).result
    assert code(refused) == "LimitExceeded"
    assert refused.details["what"] == what  # type: ignore[union-attr]
    unpark(holder, "one")
    assert isinstance(holder.call(Park(path, "k", "two", b"mm", "/l")).result, Parked)


def test_a_commit_covers_no_more_than_an_entry_has_time_for(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody stops the node with a hundred thousand at once."""
    monkeypatch.setattr("coord_core.machine.parking.DELIVERIES_COMMITTED_MAX", 2)
    worker = log.open()
    consume(worker)
    for number in range(3):
        park(worker, str(number), str(number), f"/{number}")
    assert code(commit(worker, 3)) == "InvalidRequest"
    assert commit(worker, 2) == Committed(2)


def test_no_more_seats_are_remembered_than_there_are_to_be(log: Log) -> None:
    """A key that is never idle must not grow for ever."""
    worker, consumer = log.open(), log.open()
    consume(consumer)
    for number in range(bounds.SEATS_MAX + 20):
        park(worker, str(number))
    for _ in range(bounds.SEATS_MAX + 10):
        run(log, consumer, worker)
    (bay,) = log.machine.parking.lots[LOT].bays.values()
    assert len(bay.seats) == bounds.SEATS_MAX


def test_a_restored_machine_goes_on_as_the_one_it_was_taken_of(log: Log) -> None:
    """Waiting, called, on their way, expired; timers, seats, bins and the cursor: all of it is there."""
    holder, worker, consumer = log.open(), log.open(), log.open()
    consume(consumer)
    token = holder.hold("/held")
    for number in range(3):
        park(worker, f"held {number}", "held", "/held", wait_ms=100 if number == 1 else 10_000)
        park(worker, f"free {number}", "free", "/free", grace_ms=1_000)
    log.wait(100)
    commit(consumer, 1)
    machine, other = log.machine, restored(written(log.machine))
    assert other.digest() == machine.digest()
    assert sorted(other.logs.ranges()) == sorted(machine.logs.ranges())
    release = Call(holder.session, holder.attachment, RequestNumber(50), RequestNumber(0), (), LockRelease("/held", token))
    acquire = Call(worker.session, worker.attachment, RequestNumber(50), RequestNumber(0), (), LockAcquire("/free", 0, OWNER))
    for at, command in ((log.time_ms, release), (log.time_ms + 500, acquire), (log.time_ms + 20_000, acquire)):
        log.index = LogIndex(log.index + 1)
        assert other.apply(log.index, at, command) == machine.apply(log.index, at, command)
    assert other.digest() == machine.digest()
    log.machine = other
    assert [(each.id, each.expired) for each in placed(log)] == [("held 1", True), ("held 0", False), ("held 2", True)]


# --- whatever happens ------------------------------------------------------------------------------------------------------------


class World:
    """A broker, workers and a consumer that forget, die and are late; every choice comes from one seed."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)
        self.log = Log()
        self.workers = [self.log.open() for _ in range(3)]
        self.holding: dict[str, tuple[Process, int, str]] = {}
        self.consumer: Process | None = None
        self.handed = 0
        #: Messages of the broker: key and id.
        self.broker: list[tuple[str, str]] = []
        self.made = 0
        self.ran: list[tuple[str, str]] = []
        self.parked: dict[str, list[str]] = {"a": [], "b": []}

    def step(self, *, quiet: bool) -> None:
        """Do one thing; `quiet`: nothing new comes, and nobody dies."""
        chance = self.draw.random()
        if chance < 0.2 and not quiet:
            key = self.draw.choice("ab")
            self.made += 1
            self.broker.append((key, str(self.made)))
        elif chance < 0.55 and self.broker:
            self.receive(*self.broker.pop(self.draw.randrange(min(2, len(self.broker)))))
        elif chance < 0.7 and self.holding:
            self.finish(self.draw.choice(sorted(self.holding)))
        elif chance < 0.93:
            self.consume()
        elif chance < 0.97 or quiet:
            self.log.wait(self.draw.choice((1, 50)))
        else:
            self.die()

    def receive(self, key: str, name: str) -> None:
        """A worker gets a message: it takes the lock, or parks it."""
        worker, path = self.draw.choice(self.workers), f"/lock/{key}"
        granted = worker.acquire(path, wait_ms=0)
        if hasattr(granted, "token"):
            self.holding[key] = worker, granted.token, name  # type: ignore[union-attr]
            return
        if self.draw.random() < 0.2 and key in self.holding:
            self.finish(key)  # between the failed try and the parking
        assert isinstance(park(worker, name, key, path, name.encode()), Parked)
        if name not in self.parked[key]:
            self.parked[key].append(name)

    def finish(self, key: str) -> None:
        worker, token, name = self.holding.pop(key)
        self.ran.append((key, name))
        worker.release(token, f"/lock/{key}")

    def consume(self) -> None:
        """Take what is called, send it, and commit; or die between."""
        if self.consumer is None:
            self.consumer = self.log.open()
            consume(self.consumer)
        found = placed(self.log)[:2]
        for delivery in found:
            self.broker.append((delivery.key, delivery.id))
        if self.draw.random() < 0.2:
            self.consumer.expire()
            self.consumer = None
        elif found:
            commit(self.consumer, found[-1].offset + 1)

    def die(self) -> None:
        """A worker is killed: what it ran comes again."""
        worker = self.workers.pop(0)
        self.workers.append(self.log.open())
        for key, (holder, _, name) in list(self.holding.items()):
            if holder is worker:
                del self.holding[key]
                self.broker.append((key, name))
        worker.expire()


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_everything_is_run_and_nothing_stays(seed: int) -> None:
    """No piece is lost and none waits for nothing, whoever dies when; the invariants are checked after every entry."""
    world = World(seed)
    for _ in range(250):
        world.step(quiet=False)
    for _ in range(3_000):
        if len(world.ran) and not world.broker and not world.holding and not called(world.log) and not info(world.log).pieces:
            break
        world.step(quiet=True)
    assert {name for _, name in world.ran} == {str(number + 1) for number in range(world.made)}
    assert not world.log.machine.logs


@pytest.mark.parametrize("seed", range(10))
def test_where_nobody_overtakes_or_dies_all_run_once_in_the_order_in_which_they_were_parked(seed: int) -> None:
    """Whatever the others do meanwhile."""
    draw, log = Random(seed), Log()
    worker, consumer, holder = log.open(), log.open(), log.open()
    consume(consumer)
    token = holder.hold()
    names, ran = [str(number) for number in range(30)], list[str]()
    for name in names[:10]:
        park(worker, name)
    holder.release(token)
    rest = names[10:]
    while len(ran) < len(names):
        if rest and draw.random() < 0.6:
            park(worker, rest.pop(0))
        elif placed(log):
            ran.append(run(log, consumer, worker))
        else:
            log.wait(1)
    assert ran == names


def test_everything_is_answered_with_done_where_there_is_nothing(log: Log) -> None:
    """A release of a lot that is not there is fine."""
    assert log.open().call(ParkingRelease(LOT)).result == Done()


@pytest.mark.parametrize("seed", range(30))
def test_records_are_what_the_logs_say_whatever_is_sent(seed: int) -> None:
    """Every message that is kept came out as a record of its bin, in order and without gaps, and goes with it."""
    traffic, log = ParkingTraffic(seed), Log()
    held: dict[int, list[int]] = {}
    for _ in range(400):
        log.time_ms, command = traffic.next()
        applied = log.apply(command)
        traffic.hear(command, applied)
        for number, record in applied.records:
            held.setdefault(number, []).append(record.offset)
        for number, below in applied.trimmed:
            assert below is None
            del held[number]
        assert held == {number: list(range(earliest, end)) for number, earliest, end in log.machine.logs.ranges()}
