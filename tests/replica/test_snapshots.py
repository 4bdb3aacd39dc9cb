"""Snapshots on whole nodes: taken, trimmed to, sent, installed, started from, whatever breaks in between."""

import random
from dataclasses import replace

import pytest

from coord_core.errors import ReleaseTooOld
from coord_core.machine import Machine
from coord_core.protocol.messages import Ask, Told
from coord_core.protocol.operations import LockAcquire, LockRelease
from coord_core.protocol.queries import SessionInfo, SessionState
from coord_core.protocol.results import Done, Granted
from coord_core.raft.membership import MembershipChange, MembershipStep, StepKind
from coord_core.raft.messages import AppendReply, InstallSnapshot, VoteReply
from coord_core.replica import (
    MachineLoaded,
    PeerMessage,
    SessionsEnded,
    SnapshotAbandoned,
    SnapshotAck,
    SnapshotChunk,
    SnapshotConfig,
    SnapshotInstalled,
    SnapshotOffer,
    SnapshotSent,
    SnapshotTaken,
)
from coord_core.storage.snapshots import chunk_crc
from coord_core.types import LogIndex, NodeId, Term
from tests.replica.harness import OWNER, call
from tests.replica.nodes import SMALL, Nodes


def is_transfer(message: PeerMessage) -> bool:
    return isinstance(message, SnapshotOffer | SnapshotChunk | SnapshotAck | InstallSnapshot)


def lagging(nodes: Nodes, entries: int = 200, size: int = 10, paths: int = 10) -> tuple[int, int]:
    """Cut a follower off until the log that it lacks is gone; return the leader and the follower, still cut off."""
    leader = nodes.elect()
    follower = leader % len(nodes.replicas) + 1
    nodes.cut.add(follower)
    nodes.load(entries, size, paths)
    assert nodes.replicas[leader].status().first_index > nodes.replicas[follower].status().last_index + 1
    return leader, follower


def catch_up(nodes: Nodes, follower: int) -> None:
    nodes.cut.discard(follower)
    nodes.wait(lambda: nodes.are_level())


# --- taking
# --------------------------------------------------------------------------------------------------------------------------


def test_every_node_takes_a_snapshot_when_enough_was_applied_and_trims_its_log():
    """Leader or not: a follower's disk fills as fast."""
    nodes = Nodes()
    nodes.load(100)
    nodes.settle()
    for node, replica in nodes.replicas.items():
        status = replica.status()
        assert status.applied_index - status.snapshot_index < 45
        assert status.snapshot_index - status.first_index < 10
        assert nodes.snapshot(node).info.metadata.index == status.snapshot_index
        assert len(nodes.disks[node].entries) < 60


def test_the_log_does_not_grow_with_what_was_written():
    """Ten times as many entries, no more log in memory or on the disk."""
    nodes = Nodes(1)
    lengths = []
    for _ in range(10):
        nodes.load(60)
        status = nodes.replicas[1].status()
        lengths.append(status.last_index - status.first_index)
        assert len(nodes.disks[1].entries) <= lengths[-1] + 1
    assert max(lengths) < 60


def test_a_snapshot_is_due_by_bytes_too():
    nodes = Nodes(1, replace(SMALL, entries=1_000_000, bytes=20_000))
    nodes.load(10, size=1_000)
    assert not nodes.noted(SnapshotTaken)
    nodes.load(60, size=1_000)
    nodes.settle(200)
    assert nodes.noted(SnapshotTaken)


def test_a_large_state_is_not_written_again_for_a_few_entries():
    """The log since the last snapshot has as many bytes as that had: what is written stays in proportion to what changed."""
    nodes = Nodes(1)
    nodes.load(100, size=1_000, paths=100)
    before = len(nodes.noted(SnapshotTaken))
    nodes.load(200, size=10, paths=100)
    assert len(nodes.noted(SnapshotTaken)) - before <= 1


def test_commands_are_answered_between_two_slices_of_a_snapshot():
    """A snapshot stalls no turn; and it is the state at its own index all the same."""
    nodes = Nodes(1, replace(SMALL, chunk_bytes=60), items=1)
    nodes.load(300, paths=50)
    assert len(nodes.noted(SnapshotTaken)) >= 2
    snapshot = nodes.snapshot(1)
    machine = Machine.restore(snapshot.chunks)
    assert machine.index == snapshot.info.metadata.index < nodes.replicas[1].status().applied_index


