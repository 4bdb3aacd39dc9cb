"""Runs `interaction/` scenarios: nodes, a network in which messages lie until delivered, and the commands of etcd/raft's own
harness.

What is compared is what can be seen from outside: messages, log, commit, configuration, roles.  Two things belong to the
harness and not to consensus, and are done here as etcd/raft does them inside: a proposal made at a follower travels to the
leader as a message of its own, and a membership change that is refused leaves an empty entry instead.

A node is driven as its contract says.  Only the reading of some state (progress, what a Persist holds back) reaches inside it:
the scenarios show the messages of a Ready together with those that wait for its write, because their storage is synchronous.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from coord_core.raft.config import RaftConfig
from coord_core.raft.membership import MembershipChange, Transition
from coord_core.raft.messages import (
    AppendReply,
    Configuration,
    EntryKind,
    HardState,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    SnapshotMetadata,
    VoteReply,
)
from coord_core.raft.node import RaftNode
from coord_core.raft.ready import Ready
from coord_core.raft.refusals import MembershipRefused, Refused, TransferRefused
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId, Term
from tests.conformance.changing import steps
from tests.conformance.datadriven import Directive, parse
from tests.conformance.describe import (
    OLD_FORM,
    ROLES,
    change_text,
    entry_text,
    message_text,
    progress_text,
    snapshot_text,
)
from tests.raft.cluster import Disk

_TRANSITIONS = {"auto": Transition.AUTO, "implicit": Transition.JOINT_IMPLICIT, "explicit": Transition.JOINT_EXPLICIT}
_UNLIMITED = 2**40
_DROPPED = "raft proposal dropped"


class Pinned(random.Random):
    """Always draws the longest election timeout, so that nobody campaigns unless a scenario says so."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return start if stop is None else stop - 1


class Reported(Exception):
    """What a command reports instead of succeeding."""


@dataclass
class Forwarded:
    """A proposal on its way from a follower to the leader."""

    sender: NodeId
    to: NodeId
    proposal: bytes | MembershipChange

    def text(self) -> str:
        if isinstance(self.proposal, MembershipChange):
            entry = change_text(self.proposal)
        else:
            entry = f'EntryNormal "{self.proposal.decode()}"'
        return f"{self.sender}->{self.to} MsgProp Term:0 Log:0/0 Entries:[0/0 {entry}]"


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
    forwarding: list[Forwarded] = field(default_factory=list)

    def outside(self) -> Outside:
        node = self.node
        return Outside(node.leader_id, node.role, HardState(node.term, node.voted_for, node.commit_index))


def _is_reply(message: Message | Forwarded) -> bool:
    return isinstance(message, AppendReply | HeartbeatReply | VoteReply)


def _kind(message: Message | Forwarded) -> str:
    text = message.text() if isinstance(message, Forwarded) else message_text(message)
    return text.split()[1]


