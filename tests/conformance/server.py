"""One node of a scenario: the core, its disk, its storage threads, and how the scenario's options set it up.

A node is driven as its contract says.  Only the reading of some state (progress, what a Persist holds back) reaches inside it.
"""

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from coord_core.raft.config import RaftConfig
from coord_core.raft.membership import MembershipChange
from coord_core.raft.messages import (
    AppendReply,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Message,
    SnapshotMetadata,
    VoteReply,
)
from coord_core.raft.node import RaftNode
from coord_core.raft.outbox import Persist
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.conformance.datadriven import Directive, Malformed, number
from tests.conformance.describe import Shown, shown
from tests.raft.cluster import Disk

_UNLIMITED = 2**40
_OPTIONS = frozenset(
    (
        "voters",
        "learners",
        "index",
        "content",
        "inflight",
        "async-storage-writes",
        "prevote",
        "checkquorum",
        "max-committed-size-per-ready",
        "disable-conf-change-validation",
        "read-only",
        "step-down-on-removal",
        "heartbeat-tick",
        "election-tick",
    )
)
#: etcd/raft counts an entry's encoding, about 6 bytes and its data; this core its data and 32.  Both hand out entries one by one
#: up to here, and all of a scenario's from there.
_ONE_BY_ONE, _ALL_AT_ONCE = 6, 2**20


class Reported(Exception):
    """What a command reports instead of succeeding; the scenario goes on."""


class Pinned(random.Random):
    """Always draws the longest election timeout, so that nobody campaigns unless a scenario says so."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return start if stop is None else stop - 1


@dataclass(frozen=True)
class Proposal:
    """On its way from a follower to the leader."""

    proposal: bytes | MembershipChange


@dataclass(frozen=True)
class Handover:
    """A wish that `to` should lead, on its way from a follower to the leader."""

    term: Term
    to: NodeId


@dataclass(frozen=True)
class Stored:
    """The append thread has made this durable."""

    persist: Persist


@dataclass(frozen=True)
class Applied:
    """The apply thread has applied up to here."""

    index: LogIndex


@dataclass(eq=False)
class Parcel:
    """Something in the network, and how it is shown."""

    shown: Shown
    content: Message | Proposal | Handover | Stored | Applied


def parcel(message: Message) -> Parcel:
    return Parcel(shown(message), message)


def _waits(message: Message) -> bool:
    """Tell whether etcd/raft lets a message wait for the disk."""
    return isinstance(message, AppendReply | VoteReply)


@dataclass
class Work:
    """What a storage thread has to do, and what is said when it is done."""

    shown: Shown
    responses: list[Parcel]
    persist: Persist | None = None
    entries: list[Entry] = field(default_factory=list)


@dataclass
class Outside:
    """What etcd/raft shows of a node with each Ready where it changed."""

    leader_id: NodeId
    role: Role
    hard_state: HardState


@dataclass
class Server:
    """One node, its storage, and what was shown of it."""

    node: RaftNode
    disk: Disk
    shown: Outside
    #: What it forwards, each with how many of its own messages go before.
    forwarding: list[tuple[int, Parcel]] = field(default_factory=list)
    append_work: deque[Work] = field(default_factory=deque)
    apply_work: deque[Work] = field(default_factory=deque)

    @property
    def config(self) -> RaftConfig:
        return self.node._state.config

    def outside(self) -> Outside:
        node = self.node
        return Outside(node.leader_id, node.role, HardState(node.term, node.voted_for, node.commit_index))

    def forward(self, parcel: Parcel) -> None:
        """Send on what somebody asked, behind what this node has said so far."""
        outbox = self.node._state.outbox
        before = [message for message in (*outbox.now, *outbox.waiting) if not _waits(message)]
        self.forwarding.append((len(before), parcel))

    def take_sent(self, messages: Iterable[Message]) -> list[Parcel]:
        """Return what leaves with a Ready, in etcd/raft's order: what votes or acknowledges comes after all else."""
        sent = [parcel(message) for message in sorted(messages, key=_waits)]
        # From the last to the first, so that no place moves before it is used.
        for place, forwarded in reversed(self.forwarding):
            sent.insert(place, forwarded)
        self.forwarding = []
        return sent

    def apply(self, entries: Iterable[Entry]) -> None:
        """Do what a machine does, short of telling the node that it is done."""
        node = self.node
        for entry in entries:
            if entry.index < node.first_index:
                # Handed out before a snapshot came that has it.
                continue
            if entry.kind == EntryKind.CONFIGURATION:
                node.apply_membership(entry)
            # Whoever asks gets a snapshot of the newest state, compacted or not.
            node._state.log.snapshot = SnapshotMetadata(entry.index, entry.term, node.configuration)

    def applied(self, index: LogIndex) -> None:
        """Tell the node, unless it is further already: with a snapshot, entries on their way to the machine come to nothing."""
        if index > self.node.applied_index:
            self.node.applied(index)

    def compact(self, index: LogIndex) -> None:
        if index <= self.disk.snapshot.index:
            raise Reported("requested index is unavailable due to compaction")
        term = self.node.term_at(index)
        if term is None or index > min(self.node.durable_index, self.node.applied_index):
            raise Malformed(f"what is stored and applied does not reach {index}")
        self.node.compact(index)
        del self.disk.entries[: index - self.disk.snapshot.index]
        # Where the stored log begins; the snapshot that a follower would get is of the newest state.
        self.disk.snapshot = SnapshotMetadata(index, term, self.node.configuration)


