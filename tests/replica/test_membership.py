"""Who belongs to the cluster, as replicas decide it: one change at a time, nobody left without a majority, nothing forgotten."""

import msgspec
import pytest

from coord_core.errors import CoordError, LimitExceeded, NodeRemoved, Unavailable, WrongCluster
from coord_core.machine import versions
from coord_core.protocol.administration import Administration, RemoveMember, TransferLeadership
from coord_core.protocol.members import Member
from coord_core.protocol.messages import Administer, PeerIdentity, Redirect, Reply
from coord_core.protocol.operations import ValueSet
from coord_core.protocol.results import Done, Failed, ValueWritten
from coord_core.raft.messages import Append, EntryKind, Heartbeat, TimeoutNow
from coord_core.raft.refusals import ProposalBusy
from coord_core.replica import SnapshotConfig
from coord_core.replica import membership as membership_module
from coord_core.replica.membership import JOIN_TICKS_MAX
from coord_core.storage.api import Bootstrap, Identity
from coord_core.storage.memory import MemoryStorage
from coord_core.types import LogIndex, NodeId
from tests.replica.harness import TICK_MS, call, restored
from tests.replica.nodes import SMALL, Nodes

FEW_SNAPSHOTS = SnapshotConfig()


class Growing(Nodes):
    """A cluster that nodes can be added to, as a server would."""

    def __init__(self, nodes: int = 3, snapshots: SnapshotConfig = FEW_SNAPSHOTS) -> None:
        super().__init__(nodes, snapshots)
        self._founders = nodes
        self.turned_away: list[tuple[PeerIdentity, CoordError]] = []
        #: Ids above the founders' from here on.
        self.load(5)

    def turn(self, node: int):
        effects = super().turn(node)
        self.turned_away += effects.turned_away
        return effects

    def member(self, name: str) -> Member | None:
        leader = self.replicas[self.elect()]
        return next((member for member in leader.status().members if member.name == name), None)

    def let_in(self, caller: PeerIdentity) -> int:
        """Ask for it and start it where it belongs; return its id."""
        self.replicas[self.elect()].join(caller)
        self.wait(lambda: (member := self.member(caller.name)) is not None and member.incarnation == caller.incarnation)
        member = self.member(caller.name)
        assert member is not None
        self.boot_as(member)
        return member.node_id

    def boot_as(self, member: Member) -> None:
        founding = restored(1, self._founders).bootstrap
        members = self.replicas[self.elect()].status().members
        identity = Identity(founding.identity.cluster_id, member.node_id, member.name, member.incarnation)
        self.disks[member.node_id] = MemoryStorage()
        self.disks[member.node_id].form(Bootstrap(identity, members, founding.snapshot))
        self.start(member.node_id)

    def voters(self, node: int = 0) -> tuple[int, ...]:
        return self.replicas[node or self.elect()].status().configuration.voters

    def request_change(self, node: int, request: Administration, seq: int = 1) -> None:
        self.replicas[node].request(900, Administer(seq, request))

    def outcome(self, seq: int = 1) -> object:
        answer = self.answers.get((900, seq))
        return answer.result if isinstance(answer, Reply) else answer

    def follower(self) -> int:
        leader = self.elect()
        return next(node for node in self.voters() if node != leader and node not in self.down)


def newcomer(name: str, **changes: object) -> PeerIdentity:
    return msgspec.structs.replace(PeerIdentity(name, f"life of {name}", f"{name}:1", f"{name}:2"), **changes)


# --- coming ---------------------------------------------------------------------------------------------------------------------


