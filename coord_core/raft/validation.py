"""Whether a message can be true at all, judged before it touches anything.

Other nodes are the outside: a message may be forged, cut short, from another cluster's life, or from a node whose disk lost
what it acknowledged.  Such a message is dropped and remembered (`State.drop`), never an error, for a node that stops on bad
input is a node that anyone can stop.  What passes here is still only an opinion of its sender: the algorithms decide.
"""

from coord_core.raft.messages import (
    Append,
    AppendReply,
    Configuration,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from coord_core.raft.state import State
from coord_core.types import LogIndex, Term

#: Terms and indexes stay below it (types.py).  A term near it could be followed by no other: it is refused, not adopted.
SANE_MAX = 2**53


def fault(state: State, message: Message) -> str | None:
    """Return why `message` cannot be true, or None."""
    if message.to != state.node_id:
        return f"it is for node {message.to}"
    if not 0 < message.sender < SANE_MAX or (message.sender == state.node_id and not _may_be_own(state, message)):
        return f"its sender is {message.sender}"
    if not 0 <= message.term < SANE_MAX:
        return f"its term is {message.term}"
    if isinstance(message, AppendReply | HeartbeatReply | VoteReply):
        return _reply_fault(state, message)
    if isinstance(message, VoteRequest):
        return None if _is_position(message.last_index, message.last_term) else "its log cannot be"
    return _second_leader(state, message) or _leaders_fault(state, message)


def _may_be_own(state: State, message: Message) -> bool:
    # What a Persist's `replies` bring back (`pipeline.py`).
    return state.config.async_storage_writes and isinstance(message, AppendReply | VoteReply)


def _is_position(index: LogIndex, term: Term) -> bool:
    """Whether a log can end like this.  Elections that nobody wins leave no entries, so the term may be ahead of the index."""
    return 0 <= index < SANE_MAX and 0 <= term < SANE_MAX and (index > 0 or term == 0)


def _reply_fault(state: State, message: AppendReply | HeartbeatReply | VoteReply) -> str | None:
    # Requests of strangers are heard: a node that joins knows nobody, and one that lags does not know the newest.
    if message.sender not in state.progress:
        return f"node {message.sender} is not in the configuration"
    if isinstance(message, AppendReply):
        return _append_reply_fault(state, message)
    if isinstance(message, HeartbeatReply):
        return _heartbeat_reply_fault(state, message)
    return None if _is_position(message.commit, message.commit_term) else "its commit cannot be"


def _leaders_fault(state: State, message: Append | Heartbeat | InstallSnapshot | TimeoutNow) -> str | None:
    if isinstance(message, Append):
        return _append_fault(message)
    if isinstance(message, Heartbeat):
        return None if 0 <= message.commit < SANE_MAX else "its commit cannot be"
    return _snapshot_fault(state, message) if isinstance(message, InstallSnapshot) else None


def _second_leader(state: State, message: Append | Heartbeat | InstallSnapshot | TimeoutNow) -> str | None:
    # One leader a term (Raft, 5.2: election safety).
    if message.term == state.term and state.leader_id not in (0, message.sender):
        return f"node {state.leader_id} leads term {message.term} already"
    return None


def _append_fault(message: Append) -> str | None:
    index, term = message.prev_index, message.prev_term
    if not (_is_position(index, term) and 0 <= message.commit < SANE_MAX):
        return "its position cannot be"
    for entry in message.entries:
        index += 1  # type: ignore[assignment]
        if entry.index != index:
            return f"its entries have a gap at {index}"
        if entry.term < term:
            return f"the terms of its entries fall at {index}"
        term = entry.term
    return "it has entries of a later term" if term > message.term else None


def _append_reply_fault(state: State, message: AppendReply) -> str | None:
    if message.term == state.term and state.is_leader and not 0 <= message.index <= state.log.last_index:
        return f"it acknowledges {message.index}, the log ends at {state.log.last_index}"
    return None if 0 <= message.hint_index < SANE_MAX and 0 <= message.hint_term < SANE_MAX else "its hint cannot be"


def _heartbeat_reply_fault(state: State, message: HeartbeatReply) -> str | None:
    if message.term == state.term and not 0 <= message.context <= state.reads.last_number:
        return f"it answers read round {message.context}, which has not begun"
    return None


def _snapshot_fault(state: State, message: InstallSnapshot) -> str | None:
    metadata = message.metadata
    configuration = metadata.configuration
    if not _is_position(metadata.index, metadata.term) or metadata.term > message.term:
        return "its position cannot be"
    if not configuration.voters:
        return "its configuration has no voters"
    return _without_member(state, configuration)


def _without_member(state: State, configuration: Configuration) -> str | None:
    """A leader sends nothing to who was removed.  A node that joins is another matter: what is older than its joining brings it
    nearer to it.
    """
    is_in = state.node_id in (*configuration.voters, *configuration.outgoing, *configuration.learners)
    return None if is_in or state.node_id not in state.progress else "its configuration is without this node"
