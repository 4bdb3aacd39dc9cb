"""Full disks: who refuses what, who leads then, and what goes on all the same."""

import random
from dataclasses import replace

import msgspec

from coord_core.protocol.messages import Ask, KeepAlive, KeptAlive, Told
from coord_core.protocol.operations import LockAcquire, LockRelease, ValueSet
from coord_core.protocol.queries import ValueGet
from coord_core.protocol.results import Done, Failed, Granted, ValueWritten
from coord_core.raft.config import RaftConfig
from coord_core.raft.messages import Append
from coord_core.replica import (
    CommandsRefused,
    CommandsTaken,
    DiskRoom,
    LaneLimits,
    PeerMessage,
    Replica,
    ReplicaConfig,
    SessionsEnded,
    SnapshotTaken,
    Vitals,
)
from coord_core.replica.vitals import STALE_TICKS
from coord_core.storage.room import Level, Room
from coord_core.types import NodeId
from tests.replica.harness import OWNER, TICK_MS, Driver, call, restored
from tests.replica.nodes import SMALL, Nodes

MIB = 1024 * 1024
AMPLE, LOW, FULL = Room(Level.AMPLE, 500 * MIB), Room(Level.LOW, 3 * MIB), Room(Level.FULL, 100_000)


def led(nodes: int = 3) -> tuple[Driver, int, list[int]]:
    """Return a cluster with a leader, and its followers; everybody's disk is ample."""
    driver = Driver(nodes)
    leader = driver.elect()
    for replica in driver.replicas.values():
        replica.disk_room(AMPLE)
    driver.settle()
    return driver, leader, [node for node in driver.replicas if node != leader]


def test_commands_are_refused_while_a_majority_of_disks_is_low():
    """They would be accepted, and then be durable on no majority; who asks hears at once which nodes, and what to do."""
    driver, leader, (one, other) = led()
    session = driver.open(leader)
    driver.replicas[one].disk_room(LOW)
    driver.settle()
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"a")))
    driver.settle()
    assert type(driver.result(1, 2)) is ValueWritten, "two of three have room"
    driver.replicas[other].disk_room(LOW)
    driver.settle()
    driver.submit(leader, 1, 3, call(session, 2, ValueSet("/v", b"b")))
    driver.settle()
    refused = driver.result(1, 3)
    assert isinstance(refused, Failed)
    assert refused.code == "DiskFull"
    assert f"node n{one} has 3.0 MiB free, node n{other} has 3.0 MiB free. Free space there" in refused.message
    assert "releases, reads and leases go on" in refused.message


def test_what_gives_back_and_what_keeps_alive_goes_on_while_disks_are_low():
    """Locks are released, leases renewed, values read, sessions expired and timers fired."""
    driver, leader, followers = led()
    session, doomed = driver.open(leader, ttl_ms=60_000), driver.open(leader, ttl_ms=1_000, connection=2)
    driver.submit(leader, 1, 2, call(session, 1, LockAcquire("/l", 0, OWNER)))
    driver.submit(leader, 3, 1, call(session, 2, LockAcquire("/l", 200, OWNER)))
    driver.settle()
    granted = driver.result(1, 2)
    assert isinstance(granted, Granted)
    for node in followers:
        driver.replicas[node].disk_room(LOW)
    driver.settle()
    driver.advance(300)
    assert driver.result(3, 1) is not None, "the wait timed out by a Tick"
    driver.submit(leader, 1, 3, call(session, 3, LockRelease("/l", granted.token), low_water=2))
    driver.replicas[leader].request(1, KeepAlive(4, session, 1))
    driver.replicas[leader].request(1, Ask(5, ValueGet("/v")))
    driver.settle()
    assert type(driver.result(1, 3)) is Done
    assert [type(driver.answers[1, seq]) for seq in (4, 5)] == [KeptAlive, Told]
    driver.advance(2_000)
    assert any(isinstance(fact, SessionsEnded) and doomed in fact.sessions for node, fact in driver.facts if node == leader)