def test_a_node_that_joins_only_follows_until_it_has_the_log():
    """It must not count in a quorum while it could not vote for anybody."""
    nodes = Growing()
    nodes.load(membership_module.PROMOTION_LAG_MAX + 50)
    leader = nodes.elect()
    nodes.replicas[leader].join(newcomer("n4"))
    nodes.wait(lambda: nodes.member("n4") is not None)
    member = nodes.member("n4")
    assert member is not None
    nodes.advance(20 * TICK_MS)
    assert nodes.replicas[leader].status().configuration.learners == (member.node_id,)
    nodes.boot_as(member)
    nodes.wait(lambda: member.node_id in nodes.voters())
    nodes.wait(lambda: nodes.are_level())
    log = nodes.replicas[leader]._raft
    entries = log.entries(log.first_index, LogIndex(log.last_index + 1))
    added_at = next(int(entry.index) for entry in entries if entry.kind == EntryKind.CONFIGURATION)
    assert added_at == member.node_id, "an id is the index of the entry that added it, so it is never used twice"


def test_a_node_that_joins_reads_a_snapshot_that_is_older_than_its_joining():
    """That snapshot's configuration is without it: it is on the way to being a member, and comes nearer by it."""
    nodes = Growing(snapshots=SMALL)
    nodes.load(100)
    joined = nodes.let_in(newcomer("n4"))
    before = nodes.snapshot(nodes.elect()).info.metadata
    assert before.index < joined
    assert joined not in before.configuration.voters
    nodes.wait(lambda: joined in nodes.voters() and nodes.are_level())
    assert nodes.replicas[joined].status().members == nodes.replicas[nodes.elect()].status().members


def test_a_node_that_was_restarted_between_such_a_snapshot_and_its_joining_knows_whom_to_turn_to():
    """What it was told when it was let in stays true until the log says more."""
    nodes = Growing(snapshots=SMALL)
    nodes.load(100)
    joined = nodes.let_in(newcomer("n4"))
    nodes.passes = lambda message: message.to != joined or type(message) is not Append or not has_snapshot()

    def has_snapshot() -> bool:
        return nodes.replicas[joined].status().snapshot_index > 1

    nodes.wait(has_snapshot)
    assert nodes.replicas[joined].status().applied_index < joined
    nodes.crash(joined)
    nodes.start(joined)
    told = {member.name for member in nodes.replicas[joined]._membership.members.values()}
    assert told == {"n1", "n2", "n3", "n4"}
    nodes.passes = lambda message: True
    nodes.wait(lambda: joined in nodes.voters() and nodes.are_level())


def test_changes_that_are_asked_for_at_once_are_made_one_after_the_other():
    """Consensus takes one at a time; nobody is told to come back for that."""
    nodes = Growing(5)
    leader = nodes.elect()
    for name in ("n6", "n7", "n8"):
        nodes.replicas[leader].join(newcomer(name))
    gone = [node for node in nodes.voters() if node != leader][:2]
    for seq, node in enumerate(gone, start=1):
        nodes.request_change(leader, RemoveMember(NodeId(node)), seq)
    nodes.wait(lambda: all(nodes.member(name) for name in ("n6", "n7", "n8")))
    nodes.wait(lambda: [nodes.outcome(1), nodes.outcome(2)] == [Done(), Done()])
    assert not set(gone) & set(nodes.voters())
    assert nodes.turned_away == []


def test_a_cluster_has_a_bounded_number_of_nodes(monkeypatch: pytest.MonkeyPatch):
    """The leader writes to each of them."""
    monkeypatch.setattr(membership_module, "MEMBERS_MAX", 4)
    nodes = Growing()
    nodes.let_in(newcomer("n4"))
    nodes.wait(lambda: len(nodes.voters()) == 4)
    nodes.replicas[nodes.elect()].join(newcomer("n5"))
    nodes.wait(lambda: bool(nodes.turned_away))
    caller, error = nodes.turned_away[0]
    assert caller.name == "n5"
    assert isinstance(error, LimitExceeded)