def test_a_snapshot_is_published_only_when_the_own_disk_has_the_log_up_to_it():
    """A quorum of others commits what this node's disk does not have yet: trimmed to, its log would have a gap."""
    nodes = Nodes()
    leader = nodes.elect()
    nodes.load(5)
    nodes.stuck_disks.add(leader)
    nodes.load(60, leader=leader)
    nodes.settle()
    assert nodes.replicas[leader].status().applied_index > 50
    assert not nodes.noted(SnapshotTaken, leader)
    assert nodes.noted(SnapshotTaken)


def test_a_snapshot_carries_the_configuration_that_was_applied_and_no_newer_one():
    """A change that is appended may still be rolled back (canonical/raft#250)."""
    nodes = Nodes(3, replace(SMALL, entries=30))
    leader = nodes.elect()
    nodes.load(10)
    raft = nodes.replicas[leader]._raft
    before = raft.configuration
    nodes.passes = lambda message: not isinstance(message, AppendReply)
    raft.propose_membership(MembershipChange((MembershipStep(StepKind.ADD_LEARNER, NodeId(9)),)))
    nodes.settle()
    snapshots = nodes.replicas[leader]._snapshots
    snapshots._config, snapshots.look_at = replace(SMALL, entries=1), LogIndex(0)
    nodes.settle()
    assert len(nodes.noted(SnapshotTaken, leader)) == 1
    assert nodes.snapshot(leader).info.metadata.configuration == before
    nodes.passes = lambda message: True
    nodes.advance(500)
    nodes.load(40)
    configuration = nodes.snapshot(leader).info.metadata.configuration
    assert configuration.learners == (9,)
    nodes.crash(leader)
    nodes.start(leader)
    assert nodes.replicas[leader]._raft.configuration == configuration


def test_a_snapshot_that_the_disk_does_not_take_is_given_up_and_taken_again():
    """What changes must be written down at once: with a disk that stands still, memory must not pay for it."""
    nodes = Nodes(1, replace(SMALL, entries=40, pending_bytes=6_000, stage_bytes=10_000), items=20)
    nodes.load(30, size=2_000, paths=30)
    nodes.slow.add(1)
    nodes.load(120, size=2_000, paths=30)
    [given_up] = nodes.noted(SnapshotAbandoned)
    assert given_up.reason.startswith("the disk")
    assert not nodes.noted(SnapshotTaken)
    nodes.slow.clear()
    nodes.load(40, size=2_000, paths=30)
    assert nodes.noted(SnapshotTaken)


# --- starting
# ------------------------------------------------------------------------------------------------------------------------


def test_a_node_starts_from_its_snapshot_and_the_log_behind_it():
    """Same state, same members, same answers; and what is kept before the snapshot is still there for others."""
    nodes = Nodes()
    nodes.load(100)
    nodes.wait(nodes.are_level)
    node = nodes.elect()
    before = nodes.replicas[node].machine.digest()
    status = nodes.replicas[node].status()
    nodes.crash(node)
    nodes.start(node)
    assert nodes.replicas[node].status().snapshot_index == status.snapshot_index
    assert nodes.replicas[node].status().first_index == status.first_index
    assert nodes.replicas[node].status().members == status.members
    nodes.elect()
    nodes.wait(nodes.are_level)
    assert nodes.noted(MachineLoaded, node)
    assert nodes.replicas[node].machine.digest() == before


def test_a_whole_cluster_starts_from_its_snapshots():
    nodes = Nodes()
    nodes.load(100)
    nodes.wait(nodes.are_level)
    index = nodes.replicas[1].machine.index
    digest = nodes.replicas[1].machine.digest()
    for node in nodes.replicas:
        nodes.crash(node)
    for node in nodes.disks:
        nodes.start(node)
    nodes.elect()
    nodes.wait(nodes.are_level)
    for replica in nodes.replicas.values():
        assert (replica.machine.index, replica.machine.digest()) == (index, digest)
    nodes.load(30)


