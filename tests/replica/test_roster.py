"""Whom a node takes a caller for: one comparison, of two things that are of one moment."""

import msgspec
import pytest

from coord_core.errors import Busy
from coord_core.protocol.members import Member
from coord_core.replica import Roster, Standing
from coord_core.replica.roster import TO_COME_MAX
from coord_core.types import LogIndex, NodeId
from tests.replica.nodes import SMALL
from tests.replica.test_membership import Growing, newcomer


def member(node_id: int, host: str = "") -> Member:
    host = host or f"n{node_id}"
    return Member(NodeId(node_id), f"n{node_id}", f"{host}:1", f"{host}:2", f"life{node_id}")


def roster(*ids: int, index: int = 50) -> Roster:
    return Roster([member(node_id) for node_id in ids], LogIndex(index))


def test_an_id_is_a_members_or_removed_or_to_come():
    """Below the index all that there were are known; beyond it nobody is."""
    found = roster(1, 2, 40)
    standings = {node_id: found.standing(NodeId(node_id), LogIndex(60)) for node_id in (1, 3, 40, 50, 51)}
    assert standings == {
        1: Standing.MEMBER,
        3: Standing.REMOVED,
        40: Standing.MEMBER,
        50: Standing.REMOVED,
        51: Standing.TO_COME,
    }


def test_nobody_is_told_that_it_was_removed_by_a_node_that_could_forget_it():
    """It would stop, and after a crash this node would wait for its vote."""
    assert roster(1, 2).standing(NodeId(3), LogIndex(49)) is Standing.REMOVED_SO_FAR
    assert roster(1, 2).standing(NodeId(3), LogIndex(50)) is Standing.REMOVED


def test_who_calls_before_its_entry_has_come_is_answered_until_the_log_knows_better():
    """Where it says that it is; bounded, for it may not be what it says."""
    found = roster(1, 2)
    found.expect(member(60))
    found.expect(member(70))
    found.expect(member(2, host="elsewhere"))
    assert {node_id: each.peer_address for node_id, each in found.everyone().items()} == {
        1: "n1:1",
        2: "elsewhere:1",
        60: "n60:1",
        70: "n70:1",
    }
    found.follow([member(1), member(2, host="elsewhere")], LogIndex(65))
    assert sorted(found.everyone()) == [1, 2, 70], "60 was added and removed again, 70 is to come still"
    for node_id in range(71, 70 + TO_COME_MAX):
        found.expect(member(node_id))
    with pytest.raises(Busy, match="have called already"):
        found.expect(member(500))


def test_members_and_index_are_of_one_moment_when_a_snapshot_is_installed():
    """Between the write that installs it and the next turn the replica is ahead of what its driver was told.

    A member that came with the snapshot and calls in that moment would be taken for one that was removed, and stop for good.
    """
    nodes = Growing(snapshots=SMALL)
    behind = nodes.follower()
    nodes.crash(behind)
    joined = nodes.let_in(newcomer("n4"))
    nodes.wait(lambda: joined in nodes.voters())
    nodes.load(100, leader=nodes.elect())
    nodes.start(behind)
    replica = nodes.replicas[behind]
    known = Roster(replica.status().members, replica.status().applied_index)
    told: list[int] = []
    of_two_moments: list[Standing] = []
    turn, persisted = replica.turn, replica.persisted

    def watched(now_ms: int):
        effects = turn(now_ms)
        if effects.members is not None:
            known.follow(effects.members, effects.members_index)
            told.append(effects.members_index)
        return effects

    def judged(ack):
        persisted(ack)
        ahead = Roster(known.members.values(), replica.status().applied_index)
        of_two_moments.append(ahead.standing(NodeId(joined), replica.status().durable_commit))
        assert known.standing(NodeId(joined), replica.status().durable_commit) in (Standing.TO_COME, Standing.MEMBER)

    replica.turn, replica.persisted = watched, judged  # type: ignore[method-assign]
    nodes.wait(lambda: replica.status().snapshot_index > joined and nodes.are_level())
    assert told
    assert Standing.REMOVED in of_two_moments, "else this test has not seen the moment that it is about"
    assert known.standing(NodeId(joined), replica.status().durable_commit) is Standing.MEMBER


def test_the_last_word_of_a_member_counts_also_where_it_is_back_where_it_was():
    """Started once with a wrong address, it would be looked for there for ever.  It takes no place of those that are to come."""
    known = Member(NodeId(3), "n3", "here:1", "here:2", "life 3")
    roster = Roster([known], LogIndex(5))
    roster.expect(msgspec.structs.replace(known, peer_address="wrong:1"))
    assert roster.everyone()[NodeId(3)].peer_address == "wrong:1"
    roster.expect(known)
    assert roster.everyone() == {NodeId(3): known}
    for number in range(TO_COME_MAX):
        roster.expect(msgspec.structs.replace(known, node_id=NodeId(10 + number)))
