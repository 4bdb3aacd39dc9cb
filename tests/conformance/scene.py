"""What moves in a scenario: nodes that want something done, their storage threads, and the network between them.

Nothing here reads a scenario; `interaction.py` does, and has its commands done here.  Whatever is done says what it does to
`Output`, in the words and the order of etcd/raft's own harness.

Storage is synchronous unless `async-storage-writes` says otherwise: a Ready is carried out at once, and is shown with the messages
that wait for its write.  With it, writes and what is to be applied queue up at two threads of the node, which the scenario lets
work.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from coord_core.raft.membership import MembershipChange
from coord_core.raft.node import RaftNode
from coord_core.raft.ready import Ready
from coord_core.raft.refusals import MembershipRefused, Refused, TransferRefused
from coord_core.raft.state import Role
from coord_core.types import NodeId
from tests.conformance.datadriven import Malformed
from tests.conformance.describe import (
    ROLES,
    Shown,
    append_shown,
    appended_shown,
    applied_shown,
    apply_shown,
    change_text,
    command_text,
    entry_text,
    snapshot_text,
)
from tests.conformance.server import Applied, Handover, Outside, Parcel, Proposal, Reported, Server, Stored, Work, parcel

_DROPPED = "raft proposal dropped"
#: Rounds of `stabilize` after which nothing will come to rest any more.
_MAX_ROUNDS = 10_000


class Output:
    """What is said of a scenario, unless it is to be quiet."""

    def __init__(self) -> None:
        self.quiet = False
        self.lines: list[str] = []
        self._indent = ""

    def say(self, text: str) -> None:
        if not self.quiet:
            self.lines.extend(self._indent + line for line in text.split("\n"))

    @contextmanager
    def below(self, header: str) -> Iterator[None]:
        """Say what follows indented, below `header`."""
        self.say(header)
        before, self._indent = self._indent, self._indent + "  "
        try:
            yield
        finally:
            self._indent = before


class Scene:
    """The nodes of one scenario and what lies between them."""

    def __init__(self, output: Output) -> None:
        self.servers: dict[int, Server] = {}
        self.network: list[Parcel] = []
        self._output = output
        self._say = output.say

    def server(self, node_id: int) -> Server:
        if node_id not in self.servers:
            raise Malformed(f"there is no node {node_id}")
        return self.servers[node_id]

    # -- what a node is asked

    def propose(self, server: Server, proposal: bytes | MembershipChange) -> None:
        node = server.node
        if node.role is Role.FOLLOWER and node.leader_id:
            entry = command_text(proposal) if isinstance(proposal, bytes) else change_text(proposal)
            message = Shown(node.node_id, node.leader_id, "MsgProp", entries=(f"0/0 {entry}",))
            server.forward(Parcel(message, Proposal(proposal)))
            return
        try:
            self._append(node, proposal)
        except Refused as refused:
            raise Reported(_DROPPED) from refused

    def hand_over(self, server: Server, to: NodeId) -> None:
        node = server.node
        if node.role is Role.FOLLOWER and node.leader_id:
            # It names who is to lead as its sender.
            message = Shown(to, node.leader_id, "MsgTransferLeader", node.term)
            server.forward(Parcel(message, Handover(node.term, to)))
        else:
            self._transfer(node, to)

    def _transfer(self, node: RaftNode, to: NodeId) -> None:
        # Who cannot take over, or is asked of somebody who does not lead, is passed over in silence there.
        with suppress(TransferRefused):
            if node.role is Role.LEADER:
                node.transfer(to)

    def _append(self, node: RaftNode, proposal: bytes | MembershipChange) -> None:
        if isinstance(proposal, bytes):
            node.propose([proposal])
            return
        try:
            node.propose_membership(proposal)
        except MembershipRefused:
            node.propose([b""])

    # -- what a node wants done

    def process(self, server: Server) -> None:
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
        if server.config.async_storage_writes:
            self._queue(server, ready, outside)
        else:
            self._carry_out_now(server, ready, outside)

    def _carry_out_now(self, server: Server, ready: Ready, outside: Outside) -> None:
        node, persist, applied = server.node, ready.persist, None
        outbox = node._state.outbox
        held = [m for m in outbox.covered if m.to != node.node_id] if persist is not None else []
        sent = server.take_sent([*ready.messages, *held])
        self._describe(server, ready, outside, [each.shown for each in sent])
        if persist is not None:
            server.disk.write(persist)
            applied = None if persist.snapshot is None else persist.snapshot.index
        server.apply(ready.committed)
        applied = ready.committed[-1].index if ready.committed else applied
        self.network += sent
        if persist is not None:
            node.persisted(persist.ack)
            # They were shown and sent with this Ready already.
            outbox.after = [m for m in outbox.after if not any(m is said for said in held)]
        if applied is not None:
            node.applied(applied)

    def _queue(self, server: Server, ready: Ready, outside: Outside) -> None:
        node_id, persist, committed = server.node.node_id, ready.persist, ready.committed
        sent, asked = server.take_sent(ready.messages), []
        if persist is not None:
            responses = [*map(parcel, persist.replies)]
            if persist.ack.last_index or persist.snapshot is not None:
                responses.append(Parcel(appended_shown(node_id, persist), Stored(persist)))
            asked.append(append_shown(node_id, persist, tuple(each.shown for each in responses)))
            server.append_work.append(Work(asked[-1], responses, persist))
        if committed:
            done = Parcel(applied_shown(node_id, committed), Applied(committed[-1].index))
            asked.append(apply_shown(node_id, committed, (done.shown,)))
            server.apply_work.append(Work(asked[-1], [done], entries=committed))
        self._describe(server, ready, outside, [*(each.shown for each in sent), *asked])
        self.network += sent

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

    # -- a node's storage threads

    def work_append(self, server: Server) -> None:
        if not server.append_work:
            self._say("no append work to perform")
            return
        work = server.append_work.popleft()
        assert work.persist is not None
        server.disk.write(work.persist)
        self._done(work)
        if not any(isinstance(each.content, Stored) for each in work.responses):
            # Nobody shows its acknowledgement, which has nothing to say but that it is done.
            server.node.persisted(work.persist.ack)

    def work_apply(self, server: Server) -> None:
        if not server.apply_work:
            self._say("no apply work to perform")
            return
        work = server.apply_work.popleft()
        server.apply(work.entries)
        self._done(work)

    def _done(self, work: Work) -> None:
        self._say(f"Processing:\n{replace(work.shown, responses=()).text()}")
        self._say("\n".join(["Responses:", *(each.shown.text() for each in work.responses)]))
        self.network += work.responses

    # -- the network

    def _collect(self, to: int, kind: str, *, lost: bool = False) -> list[Parcel]:
        """Take from the network what is for `to`; what a node says to itself cannot be lost."""
        now = [p for p in self.network if p.shown.to == to and kind in ("", p.shown.kind) and not (lost and p.shown.is_local)]
        self.network = [p for p in self.network if p not in now]
        return now

    def deliver(self, to: int, kind: str = "") -> int:
        now = self._collect(to, kind)
        for each in now:
            self._say(each.shown.text())
            self._step(self.server(to), each)
        return len(now)

    def drop(self, to: int, kind: str, delivered: list[str]) -> int:
        if str(to) in delivered:
            raise Malformed(f"messages to {to} cannot be both delivered and dropped")
        now = self._collect(to, kind, lost=True)
        for each in now:
            self._say(f"dropped: {each.shown.text()}")
        return len(now)

    def _step(self, server: Server, each: Parcel) -> None:
        node = server.node
        match each.content:
            case Proposal():
                self._step_forwarded(server, each, each.content)
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
                if each.shown.kind.endswith("Resp") and message.sender not in node._state.progress:
                    self._say("raft: cannot step as peer not found")
                node.step(message)

    def _step_forwarded(self, server: Server, each: Parcel, content: Proposal) -> None:
        node = server.node
        if node.role is Role.FOLLOWER and node.leader_id:
            # Sent to a leader that is none any more: on to the next, still in the first sender's name.
            server.forward(Parcel(replace(each.shown, to=node.leader_id), content))
            return
        try:
            self._append(node, content.proposal)
        except Refused:
            self._say(_DROPPED)

    # -- until nothing moves any more

    def stabilize(self, servers: list[Server]) -> None:
        for _ in range(_MAX_ROUNDS):
            moved = [self._ready_round(servers), self._network_round(servers)]
            moved.append(self._thread_round(servers, "append", lambda server: server.append_work, self.work_append))
            moved.append(self._thread_round(servers, "apply", lambda server: server.apply_work, self.work_apply))
            if not any(moved):
                return
        raise Malformed("the nodes do not come to rest")

    def _ready_round(self, servers: list[Server]) -> bool:
        moved = False
        for server in servers:
            ready, outside = self._take(server)
            if ready is not None:
                moved = True
                with self._output.below(f"> {server.node.node_id} handling Ready"):
                    self._carry_out(server, ready, outside)
        return moved

    def _network_round(self, servers: list[Server]) -> bool:
        moved = False
        for node_id in (server.node.node_id for server in servers):
            if any(each.shown.to == node_id for each in self.network):
                moved = True
                with self._output.below(f"> {node_id} receiving messages"):
                    self.deliver(node_id)
        return moved

    def _thread_round(
        self, servers: list[Server], name: str, queue: Callable[[Server], object], work: Callable[[Server], None]
    ) -> bool:
        moved = False
        for server in servers:
            if queue(server):
                moved = True
                with self._output.below(f"> {server.node.node_id} processing {name} thread"):
                    while queue(server):
                        work(server)
        return moved
