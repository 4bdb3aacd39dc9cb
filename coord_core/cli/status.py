"""`coord status`: what every node says of itself and of the cluster."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from coord_core.cli.durations import show_duration
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.settings import Settings, output_option, pass_settings
from coord_core.config import LOST_FOUNDER
from coord_core.errors import AuthenticationFailed, CoordError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from coord_core.client.status import ClusterReport, NodeReport

#: How often --watch asks.
WATCH_SECONDS = 1.0


@click.command(epilog="Example:  coord --url coord://127.0.0.1:7400 status --watch")
@click.option("--watch", is_flag=True, help="Go on showing it, once a second, until Ctrl-C.")
@output_option
@pass_settings
def status(settings: Settings, watch: bool) -> None:
    """Show the leader and every node.

    Asks each node itself, so it works without a leader too.  `tolerates` is the number of further nodes that may fail.

    Exit codes: 3 where nothing new can be acquired (no quorum, no leader, no room on the disks), 6 where a node that answers
    belongs to another cluster.
    """
    if watch:
        _watch(settings)
        return
    report = ask(settings)
    _write(settings, report)
    code, wrong = _what_is_wrong(report)
    if code:
        raise CommandFailed(code, wrong)


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

    async with AsyncClient(target_of(settings).url) as client:
        cluster = await client.status(settings.timeout)
    raise_if_silent(settings, cluster.nodes)
    return _report(cluster)


def raise_if_silent(settings: Settings, reports: Sequence["NodeReport"]) -> None:
    """Raise why no node answers, where none does."""
    from coord_core.cli.target import default_hint

    if any(report.status is not None for report in reports):
        return
    for report in reports:
        if isinstance(report.error, AuthenticationFailed):
            raise report.error
    hint = default_hint(settings) or "; is the cluster running, and is the URL right?"
    raise CommandFailed(Exit.UNAVAILABLE, f"no node answers: {silent_ones(reports)}{hint}")


def silent_ones(reports: Sequence["NodeReport"]) -> str:
    """Name the nodes that do not answer, and why."""
    silent = [report for report in reports if report.status is None]
    return ", ".join(f"{report.address} ({_without(report.address, report.error)})" for report in silent)


def _without(address: str, error: CoordError | None) -> str:
    """What is wrong with a node, where its address stands beside it anyway."""
    return "" if error is None else error.message.removeprefix(address).lstrip(": ")


def _report(cluster: "ClusterReport") -> dict[str, Any]:
    nodes = _distinct([_row(report, cluster) for report in cluster.nodes])
    voters = cluster.voters
    voting = [node for node in nodes if node["reachable"] and node["name"] in voters]
    with_room = [node for node in voting if node["disk"] not in _DISK_TROUBLES]
    majority = max(len(voters), 1) // 2 + 1
    leader = cluster.leader
    refuses = leader.refuses if leader else ""
    return {
        "leader": leader.node if leader else None,
        "term": max((node["term"] for node in nodes if node["reachable"]), default=0),
        "nodes": nodes,
        "quorum": len(voting) >= majority,
        # One whose disk is low is none to fall back on: commands would be refused.
        "tolerates": 0 if refuses else max(0, len(with_room) - majority),
        "cluster_id": cluster.cluster_id,
        "refuses": refuses or None,
    }


def _row(report: "NodeReport", cluster: "ClusterReport") -> dict[str, Any]:
    status = report.status if report not in cluster.foreign else None
    member = next((member for member in cluster.members if member.client_address == report.address), None)
    name = report.status.node if report.status else member.name if member else None
    is_foreign = report.status is not None and status is None
    return {
        "name": name,
        "address": report.address,
        "reachable": status is not None,
        **{field: status and getattr(status, field) for field in _FIELDS},
        "error": None if status else _why_not(report, is_known=member is not None or not cluster.members),
        "foreign": is_foreign,
        # Where it is the certificate that it shows to nodes, only they know.
        "unreached_by": {} if is_foreign else {one.node: one.unreached[name] for one in cluster.answered if name in one.unreached},
    }


def _why_not(report: "NodeReport", *, is_known: bool) -> str:
    """Why the node is not counted among those of the cluster that answer."""
    if report.status is not None:
        return f"belongs to cluster {report.status.cluster_id}"
    return _without(report.address, report.error) + ("" if is_known else f"; {_NO_MEMBER}")


_NO_MEMBER = "no member of this cluster has this address"


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
    "disk",
    "disk_free_bytes",
    "disk_needed_bytes",
)


def _distinct(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a node, by name: a URL may name a node by an address of its own (localhost, a forwarded port)."""
    rows: dict[str, dict[str, Any]] = {}
    for node in nodes:
        key = node["address"] if node["foreign"] or not node["name"] else node["name"]
        if key not in rows or (node["reachable"] and not rows[key]["reachable"]):
            rows[key] = node
    return sorted(rows.values(), key=lambda node: (node["name"] is None, node["name"] or node["address"]))


# --- showing it ------------------------------------------------------------------------------------------------------------------