class Interaction:
    """Answers the directives of one file."""

    def __init__(self) -> None:
        self._servers: dict[int, Server] = {}
        self._network: list[Message | Forwarded] = []
        self._quiet = False
        self._lines: list[str] = []
        self._indent = ""

    # -- directives

    def answer(self, directive: Directive) -> list[str]:
        self._lines = []
        try:
            self._run(directive)
            if directive.command != "propose-conf-change":
                for further in parse("\n----\n\n".join([*directive.input.split("\n"), ""])) if directive.input else ():
                    self._run(further)
        except Reported as said:
            self._lines = [str(said)] if self._quiet else [*self._lines, str(said)]
            return self._lines
        return [] if self._quiet else self._lines

    def _run(self, directive: Directive) -> None:
        command: Callable[[Directive], None] | None = getattr(self, "_do_" + directive.command.replace("-", "_"), None)
        if command is None:
            raise NotImplementedError(f"the command {directive.command}")
        was_quiet = self._quiet
        level = directive.one("log-level")
        self._quiet = level == "none" if level else was_quiet
        quiet_now = self._quiet
        command(directive)
        if level:
            if quiet_now:
                self._lines = []
            self._quiet = was_quiet

    def _say(self, text: str) -> None:
        self._lines.extend(self._indent + line for line in text.split("\n"))

    @contextmanager
    def _below(self, header: str) -> Iterator[None]:
        self._say(header)
        self._indent += "  "
        yield
        self._indent = self._indent[:-2]

    def _nodes(self, directive: Directive) -> list[int]:
        return [int(word) for word in directive.words]

    def _first(self, directive: Directive) -> Server:
        return self._servers[int(directive.words[0])]

    # -- commands: the scene

    def _do_log_level(self, directive: Directive) -> None:
        self._quiet = directive.words[0].lower() == "none"

    def _do__breakpoint(self, directive: Directive) -> None:
        pass

    def _do_add_nodes(self, directive: Directive) -> None:
        if directive.flag("async-storage-writes"):
            raise NotImplementedError("several writes under way at once: this core has at most one outstanding")
        if directive.one("read-only") == "lease-based":
            raise NotImplementedError("reads by lease: this core has none")
        index = int(directive.one("index", "0"))
        voters, learners = (tuple(NodeId(int(n)) for n in directive.options.get(k, [])) for k in ("voters", "learners"))
        start = SnapshotMetadata(LogIndex(index), Term(1 if index else 0), Configuration(voters=voters, learners=learners))
        for _ in range(int(directive.words[0])):
            self._add(start, _config(directive))

    def _add(self, start: SnapshotMetadata, config: RaftConfig) -> None:
        node_id = len(self._servers) + 1
        hard_state = HardState(commit=start.index)
        config = replace(config, node_id=NodeId(node_id))
        node = RaftNode(config, hard_state=hard_state, snapshot=start, entries=(), rng=Pinned())
        self._servers[node_id] = Server(node, Disk(start, hard_state), Outside(NodeId(0), Role.FOLLOWER, hard_state))

    def _do_compact(self, directive: Directive) -> None:
        index = LogIndex(int(directive.words[1]))
        server = self._first(directive)
        term = server.node._state.log.term(index)
        server.node.compact(index)
        del server.disk.entries[: index - server.disk.snapshot.index]
        # Where the stored log begins; the snapshot that a follower would get is of the newest state.
        server.disk.snapshot = SnapshotMetadata(index, term or Term(0), server.node.configuration)

    # -- commands: what a node is told

    def _do_campaign(self, directive: Directive) -> None:
        self._first(directive).node.campaign()

    def _do_tick_heartbeat(self, directive: Directive) -> None:
        self._tick(self._first(directive), self._first(directive).node._state.config.heartbeat_ticks)

    def _do_tick_election(self, directive: Directive) -> None:
        self._tick(self._first(directive), self._first(directive).node._state.config.election_timeout_ticks)

    def _tick(self, server: Server, count: int) -> None:
        for _ in range(count):
            server.node.tick()

    def _do_set_randomized_election_timeout(self, directive: Directive) -> None:
        self._first(directive).node._state.timeout_drawn = int(directive.one("timeout"))

    def _do_report_unreachable(self, directive: Directive) -> None:
        self._first(directive).node.unreachable(NodeId(int(directive.words[1])))

    def _do_forget_leader(self, directive: Directive) -> None:
        self._first(directive).node.forget_leader()

    def _do_transfer_leadership(self, directive: Directive) -> None:
        node = self._servers[int(directive.one("from"))].node
        # Who cannot take over is passed over in silence there.
        with suppress(TransferRefused):
            node.transfer(NodeId(int(directive.one("to"))))

    def _do_propose(self, directive: Directive) -> None:
        self._propose(self._first(directive), (directive.words[1] if len(directive.words) > 1 else "").encode())

    def _do_propose_conf_change(self, directive: Directive) -> None:
        context = OLD_FORM if directive.flag("v1") else b""
        transition = _TRANSITIONS[directive.one("transition", "auto")]
        self._propose(self._first(directive), MembershipChange(steps(directive.input), transition, context))

    def _propose(self, server: Server, proposal: bytes | MembershipChange) -> None:
        node = server.node
        if node.role is Role.FOLLOWER and node.leader_id:
            server.forwarding.append(Forwarded(node.node_id, node.leader_id, proposal))
            return
        try:
            self._append(node, proposal)
        except Refused as refused:
            raise Reported(_DROPPED) from refused

    def _append(self, node: RaftNode, proposal: bytes | MembershipChange) -> None:
        if isinstance(proposal, bytes):
            node.propose([proposal])
            return
        try:
            node.propose_membership(proposal)
        except MembershipRefused:
            node.propose([b""])

    def _do_send_snapshot(self, directive: Directive) -> None:
        server, to = self._first(directive), int(directive.words[1])
        node = server.node
        message = InstallSnapshot(sender=node.node_id, to=NodeId(to), term=node.term, metadata=node._state.log.snapshot)
        self._network.append(message)
        self._say(message_text(message))

    # -- commands: what a node wants done

    def _do_process_ready(self, directive: Directive) -> None:
        nodes = self._nodes(directive)
        for node_id in nodes:
            with self._below(f"> {node_id} handling Ready") if len(nodes) > 1 else nullcontext():
                self._process(node_id)

    def _process(self, node_id: int) -> None:
        ready, outside = self._take(self._servers[node_id])
        if ready is None:
            self._say("<empty Ready>")
        else:
            self._carry_out(self._servers[node_id], ready, outside)

    def _take(self, server: Server) -> tuple[Ready | None, Outside]:
        outside = server.outside()
        ready = server.node.ready()
        if ready is None and server.forwarding:
            ready = Ready(None, [], [], [], False)
        return ready, outside

    def _carry_out(self, server: Server, ready: Ready, outside: Outside) -> None:
        node, persist = server.node, ready.persist
        outbox = node._state.outbox
        held = [m for m in outbox.covered if m.to != node.node_id] if persist is not None else []
        messages: list[Message | Forwarded] = [*server.forwarding, *ready.messages, *held]
        server.forwarding = []
        self._describe(server, ready, outside, messages)
        if persist is not None:
            server.disk.write(persist)
        applied = self._apply(server, ready)
        self._network.extend(messages)
        if persist is not None:
            node.persisted(persist.ack)
            # They were shown and sent with this Ready already.
            outbox.after = [m for m in outbox.after if not any(m is sent for sent in held)]
        if applied is not None:
            node.applied(applied)

    def _apply(self, server: Server, ready: Ready) -> LogIndex | None:
        node, applied = server.node, None
        if ready.persist is not None and ready.persist.snapshot is not None:
            applied = ready.persist.snapshot.index
        for entry in ready.committed:
            if entry.kind == EntryKind.CONFIGURATION:
                node.apply_membership(entry)
            applied = entry.index
            # Whoever asks gets a snapshot of the newest state, compacted or not.
            node._state.log.snapshot = SnapshotMetadata(entry.index, entry.term, node.configuration)
        return applied

    def _describe(self, server: Server, ready: Ready, now: Outside, messages: list[Message | Forwarded]) -> None:
        before, server.shown = server.shown, now
        persist, hard = ready.persist, now.hard_state
        entries = persist.entries if persist is not None else ()
        votes_changed = (hard.term, hard.voted_for) != (before.hard_state.term, before.hard_state.voted_for)
        self._say(f"Ready MustSync={str(bool(entries) or votes_changed).lower()}:")
        if (now.leader_id, now.role) != (before.leader_id, before.role):
            self._say(f"Lead:{now.leader_id} State:{ROLES[now.role]}")
        if hard != before.hard_state:
            vote = f" Vote:{hard.voted_for}" if hard.voted_for else ""
            self._say(f"HardState Term:{hard.term}{vote} Commit:{hard.commit}")
        self._list("Entries:", map(entry_text, entries))
        if persist is not None and persist.snapshot is not None:
            self._say(f"Snapshot {snapshot_text(persist.snapshot)}")
        self._list("CommittedEntries:", map(entry_text, ready.committed))
        self._list("Messages:", (m.text() if isinstance(m, Forwarded) else message_text(m) for m in messages))

    def _list(self, header: str, texts: Any) -> None:
        lines = list(texts)
        if lines:
            self._say("\n".join([header, *lines]))

    # -- commands: the network

    def _do_deliver_msgs(self, directive: Directive) -> None:
        kind = directive.one("type")
        count = sum(self._deliver(node_id, kind, drop=False) for node_id in self._nodes(directive))
        count += sum(self._deliver(int(node_id), kind, drop=True) for node_id in directive.options.get("drop", []))
        if not count:
            self._say("no messages")

    def _deliver(self, to: int, kind: str = "", *, drop: bool = False) -> int:
        now = [m for m in self._network if m.to == to and kind in ("", _kind(m))]
        self._network = [m for m in self._network if not any(m is taken for taken in now)]
        for message in now:
            text = message.text() if isinstance(message, Forwarded) else message_text(message)
            self._say(("dropped: " if drop else "") + text)
            if not drop:
                self._step(self._servers[to].node, message)
        return len(now)

    def _step(self, node: RaftNode, message: Message | Forwarded) -> None:
        if isinstance(message, Forwarded):
            try:
                self._append(node, message.proposal)
            except Refused:
                self._say(_DROPPED)
            return
        if _is_reply(message) and message.sender not in node._state.progress:
            self._say("raft: cannot step as peer not found")
        node.step(message)

    def _do_stabilize(self, directive: Directive) -> None:
        nodes = self._nodes(directive) or sorted(self._servers)
        moved = True
        while moved:
            moved = False
            for node_id in nodes:
                ready, outside = self._take(self._servers[node_id])
                if ready is not None:
                    moved = True
                    with self._below(f"> {node_id} handling Ready"):
                        self._carry_out(self._servers[node_id], ready, outside)
            for node_id in nodes:
                if any(message.to == node_id for message in self._network):
                    moved = True
                    with self._below(f"> {node_id} receiving messages"):
                        self._deliver(node_id)

    # -- commands: looking

    def _do_raft_log(self, directive: Directive) -> None:
        disk = self._first(directive).disk
        if not disk.entries:
            first = disk.snapshot.index + 1
            self._say(f"log is empty: first index={first}, last index={first - 1}")
        for entry in disk.entries:
            self._say(entry_text(entry))

    def _do_raft_state(self, directive: Directive) -> None:
        for node_id, server in self._servers.items():
            node = server.node
            votes = node_id in (*node.configuration.voters, *node.configuration.outgoing)
            voter = "Voter" if votes else "Non-Voter"
            self._say(f"{node_id}: {ROLES[node.role]} ({voter}) Term:{node.term} Lead:{node.leader_id}")

    def _do_status(self, directive: Directive) -> None:
        state = self._first(directive).node._state
        if state.is_leader:
            for item in state.progress.items():
                self._say(progress_text(item))


def _config(directive: Directive) -> RaftConfig:
    return RaftConfig(
        node_id=NodeId(1),
        election_timeout_ticks=3,
        heartbeat_ticks=1,
        max_append_bytes=_UNLIMITED,
        max_inflight_appends=int(directive.one("inflight", str(_UNLIMITED))),
        max_inflight_bytes=_UNLIMITED,
        max_uncommitted_bytes=_UNLIMITED,
        max_committed_bytes=int(directive.one("max-committed-size-per-ready", str(_UNLIMITED))),
        pre_vote=directive.flag("prevote"),
        check_quorum=directive.flag("checkquorum"),
        step_down_on_removal=directive.flag("step-down-on-removal"),
        validate_membership=not directive.flag("disable-conf-change-validation"),
        membership_waits_for_own_term=False,
    )