def test_a_node_that_loads_its_machine_votes_and_applies_nothing():
    """A million locks take seconds; others must not wait for it."""
    nodes = Nodes(items=1)
    nodes.load(60, paths=50)
    nodes.settle(400)
    leader = nodes.elect()
    node, other = (each for each in nodes.replicas if each != leader)
    nodes.crash(node)
    nodes.load(5)
    nodes.start(node)
    nodes.items = 0
    nodes.crash(leader)
    nodes.sent.clear()
    nodes.wait(lambda: nodes.replicas[other].status().ready or nodes.replicas[node].status().role == "leader")
    assert nodes.replicas[node].is_loading
    assert nodes.replicas[node].status().applied_index == nodes.replicas[node].status().snapshot_index
    assert any(isinstance(message, VoteReply) for message in nodes.sent)
    nodes.items = 100
    nodes.elect()
    nodes.wait(lambda: nodes.are_level(node, other))


def test_the_machine_is_loaded_in_slices():
    nodes = Nodes(1, items=1)
    nodes.load(100, paths=60)
    nodes.settle(400)
    nodes.crash(1)
    nodes.start(1)
    slices = 1
    while nodes.replicas[1].work(1):
        slices += 1
    assert slices >= 3


def test_a_crash_in_mid_stage_leaves_the_former_snapshot_and_the_log():
    """And the next snapshot does not grow out of the pieces."""
    nodes = Nodes(1, replace(SMALL, chunk_bytes=60), items=3)
    nodes.load(60, paths=40)
    former = nodes.snapshot(1)
    while not (staged := [len(chunks) for key, chunks in nodes.disks[1]._staged.items() if key != former.staging]) or not staged[0]:
        nodes.load(1, paths=40)
    digest = nodes.replicas[1].machine.digest()
    nodes.crash(1)
    nodes.start(1)
    nodes.elect()
    assert nodes.replicas[1].machine.digest() == digest
    nodes.load(100, paths=40)
    Machine.restore(nodes.snapshot(1).chunks)


# --- sending and installing
# ----------------------------------------------------------------------------------------------------------


def test_a_follower_within_the_trailing_window_needs_no_snapshot():
    nodes = Nodes(3, replace(SMALL, trailing_entries=100))
    leader = nodes.elect()
    follower = leader % 3 + 1
    nodes.load(60)
    nodes.cut.add(follower)
    nodes.load(60)
    assert nodes.replicas[leader].status().snapshot_index > nodes.replicas[follower].status().last_index
    catch_up(nodes, follower)
    assert not nodes.noted(SnapshotInstalled)


def test_a_follower_beyond_the_window_holds_up_nothing_and_gets_the_snapshot():
    """The log is trimmed whoever lags (spec: compaction that a slow follower cannot block)."""
    nodes = Nodes()
    leader, follower = lagging(nodes)
    status = nodes.replicas[leader].status()
    assert status.last_index - status.first_index < 60
    catch_up(nodes, follower)
    [installed] = nodes.noted(SnapshotInstalled, follower)
    assert installed.index == nodes.snapshot(follower).info.metadata.index
    assert nodes.noted(SnapshotSent, leader)[-1].reason == ""


def test_a_follower_catches_up_under_load():
    """While it gets the snapshot, the leader writes on and takes further ones."""
    nodes = Nodes(3, replace(SMALL, trailing_entries=30, chunk_bytes=100), items=20)
    leader, follower = lagging(nodes, paths=60)
    nodes.cut.discard(follower)
    for _ in range(60):
        nodes.load(5, paths=60, leader=leader)
        nodes.advance(50)
        if nodes.noted(SnapshotInstalled, follower):
            break
    assert nodes.noted(SnapshotInstalled, follower)
    nodes.load(50, paths=60, leader=leader)
    nodes.wait(nodes.are_level)


def test_an_empty_node_catches_up():
    """It was down from the founding on: all it has is its founding."""
    nodes = Nodes()
    nodes.crash(3)
    nodes.load(150)
    nodes.start(3)
    nodes.wait(nodes.are_level)
    assert nodes.noted(SnapshotInstalled, 3)