def test_who_was_let_in_and_removed_is_not_let_in_again_by_what_another_node_had_noted():
    """A node asks everyone it hears of; whoever did not lead then must not remember the question when it leads."""
    nodes = Growing()
    leader, other = nodes.elect(), nodes.follower()
    nodes.replicas[other].join(newcomer("n4"))
    joined = nodes.let_in(newcomer("n4"))
    nodes.wait(lambda: joined in nodes.voters())
    nodes.request_change(leader, RemoveMember(NodeId(joined)))
    nodes.wait(lambda: nodes.outcome() == Done())
    nodes.replicas[leader].transfer_leadership(NodeId(other))
    nodes.wait(lambda: nodes.elect() == other)
    nodes.advance(2_000)
    assert nodes.member("n4") is None


def test_who_asked_a_node_that_did_not_lead_and_went_away_is_not_let_in_later():
    """It would be a learner that never comes."""
    nodes = Growing()
    leader, other = nodes.elect(), nodes.follower()
    nodes.replicas[other].join(newcomer("n4"))
    nodes.advance(JOIN_TICKS_MAX * TICK_MS)
    nodes.replicas[leader].transfer_leadership(NodeId(other))
    nodes.wait(lambda: nodes.elect() == other)
    nodes.advance(2_000)
    assert nodes.member("n4") is None


# --- taking a place -------------------------------------------------------------------------------------------------------------


def test_a_lost_node_is_replaced_in_one_entry_and_never_while_it_is_heard():
    """Two nodes of one name must not push each other out for ever."""
    nodes = Growing()
    leader, lost = nodes.elect(), nodes.follower()
    name = f"n{lost}"
    nodes.advance(1_000)
    nodes.replicas[leader].join(newcomer(name))
    nodes.wait(lambda: bool(nodes.turned_away))
    assert isinstance(nodes.turned_away[0][1], WrongCluster)
    nodes.replicas[leader].join(newcomer(name, replaces=True))
    nodes.wait(lambda: len(nodes.turned_away) == 2)
    assert "was heard a moment ago" in nodes.turned_away[1][1].message
    nodes.crash(lost)
    nodes.advance(1_000)
    joined = nodes.let_in(newcomer(name, replaces=True))
    nodes.wait(lambda: joined in nodes.voters())
    assert lost not in nodes.voters()


def test_a_replacement_ends_also_where_leadership_was_to_be_handed_over_meanwhile():
    """Both majorities are needed until it does, and nothing else can be changed: it must not wait for the next command."""
    nodes = Growing()
    leader, lost = nodes.elect(), nodes.follower()
    other = next(node for node in nodes.voters() if node not in (leader, lost))
    nodes.crash(lost)
    nodes.advance(1_000)
    nodes.passes = lambda message: type(message) is not TimeoutNow
    nodes.replicas[leader].join(newcomer(f"n{lost}", replaces=True))
    nodes.turn(leader)
    nodes.replicas[leader].transfer_leadership(NodeId(other))
    nodes.wait(lambda: bool(nodes.replicas[leader].status().configuration.outgoing))
    nodes.wait(lambda: not nodes.replicas[leader].status().configuration.outgoing)
    assert nodes.elect() == leader


def test_a_node_that_moved_keeps_its_id():
    """Its vote stays its own; only where it is found changes."""
    nodes = Growing()
    moved = nodes.follower()
    known = nodes.replicas[moved].status().members[moved - 1]
    caller = PeerIdentity(known.name, known.incarnation, "elsewhere:1", "elsewhere:2", moved)
    nodes.replicas[nodes.elect()].join(caller)
    nodes.wait(
        lambda: all(each.status().members[moved - 1].peer_address == "elsewhere:1" for each in nodes.replicas.values()),
    )
    assert nodes.voters() == (1, 2, 3)


def test_a_node_that_is_back_where_it_was_is_not_sent_elsewhere_by_what_it_had_said():
    """Whoever heard its first word and did not lead forgets it with the second."""
    nodes = Growing()
    moved = nodes.follower()
    other = next(node for node in nodes.voters() if node not in (moved, nodes.elect()))
    known = nodes.replicas[moved].status().members[moved - 1]
    for address in ("wrong:1", known.peer_address):
        nodes.replicas[other].join(PeerIdentity(known.name, known.incarnation, address, known.client_address, moved))
    nodes.replicas[nodes.elect()].transfer_leadership(NodeId(other))
    nodes.wait(lambda: nodes.elect() == other)
    nodes.advance(2_000)
    assert nodes.replicas[other].status().members[moved - 1] == known


