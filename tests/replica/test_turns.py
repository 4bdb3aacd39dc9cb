"""What a replica promises its clients, driven through its face: events in, effects out."""

import pytest

from coord_core.errors import ReleaseTooOld
from coord_core.machine import Machine
from coord_core.protocol.commands import ExpireSession, OpenSession, SetMachineVersion, Tick
from coord_core.protocol.messages import Ask, KeepAlive, KeptAlive, Redirect, Submit, Told
from coord_core.protocol.operations import LockAcquire, LockRelease, ValueSet
from coord_core.protocol.queries import LockInfo, LockState, SessionInfo, SessionState, ValueGet, ValueState
from coord_core.protocol.results import Done, Failed, Granted, NotGranted, SessionOpened, ValueWritten
from coord_core.raft.messages import AppendReply
from coord_core.raft.progress import Sending
from coord_core.replica import LaneLimits, SessionsEnded, Stalled
from coord_core.replica.entries import stamp
from coord_core.types import FencingToken, LogIndex, NodeId, SessionId
from coord_core.wire.codec import encode_command
from tests.replica.harness import OWNER, Driver, call


def acquire(wait_ms: int | None = None) -> LockAcquire:
    return LockAcquire("/lock", wait_ms, OWNER)


def test_an_acquire_is_answered_with_the_index_of_its_entry_as_token():
    driver = Driver()
    leader = driver.elect()
    session = driver.open(leader)
    driver.submit(leader, 1, 2, call(session, 1, acquire()))
    driver.settle()
    assert driver.result(1, 2) == Granted(FencingToken(session + 1))


def test_nothing_is_answered_before_it_is_durable():
    """A grant that a crash can take back is two holders."""
    driver = Driver()
    leader = driver.elect()
    session = driver.open(leader)
    driver.stuck_disks.add(leader)
    driver.submit(leader, 1, 2, call(session, 1, acquire()))
    driver.settle()
    assert driver.result(1, 2) is None
    node, persist = driver.stuck.pop()
    driver.stuck_disks.clear()
    driver.replicas[node].persisted(persist.ack)
    driver.settle()
    assert isinstance(driver.result(1, 2), Granted)


def test_a_waiting_call_is_answered_by_the_entry_that_frees_the_lock():
    driver = Driver()
    leader = driver.elect()
    first, second = driver.open(leader), driver.open(leader, connection=2)
    driver.submit(leader, 1, 2, call(first, 1, acquire()))
    driver.submit(leader, 2, 2, call(second, 1, acquire()))
    driver.settle()
    granted = driver.result(1, 2)
    assert driver.result(2, 2) is None
    driver.submit(leader, 1, 3, call(first, 2, LockRelease("/lock", granted.token)))
    driver.settle()
    assert driver.result(1, 3) == Done()
    assert driver.result(2, 2).token > granted.token


def test_a_command_sent_again_is_answered_on_the_later_connection_and_applied_once():
    driver = Driver()
    leader = driver.elect()
    first, second = driver.open(leader), driver.open(leader, connection=2)
    driver.submit(leader, 1, 2, call(first, 1, acquire()))
    driver.submit(leader, 2, 2, call(second, 1, acquire()))
    driver.settle()
    driver.submit(leader, 3, 7, call(second, 1, acquire()))
    driver.settle()
    driver.submit(leader, 1, 3, call(first, 2, LockRelease("/lock", driver.result(1, 2).token)))
    driver.settle()
    assert driver.result(2, 2) is None
    assert isinstance(driver.result(3, 7), Granted)
    state = ask(driver, leader, "/lock")
    assert state.waiters_total == 0


def ask(driver: Driver, leader: int, path: str) -> LockState:
    driver.replicas[leader].request(90, Ask(1, LockInfo(path)))
    driver.settle()
    told = driver.answers.pop((90, 1))
    assert isinstance(told, Told)
    assert isinstance(told.answer, LockState)
    return told.answer


def test_a_wait_times_out_in_cluster_time_without_traffic():
    """Timers that need traffic to fire are timers that do not fire at night."""
    driver = Driver()
    leader = driver.elect()
    first, second = driver.open(leader, ttl_ms=60_000), driver.open(leader, ttl_ms=60_000, connection=2)
    driver.submit(leader, 1, 2, call(first, 1, acquire()))
    driver.submit(leader, 2, 2, call(second, 1, acquire(wait_ms=500)))
    driver.settle()
    driver.advance(450)
    assert driver.result(2, 2) is None
    driver.advance(100)
    assert isinstance(driver.result(2, 2), NotGranted)
    assert driver.result(2, 2).reason == "timeout"


def test_an_idle_replica_writes_nothing():
    driver = Driver()
    leader = driver.elect()
    driver.open(leader, ttl_ms=600_000)
    before = driver.replicas[leader].status().last_index
    driver.advance(5_000)
    assert driver.replicas[leader].status().last_index == before