def test_exactly_once_goes_on_where_a_snapshot_was_installed():
    """Its cached answers came along: a command sent again to the new leader is not applied again (spec: bug 20)."""
    nodes = Nodes()
    leader = nodes.elect()
    follower = leader % 3 + 1
    session = nodes.open(leader, ttl_ms=600_000)
    nodes.submit(leader, 1, 2, call(session, 1, LockAcquire("/lock", None, OWNER)))
    nodes.settle()
    granted = nodes.result(1, 2)
    assert isinstance(granted, Granted)
    lagging(nodes)
    catch_up(nodes, follower)
    third = next(node for node in nodes.replicas if node not in (leader, follower))
    nodes.cut.update({leader})
    nodes.passes = lambda message: not (isinstance(message, VoteReply) and message.to == third)
    nodes.wait(lambda: nodes.replicas[follower].status().ready)
    nodes.submit(follower, 5, 2, call(session, 1, LockAcquire("/lock", None, OWNER)))
    nodes.submit(follower, 5, 3, call(session, 2, LockRelease("/lock", granted.token)))
    nodes.settle()
    assert nodes.result(5, 2) == granted
    assert nodes.result(5, 3) == Done()


def test_nobody_expires_because_of_a_snapshot():
    """A leader that came out of one grants every session its full TTL, in cluster time that goes on from the snapshot's."""
    nodes = Nodes()
    leader = nodes.elect()
    session = nodes.open(leader, ttl_ms=2_000, connection=9)
    _, follower = lagging(nodes)
    catch_up(nodes, follower)
    for node in nodes.replicas:
        nodes.crash(node)
    for node in nodes.disks:
        nodes.start(node)
    leader = nodes.elect()
    nodes.advance(1_500)
    assert not nodes.noted(SessionsEnded)
    leader = nodes.elect()
    nodes.replicas[leader].request(9, Ask(50, SessionInfo(session)))
    nodes.settle()
    told = nodes.answers[9, 50]
    assert isinstance(told, Told)
    assert isinstance(told.answer, SessionState)
    assert told.answer.alive
    nodes.advance(1_500)
    assert [fact.sessions for fact in nodes.noted(SessionsEnded)][:1] == [(session,)]


def test_consensus_hears_of_a_snapshot_only_when_all_of_it_is_there():
    """Else a crash would leave a node without a state."""
    nodes = Nodes()
    leader, follower = lagging(nodes)
    nodes.slow.add(follower)
    nodes.cut.discard(follower)
    nodes.advance(2_000)
    raft = nodes.replicas[leader]._raft
    status = nodes.replicas[follower].status()
    metadata = nodes.snapshot(leader).info.metadata
    early = InstallSnapshot(sender=NodeId(leader), to=NodeId(follower), term=raft.term, metadata=metadata)
    nodes.replicas[follower].receive(early)
    nodes.settle()
    assert nodes.replicas[follower].status().commit_index == status.commit_index
    assert not nodes.noted(SnapshotInstalled)


def test_at_most_a_window_of_chunks_is_on_its_way():
    """A heartbeat must not wait behind a hundred megabytes."""
    nodes = Nodes(3, replace(SMALL, chunk_bytes=40, window_chunks=3))
    leader, follower = lagging(nodes, paths=40)
    nodes.cut.discard(follower)
    nodes.sent.clear()
    outstanding = most = acknowledged = 0
    for _ in range(400):
        nodes.advance(50)
        for message in nodes.sent:
            if isinstance(message, SnapshotChunk):
                outstanding = message.seq + 1 - acknowledged
                most = max(most, outstanding)
            elif isinstance(message, SnapshotAck):
                acknowledged = max(acknowledged, message.safe)
        nodes.sent.clear()
        if nodes.noted(SnapshotInstalled, follower):
            break
    assert nodes.noted(SnapshotInstalled, follower)
    assert acknowledged > 10
    assert most == 3
    assert leader


def test_a_follower_whose_disk_is_slow_is_not_overrun():
    """A chunk is acknowledged when it is durable."""
    nodes = Nodes(3, replace(SMALL, chunk_bytes=40, window_chunks=3))
    _, follower = lagging(nodes, paths=40)
    nodes.slow.add(follower)
    nodes.cut.discard(follower)
    nodes.sent.clear()
    nodes.advance(3_000)
    assert max(message.seq for message in nodes.sent if isinstance(message, SnapshotChunk)) == 2


def test_a_broken_transfer_goes_on_where_it_stopped():
    """After a broken connection the follower says what it has."""
    nodes = Nodes(3, replace(SMALL, chunk_bytes=40))
    leader, follower = lagging(nodes, paths=40)
    nodes.cut.discard(follower)
    nodes.wait(lambda: sum(isinstance(message, SnapshotChunk) for message in nodes.sent) >= 8)
    nodes.cut.add(follower)
    nodes.advance(200)
    nodes.cut.discard(follower)
    nodes.sent.clear()
    catch_up(nodes, follower)
    again = [message.seq for message in nodes.sent if isinstance(message, SnapshotChunk)]
    assert min(again) >= 4
    assert nodes.noted(SnapshotInstalled, follower)
    assert leader