def test_commands_are_taken_again_without_a_restart_when_somebody_freed_space():
    """And each change is noted once, on the node itself and on the leader."""
    driver, leader, followers = led()
    session = driver.open(leader)
    for room in (LOW, replace(LOW, free_bytes=2 * MIB), AMPLE):
        for node in followers:
            driver.replicas[node].disk_room(room)
        driver.settle()
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"a")))
    driver.settle()
    assert type(driver.result(1, 2)) is ValueWritten
    assert [type(fact) for node, fact in driver.facts if isinstance(fact, CommandsRefused | CommandsTaken)] == [
        CommandsRefused,
        CommandsTaken,
    ]
    noted = [(node, fact.level) for node, fact in driver.facts if isinstance(fact, DiskRoom)]
    assert noted == [(node, level) for level in ("low", "ample") for node in followers]


def test_a_leader_without_room_hands_over_to_a_voter_with_more():
    """Then nobody is refused: whoever asked meanwhile asks the next leader."""
    driver, leader, (one, other) = led()
    session = driver.open(leader)
    driver.replicas[one].disk_room(replace(AMPLE, free_bytes=900 * MIB))
    driver.settle()
    driver.replicas[leader].disk_room(LOW)
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"a")))
    driver.settle()
    driver.advance(200)
    assert driver.replicas[one].status().role == "leader", "it has the most"
    refused = driver.result(1, 2)
    assert not isinstance(refused, Failed) or refused.code == "Busy"
    driver.submit(one, 1, 3, call(session, 1, ValueSet("/v", b"a")))
    driver.settle()
    assert type(driver.result(1, 3)) is ValueWritten
    assert driver.replicas[other].status().role == "follower"


class Lossy(Driver):
    #: A node that entries do not reach, as where it catches up for long.
    lacks_entries = 0

    def deliver(self, sender: int, message: PeerMessage) -> None:
        if message.to != self.lacks_entries or type(message) is not Append:
            super().deliver(sender, message)


def test_releases_pass_although_the_voter_with_more_room_does_not_take_over():
    """Everything waits while leadership is handed over: it must not be tried again and again, however long a timeout is."""
    driver = Lossy(3)
    for node in driver.replicas:
        raft = RaftConfig(NodeId(node), election_timeout_ticks=50)
        config = ReplicaConfig(raft, tick_ms=TICK_MS)
        driver.replicas[node] = Replica(config, restored(node, 3), rng=random.Random(node), now_ms=0)
    leader = driver.elect()
    one, other = (node for node in driver.replicas if node != leader)
    driver.lacks_entries = one
    session = driver.open(leader, ttl_ms=60_000)
    driver.submit(leader, 1, 2, call(session, 1, LockAcquire("/l", 0, OWNER)))
    driver.settle()
    granted = driver.result(1, 2)
    assert isinstance(granted, Granted)
    driver.replicas[one].disk_room(AMPLE)
    for node in (leader, other):
        driver.replicas[node].disk_room(LOW)
    driver.submit(leader, 1, 3, call(session, 2, LockAcquire("/m", 0, OWNER)))
    driver.advance(6_000)
    refused = driver.result(1, 3)
    assert isinstance(refused, Failed)
    assert refused.code == "DiskFull"
    driver.submit(leader, 1, 4, call(session, 3, LockRelease("/l", granted.token)))
    driver.advance(3_000)
    assert driver.result(1, 4) == Done()
    assert driver.elect() == leader


def test_a_leader_without_room_that_nobody_can_follow_refuses():
    """It would fill its own disk."""
    driver, leader, _ = led(1)
    session = driver.open(leader)
    driver.replicas[leader].disk_room(LOW)
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"a")))
    driver.settle()
    refused = driver.result(1, 2)
    assert isinstance(refused, Failed)
    assert refused.code == "DiskFull"


def test_a_full_follower_takes_no_entries_and_votes():
    """Its last pages are for its term and its vote; what the leader sends is as if lost, and comes when there is room."""
    driver, leader, (full, other) = led()
    session = driver.open(leader)
    driver.replicas[full].disk_room(FULL)
    driver.settle()
    before = driver.replicas[full].status().last_index
    for number in range(1, 6):
        driver.submit(leader, 1, number + 1, call(session, number, ValueSet("/v", b"a")))
        driver.advance(TICK_MS)
    assert driver.replicas[full].status().last_index == before
    assert driver.replicas[leader].status().commit_index == before + 5
    assert driver.replicas[full].status().commit_index == before, "it still hears what is committed"
    # The leader goes; with the full node's vote the other one follows it, and only it can.
    driver.cut.add(leader)
    driver.advance(3_000)
    assert driver.replicas[other].status().ready is False, "its first entry is on no majority"
    assert driver.replicas[other].status().role == "leader"
    driver.replicas[full].disk_room(AMPLE)
    driver.advance(500)
    assert driver.replicas[other].status().ready
    assert driver.replicas[full].status().last_index == driver.replicas[other].status().last_index


