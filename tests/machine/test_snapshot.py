"""Snapshots of the machine: the state as of one index, whatever is applied while it is written, and the same machine after it."""

import gc
import random
import weakref

import msgspec
import pytest

from coord_core.errors import ReleaseTooOld, StorageCorrupt
from coord_core.machine import Machine, Snapshot, dismantle
from coord_core.machine import stream as stream_module
from coord_core.machine.invariants import check
from coord_core.machine.stream import CHUNK_BYTES_MAX, Cutter, Header, Reader
from coord_core.protocol.commands import Call, CloseAttachment, OpenSession
from coord_core.protocol.operations import LockAcquire, LockRelease, Operation, Owner, ValueSet
from coord_core.protocol.queries import LockInfo, LockState
from coord_core.protocol.results import Granted, Result
from coord_core.types import AttachmentId, FencingToken, LogIndex, RequestNumber, SessionId
from tests.machine.driver import OWNER, Log, Process
from tests.machine.traffic import ClaimTraffic, ParkingTraffic, StreamTraffic, TopicTraffic, Traffic


def written(machine: Machine) -> list[bytes]:
    """Return the whole snapshot of a machine at rest."""
    snapshot = machine.begin_snapshot()
    chunks: list[bytes] = []
    while not snapshot.done:
        chunks += snapshot.step(1_000)
    machine.end_snapshot()
    return chunks


def restored(chunks: list[bytes]) -> Machine:
    machine = Machine.restore(chunks)
    check(machine)
    return machine


class Writer:
    """Takes snapshots again and again in small slices, between entries."""

    def __init__(self, seed: int, machine: Machine) -> None:
        self._random = random.Random(f"snapshots {seed}")
        self._machine = machine
        self._snapshot: Snapshot | None = None
        self._chunks: list[bytes] = []
        self._digest = b""
        self.finished = 0

    def slice(self) -> None:
        draw = self._random
        if self._snapshot is None:
            if draw.random() < 0.2:
                self._digest = self._machine.digest()
                self._snapshot, self._chunks = self._machine.begin_snapshot(), []
            return
        self._chunks += self._snapshot.step(draw.choice((0, 0, 1, 1, 2, 5)))
        if self._snapshot.done:
            self._machine.end_snapshot()
            self._snapshot = None
            assert restored(self._chunks).digest() == self._digest
            self.finished += 1


@pytest.mark.parametrize("kind", [Traffic, StreamTraffic, ClaimTraffic, TopicTraffic, ParkingTraffic])
@pytest.mark.parametrize("seed", range(40))
def test_a_snapshot_is_the_state_at_its_index_whatever_is_applied_meanwhile(seed: int, kind: type[Traffic]) -> None:
    """Double apply or false expiry after a restore (spec: bug 20) come from a snapshot that mixes two indexes."""
    traffic, machine = kind(seed), Machine()
    writer = Writer(seed, machine)
    for index in range(1, 700):
        time_ms, command = traffic.next()
        traffic.hear(command, machine.apply(LogIndex(index), time_ms, command))
        writer.slice()
    check(machine)
    assert writer.finished >= 5, "too few snapshots for a verdict"


