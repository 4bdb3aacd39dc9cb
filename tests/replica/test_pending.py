"""An answer finds the connection on which its command was asked last."""

from coord_core.replica.pending import Pending
from coord_core.types import AttachmentId, LogIndex, RequestNumber, Term

A, R = AttachmentId(3), RequestNumber(1)


def test_the_latest_origin_gets_the_answer_and_only_once():
    pending = Pending()
    pending.expect(A, R, (1, 1))
    pending.expect(A, R, (2, 9))
    assert pending.pop(A, R) == (2, 9)
    assert pending.pop(A, R) is None


def test_another_leaders_entry_at_the_same_index_is_another_command():
    pending = Pending()
    pending.expect_index(LogIndex(5), Term(2), (1, 1))
    assert pending.pop_index(LogIndex(5), Term(3)) is None


def test_drain_returns_all_and_forgets_them():
    pending = Pending()
    pending.expect(A, R, (1, 1))
    pending.expect_index(LogIndex(5), Term(2), (1, 2))
    assert pending.drain() == [(1, 1), (1, 2)]
    assert len(pending) == 0
