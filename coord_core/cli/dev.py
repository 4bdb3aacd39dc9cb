"""`coord dev`: a whole cluster on this machine, for trying things out and for tests.

The process is a plain parent: it starts the nodes, waits for their leader, says where they are, and sleeps until a signal or a
child's end wakes it.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.nodes import LocalCluster, plan_nodes, url_of
from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.processes import die_with_parent
from coord_core.cli.settings import Settings, output_option, pass_settings

if TYPE_CHECKING:
    from coord_core.client.status import ClusterReport

#: Until the first leader; a slow disk under load takes a while.
START_SECONDS_MAX = 30.0
_ASK_AGAIN_SECONDS = 0.03
_AWAITED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


@click.command(
    context_settings={"ignore_unknown_options": False},
    epilog="""\b
Examples:
  coord dev
  coord dev --nodes 5 --data ./cluster --port 7400
  coord dev -- pytest tests/""",
)
@click.option("--nodes", type=click.IntRange(1, 9), help="How many nodes (default 3, or what --data holds).")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the cluster here; started here again, it has the same URL.  Default: a temporary directory, removed at the end.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="First of consecutive ports (default: free ones).")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@output_option
@pass_settings
def dev(settings: Settings, nodes: int | None, data: Path | None, port: int | None, command: tuple[str, ...]) -> int:
    """Run a cluster on this machine until Ctrl-C, or until COMMAND has ended.

    Prints the URL when a leader is elected.  With -o json that is one line:
    {"url": .., "nodes": [{"name": .., "pid": .., "listen": ..}, ..]}.  COMMAND runs with COORD_URL set, and its exit code is
    returned. Nodes log to DATA/<name>.log; one that dies is reported and not restarted.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    directory = _directory(data)
    cluster = LocalCluster(directory, [])
    try:
        cluster.plans = plan_nodes(directory, nodes, port)
        cluster.start()
        _wait_for_leader(cluster)
        _announce(settings, cluster, runs_command=bool(command))
        return _run_command(settings, cluster, command) if command else _run(settings, cluster)
    except _Stopped as stopped:
        return 0 if not command else 128 + stopped.signum
    finally:
        cluster.stop()
        if data is None:
            shutil.rmtree(directory, ignore_errors=True)


class _Stopped(Exception):
    """A signal asked for the end before the cluster was ready."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def _directory(data: Path | None) -> Path:
    if data is None:
        return Path(tempfile.mkdtemp(prefix="coord-dev-"))
    data.mkdir(parents=True, exist_ok=True)
    return data.absolute()


# --- start -----------------------------------------------------------------------------------------------------------------------


def _wait_for_leader(cluster: LocalCluster) -> None:
    """Ask until a quorum of the nodes names a leader.  Raises `CommandFailed` where a node has ended or the time is over."""
    import asyncio

    from coord_core.client.status import ask_cluster

    end = time.monotonic() + START_SECONDS_MAX
    addresses = [plan.listen for plan in cluster.plans]
    while not _has_leader(asyncio.run(ask_cluster(addresses, "", None, timeout_s=1.0))):
        for node in cluster.ended():
            raise CommandFailed(Exit.FAILED, node.how_it_ended())
        if time.monotonic() > end:
            raise CommandFailed(
                Exit.UNAVAILABLE, f"no leader after {START_SECONDS_MAX:g} s; the nodes' logs are in {cluster.directory}"
            )
        if (waiting := signal.sigtimedwait(_AWAITED - {signal.SIGCHLD}, _ASK_AGAIN_SECONDS)) is not None:
            raise _Stopped(waiting.si_signo)


def _has_leader(cluster: "ClusterReport") -> bool:
    """Whether one node leads and a quorum knows it: then the cluster takes commands."""
    leader = cluster.leader
    if leader is None:
        return False
    known = sum(1 for report in cluster.nodes if report.status is not None and report.status.leader == leader.leader)
    return known > len(leader.members) // 2


def _announce(settings: Settings, cluster: LocalCluster, *, runs_command: bool) -> None:
    url = url_of(cluster.plans)
    rows = [{"name": node.plan.name, "pid": node.pid, "listen": node.plan.listen} for node in cluster.nodes]
    if settings.output in ("json", "jsonl"):
        write_json({"url": url, "nodes": rows, "data": str(cluster.directory)})
    elif runs_command:
        settings.note(f"coord: {len(rows)} nodes at {url}")
    elif settings.output == "plain":
        write_plain([(url,), *(tuple(row.values()) for row in rows)])
    else:
        _show(settings, url, cluster)


def _show(settings: Settings, url: str, cluster: LocalCluster) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NODE", "PID", "ADDRESS", "LOG"):
        table.add_column(heading)
    for node in cluster.nodes:
        table.add_row(node.plan.name, str(node.pid), node.plan.listen, str(node.log))
    out = console(color=settings.color)
    out.print(table)
    out.print(f"\nThe cluster is ready.  Its data lies in {cluster.directory}.  Ctrl-C stops it.\n\nTry, in another terminal:\n")
    out.print(f"  export COORD_URL={url}")
    out.print("  coord status")
    out.print("  coord lock /jobs/nightly -- sh -c 'echo token $COORD_FENCING_TOKEN; sleep 10'")
    if len(cluster.nodes) > 1:
        out.print(f"  kill -9 {cluster.nodes[0].pid}      # and ask for the status again\n")


# --- run -------------------------------------------------------------------------------------------------------------------------


def _run(settings: Settings, cluster: LocalCluster) -> int:
    """Report what ends until a signal asks for the end of all."""
    while True:
        _report(cluster)
        if signal.sigwait(_AWAITED) != signal.SIGCHLD:
            settings.note("coord: stopping the nodes")
            return Exit.OK


def _report(cluster: LocalCluster) -> None:
    for node in cluster.ended():
        click.echo(f"coord: {node.how_it_ended()}", err=True)


def _run_command(settings: Settings, cluster: LocalCluster, command: tuple[str, ...]) -> int:
    """Run COMMAND beside the nodes; return its exit code.  It shares our process group, so Ctrl-C reaches it by itself."""
    parent = os.getpid()

    def bind_to_parent() -> None:
        die_with_parent(parent, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    try:
        process = subprocess.Popen(command, env={**os.environ, "COORD_URL": url_of(cluster.plans)}, preexec_fn=bind_to_parent)
    except FileNotFoundError:
        raise CommandFailed(Exit.COMMAND_NOT_FOUND, f"{command[0]}: command not found (no shell is used)") from None
    except OSError as error:
        raise CommandFailed(Exit.CANNOT_EXECUTE, f"{command[0]}: cannot be executed: {error.strerror}") from None
    while process.poll() is None:
        _report(cluster)
        signum = signal.sigwait(_AWAITED)
        if signum in (signal.SIGTERM, signal.SIGHUP):
            process.send_signal(signum)
    code: int = process.returncode
    return code if code >= 0 else 128 - code
