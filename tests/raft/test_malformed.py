"""Messages that cannot be true are dropped, remembered as a fact, and leave the state as it was."""

import copy
from typing import Any

import msgspec
import pytest

from coord_core.raft.messages import (
    AppendReply,
    Configuration,
    Entry,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    SnapshotMetadata,
    VoteReply,
    VoteRequest,
)
from coord_core.types import LogIndex, NodeId, Term
from tests.raft.cluster import Cluster
from tests.raft.test_replication import append

HUGE = 2**60


def changed(message: Message, **facts: Any) -> Message:
    return msgspec.structs.replace(message, **facts)


def entries(*positions: tuple[int, int]) -> tuple[Entry, ...]:
    return tuple(Entry(LogIndex(index), Term(term), 0, b"") for index, term in positions)


REQUEST = VoteRequest(sender=NodeId(3), to=NodeId(1), term=Term(2), last_index=LogIndex(9), last_term=Term(1), pre_vote=False)
BEAT = Heartbeat(sender=NodeId(3), to=NodeId(1), term=Term(2), commit=LogIndex(1))
APPEND = append(1, 2, (2, 1), (2,), sender=3)
REPLY = AppendReply(sender=NodeId(3), to=NodeId(1), term=Term(1), index=LogIndex(2))
SNAPSHOT = InstallSnapshot(
    sender=NodeId(3),
    to=NodeId(1),
    term=Term(2),
    metadata=SnapshotMetadata(LogIndex(9), Term(1), Configuration(voters=(NodeId(1), NodeId(3)))),
)

FALSE = {
    "for another node": changed(BEAT, to=NodeId(2)),
    "from this node": changed(BEAT, sender=NodeId(1)),
    "from nobody": changed(BEAT, sender=NodeId(0)),
    "from a node number that cannot be": changed(BEAT, sender=NodeId(HUGE)),
    "of a negative term": changed(BEAT, term=Term(-1)),
    "of a term that nothing could follow": changed(REQUEST, term=Term(HUGE)),
    "a log that ends nowhere": changed(REQUEST, last_index=LogIndex(-4)),
    "a log with a term and no entry": changed(REQUEST, last_index=LogIndex(0), last_term=Term(3)),
    "entries with a gap": changed(APPEND, entries=entries((3, 2), (5, 2))),
    "entries that do not follow": changed(APPEND, entries=entries((4, 2))),
    "entries whose terms fall": changed(APPEND, entries=entries((3, 2), (4, 1))),
    "entries of a later term": changed(APPEND, entries=entries((3, 7))),
    "an append at a negative place": changed(APPEND, prev_index=LogIndex(-1)),
    "an append with a negative commit": changed(APPEND, commit=LogIndex(-1)),
    "a heartbeat that commits the impossible": changed(BEAT, commit=LogIndex(HUGE)),
    "a reply of a stranger": changed(REPLY, sender=NodeId(9)),
    "an acknowledgement beyond the log": changed(REPLY, index=LogIndex(99)),
    "an acknowledgement below it": changed(REPLY, index=LogIndex(-3)),
    "a hint that cannot be": changed(REPLY, rejected=True, hint_index=LogIndex(HUGE)),
    "a round that has not begun": HeartbeatReply(sender=NodeId(3), to=NodeId(1), term=Term(1), context=5),
    "a vote of a stranger": VoteReply(sender=NodeId(9), to=NodeId(1), term=Term(1), pre_vote=False, granted=True),
    "a refusal that commits the impossible": VoteReply(
        sender=NodeId(3), to=NodeId(1), term=Term(1), pre_vote=False, granted=False, commit=LogIndex(-1)
    ),
    "a second leader of the term": changed(append(1, 1, (1, 1), (1, 1), sender=3)),
    "a second leader's heartbeat": changed(BEAT, term=Term(1)),
    "a snapshot without voters": changed(SNAPSHOT, metadata=SnapshotMetadata(LogIndex(9), Term(1), Configuration(voters=()))),
    "a snapshot of a later term": changed(
        SNAPSHOT, metadata=SnapshotMetadata(LogIndex(9), Term(8), Configuration(voters=(NodeId(1),)))
    ),
}


def facts(cluster: Cluster) -> dict[str, Any]:
    state = cluster[1]._state
    watched = ("term", "voted_for", "role", "leader_id", "election_elapsed", "votes", "configuration", "transferee")
    log = {name: getattr(state.log, name) for name in ("commit", "applied", "durable", "last_index", "first_index")}
    progress = [(p.match, p.next, p.state) for p in state.progress.values()]
    return {**{name: copy.copy(getattr(state, name)) for name in watched}, **log, "log": cluster.logs()[1], "progress": progress}


@pytest.mark.parametrize("what", FALSE)
def test_message_that_cannot_be_true_changes_nothing(what: str):
    """Node 1 leads term 1 and would step down, append or count if it believed it."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    before = facts(cluster)
    leader.step(FALSE[what])
    assert facts(cluster) == before
    assert leader.dropped_messages[0] == 1
    assert leader.dropped_messages[1]
    cluster.pump(1)
    assert cluster.network == []


@pytest.mark.parametrize("message", [REQUEST, BEAT, APPEND, REPLY, SNAPSHOT], ids=lambda m: type(m).__name__)
def test_message_that_may_be_true_is_not_dropped(message: Message):
    """The messages that the cases above falsify are sound themselves."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.step(message)
    assert leader.dropped_messages == (0, "")


def test_follower_that_knows_its_leader_believes_no_other_of_the_term():
    """Election safety: the second one is a forgery."""
    cluster = Cluster(3)
    cluster.elect(1)
    before = cluster.logs()[2]
    cluster[2].step(append(2, 1, (1, 1), (1, 1, 1), commit=4, sender=3))
    assert cluster.logs()[2] == before
    assert cluster[2].leader_id == 1


def test_refusal_does_not_commit_what_this_log_has_differently():
    """A commit index without the entry's term would be another log's."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.propose([b"a"])
    refusal = VoteReply(
        sender=NodeId(2), to=NodeId(1), term=Term(1), pre_vote=False, granted=False, commit=LogIndex(3), commit_term=Term(0)
    )
    leader.step(changed(refusal, commit_term=Term(3)))
    assert leader.commit_index == 2
    leader.step(changed(refusal, commit=LogIndex(40), commit_term=Term(1)))
    assert leader.commit_index == 2