# --- going ----------------------------------------------------------------------------------------------------------------------


def test_what_was_removed_is_known_after_a_crash_without_anybody_elses_help():
    """The removed node stops for good; the one that is left must not need its vote."""
    nodes = Growing(2)
    leader, gone = nodes.elect(), nodes.follower()
    nodes.request_change(leader, RemoveMember(NodeId(gone)))
    nodes.wait(lambda: nodes.outcome() == Done())
    nodes.settle()
    nodes.crash(gone)
    nodes.crash(leader)
    nodes.start(leader)
    assert nodes.elect() == leader
    assert nodes.voters() == (leader,)


def test_a_removal_that_leaves_no_majority_is_refused_unless_it_is_forced():
    """The message names who is missing."""
    nodes = Growing()
    leader = nodes.elect()
    alive, dead = (node for node in nodes.voters() if node != leader)
    nodes.crash(dead)
    nodes.advance(1_000)
    nodes.request_change(leader, RemoveMember(NodeId(alive)))
    nodes.wait(lambda: nodes.outcome() is not None)
    refusal = nodes.outcome()
    assert isinstance(refusal, Failed)
    assert refusal.code == "Unsafe"
    assert f"n{dead} not heard lately" in refusal.message
    nodes.request_change(leader, RemoveMember(NodeId(dead)), 2)
    nodes.wait(lambda: nodes.outcome(2) == Done())
    nodes.request_change(leader, RemoveMember(NodeId(alive)), 3)
    nodes.wait(lambda: nodes.outcome(3) == Done())


def test_a_new_leader_hears_everybody_before_it_calls_a_removal_unsafe():
    """In the moment after an election it has heard nobody."""
    nodes = Growing()
    first = nodes.elect()
    nodes.crash(first)
    second = nodes.elect()
    nodes.start(first)
    heard = [each.node_id for each in nodes.replicas[second]._raft.progress() if each.is_active]
    nodes.request_change(second, RemoveMember(NodeId(second)))
    nodes.wait(lambda: nodes.outcome() is not None)
    assert first not in heard
    assert isinstance(nodes.outcome(), Redirect), "it handed over, which it does only where the removal is safe"


def test_a_leader_that_stood_still_goes_by_nobody_whom_it_heard_before():
    """While it stood a node may have died: what it believes of the others is as old as its stop."""
    nodes = Growing()
    leader = nodes.elect()
    alive, dead = (node for node in nodes.voters() if node != leader)
    nodes.advance(1_000)
    nodes.now_ms += 250
    nodes.turn(leader)
    nodes.crash(dead)
    nodes.request_change(leader, RemoveMember(NodeId(alive)))
    nodes.turn(leader)
    assert nodes.outcome() is None
    nodes.wait(lambda: nodes.outcome() is not None)
    refusal = nodes.outcome()
    assert isinstance(refusal, Failed)
    assert refusal.code == "Unsafe"


def test_a_leader_that_is_to_go_hands_over_and_its_successor_removes_it():
    """Nobody leads a cluster to which it does not belong; asking again where it says does the rest."""
    nodes = Growing()
    leader = nodes.elect()
    nodes.advance(1_000)
    nodes.request_change(leader, RemoveMember(NodeId(leader)))
    nodes.wait(lambda: nodes.outcome() is not None)
    assert isinstance(nodes.outcome(), Redirect)
    successor = nodes.elect()
    assert successor != leader
    nodes.request_change(successor, RemoveMember(NodeId(leader)), 2)
    nodes.wait(lambda: nodes.outcome(2) == Done())
    assert leader not in nodes.voters()


