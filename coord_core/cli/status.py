"""`coord status`: what every node says of itself and of the cluster."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from coord_core.cli.durations import show_duration
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.settings import Settings, output_option, pass_settings
from coord_core.errors import AuthenticationFailed, CoordError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from coord_core.client.status import ClusterReport, NodeReport
    from coord_core.protocol.members import Member

#: How often --watch asks.
WATCH_SECONDS = 1.0


@click.command(epilog="Example:  coord --url coord://127.0.0.1:7400 status --watch")
@click.option("--watch", is_flag=True, help="Go on showing it, once a second, until Ctrl-C.")
@output_option
@pass_settings
def status(settings: Settings, watch: bool) -> None:
    """Show the leader and every node.

    Asks each node itself, so it works without a leader too; then the exit code is 3.  `tolerates` is the number of further nodes
    that may fail.
    """
    if watch:
        _watch(settings)
        return
    report = ask(settings)
    _write(settings, report)
    if report["leader"] is None or not report["quorum"]:
        raise CommandFailed(Exit.UNAVAILABLE, _what_is_wrong(report))


def ask(settings: Settings) -> dict[str, Any]:
    """Return the report: the JSON contract of this command.

    Raises:
        Unavailable: no node answers at all.
        AuthenticationFailed: those that answer refuse the token.
    """
    import asyncio

    return asyncio.run(_ask(settings))


async def _ask(settings: Settings) -> dict[str, Any]:
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    cluster = await AsyncClient(target_of(settings).url).status(settings.timeout)
    _raise_if_silent(cluster.nodes)
    return _report(cluster)


def _raise_if_silent(reports: Sequence["NodeReport"]) -> None:
    if any(report.status is not None for report in reports):
        return
    for report in reports:
        if isinstance(report.error, AuthenticationFailed):
            raise report.error
    each = ", ".join(f"{report.address} ({_without(report.address, report.error)})" for report in reports)
    raise CommandFailed(Exit.UNAVAILABLE, f"no node answers: {each}; is the cluster running, and is the URL right?")


def _without(address: str, error: CoordError | None) -> str:
    """What is wrong with a node, where its address stands beside it anyway."""
    return "" if error is None else error.message.removeprefix(address).lstrip(": ")


def _report(cluster: "ClusterReport") -> dict[str, Any]:
    members = {member.client_address: member for member in cluster.members}
    nodes = _distinct([_row(report, members.get(report.address)) for report in cluster.nodes])
    voters = cluster.voters
    reachable = sum(1 for node in nodes if node["reachable"] and node["name"] in voters)
    majority = max(len(voters), 1) // 2 + 1
    return {
        "leader": cluster.leader.node if cluster.leader else None,
        "term": max((node["term"] for node in nodes if node["reachable"]), default=0),
        "nodes": nodes,
        "quorum": reachable >= majority,
        "tolerates": max(0, reachable - majority),
    }


def _row(report: "NodeReport", member: "Member | None") -> dict[str, Any]:
    if report.status is None:
        name = member.name if member else None
        error = _without(report.address, report.error)
        return {"name": name, "address": report.address, "reachable": False, **dict.fromkeys(_FIELDS), "error": error}
    known = {field: getattr(report.status, field) for field in _FIELDS}
    return {"name": report.status.node, "address": report.address, "reachable": True, **known, "error": None}


#: What a row takes from `NodeStatus`, in the order of the JSON.
_FIELDS = (
    "role",
    "term",
    "commit_index",
    "applied_index",
    "last_index",
    "sessions",
    "connections",
    "storage_bytes",
    "uptime_ms",
    "version",
)


def _distinct(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a node, by name: a URL may name a node by an address of its own (localhost, a forwarded port)."""
    rows: dict[str, dict[str, Any]] = {}
    for node in nodes:
        key = node["name"] or node["address"]
        if key not in rows or (node["reachable"] and not rows[key]["reachable"]):
            rows[key] = node
    return sorted(rows.values(), key=lambda node: (node["name"] is None, node["name"] or node["address"]))


# --- showing it ------------------------------------------------------------------------------------------------------------------


def _what_is_wrong(report: Mapping[str, Any]) -> str:
    down = [node["name"] or node["address"] for node in report["nodes"] if not node["reachable"]]
    if not report["quorum"]:
        return f"no quorum: start {' or '.join(down)} again (what is held stays held meanwhile)"
    return "no leader at the moment: the nodes are electing one; ask again"


def _write(settings: Settings, report: dict[str, Any]) -> None:
    if settings.output in ("json", "jsonl"):
        write_json(report)
    elif settings.output == "plain":
        columns = ("name", "address", "role", "term", "commit_index", "applied_index")
        write_plain([node[column] for column in columns] for node in report["nodes"])
    else:
        out = console(color=settings.color)
        out.print(_table(report, out))
        out.print(_summary(report))
        for line in _troubles(report):
            out.print(line, markup=False)


def _watch(settings: Settings) -> None:
    """Show it once a second; a table in its place, anything else one report after the other."""
    if settings.output != "table":
        while True:
            _write(settings, _ask_again(settings))
            time.sleep(WATCH_SECONDS)
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    out = console(color=settings.color)
    with Live(console=out, auto_refresh=False) as live:
        while True:
            report = _ask_again(settings)
            live.update(Group(_table(report, out), _summary(report), *map(Text, _troubles(report))), refresh=True)
            time.sleep(WATCH_SECONDS)


def _ask_again(settings: Settings) -> dict[str, Any]:
    """A cluster that does not answer is something to watch, not the end."""
    try:
        return ask(settings)
    except CommandFailed:
        return {"leader": None, "term": 0, "nodes": [], "quorum": False, "tolerates": 0}


def _summary(report: Mapping[str, Any]) -> str:
    if not report["quorum"]:
        return "no quorum: nothing can be acquired until more nodes are back"
    leader = report["leader"] or "none at the moment"
    more = report["tolerates"]
    return f"leader {leader}, term {report['term']}; tolerates {more} more failure{'' if more == 1 else 's'}"


def _troubles(report: Mapping[str, Any]) -> Sequence[str]:
    """Below the table, where there is room for it: why a node did not answer."""
    silent = (node for node in report["nodes"] if not node["reachable"])
    return [f"{node['name'] or '?'} at {node['address']}: {node['error']}" for node in silent]


def _table(report: Mapping[str, Any], out: "Console") -> "Table":
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NODE", "ADDRESS", "ROLE", "TERM", "COMMIT", "APPLIED", "SESSIONS", "DISK", "UP"):
        table.add_column(heading, justify="left" if heading in ("NODE", "ADDRESS", "ROLE") else "right", no_wrap=True)
    for node in report["nodes"]:
        table.add_row(*_cells(node))
    # As wide as it needs, also where the terminal is not: a line that wraps can be read, a cell that is cut cannot.
    table.width = Measurement.get(out, out.options.update(max_width=1000), table).maximum
    return table


def _cells(node: Mapping[str, Any]) -> Sequence[str]:
    if not node["reachable"]:
        return (node["name"] or "?", node["address"], "[red]unreachable[/red]")
    return (
        node["name"],
        node["address"],
        f"[green]{node['role']}[/green]" if node["role"] == "leader" else node["role"],
        str(node["term"]),
        str(node["commit_index"]),
        str(node["applied_index"]),
        str(node["sessions"]),
        f"{node['storage_bytes'] / 1e6:.1f} MB",
        show_duration(node["uptime_ms"] / 1000),
    )
