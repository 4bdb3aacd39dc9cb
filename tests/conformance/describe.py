"""Says what the core does in the words of the scenario files, so that texts can be compared.

Nothing here decides anything: it only names our records as etcd/raft names its own.
"""

import json
from collections.abc import Iterable

from coord_core.raft.membership import MembershipChange, StepKind, decode
from coord_core.raft.messages import (
    Append,
    AppendReply,
    Configuration,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    SnapshotMetadata,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from coord_core.raft.progress import Progress, Sending
from coord_core.raft.state import Role
from coord_core.types import NodeId

ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StatePreCandidate",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}
_SENDING = {Sending.PROBE: "StateProbe", Sending.REPLICATE: "StateReplicate", Sending.SNAPSHOT: "StateSnapshot"}
_LETTERS = {StepKind.ADD_VOTER: "v", StepKind.ADD_LEARNER: "l", StepKind.REMOVE: "r", StepKind.UPDATE: "u"}

#: How the runner marks a change that a scenario proposes in etcd's older form; consensus never looks at it.
OLD_FORM = b"v1"


def change_text(change: MembershipChange) -> str:
    kind = "EntryConfChange" if change.context == OLD_FORM else "EntryConfChangeV2"
    return " ".join([kind, *(f"{_LETTERS[step.kind]}{step.node_id}" for step in change.steps)])


def entry_text(entry: Entry) -> str:
    head = f"{entry.term}/{entry.index} "
    if entry.kind == EntryKind.CONFIGURATION:
        return head + change_text(decode(entry.data))
    return f"{head}EntryNormal {json.dumps(entry.data.decode())}"


def _ids(nodes: Iterable[NodeId]) -> str:
    return " ".join(map(str, nodes))


def configuration_text(configuration: Configuration) -> str:
    text = f"voters=({_ids(configuration.voters)})"
    if configuration.outgoing:
        text += f"&&({_ids(configuration.outgoing)})"
    if configuration.learners:
        text += f" learners=({_ids(configuration.learners)})"
    if configuration.learners_next:
        text += f" learners_next=({_ids(configuration.learners_next)})"
    return text + (" autoleave" if configuration.auto_leave else "")


def snapshot_text(metadata: SnapshotMetadata) -> str:
    c = metadata.configuration
    return (
        f"Index:{metadata.index} Term:{metadata.term} ConfState:Voters:[{_ids(c.voters)}] VotersOutgoing:[{_ids(c.outgoing)}] "
        f"Learners:[{_ids(c.learners)}] LearnersNext:[{_ids(c.learners_next)}] AutoLeave:{str(c.auto_leave).lower()}"
    )


def progress_text(item: tuple[NodeId, Progress]) -> str:
    node, progress = item
    text = f"{node}: {_SENDING[progress.state]} match={progress.match} next={progress.next}"
    text += " learner" if progress.is_learner else ""
    text += " paused" if progress.is_paused else ""
    text += f" pendingSnap={progress.pending_snapshot}" if progress.pending_snapshot else ""
    text += "" if progress.recent_active else " inactive"
    if len(progress.inflight):
        text += f" inflight={len(progress.inflight)}" + ("[full]" if progress.inflight.is_full else "")
    return text


def _parts(message: Message) -> tuple[str, int, int, str]:
    """Return the type, the log position, and what follows."""
    match message:
        case VoteRequest():
            return "MsgPreVote" if message.pre_vote else "MsgVote", message.last_term, message.last_index, ""
        case VoteReply():
            rejected = "" if message.granted else " Rejected (Hint: 0)"
            return "MsgPreVoteResp" if message.pre_vote else "MsgVoteResp", 0, 0, rejected
        case Append():
            return "MsgApp", message.prev_term, message.prev_index, _commit(message.commit)
        case AppendReply():
            rejected = f" Rejected (Hint: {message.hint_index})" if message.rejected else ""
            return "MsgAppResp", message.hint_term, message.index, rejected
        case Heartbeat():
            return "MsgHeartbeat", 0, 0, _commit(message.commit)
        case HeartbeatReply():
            return "MsgHeartbeatResp", 0, 0, ""
        case InstallSnapshot():
            return "MsgSnap", 0, 0, f"\n  Snapshot: {snapshot_text(message.metadata)}"
        case TimeoutNow():
            return "MsgTimeoutNow", 0, 0, ""


def _commit(index: int) -> str:
    return f" Commit:{index}" if index else ""


def message_text(message: Message) -> str:
    kind, term, index, rest = _parts(message)
    text = f"{message.sender}->{message.to} {kind} Term:{message.term} Log:{term}/{index}{rest}"
    entries = message.entries if isinstance(message, Append) else ()
    if len(entries) == 1:
        text += f" Entries:[{entry_text(entries[0])}]"
    elif entries:
        text += " Entries:[" + "".join(f"\n  {entry_text(entry)}" for entry in entries) + "\n]"
    return text