def test_a_removed_node_that_comes_back_elsewhere_is_told_so_and_not_let_in_as_another():
    """It was down while it was removed, and first says where it is now: it would stand among the members and never come."""
    nodes = Growing()
    leader, gone = nodes.elect(), nodes.follower()
    known = nodes.replicas[gone].status().members[gone - 1]
    nodes.crash(gone)
    nodes.request_change(leader, RemoveMember(NodeId(gone)))
    nodes.wait(lambda: nodes.outcome() == Done())
    caller = PeerIdentity(known.name, known.incarnation, "elsewhere:1", "elsewhere:2", gone)
    nodes.replicas[leader].join(caller)
    nodes.wait(lambda: bool(nodes.turned_away) or nodes.member(known.name) is not None)
    assert nodes.member(known.name) is None
    assert isinstance(nodes.turned_away[0][1], NodeRemoved)


# --- leadership -----------------------------------------------------------------------------------------------------------------


def test_commands_wait_while_leadership_is_handed_over():
    """They are sent to the successor, where they are applied once; nobody is told that the cluster is busy."""
    nodes = Growing()
    leader, successor = nodes.elect(), nodes.follower()
    session = nodes.session(leader)
    nodes.passes = lambda message: type(message) is not TimeoutNow
    nodes.replicas[leader].transfer_leadership(NodeId(successor))
    nodes.submit(leader, 50, 1, call(session, 500, ValueSet("/during", b"x"), low_water=499))
    nodes.settle()
    assert (50, 1) not in nodes.answers
    assert not nodes.replicas[leader].has_work(), "a driver would turn in circles"
    nodes.wait(lambda: (50, 1) in nodes.answers)
    assert isinstance(nodes.result(50, 1), ValueWritten), "the other did not take over, and this one led on"

    nodes.passes = lambda message: True
    nodes.replicas[leader].transfer_leadership(NodeId(successor))
    nodes.submit(leader, 50, 2, call(session, 501, ValueSet("/during", b"y"), low_water=500))
    nodes.wait(lambda: (50, 2) in nodes.answers)
    assert isinstance(nodes.answers[50, 2], Redirect)
    assert nodes.elect() == successor


def test_a_transfer_that_is_not_taken_up_is_answered_so():
    """After an election timeout; the leader leads on."""
    nodes = Growing()
    leader, other = nodes.elect(), nodes.follower()
    nodes.passes = lambda message: type(message) is not TimeoutNow
    nodes.request_change(leader, TransferLeadership(NodeId(other)))
    nodes.wait(lambda: nodes.outcome() is not None)
    refusal = nodes.outcome()
    assert isinstance(refusal, Failed)
    assert refusal.code == "Unavailable"
    assert nodes.elect() == leader


def test_leadership_goes_where_it_is_asked_to_and_asking_again_is_done():
    """A node that does not lead sends the question on."""
    nodes = Growing()
    leader, other = nodes.elect(), nodes.follower()
    nodes.request_change(other, TransferLeadership(NodeId(other)))
    nodes.settle()
    assert isinstance(nodes.outcome(), Redirect)
    nodes.request_change(leader, TransferLeadership(NodeId(other)), 2)
    nodes.wait(lambda: nodes.outcome(2) is not None)
    nodes.wait(lambda: nodes.elect() == other)
    nodes.request_change(other, TransferLeadership(NodeId(other)), 3)
    nodes.wait(lambda: nodes.outcome(3) == Done())
    nodes.request_change(other, TransferLeadership(NodeId(99)), 4)
    nodes.wait(lambda: nodes.outcome(4) is not None)
    refusal = nodes.outcome(4)
    assert isinstance(refusal, Failed)
    assert refusal.code == "InvalidRequest"


