"""Says what the core does in the words of the scenario files, so that texts can be compared.

Nothing here decides anything: it only names our records as etcd/raft names its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from textwrap import indent

from coord_core.raft.membership import MembershipChange, StepKind, decode
from coord_core.raft.messages import (
    Append,
    AppendReply,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    SnapshotMetadata,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from coord_core.raft.outbox import Persist
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

#: A node's own storage, as the other end of messages.
APPEND_THREAD = "AppendThread"
APPLY_THREAD = "ApplyThread"

#: All kinds of messages that a scenario may name.
KINDS = frozenset(
    f"Msg{name}"
    for name in (
        *("Hup", "Beat", "Prop", "App", "AppResp", "Vote", "VoteResp", "PreVote", "PreVoteResp", "Snap", "SnapStatus"),
        *("Heartbeat", "HeartbeatResp", "Unreachable", "CheckQuorum", "TransferLeader", "TimeoutNow", "ForgetLeader"),
        *("ReadIndex", "ReadIndexResp", "StorageAppend", "StorageAppendResp", "StorageApply", "StorageApplyResp"),
    )
)

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"', "\\": "\\\\"}

#: How the runner marks a change that a scenario proposes in etcd's older form; consensus never looks at it.
OLD_FORM = b"v1"


def change_text(change: MembershipChange) -> str:
    kind = "EntryConfChange" if change.context == OLD_FORM else "EntryConfChangeV2"
    return " ".join([kind, *(f"{_LETTERS[step.kind]}{step.node_id}" for step in change.steps)])


def quoted(data: bytes) -> str:
    """Put a command's bytes between quotes, as Go's %q does."""
    text = data.decode(errors="backslashreplace")
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{ord(c):04x}") for c in text) + '"'


def command_text(data: bytes) -> str:
    return f"EntryNormal {quoted(data)}"


def entry_text(entry: Entry) -> str:
    head = f"{entry.term}/{entry.index} "
    if entry.kind == EntryKind.CONFIGURATION:
        return head + change_text(decode(entry.data))
    return head + command_text(entry.data)


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


@dataclass(frozen=True)
class Shown:
    """One message in the scenarios' words; what is 0 or empty is not mentioned."""

    sender: NodeId | str
    to: NodeId | str
    kind: str
    term: int = 0
    log_term: int = 0
    index: int = 0
    #: Of a rejection: where to probe next.
    hint: int | None = None
    commit: int = 0
    vote: int = 0
    entries: tuple[str, ...] = ()
    snapshot: SnapshotMetadata | None = None
    #: What is said when this is done.
    responses: tuple["Shown", ...] = ()

    @property
    def is_local(self) -> bool:
        """Between a node and itself or its storage: such a message cannot be lost."""
        return self.sender == self.to or {self.sender, self.to} & {APPEND_THREAD, APPLY_THREAD} != set()

    def text(self) -> str:
        text = f"{self.sender}->{self.to} {self.kind} Term:{self.term} Log:{self.log_term}/{self.index}"
        text += "" if self.hint is None else f" Rejected (Hint: {self.hint})"
        text += f" Commit:{self.commit}" if self.commit else ""
        text += f" Vote:{self.vote}" if self.vote else ""
        if len(self.entries) == 1:
            text += f" Entries:[{self.entries[0]}]"
        elif self.entries:
            text += " Entries:[" + "".join(f"\n  {entry}" for entry in self.entries) + "\n]"
        text += "" if self.snapshot is None else f"\n  Snapshot: {snapshot_text(self.snapshot)}"
        if self.responses:
            said = "\n".join(response.text() for response in self.responses)
            text += " Responses:[\n" + indent(said, "  ") + "\n]"
        return text


def shown(message: Message) -> Shown:
    """Put a message of the core into the scenarios' words."""
    head = Shown(message.sender, message.to, "", message.term)
    match message:
        case VoteRequest():
            kind = "MsgPreVote" if message.pre_vote else "MsgVote"
            return replace(head, kind=kind, log_term=message.last_term, index=message.last_index)
        case VoteReply():
            kind = "MsgPreVoteResp" if message.pre_vote else "MsgVoteResp"
            return replace(head, kind=kind, hint=None if message.granted else 0)
        case Append():
            entries = tuple(map(entry_text, message.entries))
            head = replace(head, kind="MsgApp", log_term=message.prev_term, index=message.prev_index)
            return replace(head, commit=message.commit, entries=entries)
        case AppendReply():
            hint = message.hint_index if message.rejected else None
            return replace(head, kind="MsgAppResp", log_term=message.hint_term, index=message.index, hint=hint)
        case Heartbeat():
            return replace(head, kind="MsgHeartbeat", commit=message.commit)
        case HeartbeatReply():
            return replace(head, kind="MsgHeartbeatResp")
        case InstallSnapshot():
            return replace(head, kind="MsgSnap", snapshot=message.metadata)
        case TimeoutNow():
            return replace(head, kind="MsgTimeoutNow")


def append_shown(node: NodeId, persist: Persist, responses: tuple[Shown, ...]) -> Shown:
    """What a node asks of the thread that writes its log."""
    hard = persist.hard_state or HardState()
    entries = tuple(map(entry_text, persist.entries))
    head = Shown(node, APPEND_THREAD, "MsgStorageAppend", hard.term, entries=entries, responses=responses)
    return replace(head, commit=hard.commit, vote=hard.voted_for, snapshot=persist.snapshot)


def appended_shown(node: NodeId, persist: Persist) -> Shown:
    ack = persist.ack
    head = Shown(APPEND_THREAD, node, "MsgStorageAppendResp", ack.term, ack.last_term, ack.last_index)
    return replace(head, snapshot=persist.snapshot)


def apply_shown(node: NodeId, entries: Iterable[Entry], responses: tuple[Shown, ...]) -> Shown:
    """What a node asks of the thread that applies its log."""
    return Shown(node, APPLY_THREAD, "MsgStorageApply", entries=tuple(map(entry_text, entries)), responses=responses)


def applied_shown(node: NodeId, entries: Iterable[Entry]) -> Shown:
    return Shown(APPLY_THREAD, node, "MsgStorageApplyResp", entries=tuple(map(entry_text, entries)))