@pytest.mark.parametrize("seed", range(20))
def test_names_and_processes_that_come_and_go_before_their_turn_are_what_they_were(seed: int) -> None:
    """They are listed part by part: dropped, dropped and bound again, changed, new; also where whoever had them has ended."""
    draw, log = random.Random(f"churn {seed}"), Log()
    paths = [f"/{number}" for number in range(600)]
    processes = [log.open() for _ in range(4)]
    processes += [draw.choice(processes).attach() for _ in range(20)]
    log.machine = unchecked = Machine.restore(written(log.machine))
    tokens: dict[str, tuple[Process, int]] = {}

    def change() -> None:
        path, process = draw.choice(paths), draw.choice(processes)
        if path in tokens and draw.random() < 0.7:
            holder, token = tokens.pop(path)
            apply(holder, LockRelease(path, FencingToken(token)))
        elif isinstance(granted := apply(process, LockAcquire(path, 0, OWNER)), Granted):
            tokens[path] = (process, granted.token)

    def apply(process: Process, operation: Operation) -> Result | None:
        log.index = LogIndex(log.index + 1)
        process.last_request += 1
        request, low_water = RequestNumber(process.last_request), RequestNumber(process.last_request - 1)
        call = Call(process.session, process.attachment, request, low_water, (), operation)
        return unchecked.apply(log.index, log.time_ms, call).result

    for _ in range(600):
        change()
    digest, rolling = unchecked.digest(), unchecked.rolling_hash
    snapshot = unchecked.begin_snapshot()
    chunks: list[bytes] = []
    while not snapshot.done:
        for _ in range(draw.choice((0, 1, 5))):
            change()
        if processes and draw.random() < 0.05:
            log.index = LogIndex(log.index + 1)
            ended = processes.pop(draw.randrange(len(processes)))
            unchecked.apply(log.index, log.time_ms, CloseAttachment(ended.session, ended.attachment))
            tokens = {path: held for path, held in tokens.items() if held[0] is not ended}
            processes.append(log.open() if draw.random() < 0.2 else processes[0])
        chunks += snapshot.step(draw.choice((1, 3, 20)))
    unchecked.end_snapshot()
    check(unchecked)
    again = restored(chunks)
    assert (again.digest(), again.rolling_hash) == (digest, rolling)


@pytest.mark.parametrize("kind", [Traffic, ClaimTraffic, ParkingTraffic])
@pytest.mark.parametrize("seed", range(10))
def test_a_restored_machine_goes_on_as_the_one_it_was_taken_of(seed: int, kind: type[Traffic]) -> None:
    """Same answers to the same entries, in the same order: timers, queues, windows and numbers are all there."""
    traffic, machine = kind(seed), Machine()
    for index in range(1, 400):
        traffic.hear(command := traffic.next()[1], machine.apply(LogIndex(index), traffic.time_ms, command))
    other = restored(written(machine))
    for index in range(400, 800):
        time_ms, command = traffic.next()
        applied = machine.apply(LogIndex(index), time_ms, command)
        assert other.apply(LogIndex(index), time_ms, command) == applied
        traffic.hear(command, applied)
    assert other.digest() == machine.digest()
    assert other.next_deadline_ms() == machine.next_deadline_ms()


def test_a_request_answered_before_the_snapshot_is_answered_alike_after_it() -> None:
    """Exactly once goes on across a restore: the resent acquire finds its grant instead of a second place in the queue."""
    log = Log()
    holder, waiter = log.open(), log.open()
    granted = holder.acquire()
    assert waiter.acquire(wait_ms=50) is None
    log.machine = restored(written(log.machine))
    assert holder.send(1, LockAcquire("/l", None, OWNER)).result == granted
    assert waiter.send(1, LockAcquire("/l", 50, OWNER)).result is None
    assert log.lock("/l").waiters_total == 1
    replies = holder.release(granted.token).replies  # type: ignore[union-attr]
    assert [(reply[0], type(reply[2])) for reply in replies] == [(waiter.attachment, Granted)]


def test_attachments_end_in_their_order_though_a_busy_one_was_written_first() -> None:
    """Who is answered first when a session ends is the same on a restored node as on the others."""
    log = Log()
    first = log.open()
    others = [first.attach() for _ in range(5)]
    snapshot = log.machine.begin_snapshot()
    others[3].set("/v", b"")
    chunks = snapshot.step(1_000)
    log.machine.end_snapshot()
    session = next(iter(restored(chunks)._sessions))
    assert list(session.attachments) == [first.attachment, *(other.attachment for other in others)]


