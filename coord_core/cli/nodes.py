"""The local nodes of `coord dev`: their addresses, their processes, their end.

Addresses are drawn once and kept in `dev.json` of the data directory, because a cluster's members know each other by them: started
again on the same directory, the cluster has the same URL.  Every node is a `coord server` in a process group of its own (Ctrl-C
at the terminal reaches only `coord dev`, which then stops them in order) and dies with `coord dev`, however that ends.
"""

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.processes import die_with_parent

HOST = "127.0.0.1"
STATE_FILE = "dev.json"
#: A node that has not ended this long after SIGTERM is killed.
STOP_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class NodePlan:
    name: str
    #: host:port for clients and the other nodes.
    listen: str


def plan_nodes(directory: Path, count: int | None, port: int | None) -> list[NodePlan]:
    """Return the nodes of `directory`: those it had before, else `count` new ones, on ports from `port` upwards or on free ones.

    Raises:
        CommandFailed: what is asked does not fit what the directory holds, or a port is taken.
    """
    state = directory / STATE_FILE
    plans = _read_plans(state) if state.exists() else None
    if plans is None:
        ports = _free_ports(count or 3) if port is None else range(port, port + (count or 3))
        plans = [NodePlan(f"n{number}", f"{HOST}:{one}") for number, one in enumerate(ports, start=1)]
    elif count is not None and count != len(plans):
        raise CommandFailed(
            Exit.CONFLICT,
            f"{directory} holds a cluster of {len(plans)} nodes, not {count}: leave --nodes out, or choose another --data",
        )
    elif port is not None and plans[0].listen != f"{HOST}:{port}":
        raise CommandFailed(
            Exit.CONFLICT, f"{directory} holds a cluster at {plans[0].listen}: leave --port out, or choose another --data"
        )
    for plan in plans:
        _check_is_free(plan, directory)
    _write_plans(state, plans)
    return plans


def url_of(plans: Iterable[NodePlan]) -> str:
    return "coord://" + ",".join(plan.listen for plan in plans)


def _read_plans(state: Path) -> list[NodePlan]:
    try:
        return [NodePlan(node["name"], node["listen"]) for node in json.loads(state.read_text())["nodes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandFailed(Exit.FAILED, f"{state} cannot be read ({error}): restore it, or choose another --data") from error


def _write_plans(state: Path, plans: Sequence[NodePlan]) -> None:
    """Whole or not at all: it is written by renaming."""
    text = json.dumps({"format": 1, "nodes": [{"name": plan.name, "listen": plan.listen} for plan in plans]}, indent=2)
    draft = state.with_suffix(".tmp")
    draft.write_text(text + "\n")
    draft.replace(state)


def _free_ports(count: int) -> list[int]:
    """Draw ports that are free now.  All are held until the last is drawn, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _check_is_free(plan: NodePlan, directory: Path) -> None:
    host, _, port = plan.listen.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise CommandFailed(
                    Exit.FAILED, f"cannot listen on {plan.listen}: {error.strerror}; choose another --port"
                ) from error
            raise CommandFailed(
                Exit.CONFLICT,
                f"port {port} is taken: stop what listens on {plan.listen} (another `coord dev` on {directory}?) "
                "or choose another --port",
            ) from error
        except OverflowError as error:
            raise CommandFailed(Exit.USAGE, f"there is no port {port}: choose a lower --port") from error


class LocalNode:
    """One running node: a fork of this process that runs `coord server`.

    Forked, not executed: what a node needs is loaded once instead of once a node, which halves the time until the first leader.
    """

    def __init__(self, plan: NodePlan, log: Path, flags: Sequence[str]) -> None:
        self.plan = plan
        self.log = log
        #: As `subprocess` has it: negative where a signal ended it; None while it runs.
        self.exit_code: int | None = None
        #: Its end has been reported.
        self.is_reported = False
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _be_a_node(parent, log, flags)

    def poll(self) -> int | None:
        """Return the exit code if it has ended."""
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code

    def send(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.exit_code = os.waitstatus_to_exitcode(status)

    def how_it_ended(self) -> str:
        """One line for people: how, and the last words of its log, where it had the time for some."""
        code = self.exit_code or 0
        how, words = f"ended with exit code {code}", _last_words(self.log)
        if code < 0:
            # What it said last has nothing to do with it.
            how, words = f"was ended by {signal.Signals(-code).name}", ""
        return f"node {self.plan.name} (pid {self.pid}) {how}; its log is {self.log}{words}"


def _be_a_node(parent: int, log: Path, flags: Sequence[str]) -> NoReturn:
    """The forked side.  Leaves by `os._exit`: what the parent would do at its end is not the node's business."""
    code: int = Exit.FAILED
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        _redirect(log)
        for key in [key for key in os.environ if key.startswith("COORD_")]:
            del os.environ[key]  # a node is told everything by flags
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        from coord_core.cli.main import run

        code = run(["server", *flags])
    finally:
        os._exit(code)


def _redirect(log: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream, target in ((0, null), (1, output), (2, output)):
        os.dup2(target, stream)


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    words = next((line for line in reversed(lines) if line.strip()), "")
    return f": {words}" if words else ""


class LocalCluster:
    """The processes.  Use it while this process has one thread: nodes are forked."""

    def __init__(self, directory: Path, plans: Sequence[NodePlan]) -> None:
        self.directory = directory
        self.plans = list(plans)
        self.nodes: list[LocalNode] = []

    def start(self) -> None:
        import coord_core.server.node  # noqa: F401 - loaded once, here, for all nodes

        for plan in self.plans:
            self.nodes.append(LocalNode(plan, self.directory / f"{plan.name}.log", self._flags(plan)))

    def _flags(self, plan: NodePlan) -> list[str]:
        first = self.plans[0]
        flags = ["--name", plan.name, "--data-dir", str(self.directory / plan.name), "--listen", plan.listen]
        if plan is first:
            return [*flags, "--init", "--founders", ",".join(one.name for one in self.plans)]
        return [*flags, "--join", first.listen]

    def ended(self) -> list[LocalNode]:
        """Return the nodes whose end has not been reported yet."""
        new = [node for node in self.nodes if not node.is_reported and node.poll() is not None]
        for node in new:
            node.is_reported = True
        return new

    def stop(self) -> None:
        """End all nodes, cleanly where they let us.  Call it with SIGCHLD blocked."""
        for node in self.nodes:
            node.send(signal.SIGTERM)
            node.send(signal.SIGCONT)  # someone may have stopped it to play with failures
        end = time.monotonic() + STOP_SECONDS_MAX
        while self._running() and (left := end - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
        for node in self._running():
            node.kill()

    def _running(self) -> list[LocalNode]:
        return [node for node in self.nodes if node.poll() is None]
