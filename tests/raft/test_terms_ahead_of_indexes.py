"""Elections that nobody wins raise the term and leave no entry: a log may end at a low index with a high term.

Found by the simulator: such positions were taken for impossible, and no leader of the cluster could ever get its log across.
"""

import random

import pytest

from coord_core.raft import RaftConfig, RaftNode
from coord_core.raft.messages import Append, Configuration, Entry, HardState, Message, SnapshotMetadata, VoteRequest
from coord_core.types import LogIndex, NodeId, Term

FOUNDING = SnapshotMetadata(LogIndex(1), Term(1), Configuration((NodeId(1), NodeId(2), NodeId(3))))


def follower(entries: tuple[Entry, ...] = ()) -> RaftNode:
    """Node 1, in term 7."""
    hard_state = HardState(Term(7), NodeId(0), LogIndex(1))
    return RaftNode(RaftConfig(node_id=NodeId(1)), hard_state=hard_state, snapshot=FOUNDING, entries=entries, rng=random.Random(1))


MESSAGES: list[Message] = [
    Append(
        sender=NodeId(2),
        to=NodeId(1),
        term=Term(7),
        prev_index=LogIndex(2),
        prev_term=Term(5),
        commit=LogIndex(1),
        entries=(Entry(LogIndex(3), Term(7), 0, b""),),
    ),
    VoteRequest(sender=NodeId(2), to=NodeId(1), term=Term(8), last_index=LogIndex(2), last_term=Term(5), pre_vote=False),
]


@pytest.mark.parametrize("message", MESSAGES, ids=["append", "vote request"])
def test_position_whose_term_is_above_its_index_is_taken_seriously(message: Message) -> None:
    """Terms 2 to 4 had candidates only; the leader of term 5 wrote entry 2."""
    node = follower((Entry(LogIndex(2), Term(5), 0, b""),))
    node.step(message)
    assert node.dropped_messages == (0, "")
