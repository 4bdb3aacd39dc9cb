"""Snapshots on real nodes: SQLite, sockets, threads.  What decides is tested in `tests/replica`; here it is carried out."""

import asyncio
import gc
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from coord_core.config import SnapshotsConfig
from coord_core.protocol.commands import Call
from coord_core.protocol.messages import Ask, Reply, Submit, Told
from coord_core.protocol.operations import LockAcquire, ValueSet
from coord_core.protocol.queries import LockInfo, LockState, ValueGet, ValueState
from coord_core.protocol.results import SessionOpened
from coord_core.server import garbage
from coord_core.server.server import Server
from coord_core.types import RequestNumber
from coord_core.wire import codec
from tests.server.support import OWNER, Nodes, RawClient, until

NAMES = ("n1", "n2", "n3")
SMALL = SnapshotsConfig(entries=500, bytes=64 << 20, trailing_entries=100, trailing_bytes=1 << 20)
#: Below an attachment's window.
BATCH = 500


class Writer:
    """One session that writes values, many at a time."""

    def __init__(self, client: RawClient, session: SessionOpened) -> None:
        self.client = client
        self.session = session
        self._sent = 0

    @classmethod
    async def of(cls, server: Server) -> "Writer":
        client = await RawClient.greeted(server.client_address)
        return cls(client, await client.open_session())

    async def write(self, count: int, paths: int = 50, size: int = 20) -> None:
        for _ in range(count // BATCH):
            low_water = RequestNumber(self._sent)
            numbers = range(self._sent + 1, self._sent + BATCH + 1)
            self._sent += BATCH
            self.client.say(*(self._submit(number, low_water, f"/v/{number % paths}", size) for number in numbers))
            for _ in numbers:
                reply = await self.client.heard()
                assert isinstance(reply, Reply), reply

    def _submit(self, number: int, low_water: RequestNumber, path: str, size: int) -> Submit:
        operation = ValueSet(path, str(number).encode().ljust(size, b"."))
        call = Call(self.session.session, self.session.attachment, RequestNumber(number), low_water, (), operation)
        return Submit(number, msgspec.Raw(codec.encode_command(call)))

    async def last_value(self, paths: int = 50) -> bytes:
        return await value(self.client, f"/v/{self._sent % paths}")


async def value(client: RawClient, path: str) -> bytes:
    client.say(Ask(1, ValueGet(path)))
    told = await client.heard()
    assert isinstance(told, Told), told
    assert isinstance(told.answer, ValueState)
    return told.answer.value


def log_length(server: Server) -> int:
    running = server._running
    assert running is not None
    status = running._loop.status()
    return status.last_index - status.first_index + 1


async def test_memory_and_disk_follow_what_is_kept_and_not_what_was_written(nodes: Nodes) -> None:
    """A hundred thousand writes over fifty values: the log is cut again and again, and its pages are used again."""
    [server] = await nodes.cluster("n1", snapshots=SMALL)
    writer = await Writer.of(server)
    for _ in range(10):
        await writer.write(10_000, size=300)
        assert log_length(server) < 8_000
        # Forty megabytes in all; most of it is the write-ahead log, which stays at its largest.
        assert server.status().storage_bytes < 13 << 20


@pytest.mark.slow
async def test_memory_and_disk_are_bounded_over_three_hundred_thousand_writes(nodes: Nodes) -> None:
    """With what a server keeps by default: more than a hundred megabytes pass through."""
    [server] = await nodes.cluster("n1")
    writer = await Writer.of(server)
    for _ in range(15):
        await writer.write(20_000, size=300)
        assert log_length(server) < 90_000
        assert server.status().storage_bytes < 48 << 20


@pytest.mark.slow
@pytest.mark.timeout(3_600)
async def test_ten_million_writes_leave_a_node_as_large_as_one_million(tmp_path: Path) -> None:
    """A node of its own, so that its memory can be looked at from outside.  Then it starts again within seconds."""
    node = OwnProcess(tmp_path / "node")
    try:
        writer = await Writer.of(node)  # type: ignore[arg-type]
        resident, stored = [], []
        for _ in range(10):
            await writer.write(1_000_000)
            resident.append(node.resident_bytes())
            stored.append(node.stored_bytes())
        assert max(resident) <= resident[0] * 1.5
        assert max(stored) <= stored[0] * 1.5
        expected = await writer.last_value()
        node.stop()
        node.start()
        client = await RawClient.greeted(node.client_address)
        assert await value(client, f"/v/{10_000_000 % 50}") == expected
    finally:
        node.stop()


class OwnProcess:
    """One node, as the command line starts it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.server.one_node", str(self._path)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.client_address = self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stored_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._path.iterdir())


async def test_a_node_starts_from_its_snapshot(nodes: Nodes) -> None:
    """And goes on from there: values, cached answers, sessions."""
    [server] = await nodes.cluster("n1", snapshots=SMALL)
    writer = await Writer.of(server)
    await writer.write(2_000)
    expected = await writer.last_value()
    applied = server.status().applied_index
    await nodes.stop("n1")
    server = await nodes.start("n1", snapshots=SMALL)
    await nodes.leader_of_formed()
    await until(lambda: server.status().applied_index > applied, "the node has its state again")
    assert log_length(server) < 1_500
    client = await RawClient.greeted(server.client_address)
    again = Writer(client, writer.session)
    again._sent = writer._sent
    assert await again.last_value() == expected
    assert server.status().sessions == 1
    await again.write(1_000)


async def test_a_node_that_was_away_for_long_gets_the_snapshot_under_load(nodes: Nodes) -> None:
    """Over its sockets, while the others go on writing; then it can lead."""
    await nodes.cluster(*NAMES, snapshots=SMALL)
    leader = await nodes.leader()
    absent = next(name for name, server in nodes.running.items() if server is not leader)
    await nodes.stop(absent)
    writer = await Writer.of(leader)
    await writer.write(3_000, size=2_000, paths=400)
    back = await nodes.start(absent, snapshots=SMALL)
    for _ in range(4):
        await writer.write(1_000, size=2_000, paths=400)
    await until(lambda: back.status().applied_index >= leader.status().applied_index, "the node caught up")
    running = back._running
    assert running is not None
    assert running._loop.status().snapshot_index > 3_000
    expected = await writer.last_value(400)
    nodes.kill(leader.config.name)
    successor = await nodes.leader()
    client = await RawClient.greeted(successor.client_address)
    assert await value(client, f"/v/{writer._sent % 400}") == expected


async def test_a_waiter_keeps_its_place_through_a_restart_from_a_snapshot(nodes: Nodes) -> None:
    [server] = await nodes.cluster("n1", snapshots=SMALL)
    writer = await Writer.of(server)
    client = await RawClient.greeted(server.client_address)
    first = await client.open_session()
    await client.lock(first, 1, "/lock")
    waiter = Call(first.session, first.attachment, RequestNumber(2), RequestNumber(0), (), LockAcquire("/lock", None, OWNER))
    client.say(Submit(99, msgspec.Raw(codec.encode_command(waiter))))
    await writer.write(1_500)
    await nodes.stop("n1")
    server = await nodes.start("n1", snapshots=SMALL)
    await nodes.leader_of_formed()
    client = await RawClient.greeted(server.client_address)
    client.say(Ask(5, LockInfo("/lock")))
    told = await client.heard()
    assert isinstance(told, Told)
    assert isinstance(told.answer, LockState)
    assert told.answer.waiters_total == 1


def test_what_a_slice_made_is_set_aside_only_where_somebody_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that has a node inside keeps its garbage collector as it is."""
    frozen = gc.get_freeze_count()
    monkeypatch.setattr(garbage, "_tamed", False)
    garbage.keep()
    assert gc.get_freeze_count() == frozen
    monkeypatch.setattr(garbage, "_tamed", True)
    try:
        garbage.keep()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


async def test_a_snapshot_is_written_while_the_node_answers(nodes: Nodes) -> None:
    """Its chunks and the log's writes share a disk, one after the other."""
    [server] = await nodes.cluster("n1", snapshots=SnapshotsConfig(entries=2_000, trailing_entries=100))
    writer = await Writer.of(server)
    await writer.write(1_500, paths=1_500, size=3_000)
    running = server._running
    assert running is not None
    await asyncio.gather(writer.write(3_000, paths=1_500, size=3_000))
    await until(lambda: running._loop.status().snapshot_index >= 2_000, "a snapshot")