def test_nothing_with_entries_is_sent_to_a_node_that_is_full():
    """A few MiB with every heartbeat, to be thrown away."""
    nodes = Nodes(3)
    leader = nodes.elect()
    full = leader % 3 + 1
    nodes.replicas[full].disk_room(FULL)
    nodes.advance(200)
    nodes.sent.clear()
    nodes.load(20)
    nodes.advance(1_000)
    assert not [m for m in nodes.sent if isinstance(m, Append) and m.to == full and m.entries]
    nodes.replicas[full].disk_room(AMPLE)
    nodes.wait(lambda: nodes.are_level())


def test_a_full_leader_with_full_followers_refuses_releases_too_and_keeps_leases():
    """There is room for nothing; sessions live on and nothing is expired that could not be stored."""
    driver, leader, followers = led()
    session = driver.open(leader, ttl_ms=1_000)
    driver.submit(leader, 1, 2, call(session, 1, LockAcquire("/l", 0, OWNER)))
    driver.settle()
    granted = driver.result(1, 2)
    assert isinstance(granted, Granted)
    for each in (followers, [leader]):
        for node in each:
            driver.replicas[node].disk_room(FULL)
        driver.settle()
    before = driver.replicas[leader].status().last_index
    driver.submit(leader, 1, 3, call(session, 2, LockRelease("/l", granted.token)))
    driver.settle()
    refused = driver.result(1, 3)
    assert isinstance(refused, Failed)
    assert refused.code == "DiskFull"
    assert "0.1 MiB free. Free space there" in refused.message
    assert "; reads and leases go on" in refused.message
    driver.advance(3_000)
    assert not driver.replicas[leader].has_work(), "what is overdue does not make it run in circles"
    driver.replicas[leader].request(1, KeepAlive(4, session, 1))
    driver.settle()
    assert isinstance(driver.answers[1, 4], KeptAlive)
    assert driver.replicas[leader].status().last_index == before


def test_a_node_that_is_down_is_no_full_disk():
    """Its room is not counted on, but commands are refused for a disk only where some disk is known to be low."""
    driver, leader, (one, other) = led()
    session = driver.open(leader, ttl_ms=60_000)
    driver.cut.add(other)
    driver.advance((STALE_TICKS + 10) * TICK_MS)
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"a")))
    driver.settle()
    assert type(driver.result(1, 2)) is ValueWritten
    driver.replicas[one].disk_room(LOW)
    driver.settle()
    driver.submit(leader, 1, 3, call(session, 2, ValueSet("/v", b"b")))
    driver.settle()
    refused = driver.result(1, 3)
    assert isinstance(refused, Failed)
    assert f"node n{one} has 3.0 MiB free" in refused.message
    assert f"node n{other} is not heard" in refused.message
    assert f"Free space on the disk of n{one} (each node's data directory needs some), or start n{other} again" in refused.message
    assert driver.replicas[leader].status().refuses == refused.message


def test_a_refusal_says_how_much_must_be_free_until_commands_are_taken_again():
    """More than the bound at which they began to be refused: room comes back later than it went."""
    driver, leader, (one, other) = led()
    session = driver.open(leader)
    assert driver.replicas[leader].status().refuses == ""
    for node, needed in ((one, 82 * MIB), (other, 90 * MIB)):
        driver.replicas[node].disk_room(Room(Level.LOW, 3 * MIB, needed))
    driver.settle()
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"a")))
    driver.settle()
    refused = driver.result(1, 2)
    assert isinstance(refused, Failed)
    assert f"node n{one} has 3.0 MiB free and needs 82.0 MiB" in refused.message
    assert f"node n{other} has 3.0 MiB free and needs 90.0 MiB" in refused.message
    assert all(driver.replicas[node].status().refuses == "" for node in (one, other)), "that is the leader's to say"