def test_a_session_that_keeps_alive_lives_and_one_that_does_not_expires():
    driver = Driver()
    leader = driver.elect()
    session = driver.open(leader, ttl_ms=1_000)
    for seq in range(10, 15):
        driver.advance(600)
        driver.replicas[leader].request(1, KeepAlive(seq, session, 1))
        driver.settle()
        assert driver.answers[1, seq] == KeptAlive(seq, 1_000)
    driver.advance(1_100)
    ended = [fact for _, fact in driver.facts if isinstance(fact, SessionsEnded)]
    assert [fact.sessions for fact in ended] == [(session,)]
    assert ended[0].expired
    driver.replicas[leader].request(1, KeepAlive(20, session, 1))
    driver.settle()
    assert driver.result(1, 20).code == "SessionExpired"


def test_a_keep_alive_served_behind_the_check_that_found_its_session_dead_gets_no_answer():
    """The expiry is proposed one turn later: a lease renewed in between would be promised and then taken away."""
    driver = Driver(nodes=3)
    leader = driver.elect()
    session = driver.open(leader, ttl_ms=1_000)
    driver.advance(900)
    driver.now_ms += 80
    driver.replicas[leader].request(7, Ask(1, ValueGet("/a")))
    driver.turn(leader)  # a round is under way
    driver.now_ms += 30
    driver.turn(leader)  # the lease is over: its check waits for the next round
    driver.replicas[leader].request(7, KeepAlive(2, session, 1))  # and so does this, behind it
    driver.settle()
    assert [fact.sessions for node, fact in driver.facts if node == leader and isinstance(fact, SessionsEnded)] == [(session,)]
    assert (7, 2) not in driver.answers


def test_a_stalled_loop_expires_nobody():
    """Keep-alives sent meanwhile lie unread in its sockets."""
    driver = Driver()
    leader = driver.elect()
    session = driver.open(leader, ttl_ms=1_000)
    driver.now_ms += 30_000
    driver.replicas[leader].tick()
    driver.settle()
    driver.advance(850)
    driver.replicas[leader].request(1, Ask(5, SessionInfo(session)))
    driver.settle()
    told = driver.answers[1, 5]
    assert isinstance(told, Told)
    assert isinstance(told.answer, SessionState)
    assert told.answer.alive
    assert any(isinstance(fact, Stalled) for _, fact in driver.facts)


def test_a_follower_sends_clients_to_the_leader():
    driver = Driver(nodes=3)
    leader = driver.elect()
    follower = leader % 3 + 1
    driver.submit(follower, 1, 1, call(SessionId(5), 1, acquire()))
    driver.replicas[follower].request(1, Ask(2, ValueGet("/v")))
    driver.settle()
    address = f"127.0.0.1:{7400 + leader}"
    assert driver.answers[1, 1] == Redirect(1, address)
    assert driver.answers[1, 2] == Redirect(2, address)


def test_a_leader_cut_off_answers_no_read_no_keep_alive_and_expires_nobody():
    """It cannot know whether another leads by now."""
    driver = Driver(nodes=3)
    leader = driver.elect()
    session = driver.open(leader, ttl_ms=500)
    driver.cut.add(leader)
    driver.replicas[leader].request(1, KeepAlive(8, session, 1))
    driver.replicas[leader].request(1, Ask(9, ValueGet("/v")))
    driver.advance(5_000, nodes=(leader,))
    for seq in (8, 9):
        assert isinstance(driver.answers.get((1, seq)), Redirect | None)
    assert driver.replicas[leader].machine.session(session) is not None


def test_everyone_who_waits_is_sent_on_when_the_leader_is_deposed():
    driver = Driver(nodes=3)
    leader = driver.elect()
    first = driver.open(leader, ttl_ms=60_000)
    driver.submit(leader, 1, 2, call(first, 1, acquire()))
    driver.submit(leader, 1, 3, call(first, 2, acquire()))
    driver.settle()
    driver.cut.add(leader)
    driver.advance(3_000)
    assert isinstance(driver.answers[1, 3], Redirect)


def test_a_new_leader_gives_every_session_a_full_ttl():
    """The old one may have answered a keep-alive a moment ago; nobody else knows."""
    driver = Driver(nodes=3)
    leader = driver.elect()
    session = driver.open(leader, ttl_ms=3_000)
    driver.advance(2_500)
    driver.cut.add(leader)
    others = [node for node in driver.replicas if node != leader]
    while not any(driver.replicas[node].status().ready for node in others):
        driver.advance(50)
    successor = next(node for node in others if driver.replicas[node].status().ready)
    driver.advance(2_500)
    assert driver.replicas[successor].machine.session(session) is not None
    driver.advance(700)
    assert driver.replicas[successor].machine.session(session) is None


def test_commands_wait_for_a_leader_that_is_not_ready_yet():
    """Until its own term's first entry is applied a leader knows neither the cluster's time nor its sessions."""
    driver = Driver()
    driver.stuck_disks.add(1)
    while driver.replicas[1].status().role != "leader":
        driver.advance(50)
        if driver.stuck:
            driver.replicas[1].persisted(driver.stuck.pop()[1].ack)
            driver.turn(1)
    driver.submit(1, 1, 1, OpenSession(1_000, OWNER))
    driver.settle()
    assert (1, 1) not in driver.answers
    driver.stuck_disks.clear()
    driver.replicas[1].persisted(driver.stuck.pop()[1].ack)
    driver.settle()
    assert isinstance(driver.result(1, 1), SessionOpened)