def servers(directive: Directive, first_id: int) -> Iterable[Server]:
    """Make the nodes that an `add-nodes` asks for."""
    count, *rest = directive.numbers() or [0]
    if rest or not count:
        raise Malformed("how many nodes to add?")
    for name, _ in directive.arguments[1:]:
        if name not in _OPTIONS:
            raise NotImplementedError(f"the option {name}")
    start, config = _start(directive), _config(directive)
    for node_id in range(first_id, first_id + count):
        hard_state = HardState(commit=start.index)
        config = replace(config, node_id=NodeId(node_id))
        node = RaftNode(config, hard_state=hard_state, snapshot=start, entries=(), rng=Pinned())
        yield Server(node, Disk(start, hard_state), Outside(NodeId(0), Role.FOLLOWER, hard_state))


def _start(directive: Directive) -> SnapshotMetadata:
    index = directive.number("index", 0)
    voters, learners = (tuple(NodeId(number(n)) for n in directive.values(key)) for key in ("voters", "learners"))
    begins = bool(voters or learners or index or directive.one("content"))
    if begins and index <= 1:
        raise Reported("index must be specified as > 1 due to bootstrap")
    return SnapshotMetadata(LogIndex(index), Term(1 if begins else 0), Configuration(voters=voters, learners=learners))


def _config(directive: Directive) -> RaftConfig:
    config = RaftConfig(
        node_id=NodeId(1),
        election_timeout_ticks=directive.number("election-tick", 3),
        heartbeat_ticks=directive.number("heartbeat-tick", 1),
        max_append_bytes=_UNLIMITED,
        max_inflight_appends=directive.number("inflight", _UNLIMITED),
        max_inflight_bytes=_UNLIMITED,
        max_uncommitted_bytes=_UNLIMITED,
        max_committed_bytes=directive.number("max-committed-size-per-ready", 0) or _UNLIMITED,
        pre_vote=directive.flag("prevote"),
        check_quorum=directive.flag("checkquorum"),
        step_down_on_removal=directive.flag("step-down-on-removal"),
        validate_membership=not directive.flag("disable-conf-change-validation"),
        membership_waits_for_own_term=False,
        refusals_tell_commit=False,
        async_storage_writes=directive.flag("async-storage-writes"),
        lease_relied_on=_is_lease_based(directive),
    )
    _check(config)
    return config


def _is_lease_based(directive: Directive) -> bool:
    option = directive.one("read-only", "safe")
    if option not in ("safe", "lease-based"):
        raise Reported(f'invalid read-only option "{option}"')
    return option == "lease-based"


def _check(config: RaftConfig) -> None:
    """Refuse what etcd/raft refuses."""
    if config.heartbeat_ticks < 1:
        raise Reported("heartbeat tick must be greater than 0")
    if config.election_timeout_ticks <= config.heartbeat_ticks:
        raise Reported("election tick must be greater than heartbeat tick")
    if config.max_inflight_appends < 1:
        raise Reported("max inflight messages must be greater than 0")
    if config.lease_relied_on and not config.check_quorum:
        raise Reported("CheckQuorum must be enabled when ReadOnlyOption is ReadOnlyLeaseBased")
    if _ONE_BY_ONE < config.max_committed_bytes < _ALL_AT_ONCE:
        raise NotImplementedError("max-committed-size-per-ready above one entry: this core counts an entry's bytes otherwise")