@pytest.mark.parametrize("seed", range(5))
def test_lost_messages_of_a_transfer_come_again(seed: int):
    """A third of them is lost."""
    draw = random.Random(seed)
    nodes = Nodes(3, replace(SMALL, chunk_bytes=60, retry_ticks=3))
    _, follower = lagging(nodes, paths=40)
    nodes.passes = lambda message: not is_transfer(message) or draw.random() > 0.33
    catch_up(nodes, follower)
    assert nodes.noted(SnapshotInstalled, follower)


@pytest.mark.parametrize(("safe", "resume"), [(0, -1_000_000), (-1_000_000, 0), (5, 3)])
def test_an_acknowledgement_that_cannot_be_true_is_ignored(safe: int, resume: int):
    """A leader must not read a million chunks that there are not."""
    nodes = Nodes(3, replace(SMALL, chunk_bytes=40, window_chunks=3))
    leader, follower = lagging(nodes, paths=40)
    nodes.passes = lambda message: not isinstance(message, SnapshotAck)
    nodes.cut.discard(follower)
    nodes.wait(lambda: any(isinstance(message, SnapshotOffer) for message in nodes.sent))
    offer = next(message for message in nodes.sent if isinstance(message, SnapshotOffer))
    ack = SnapshotAck(
        sender=NodeId(follower), to=NodeId(leader), term=offer.term, sha256=offer.info.sha256, safe=safe, resume=resume
    )
    nodes.replicas[leader].receive(ack)
    assert nodes.replicas[leader].turn(nodes.now_ms).reads == []


def test_repeated_and_late_messages_of_a_transfer_do_no_harm():
    nodes = Nodes(3, replace(SMALL, chunk_bytes=60))
    _, follower = lagging(nodes, paths=40)
    held: list[PeerMessage] = []

    def passes(message: PeerMessage) -> bool:
        if is_transfer(message):
            held.append(message)
            if len(held) % 3 == 0 and message.to not in nodes.cut:
                for old in held[-6:]:
                    if old.to not in nodes.cut:
                        nodes.replicas[old.to].receive(old)
        return True

    nodes.passes = passes
    catch_up(nodes, follower)
    for message in held:
        nodes.replicas[message.to].receive(message)
    nodes.load(30)
    nodes.wait(nodes.are_level)


def test_a_chunk_that_was_damaged_on_its_way_is_asked_for_again():
    nodes = Nodes(3, replace(SMALL, chunk_bytes=60))
    _, follower = lagging(nodes, paths=40)
    damaged = 0

    def passes(message: PeerMessage) -> bool:
        nonlocal damaged
        if isinstance(message, SnapshotChunk) and message.seq == 3 and not damaged:
            damaged += 1
            harmed = bytes([message.data[0] ^ 1]) + message.data[1:]
            changed = SnapshotChunk(
                sender=message.sender, to=message.to, term=message.term, sha256=message.sha256, seq=3, crc=message.crc, data=harmed
            )
            nodes.replicas[message.to].receive(changed)
            return False
        return True

    nodes.passes = passes
    catch_up(nodes, follower)
    assert damaged
    assert nodes.noted(SnapshotInstalled, follower)


def test_a_snapshot_whose_sum_differs_is_never_installed():
    """Good chunks, but not those that were offered: the leader's disk or its code is at fault."""
    nodes = Nodes(3, replace(SMALL, chunk_bytes=60))
    _, follower = lagging(nodes, paths=40)
    status = nodes.replicas[follower].status()

    def passes(message: PeerMessage) -> bool:
        if isinstance(message, SnapshotOffer):
            other = SnapshotOffer(sender=message.sender, to=message.to, term=message.term, info=wrong(message.info))
            nodes.replicas[message.to].receive(other)
            return False
        if isinstance(message, SnapshotChunk):
            nodes.replicas[message.to].receive(with_sum(message))
            return False
        if isinstance(message, SnapshotAck):
            nodes.replicas[message.to].receive(right(message))
            return False
        return True

    sums: dict[bytes, bytes] = {}

    def wrong(info):
        changed = bytes(32 - len(b"no")) + b"no"
        sums[changed] = info.sha256
        return type(info)(info.metadata, info.members, info.chunks, info.size, changed)

    def with_sum(message: SnapshotChunk) -> SnapshotChunk:
        [changed] = sums
        return SnapshotChunk(
            sender=message.sender,
            to=message.to,
            term=message.term,
            sha256=changed,
            seq=message.seq,
            crc=message.crc,
            data=message.data,
        )

    def right(message: SnapshotAck) -> SnapshotAck:
        return SnapshotAck(
            sender=message.sender,
            to=message.to,
            term=message.term,
            sha256=sums[message.sha256],
            safe=message.safe,
            resume=message.resume,
        )

    nodes.passes = passes
    nodes.cut.discard(follower)
    nodes.advance(5_000)
    assert not nodes.noted(SnapshotInstalled)
    assert nodes.replicas[follower].status().applied_index == status.applied_index