def test_the_leaders_own_commands_cannot_come_from_a_client():
    """A client that expires other people's sessions is an attack."""
    driver = Driver()
    leader = driver.elect()
    session = driver.open(leader)
    driver.submit(leader, 1, 2, ExpireSession(session, 1))
    driver.submit(leader, 1, 3, Tick())
    driver.submit(leader, 1, 4, SetMachineVersion(2))
    driver.settle()
    assert [driver.result(1, seq).code for seq in (2, 3, 4)] == ["InvalidRequest"] * 3
    assert driver.replicas[leader].machine.session(session) is not None


@pytest.mark.parametrize("command", [encode_command(SetMachineVersion(Machine.VERSION_MAX + 1)), b"\x92\x63\x01"])
def test_an_entry_that_only_a_newer_release_understands_stops_the_node(command):
    """A version of the machine, or a command: whoever passed over it would go on as another machine.  Nothing is damaged."""
    driver = Driver()
    leader = driver.elect()
    driver.replicas[leader]._raft.propose([stamp(0) + command])
    with pytest.raises(ReleaseTooOld, match="start a newer release"):
        driver.settle()


def test_bytes_that_are_no_command_are_refused_and_nothing_else_is_harmed():
    driver = Driver()
    leader = driver.elect()
    session = driver.open(leader)
    driver.replicas[leader].request(1, Submit(2, b"\xc1rubbish"))  # type: ignore[arg-type]
    driver.submit(leader, 1, 3, call(session, 1, ValueSet("/v", b"x")))
    driver.settle()
    assert isinstance(driver.result(1, 2), Failed)
    assert isinstance(driver.result(1, 3), ValueWritten)


def test_a_full_command_lane_refuses_with_busy_and_still_lets_releases_through():
    driver = Driver(lanes=LaneLimits(commands_max=1))
    leader = driver.elect()
    session = driver.open(leader)
    driver.submit(leader, 1, 2, call(session, 1, acquire()))
    driver.settle()
    token = driver.result(1, 2).token
    driver.submit(leader, 1, 3, call(session, 2, ValueSet("/a", b"")))
    driver.submit(leader, 1, 4, call(session, 3, ValueSet("/b", b"")))
    driver.submit(leader, 1, 5, call(session, 4, LockRelease("/lock", token)))
    driver.settle()
    assert isinstance(driver.result(1, 3), ValueWritten)
    assert driver.result(1, 4).code == "Busy"
    assert driver.result(1, 5) == Done()


def test_a_read_sees_every_write_that_was_acknowledged_before_it():
    driver = Driver(nodes=3)
    leader = driver.elect()
    session = driver.open(leader)
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"new")))
    driver.settle()
    driver.replicas[leader].request(1, Ask(3, ValueGet("/v")))
    driver.settle()
    told = driver.answers[1, 3]
    assert isinstance(told, Told)
    assert isinstance(told.answer, ValueState)
    assert told.answer.value == b"new"


def test_a_lone_voter_and_the_first_founder_of_an_empty_log_do_not_wait_for_an_election_timeout():
    """Nobody else can lead: waiting only makes the first command late."""
    for nodes in (1, 3):
        driver = Driver(nodes)
        driver.settle()
        assert driver.replicas[1].status().ready, nodes
        assert driver.now_ms == 0


def test_an_answer_to_an_older_terms_message_is_no_acceptance():
    """It carries index 0; taken for an acceptance it would send the leader back to before the log's beginning."""
    driver = Driver(nodes=3)
    leader = driver.elect()
    follower = NodeId(leader % 3 + 1)
    raft = driver.replicas[leader]._raft
    unheard = raft._state.progress[follower]
    unheard.state, unheard.match = Sending.PROBE, LogIndex(0)
    raft.step(AppendReply(sender=follower, to=NodeId(leader), term=raft.term, index=LogIndex(0)))
    assert unheard.state is Sending.PROBE


def test_a_follower_that_consensus_would_send_the_founding_gets_the_log():
    """Nobody lacks the founding: there is nothing to send, and the follower must not wait for it."""
    driver = Driver(nodes=3)
    leader = driver.elect()
    follower = NodeId(leader % 3 + 1)
    session = driver.open(leader)
    driver.cut.add(follower)
    driver.submit(leader, 1, 2, call(session, 1, ValueSet("/v", b"new")))
    driver.settle()
    lagging = driver.replicas[leader]._raft._state.progress[follower]
    lagging.state, lagging.match, lagging.next = Sending.PROBE, LogIndex(0), LogIndex(1)
    driver.cut.clear()
    driver.advance(300)
    assert driver.replicas[follower].status().applied_index == driver.replicas[leader].status().applied_index
