"""Who handles a message: judged first, then its term settled, then by its kind.

The term rules stand here once for all kinds (Raft, 5.1): a later term is taken over, an earlier one answered where silence
could leave its sender stuck, and a pre-vote speaks of a term that nobody has entered yet.
"""

from collections.abc import Callable
from typing import Any

from coord_core.raft import election, membership, replication, roles, validation
from coord_core.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from coord_core.raft.state import Role, State
from coord_core.raft.zero import NOBODY


def step(state: State, message: Message) -> None:
    """Let `message` have its effect; drop it where it cannot be true."""
    reason = validation.fault(state, message)
    if reason is not None:
        state.drop(f"{type(message).__name__} of {message.sender} at term {message.term}: {reason}")
        return
    if message.term != state.term and not _settle_term(state, message):
        return
    _HANDLERS[type(message)](state, message)


def _settle_term(state: State, message: Message) -> bool:
    """Take over a later term, answer an earlier one (Raft, 5.1); tell whether the message is to be handled."""
    if message.term < state.term:
        election.on_lower_term(state, message)
        return False
    if isinstance(message, VoteRequest):
        if not message.transfer and election.in_lease(state):
            return False
        if message.pre_vote:
            # Nobody has entered that term yet.
            return True
    elif isinstance(message, VoteReply) and message.pre_vote and message.granted:
        return True
    is_leaders = isinstance(message, Append | Heartbeat | InstallSnapshot)
    roles.become_follower(state, message.term, message.sender if is_leaders else NOBODY)
    return True


# -- what each kind of message does, once its term is this node's (or it is a pre-vote of a later)


def _from_leader(handle: Callable[[State, Any], None]) -> Callable[[State, Any], None]:
    """What only a leader says makes its sender the leader, and ends a candidacy (Raft, 5.2)."""

    def follow(state: State, message: Append | Heartbeat | InstallSnapshot) -> None:
        if state.role is Role.FOLLOWER:
            state.leader_id = message.sender
            state.election_elapsed = state.campaign_countdown = 0
        else:
            roles.become_follower(state, message.term, message.sender)
        handle(state, message)

    return follow


def _to_leader(handle: Callable[..., None]) -> Callable[[State, Any], None]:
    """What only a leader is told; `validation` has made sure that its sender is known."""

    def lead(state: State, message: AppendReply | HeartbeatReply) -> None:
        if state.role is Role.LEADER:
            handle(state, message, state.progress[message.sender])

    return lead


def _on_timeout_now(state: State, message: TimeoutNow) -> None:
    # Only the leader of this term can say so, and only a follower of it may believe it.
    if state.role is Role.FOLLOWER:
        election.hup(state, transfer=True)


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    Append: _from_leader(replication.on_append),
    Heartbeat: _from_leader(replication.on_heartbeat),
    InstallSnapshot: _from_leader(membership.on_install_snapshot),
    AppendReply: _to_leader(replication.on_append_reply),
    HeartbeatReply: _to_leader(replication.on_heartbeat_reply),
    VoteRequest: election.on_vote_request,
    VoteReply: election.on_vote_reply,
    TimeoutNow: _on_timeout_now,
}