def test_a_snapshot_that_this_release_cannot_read_stops_the_node():
    """Its bytes are those that were sent: trying again will not help, and saying nothing would hide it."""
    nodes = Nodes()
    _, follower = lagging(nodes)

    def passes(message: PeerMessage) -> bool:
        if isinstance(message, SnapshotChunk) and message.seq == 0:
            data = b"COORDSM\x63" + message.data[8:]
            nodes.replicas[message.to].receive(
                SnapshotChunk(
                    sender=message.sender,
                    to=message.to,
                    term=message.term,
                    sha256=message.sha256,
                    seq=0,
                    crc=chunk_crc(0, data),
                    data=data,
                )
            )
            return False
        return True

    nodes.passes = passes
    nodes.cut.discard(follower)
    with pytest.raises(ReleaseTooOld, match="has format 99"):
        nodes.advance(5_000)


def crash_when(nodes: Nodes, follower: int, *, durable: bool) -> None:
    """Let the follower install, and crash it before or after the write that installs is durable."""
    nodes.cut.discard(follower)
    write = nodes.disks[follower].write
    struck: list[bool] = []

    def crashing(batch):
        if batch.publish is not None and batch.publish.replaces_log and not struck:
            struck.append(True)
            if durable:
                write(batch)
            raise PowerLost
        write(batch)

    nodes.disks[follower].write = crashing  # type: ignore[method-assign]
    with pytest.raises(PowerLost):
        nodes.advance(60_000)
    del nodes.disks[follower].write
    nodes.crash(follower)


class PowerLost(Exception):
    pass


@pytest.mark.parametrize("durable", [False, True])
def test_a_crash_in_mid_install_leaves_the_old_state_or_the_new(durable: bool):
    """Never half of each (LogCabin #174, braft #119)."""
    nodes = Nodes()
    _, follower = lagging(nodes)
    before = nodes.replicas[follower].status()
    crash_when(nodes, follower, durable=durable)
    nodes.start(follower)
    status = nodes.replicas[follower].status()
    assert (status.snapshot_index > before.last_index) is durable
    nodes.wait(nodes.are_level)


def test_the_term_is_not_taken_from_a_snapshot():
    """Neither down nor up (jgroups-raft #23): it is the one in which the leader sent it."""
    nodes = Nodes()
    _, follower = lagging(nodes)
    for _ in range(3):
        old = nodes.elect()
        nodes.cut.add(old)
        nodes.advance(1_000)
        if len(nodes.cut) == 2:
            nodes.cut.discard(follower)
        nodes.cut.discard(old)
        nodes.cut.add(follower)
        nodes.advance(1_000)
    leader = nodes.elect()
    term = nodes.replicas[leader].status().term
    crash_when(nodes, follower, durable=True)
    assert nodes.snapshot(follower).info.metadata.term < term
    assert nodes.disks[follower].hard_state.term >= term
    nodes.start(follower)
    assert nodes.replicas[follower].status().term >= term


def test_another_leader_sends_its_own_snapshot_and_the_first_ones_chunks_go():
    nodes = Nodes(5, replace(SMALL, chunk_bytes=40))
    leader, follower = lagging(nodes, paths=40)
    nodes.cut.discard(follower)
    nodes.wait(lambda: sum(isinstance(message, SnapshotChunk) for message in nodes.sent) >= 6)
    nodes.crash(leader)
    nodes.wait(lambda: nodes.are_level(*(node for node in nodes.replicas if node != leader)))
    assert nodes.noted(SnapshotInstalled, follower)
    nodes.settle()
    assert len(nodes.disks[follower]._staged) <= 2


