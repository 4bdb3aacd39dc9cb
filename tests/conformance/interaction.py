"""Runs `interaction/` scenarios: nodes, a network in which messages lie until delivered, and the commands of etcd/raft's own
harness.

What is compared is what can be seen from outside: messages, log, commit, configuration, roles.  Two things belong to the
harness and not to consensus, and are done here as etcd/raft does them inside: a proposal made at a follower travels to the
leader as a message of its own, and a membership change that is refused leaves an empty entry instead.

Storage is synchronous unless `async-storage-writes` says otherwise: a Ready is carried out at once, and is shown with the messages
that wait for its write.  With it, the writes and what is to be applied queue up at two threads of the node, which the scenario
lets work.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

from coord_core.raft.membership import MembershipChange, Transition
from coord_core.raft.messages import InstallSnapshot, Message
from coord_core.raft.node import RaftNode
from coord_core.raft.ready import Ready
from coord_core.raft.refusals import MembershipRefused, Refused, TransferRefused
from coord_core.raft.state import Role
from coord_core.types import LogIndex, NodeId
from tests.conformance.changing import UnknownStep, steps
from tests.conformance.datadriven import Directive, Malformed, directive, number
from tests.conformance.describe import (
    KINDS,
    OLD_FORM,
    ROLES,
    Shown,
    append_shown,
    appended_shown,
    applied_shown,
    apply_shown,
    change_text,
    command_text,
    entry_text,
    progress_text,
    shown,
    snapshot_text,
)
from tests.conformance.server import Applied, Handover, Outside, Parcel, Proposal, Reported, Server, Stored, Work, servers

_TRANSITIONS = {"auto": Transition.AUTO, "implicit": Transition.JOINT_IMPLICIT, "explicit": Transition.JOINT_EXPLICIT}
_LEVELS = ("debug", "info", "warn", "error", "fatal", "none")
_DROPPED = "raft proposal dropped"
#: Rounds of `stabilize` after which nothing will come to rest any more.
_MAX_ROUNDS = 10_000


def _parcel(message: Message) -> Parcel:
    return Parcel(shown(message), message)


class Interaction:
    """Answers the directives of one file."""

    def __init__(self) -> None:
        self._servers: dict[int, Server] = {}
        self._network: list[Parcel] = []
        self._quiet = False
        self._lines: list[str] = []
        self._indent = ""

    # -- directives

    def answer(self, directive: Directive) -> list[str]:
        self._lines = []
        try:
            self._run(directive)
        except Reported as said:
            return self._failed(said)
        if directive.command == "propose-conf-change":
            return self._lines
        # Input lines are further commands; one that fails does not keep the next from running.
        for line in directive.input.split("\n") if directive.input else ():
            try:
                self._run(_command(line, directive.line))
            except Reported as said:
                if self._quiet:
                    return [str(said)]
                self._failed(said)
        return self._lines

    def _failed(self, said: Reported) -> list[str]:
        if self._quiet:
            return [str(said)]
        self._say(str(said))
        return self._lines

    def _run(self, directive: Directive) -> None:
        command: Callable[[Directive], None] | None = getattr(self, "_do_" + directive.command.replace("-", "_"), None)
        if command is None:
            raise NotImplementedError(f"the command {directive.command}")
        command(directive)

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._lines.extend(self._indent + line for line in text.split("\n"))

    @contextmanager
    def _below(self, header: str) -> Iterator[None]:
        self._say(header)
        before, self._indent = self._indent, self._indent + "  "
        try:
            yield
        finally:
            self._indent = before

    def _each(self, directive: Directive, what: str, work: Callable[[Server], None]) -> None:
        nodes = directive.numbers()
        for node_id in nodes:
            with self._below(f"> {node_id} {what}") if len(nodes) > 1 else nullcontext():
                work(self._server(node_id))

    def _server(self, node_id: int) -> Server:
        if node_id not in self._servers:
            raise Malformed(f"there is no node {node_id}")
        return self._servers[node_id]

    def _first(self, directive: Directive, *more: str) -> Server:
        """Return the server that the first argument names; `more` says what else is to follow."""
        if len(directive.words) != 1 + len(more):
            raise Malformed("expected " + ", ".join(["a node", *more]))
        return self._server(number(directive.words[0]))

    # -- commands: the scene

    def _do_log_level(self, directive: Directive) -> None:
        self._set_level(*directive.words or [""])

    def _set_level(self, name: str) -> None:
        if name.lower() not in _LEVELS:
            raise Reported(f"log levels must be either of [{' '.join(_LEVELS).upper()}]")
        self._quiet = name.lower() == "none"

    def _do__breakpoint(self, directive: Directive) -> None:
        pass

    def _do_add_nodes(self, directive: Directive) -> None:
        for server in servers(directive, len(self._servers) + 1):
            self._servers[server.node.node_id] = server

    def _do_compact(self, directive: Directive) -> None:
        server = self._first(directive, "an index")
        server.compact(LogIndex(number(directive.words[1])))
        self._show_log(server)

    # -- commands: what a node is told

    def _do_campaign(self, directive: Directive) -> None:
        self._first(directive).node.campaign()

    def _do_tick(self, directive: Directive) -> None:
        self._tick(self._first(directive, "a count"), number(directive.words[1]))

    def _do_tick_heartbeat(self, directive: Directive) -> None:
        server = self._first(directive)
        self._tick(server, server.config.heartbeat_ticks)

    def _do_tick_election(self, directive: Directive) -> None:
        server = self._first(directive)
        self._tick(server, server.config.election_timeout_ticks)

    def _tick(self, server: Server, count: int) -> None:
        for _ in range(count):
            server.node.tick()

    def _do_set_randomized_election_timeout(self, directive: Directive) -> None:
        timeout = directive.number("timeout", 0)
        if not timeout:
            raise Malformed("expected timeout=TICKS")
        self._first(directive).node._state.timeout_drawn = timeout

    def _do_report_unreachable(self, directive: Directive) -> None:
        self._first(directive, "a peer").node.unreachable(NodeId(number(directive.words[1])))

    def _do_forget_leader(self, directive: Directive) -> None:
        self._first(directive).node.forget_leader()

    def _do_transfer_leadership(self, directive: Directive) -> None:
        server, to = self._server(directive.number("from", 0)), NodeId(directive.number("to", 0))
        self._server(to)
        node = server.node
        if node.role is Role.FOLLOWER and node.leader_id:
            # It names who is to lead as its sender.
            message = Shown(to, node.leader_id, "MsgTransferLeader", node.term)
            server.forwarding.append(Parcel(message, Handover(node.term, to)))
        else:
            self._transfer(node, to)

    def _transfer(self, node: RaftNode, to: NodeId) -> None:
        # Who cannot take over, or is asked of somebody who does not lead, is passed over in silence there.
        with suppress(TransferRefused):
            if node.role is Role.LEADER:
                node.transfer(to)

    def _do_propose(self, directive: Directive) -> None:
        self._propose(self._first(directive, "what to propose"), directive.words[1].encode())

    def _do_propose_conf_change(self, directive: Directive) -> None:
        for name, values in directive.arguments[1:]:
            if values is not None and name not in ("v1", "transition"):
                raise Reported(f"unknown command {name}")
        transition, is_old = directive.one("transition", "auto"), directive.flag("v1")
        if transition not in _TRANSITIONS:
            raise Reported(f"unknown transition {transition}")
        try:
            changes = steps(directive.input)
        except UnknownStep as unknown:
            raise Reported(str(unknown)) from unknown
        if is_old and (len(changes) > 1 or transition != "auto"):
            raise Reported("v1 conf change can only have one operation and no transition")
        if is_old and not changes:
            raise Malformed("a change of the older form needs one operation")
        change = MembershipChange(changes, _TRANSITIONS[transition], OLD_FORM if is_old else b"")
        self._propose(self._first(directive), change)

    def _propose(self, server: Server, proposal: bytes | MembershipChange) -> None:
        node = server.node
        if node.role is Role.FOLLOWER and node.leader_id:
            entry = command_text(proposal) if isinstance(proposal, bytes) else change_text(proposal)
            message = Shown(node.node_id, node.leader_id, "MsgProp", entries=(f"0/0 {entry}",))
            server.forwarding.append(Parcel(message, Proposal(proposal)))
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
        server, to = self._first(directive, "a receiver"), NodeId(number(directive.words[1]))
        node = server.node
        parcel = _parcel(InstallSnapshot(sender=node.node_id, to=to, term=node.term, metadata=node._state.log.snapshot))
        self._network.append(parcel)
        self._say(parcel.shown.text())

    # -- commands: what a node wants done

    def _do_process_ready(self, directive: Directive) -> None:
        self._each(directive, "handling Ready", self._process)

    def _process(self, server: Server) -> None:
        ready, outside = self._take(server)
        if ready is None:
            self._say("<empty Ready>")
        else:
            self._carry_out(server, ready, outside)

    def _take(self, server: Server) -> tuple[Ready | None, Outside]:
        outside = server.outside()
        ready = server.node.ready()
        if ready is None and server.forwarding:
            ready = Ready(None, [], [], [], False)
        return ready, outside

    def _carry_out(self, server: Server, ready: Ready, outside: Outside) -> None:
        sent, server.forwarding = [*server.forwarding, *map(_parcel, ready.messages)], []
        if server.config.async_storage_writes:
            self._queue(server, ready, outside, sent)
        else:
            self._carry_out_now(server, ready, outside, sent)

    def _carry_out_now(self, server: Server, ready: Ready, outside: Outside, sent: list[Parcel]) -> None:
        node, persist, applied = server.node, ready.persist, None
        outbox = node._state.outbox
        held = [m for m in outbox.covered if m.to != node.node_id] if persist is not None else []
        sent += map(_parcel, held)
        self._describe(server, ready, outside, [parcel.shown for parcel in sent])
        if persist is not None:
            server.disk.write(persist)
            applied = None if persist.snapshot is None else persist.snapshot.index
        server.apply(ready.committed)
        applied = ready.committed[-1].index if ready.committed else applied
        self._network += sent
        if persist is not None:
            node.persisted(persist.ack)
            # They were shown and sent with this Ready already.
            outbox.after = [m for m in outbox.after if not any(m is said for said in held)]
        if applied is not None:
            node.applied(applied)

    def _queue(self, server: Server, ready: Ready, outside: Outside, sent: list[Parcel]) -> None:
        node_id, persist, committed = server.node.node_id, ready.persist, ready.committed
        asked = []
        if persist is not None:
            responses = [*map(_parcel, persist.replies)]
            if persist.ack.last_index or persist.snapshot is not None:
                responses.append(Parcel(appended_shown(node_id, persist), Stored(persist)))
            asked.append(append_shown(node_id, persist, tuple(parcel.shown for parcel in responses)))
            server.append_work.append(Work(asked[-1], responses, persist))
        if committed:
            done = Parcel(applied_shown(node_id, committed), Applied(committed[-1].index))
            asked.append(apply_shown(node_id, committed, (done.shown,)))
            server.apply_work.append(Work(asked[-1], [done], entries=committed))
        self._describe(server, ready, outside, [*(parcel.shown for parcel in sent), *asked])
        self._network += sent

    def _describe(self, server: Server, ready: Ready, now: Outside, messages: list[Shown]) -> None:
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
        self._list("Messages:", (message.text() for message in messages))

    def _list(self, header: str, texts: Iterable[str]) -> None:
        lines = list(texts)
        if lines:
            self._say("\n".join([header, *lines]))

    # -- commands: a node's storage threads

    def _do_process_append_thread(self, directive: Directive) -> None:
        self._each(directive, "processing append thread", self._work_append)

    def _work_append(self, server: Server) -> None:
        if not server.append_work:
            self._say("no append work to perform")
            return
        work = server.append_work.popleft()
        assert work.persist is not None
        server.disk.write(work.persist)
        self._done(work)
        if not any(isinstance(parcel.content, Stored) for parcel in work.responses):
            # Nobody shows its acknowledgement, which has nothing to say but that it is done.
            server.node.persisted(work.persist.ack)

    def _do_process_apply_thread(self, directive: Directive) -> None:
        self._each(directive, "processing apply thread", self._work_apply)

    def _work_apply(self, server: Server) -> None:
        if not server.apply_work:
            self._say("no apply work to perform")
            return
        work = server.apply_work.popleft()
        server.apply(work.entries)
        self._done(work)

    def _done(self, work: Work) -> None:
        self._say(f"Processing:\n{replace(work.shown, responses=()).text()}")
        self._say("\n".join(["Responses:", *(parcel.shown.text() for parcel in work.responses)]))
        self._network += work.responses

    # -- commands: the network

    def _do_deliver_msgs(self, directive: Directive) -> None:
        kind = directive.one("type")
        if kind and kind not in KINDS:
            raise Malformed(f"unknown message type {kind}")
        count = 0
        for name, values in directive.arguments:
            if values is None:
                count += self._deliver(number(name), kind)
            elif name == "drop":
                count += sum(self._drop(number(to), kind, directive.words) for to in values if to)
        if not count:
            self._say("no messages")

    def _collect(self, to: int, kind: str, *, lost: bool = False) -> list[Parcel]:
        """Take from the network what is for `to`; what a node says to itself cannot be lost."""
        now = [p for p in self._network if p.shown.to == to and kind in ("", p.shown.kind) and not (lost and p.shown.is_local)]
        self._network = [p for p in self._network if p not in now]
        return now

    def _deliver(self, to: int, kind: str = "") -> int:
        now = self._collect(to, kind)
        for parcel in now:
            self._say(parcel.shown.text())
            self._step(self._server(to), parcel)
        return len(now)

    def _drop(self, to: int, kind: str, delivered: list[str]) -> int:
        if str(to) in delivered:
            raise Malformed(f"messages to {to} cannot be both delivered and dropped")
        now = self._collect(to, kind, lost=True)
        for parcel in now:
            self._say(f"dropped: {parcel.shown.text()}")
        return len(now)

    def _step(self, server: Server, parcel: Parcel) -> None:
        node = server.node
        match parcel.content:
            case Proposal():
                self._step_forwarded(server, parcel, parcel.content)
            case Handover(term, to):
                if term > node.term:
                    raise NotImplementedError("a leadership transfer asked for in a later term")
                if term == node.term:
                    self._transfer(node, to)
            case Stored(persist):
                node.persisted(persist.ack)
                if persist.snapshot is not None:
                    server.applied(persist.snapshot.index)
            case Applied(index):
                server.applied(index)
            case message:
                if parcel.shown.kind.endswith("Resp") and message.sender not in node._state.progress:
                    self._say("raft: cannot step as peer not found")
                node.step(message)

    def _step_forwarded(self, server: Server, parcel: Parcel, content: Proposal) -> None:
        node = server.node
        if node.role is Role.FOLLOWER and node.leader_id:
            # Sent to a leader that is none any more: on to the next, still in the first sender's name.
            server.forwarding.append(Parcel(replace(parcel.shown, to=node.leader_id), content))
            return
        try:
            self._append(node, content.proposal)
        except Refused:
            self._say(_DROPPED)

    def _do_stabilize(self, directive: Directive) -> None:
        was_quiet = self._quiet
        if directive.has("log-level"):
            self._set_level(directive.one("log-level"))
        try:
            self._stabilize([self._server(node_id) for node_id in directive.numbers()] or list(self._servers.values()))
        finally:
            self._quiet = was_quiet

    def _stabilize(self, servers: list[Server]) -> None:
        for _ in range(_MAX_ROUNDS):
            moved = [self._ready_round(servers), self._network_round(servers)]
            moved.append(self._thread_round(servers, "append", lambda server: server.append_work, self._work_append))
            moved.append(self._thread_round(servers, "apply", lambda server: server.apply_work, self._work_apply))
            if not any(moved):
                return
        raise Malformed("the nodes do not come to rest")

    def _ready_round(self, servers: list[Server]) -> bool:
        moved = False
        for server in servers:
            ready, outside = self._take(server)
            if ready is not None:
                moved = True
                with self._below(f"> {server.node.node_id} handling Ready"):
                    self._carry_out(server, ready, outside)
        return moved

    def _network_round(self, servers: list[Server]) -> bool:
        moved = False
        for node_id in (server.node.node_id for server in servers):
            if any(parcel.shown.to == node_id for parcel in self._network):
                moved = True
                with self._below(f"> {node_id} receiving messages"):
                    self._deliver(node_id)
        return moved

    def _thread_round(
        self, servers: list[Server], name: str, queue: Callable[[Server], object], work: Callable[[Server], None]
    ) -> bool:
        moved = False
        for server in servers:
            if queue(server):
                moved = True
                with self._below(f"> {server.node.node_id} processing {name} thread"):
                    while queue(server):
                        work(server)
        return moved

    # -- commands: looking

    def _do_raft_log(self, directive: Directive) -> None:
        self._show_log(self._first(directive))

    def _show_log(self, server: Server) -> None:
        disk = server.disk
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


def _command(line: str, number: int) -> Directive:
    found = directive(line, number)
    if found.command == "propose-conf-change":
        raise Malformed("a membership change stands alone: its input is no command")
    return found