def test_a_new_leader_hears_of_the_disks_at_once():
    """Each follower tells whoever leads now, without being asked."""
    driver, leader, followers = led()
    for node in followers:
        driver.replicas[node].disk_room(LOW)
    driver.settle()
    driver.cut.add(leader)
    driver.advance(1_000)
    (next_leader,) = [node for node in followers if driver.replicas[node].status().role == "leader"]
    assert any(isinstance(fact, CommandsRefused) for node, fact in driver.facts if node == next_leader)


def test_a_cluster_of_full_disks_still_gets_a_leader_that_renews_leases():
    """A leader begins with an entry that has no content; it takes no more room than the vote."""
    driver, leader, followers = led()
    session = driver.open(leader, ttl_ms=60_000)
    for node in driver.replicas:
        driver.replicas[node].disk_room(FULL)
    driver.settle()
    driver.cut.add(leader)
    driver.advance(3_000)
    (next_leader,) = [node for node in followers if driver.replicas[node].status().ready]
    driver.replicas[next_leader].request(1, KeepAlive(9, session, 1))
    driver.settle()
    assert isinstance(driver.answers[1, 9], KeptAlive)


def test_a_report_of_another_term_or_of_a_stranger_counts_for_nothing():
    """What was said to another leader is over; who does not belong has no disk here."""
    driver, leader, (one, other) = led()
    session = driver.open(leader)
    term = driver.replicas[leader].status().term
    low = Vitals(sender=one, to=leader, term=term, level=2, free_bytes=0, version=1)  # type: ignore[arg-type]
    for message in (
        msgspec.structs.replace(low, term=term - 1),
        msgspec.structs.replace(low, term=term + 1),
        msgspec.structs.replace(low, sender=9),
    ):
        driver.replicas[leader].receive(message)
    driver.replicas[other].disk_room(LOW)
    driver.settle()
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"a")))
    driver.settle()
    assert type(driver.result(1, 2)) is ValueWritten


def test_a_snapshot_is_taken_early_on_a_low_disk_where_it_gives_more_than_it_takes():
    """The pages of the log that it makes superfluous are used again; a state as large as the log would take the rest."""
    snapshots = replace(SMALL, entries=100_000, chunk_bytes=4_096, stage_bytes=8_192)
    nodes = Nodes(1, snapshots)
    nodes.load(300, size=10_000, paths=2)
    assert not nodes.noted(SnapshotTaken)
    nodes.replicas[1].disk_room(Room(Level.LOW, 2 * MIB))
    leader = nodes.elect()
    nodes.ask(leader, nodes.session(leader), LockRelease("/none", 1))  # type: ignore[arg-type]
    nodes.advance(500)
    assert not nodes.noted(SnapshotTaken), "its size is not known yet: it could be all of the log"
    nodes.replicas[1].disk_room(Room(Level.LOW, 30 * MIB))
    for number in range(70):
        nodes.ask(leader, nodes.session(leader), LockRelease("/none", number + 1))  # type: ignore[arg-type]
    nodes.advance(500)
    (taken,) = nodes.noted(SnapshotTaken)
    assert taken.size < 100_000
    assert nodes.replicas[1].status().first_index > 200


def test_a_full_disk_gives_up_the_snapshot_that_was_being_taken():
    """Its chunks are the last thing there is room for."""
    nodes = Nodes(1, replace(SMALL, chunk_bytes=60), items=1)
    nodes.slow.add(1)
    nodes.load(25, paths=25)
    nodes.advance(100)
    nodes.replicas[1].disk_room(FULL)
    nodes.advance(100)
    assert any("the disk is full" in getattr(fact, "reason", "") for _, fact in nodes.facts)


def test_every_bound_of_the_lanes_holds_while_commands_are_refused():
    """What is refused leaves the lane."""
    driver = Driver(1, LaneLimits(commands_max=2))
    leader = driver.elect()
    session = driver.open(leader)
    driver.replicas[leader].disk_room(LOW)
    for number in range(1, 11):
        driver.submit(leader, 1, 10 + number, call(session, number, ValueSet("/v", b"a")))
        driver.settle(1)
    refused = [driver.result(1, 10 + number) for number in range(1, 11)]
    assert {answer.code for answer in refused if isinstance(answer, Failed)} == {"DiskFull"}