def test_a_follower_gives_up_its_own_snapshot_for_the_leaders():
    nodes = Nodes()
    leader, follower = lagging(nodes)
    replica = nodes.replicas[follower]
    replica._snapshots._config = replace(SMALL, entries=1)
    nodes.slow.add(follower)
    nodes.load(1, leader=leader)
    replica._snapshots.begin_if_due(replica.machine, replica._membership.in_force)
    nodes.slow.clear()
    catch_up(nodes, follower)
    assert [fact.reason for fact in nodes.noted(SnapshotAbandoned, follower)] == ["the leader's arrives"]


def test_a_transfer_that_takes_too_long_is_given_up_and_its_snapshot_goes():
    """Or a follower that never finishes would keep an old snapshot on the leader's disk for ever."""
    nodes = Nodes(3, replace(SMALL, give_up_ticks=100))
    leader, follower = lagging(nodes)
    nodes.passes = lambda message: not isinstance(message, SnapshotChunk)
    nodes.cut.discard(follower)
    nodes.advance(1_000)
    kept = nodes.snapshot(leader).staging
    nodes.load(60, leader=leader)
    assert kept in nodes.disks[leader]._staged
    nodes.advance(5_000)
    assert any(fact.reason == "it took too long" for fact in nodes.noted(SnapshotSent, leader))
    assert kept not in nodes.disks[leader]._staged
    nodes.passes = lambda message: True
    nodes.wait(nodes.are_level)


def test_a_leader_without_a_follower_to_serve_keeps_one_snapshot():
    nodes = Nodes(1)
    nodes.load(200)
    nodes.settle()
    assert len(nodes.noted(SnapshotTaken)) >= 3
    assert len(nodes.disks[1]._staged) == 1


def test_an_old_snapshot_offered_to_a_node_that_is_ahead_is_not_installed():
    """A follower that has what the snapshot covers says so, and consensus goes on from its log."""
    nodes = Nodes()
    leader = nodes.elect()
    nodes.load(60)
    nodes.wait(nodes.are_level)
    follower = leader % 3 + 1
    raft, info = nodes.replicas[leader]._raft, nodes.snapshot(leader).info
    nodes.replicas[follower].receive(SnapshotOffer(sender=NodeId(leader), to=NodeId(follower), term=raft.term, info=info))
    nodes.sent.clear()
    nodes.settle()
    acks = [message for message in nodes.sent if isinstance(message, SnapshotAck)]
    assert [ack.safe for ack in acks] == [info.chunks]
    assert not nodes.noted(SnapshotInstalled)


@pytest.mark.parametrize("sender", ["nobody", "old term"])
def test_only_the_present_leader_is_heard(sender: str):
    """A deposed leader's snapshot could be older than what is committed."""
    nodes = Nodes()
    leader = nodes.elect()
    nodes.load(60)
    follower, other = (node for node in nodes.replicas if node != leader)
    info = nodes.snapshot(leader).info
    far = type(info.metadata)(LogIndex(info.metadata.index + 1_000), info.metadata.term, info.metadata.configuration)
    far_info = type(info)(far, info.members, info.chunks, info.size, info.sha256)
    term = nodes.replicas[leader]._raft.term
    offer = SnapshotOffer(
        sender=NodeId(other if sender == "nobody" else leader),
        to=NodeId(follower),
        term=term if sender == "nobody" else Term(term - 1),
        info=far_info,
    )
    nodes.sent.clear()
    nodes.replicas[follower].receive(offer)
    nodes.settle()
    assert not any(isinstance(message, SnapshotAck) for message in nodes.sent)


def test_a_write_of_a_snapshot_and_one_of_consensus_may_be_on_their_way_together():
    """The log does not wait for the snapshot's disk."""
    nodes = Nodes(1)
    nodes.load(15)
    nodes.slow.add(1)
    nodes.load(30)
    leader = nodes.replicas[1]
    assert leader.status().applied_index > 40
    assert not leader.turn(nodes.now_ms).stage


def test_a_config_says_what_it_keeps():
    """The defaults of a server."""
    config = SnapshotConfig()
    assert (config.entries, config.bytes, config.trailing_entries, config.trailing_bytes) == (50_000, 64 << 20, 10_000, 16 << 20)