def test_questions_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch):
    """One more is refused with Busy; those that wait are sent on when the leader is deposed."""
    monkeypatch.setattr(membership_module, "WAITING_MAX", 2)
    nodes = Growing()
    leader = nodes.elect()
    nodes.passes = lambda message: type(message) is Heartbeat
    for seq, node in enumerate((node for node in (*nodes.voters(), 77) if node != leader), start=1):
        nodes.request_change(leader, RemoveMember(NodeId(node), force=True), seq)
    nodes.turn(leader)
    refusal = nodes.outcome(3)
    assert isinstance(refusal, Failed)
    assert refusal.code == "Busy"
    nodes.cut.add(leader)
    nodes.wait(lambda: nodes.outcome(1) is not None and nodes.outcome(2) is not None)
    assert isinstance(nodes.outcome(1), Redirect)
    assert isinstance(nodes.outcome(2), Redirect)


# --- releases -------------------------------------------------------------------------------------------------------------------


def test_the_machine_rises_to_a_version_when_the_last_member_knows_it(monkeypatch: pytest.MonkeyPatch):
    """A rolling upgrade: until then the new releases behave as the old one does."""
    monkeypatch.setattr(versions, "VERSION_MAX", 2)
    nodes = Growing()

    def says_two(node: int) -> None:
        known = nodes.replicas[node].status().members[node - 1]
        caller = PeerIdentity(known.name, known.incarnation, known.peer_address, known.client_address, node, machine_version=2)
        nodes.replicas[nodes.elect()].join(caller)

    says_two(1)
    says_two(2)
    nodes.wait(lambda: sum(member.machine_version == 2 for member in nodes.replicas[3].status().members) == 2)
    nodes.advance(1_000)
    assert {each.machine.version for each in nodes.replicas.values()} == {1}
    says_two(3)
    nodes.wait(lambda: {each.machine.version for each in nodes.replicas.values()} == {2})
    nodes.replicas[nodes.elect()].join(newcomer("old"))
    nodes.wait(lambda: bool(nodes.turned_away))
    assert "start a newer release" in nodes.turned_away[0][1].message


def test_who_does_not_know_a_version_that_is_on_its_way_is_not_let_in(monkeypatch: pytest.MonkeyPatch):
    """The version comes before it in the log: it would stop at that entry, a member that holds up every later version."""
    monkeypatch.setattr(versions, "VERSION_MAX", 2)
    nodes = Growing()
    leader = nodes.elect()
    nodes.advance(1_000)
    for node in (1, 2, 3):
        known = nodes.replicas[node].status().members[node - 1]
        caller = PeerIdentity(known.name, known.incarnation, known.peer_address, known.client_address, node, machine_version=2)
        nodes.replicas[leader].join(caller)
    replica = nodes.replicas[leader]
    for _ in range(100):
        nodes.turn(leader)
        if sum(member.machine_version == 2 for member in replica.status().members) == 3:
            break
        nodes.settle(1)
    nodes.turn(leader)
    assert replica.machine.version == 1
    nodes.replicas[leader].join(newcomer("old"))
    nodes.wait(lambda: {each.machine.version for each in nodes.replicas.values()} == {2})
    nodes.wait(lambda: bool(nodes.turned_away) or nodes.member("old") is not None)
    assert nodes.member("old") is None
    assert "start a newer release" in nodes.turned_away[0][1].message


def test_a_node_that_asks_while_the_log_is_full_is_told_to_ask_again(monkeypatch: pytest.MonkeyPatch):
    """By an error that it knows: one of consensus's own would end its asking for good."""
    nodes = Growing()
    leader = nodes.elect()
    nodes.advance(60 * TICK_MS)

    def refuse(*_: object) -> LogIndex:
        raise ProposalBusy("too much waits to be committed")

    monkeypatch.setattr(nodes.replicas[leader]._raft, "propose_membership", refuse)
    nodes.replicas[leader].join(newcomer("n4"))
    nodes.wait(lambda: bool(nodes.turned_away))
    assert [type(error) for _, error in nodes.turned_away] == [Unavailable]