def _what_is_wrong(report: Mapping[str, Any]) -> tuple[Exit, str]:
    """Return the exit code, and what is wrong and what to do, most urgent first; `OK` where nothing is."""
    strangers = told_of_strangers([(node["name"], node["address"]) for node in report["nodes"] if node["foreign"]])
    if not report["quorum"]:
        down = [node["name"] or node["address"] for node in report["nodes"] if not node["reachable"] and not node["foreign"]]
        start = f"start {' or '.join(down)} again (what is held stays held meanwhile)" if down else "start more of its nodes again"
        wrong = f"no quorum: {start}; where a majority is gone for good, `coord recover` makes a new cluster of what is left"
        return Exit.UNAVAILABLE, _sentences(wrong, strangers)
    if report["leader"] is None:
        return Exit.UNAVAILABLE, _sentences("no leader at the moment: the nodes are electing one; ask again", strangers)
    if report["refuses"]:
        return Exit.UNAVAILABLE, _sentences(f"new commands are refused: {report['refuses']}", strangers)
    return (Exit.CONFLICT, strangers) if strangers else (Exit.OK, "")


def _sentences(*said: str) -> str:
    return ".  ".join(filter(None, said))


def told_of_strangers(nodes: Sequence[tuple[str, str]]) -> str:
    """Say that these nodes (name, address) belong to another cluster, and what to do; empty where there are none."""
    if not nodes:
        return ""
    which = " and ".join(f"{name} at {address}" for name, address in nodes)
    return (
        f"{which}: belongs to another cluster, and programs that ask there do not ask this one.  Stop it ({LOST_FOUNDER}), or take "
        "its address out of their URLs"
    )


def _write(settings: Settings, report: dict[str, Any]) -> None:
    if settings.output in ("json", "jsonl"):
        write_json(report)
    elif settings.output == "plain":
        columns = ("name", "address", "role", "term", "commit_index", "applied_index")
        write_plain([node[column] for column in columns] for node in report["nodes"])
    else:
        out = console(color=settings.color)
        out.print(_summary(report), markup=False)
        out.print(_table(report, out))
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
            live.update(Group(Text(_summary(report)), _table(report, out), *map(Text, _troubles(report))), refresh=True)
            time.sleep(WATCH_SECONDS)


def _ask_again(settings: Settings) -> dict[str, Any]:
    """A cluster that does not answer is something to watch, not the end."""
    try:
        return ask(settings)
    except CommandFailed:
        return {"leader": None, "term": 0, "nodes": [], "quorum": False, "tolerates": 0, "cluster_id": "", "refuses": None}


def _summary(report: Mapping[str, Any]) -> str:
    if not report["quorum"]:
        return "no quorum: nothing can be acquired until more nodes are back"
    leader = report["leader"] or "none at the moment"
    if report["refuses"]:
        return f"new commands are refused for want of room on disk (leader {leader}, term {report['term']})"
    more = report["tolerates"]
    return f"leader {leader}, term {report['term']}; tolerates {more} more failure{'' if more == 1 else 's'}"


def _troubles(report: Mapping[str, Any]) -> Sequence[str]:
    """Below the table, where there is room for it: why a node did not answer, whose disk fills up."""
    silent = [node for node in report["nodes"] if not node["reachable"]]
    short = [node for node in report["nodes"] if node["reachable"] and node["disk"] in _DISK_TROUBLES]
    return [
        *(f"{node['name'] or '?'} at {node['address']}: {node['error']}" for node in silent),
        *(line for node in report["nodes"] for line in _unreached(node)),
        *(f"{node['name']}: {_free(node)}: {_DISK_TROUBLES[node['disk']]}" for node in short),
    ]


def _unreached(node: Mapping[str, Any]) -> Sequence[str]:
    """Where other nodes have another reason for not reaching it than we have."""
    news = {who: why for who, why in node["unreached_by"].items() if not node["error"] or node["error"] not in why}
    return [f"{node['name']}: {who} cannot reach it: {why}" for who, why in news.items()]


def _free(node: Mapping[str, Any]) -> str:
    needed = f", {_mebibytes(node['disk_needed_bytes'])} needed" if node["disk_needed_bytes"] >= 0 else ""
    return f"{_mebibytes(node['disk_free_bytes'])} free{needed}"


def _mebibytes(count: int) -> str:
    """As the refusals of commands have it."""
    return f"{count / (1024 * 1024):.1f} MiB"


_DISK_TROUBLES = {
    "low": "where a majority of disks is low, new commands are refused; free some space",
    "full": "this node stores nothing new and only votes; free some space",
}


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
        return (node["name"] or "?", node["address"], f"[red]{'foreign' if node['foreign'] else 'unreachable'}[/red]")
    return (
        node["name"],
        node["address"],
        f"[green]{node['role']}[/green]" if node["role"] == "leader" else node["role"],
        str(node["term"]),
        str(node["commit_index"]),
        str(node["applied_index"]),
        str(node["sessions"]),
        _mebibytes(node["storage_bytes"]),
        show_duration(node["uptime_ms"] / 1000),
    )
