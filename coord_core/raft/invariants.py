"""What must never be false, checked while the node runs, in production too.

A broken invariant means a bug in this package, a driver that does not keep its duties, or a disk that lied.  Going on would
turn one broken node into a broken cluster, so the violation is raised and the node stops.

Checks that guard one assignment sit beside it (in `log.py` and `progress.py`).  Here live those that relate several fields, and
those that need to remember the past: what only rises, and one vote a term.  Input from other nodes is never judged by these: a
malformed message is dropped where it arrives (`validation.py`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coord_core.raft.zero import NO_TERM, NOBODY, START
from coord_core.types import LogIndex, NodeId, Term

if TYPE_CHECKING:
    from coord_core.raft.state import State


class InvariantViolation(AssertionError):
    """This node's consensus state contradicts itself.  The driver stops the node; it must not persist or send anything more."""


@dataclass(slots=True)
class Watch:
    """Remembers the last state seen and compares the next with it."""

    #: Only rises (Raft, 5.1).
    term: Term = NO_TERM
    #: In one term it changes at most once, from 0 (Raft, 5.2).
    voted_for: NodeId = NOBODY
    #: Only rises: what is committed stays committed (Raft, 5.4).
    commit: LogIndex = START
    #: Only rises (Raft, figure 2).
    applied: LogIndex = START

    def check(self, state: "State") -> None:
        """Compare `state` with the past and with itself.  Raises `InvariantViolation`."""
        self._check_past(state)
        log = state.log
        # `applied` alone may lie before the log's beginning: after a snapshot was installed, until the driver has loaded it.
        if not (log.applied <= log.handed <= log.commit <= log.last_index and log.first_index - 1 <= log.handed):
            raise InvariantViolation(f"out of order: {log!r}")
        if not log.durable <= log.persisting <= log.last_index:
            raise InvariantViolation(f"durable beyond the end: {log!r}")
        if state.is_leader:
            _check_leader(state)

    def _check_past(self, state: "State") -> None:
        term, vote, log = state.term, state.voted_for, state.log
        if term < self.term:
            raise InvariantViolation(f"the term fell from {self.term} to {term}")
        if term == self.term and self.voted_for not in (0, vote):
            raise InvariantViolation(f"the vote of term {term} changed from {self.voted_for} to {vote}")
        if log.commit < self.commit:
            raise InvariantViolation(f"the commit index fell from {self.commit} to {log.commit}")
        if log.applied < self.applied:
            raise InvariantViolation(f"the applied index fell from {self.applied} to {log.applied}")
        self.term, self.voted_for, self.commit, self.applied = term, vote, log.commit, log.applied


def _check_leader(state: "State") -> None:
    last = state.log.last_index
    if state.leader_id != state.node_id:
        raise InvariantViolation(f"leader of term {state.term} follows {state.leader_id}")
    for peer, progress in state.progress.items():
        if not progress.match < progress.next or progress.match > last:
            raise InvariantViolation(f"progress of {peer} is beyond the log (last {last}): {progress!r}")
    own = state.progress.get(state.node_id)
    if own is not None and own.match > state.log.durable and not state.config.async_storage_writes:
        raise InvariantViolation(f"the leader counts {own.match} of its own, durable is {state.log.durable}")