def test_chunks_are_bounded_and_only_the_last_is_short() -> None:
    """256 KiB: what a peer's frame, a row of the database and one read of the disk take at once."""
    log = Log()
    process = log.open()
    for number in range(10):
        process.set(f"/v/{number}", bytes([number]) * 100_000)
    chunks = written(log.machine)
    assert [len(chunk) for chunk in chunks[:-1]] == [CHUNK_BYTES_MAX] * (len(chunks) - 1)
    assert 0 < len(chunks[-1]) <= CHUNK_BYTES_MAX
    assert restored(chunks).digest() == log.machine.digest()


def test_a_queue_longer_than_a_chunk_is_restored_in_its_order() -> None:
    """A row may go through several chunks."""
    log = Log()
    process = log.open()
    owners = [Owner("h" * 100, pid, "x" * 300) for pid in range(1, 1_000)]
    index = log.index
    for request, owner in enumerate(owners, 1):
        index = LogIndex(index + 1)
        operation = LockAcquire("/l", None, owner)
        call = Call(process.session, process.attachment, RequestNumber(request), RequestNumber(0), (), operation)
        log.machine.apply(index, 1_000, call)
    chunks = written(log.machine)
    assert len(chunks) > 1
    state = restored(chunks).query(LockInfo("/l", 1_000))
    assert isinstance(state, LockState)
    assert [party.owner.pid for party in state.waiters] == list(range(2, 1_000))


def test_a_slice_is_bounded_by_its_budget() -> None:
    """The driver measures time; it can only do so between slices."""
    log = Log()
    process = log.open()
    for number in range(1_000):
        process.send(number + 1, ValueSet(f"/v/{number}", b""), low_water=number)
    snapshot = log.machine.begin_snapshot()
    steps = 0
    while not snapshot.done:
        snapshot.step(10)
        steps += 1
    assert steps >= 100


def test_what_changes_is_written_even_if_nobody_takes_slices() -> None:
    """The one who drives must know how much gathers, to give the snapshot up when it is too much."""
    log = Log()
    process = log.open()
    for number in range(20):
        process.set(f"/v/{number}", b"x" * 10_000)
    snapshot = log.machine.begin_snapshot()
    for number in range(20):
        process.set(f"/v/{number}", b"y")
    assert snapshot.pending_bytes > 200_000


def test_after_the_end_of_a_snapshot_nothing_more_is_written() -> None:
    """An abandoned snapshot must not go on costing memory."""
    log = Log()
    process = log.open()
    process.set("/v", b"x" * 10_000)
    snapshot = log.machine.begin_snapshot()
    log.machine.end_snapshot()
    process.set("/v", b"y")
    assert snapshot.pending_bytes < 1_000
    log.machine.begin_snapshot()


# --- what cannot be restored -----------------------------------------------------------------------------------------------------


def some_chunks() -> list[bytes]:
    log = Log()
    process = log.open()
    process.hold()
    process.set("/v", b"x", ttl_ms=50)
    return written(log.machine)


def test_a_snapshot_cut_short_is_refused() -> None:
    """At any byte: half a state is no state."""
    [chunk] = some_chunks()
    for length in range(len(chunk)):
        with pytest.raises(StorageCorrupt):
            Machine.restore([chunk[:length]])


def test_a_snapshot_with_something_behind_its_end_is_refused() -> None:
    [chunk] = some_chunks()
    with pytest.raises(StorageCorrupt):
        Machine.restore([chunk, b"\0"])


@pytest.mark.parametrize("seed", range(300))
def test_a_changed_byte_is_refused_or_read_as_what_it_says(seed: int) -> None:
    """Sums are checked elsewhere; here nothing may come out but what says that it cannot be read."""
    [chunk] = some_chunks()
    draw = random.Random(seed)
    position = draw.randrange(len(chunk))
    changed = chunk[:position] + bytes([draw.randrange(256)]) + chunk[position + 1 :]
    try:
        Machine.restore([changed])
    except (StorageCorrupt, ReleaseTooOld):
        return


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_chunks_may_be_cut_anywhere(size: int) -> None:
    [chunk] = some_chunks()
    pieces = [chunk[at : at + size] for at in range(0, len(chunk), size)]
    assert written(restored(pieces)) == [chunk]


