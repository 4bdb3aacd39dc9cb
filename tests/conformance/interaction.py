"""Runs `interaction/` scenarios: reads the commands of etcd/raft's own harness and has them done in a `Scene`.

What is compared is what can be seen from outside: messages, log, commit, configuration, roles.  Two things belong to the
harness and not to consensus, and are done here as etcd/raft does them inside: a proposal made at a follower travels to the
leader as a message of its own, and a membership change that is refused leaves an empty entry instead.
"""

from collections.abc import Callable
from contextlib import nullcontext

from coord_core.raft.membership import MembershipChange, Transition
from coord_core.raft.messages import InstallSnapshot
from coord_core.types import LogIndex, NodeId
from tests.conformance.changing import UnknownStep, steps
from tests.conformance.datadriven import Directive, Malformed, directive, number
from tests.conformance.describe import KINDS, OLD_FORM, ROLES, entry_text, progress_text
from tests.conformance.scene import Output, Scene
from tests.conformance.server import Reported, Server, parcel, servers

_TRANSITIONS = {"auto": Transition.AUTO, "implicit": Transition.JOINT_IMPLICIT, "explicit": Transition.JOINT_EXPLICIT}
_LEVELS = ("debug", "info", "warn", "error", "fatal", "none")


class Interaction:
    """Answers the directives of one file."""

    def __init__(self) -> None:
        self._output = Output()
        self._say = self._output.say
        self._scene = Scene(self._output)

    # -- directives

    def answer(self, directive: Directive) -> list[str]:
        output = self._output
        output.lines = []
        try:
            self._run(directive)
        except Reported as said:
            return self._failed(said)
        if directive.command == "propose-conf-change":
            return output.lines
        # Input lines are further commands; one that fails does not keep the next from running.
        for line in directive.input.split("\n") if directive.input else ():
            try:
                self._run(_command(line, directive.line))
            except Reported as said:
                if output.quiet:
                    return [str(said)]
                self._failed(said)
        return output.lines

    def _failed(self, said: Reported) -> list[str]:
        if self._output.quiet:
            return [str(said)]
        self._say(str(said))
        return self._output.lines

    def _run(self, directive: Directive) -> None:
        command: Callable[[Directive], None] | None = getattr(self, "_do_" + directive.command.replace("-", "_"), None)
        if command is None:
            raise NotImplementedError(f"the command {directive.command}")
        command(directive)

    def _each(self, directive: Directive, what: str, work: Callable[[Server], None]) -> None:
        nodes = directive.numbers()
        for node_id in nodes:
            with self._output.below(f"> {node_id} {what}") if len(nodes) > 1 else nullcontext():
                work(self._server(node_id))

    def _server(self, node_id: int) -> Server:
        return self._scene.server(node_id)

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
        self._output.quiet = name.lower() == "none"

    def _do__breakpoint(self, directive: Directive) -> None:
        pass

    def _do_add_nodes(self, directive: Directive) -> None:
        for server in servers(directive, len(self._scene.servers) + 1):
            self._scene.servers[server.node.node_id] = server

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
        to = self._server(directive.number("to", 0)).node.node_id
        self._scene.hand_over(self._server(directive.number("from", 0)), to)

    def _do_propose(self, directive: Directive) -> None:
        self._scene.propose(self._first(directive, "what to propose"), directive.words[1].encode())

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
        self._scene.propose(self._first(directive), change)

    def _do_send_snapshot(self, directive: Directive) -> None:
        server, to = self._first(directive, "a receiver"), NodeId(number(directive.words[1]))
        node = server.node
        offer = parcel(InstallSnapshot(sender=node.node_id, to=to, term=node.term, metadata=node._state.log.snapshot))
        self._scene.network.append(offer)
        self._say(offer.shown.text())

    # -- commands: what moves

    def _do_process_ready(self, directive: Directive) -> None:
        self._each(directive, "handling Ready", self._scene.process)

    def _do_process_append_thread(self, directive: Directive) -> None:
        self._each(directive, "processing append thread", self._scene.work_append)

    def _do_process_apply_thread(self, directive: Directive) -> None:
        self._each(directive, "processing apply thread", self._scene.work_apply)

    def _do_deliver_msgs(self, directive: Directive) -> None:
        kind = directive.one("type")
        if kind and kind not in KINDS:
            raise Malformed(f"unknown message type {kind}")
        count = 0
        for name, values in directive.arguments:
            if values is None:
                count += self._scene.deliver(number(name), kind)
            elif name == "drop":
                count += sum(self._scene.drop(number(to), kind, directive.words) for to in values if to)
        if not count:
            self._say("no messages")

    def _do_stabilize(self, directive: Directive) -> None:
        was_quiet = self._output.quiet
        if directive.has("log-level"):
            self._set_level(directive.one("log-level"))
        try:
            self._scene.stabilize([self._server(node_id) for node_id in directive.numbers()] or list(self._scene.servers.values()))
        finally:
            self._output.quiet = was_quiet

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
        for node_id, server in self._scene.servers.items():
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