def test_a_snapshot_of_a_newer_format_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a downgrade of the package."""
    monkeypatch.setattr(stream_module, "FORMAT", 9)
    chunks = some_chunks()
    monkeypatch.undo()
    with pytest.raises(ReleaseTooOld, match="format 9, this release reads up to 2: start a newer release"):
        Machine.restore(chunks)
    with pytest.raises(StorageCorrupt, match="no snapshot of a machine"):
        Machine.restore([b"something else"])


def test_a_snapshot_of_another_behaviour_is_refused() -> None:
    """This code would go on from it in another way than its writer."""
    cutter = Cutter(Header(Machine.VERSION_MAX + 1, LogIndex(5), 0, 1))
    cutter.finish()
    with pytest.raises(ReleaseTooOld, match="the snapshot needs version 2 of the machine, this release knows up to 1"):
        Machine.restore(cutter.take(rest=True))


def test_rows_without_what_they_belong_to_are_refused() -> None:
    """An attachment of no session, a claim of no attachment, a kind that this release does not know."""
    log = Log()
    log.open().hold()
    sound = written(log.machine)
    for leave_out in ("session", "attachment"):
        with pytest.raises(StorageCorrupt, match=f"which the snapshot does not have|{leave_out}"):
            Machine.restore(without(sound, leave_out))
    cutter = Cutter(Header(Machine.VERSION_MAX, LogIndex(5), 0, 1))
    cutter.add("queue", (1, 2), 2)
    cutter.finish()
    with pytest.raises(StorageCorrupt, match="'queue', which this release does not know"):
        Machine.restore(cutter.take(rest=True))


def without(chunks: list[bytes], kind: str) -> list[bytes]:
    """Return the snapshot less all rows of a kind."""
    reader = Reader()
    for chunk in chunks:
        reader.feed(chunk)
    header = reader.next()
    assert isinstance(header, Header)
    cutter = Cutter(header)
    while (record := reader.next()) is not None:
        if isinstance(record, stream_module.Rows) and record.kind != kind:
            for row in msgspec.msgpack.decode(record.rows):
                cutter.add(record.kind, row, 1)
            cutter.end_section()
    cutter.finish()
    return cutter.take(rest=True)


# --- the machine that was replaced -----------------------------------------------------------------------------------------------


def test_a_dismantled_machine_leaves_nothing_for_the_garbage_collector() -> None:
    """Timers and their claims refer to each other; a server never runs a full collection by itself."""

    class Watched(Machine):
        """One that can be watched going away."""

    machine = Watched()
    gone = weakref.ref(machine)
    machine.apply(LogIndex(1), 0, OpenSession(5_000, OWNER))
    operations: tuple[Operation, ...] = (LockAcquire("/l", None, OWNER), LockAcquire("/l", 50, OWNER), ValueSet("/v", b"", 9))
    for request, operation in enumerate(operations, 1):
        call = Call(SessionId(1), AttachmentId(1), RequestNumber(request), RequestNumber(0), (), operation)
        machine.apply(LogIndex(1 + request), 0, call)
    gc.collect()
    gc.disable()
    try:
        steps = 0
        while dismantle(machine, 1):
            steps += 1
        assert 3 <= steps <= 20
        del machine
        assert gone() is None
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_holder_of_much_is_dismantled_in_slices_too() -> None:
    """Its table must not go as one thing, nor the answers of a process that acknowledges none."""
    log = Log()
    process = log.open()
    for number in range(100):
        process.hold(f"/{number}")
    steps = 1
    while dismantle(log.machine, 5):
        steps += 1
    assert steps >= 40
