"""`coord members`: who belongs to the cluster, and changing it."""

from typing import TYPE_CHECKING, Any

import click

from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.settings import Settings, output_option, pass_settings
from coord_core.cli.status import raise_if_silent, told_of_strangers

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient
    from coord_core.client.status import ClusterReport
    from coord_core.protocol.administration import Administration
    from coord_core.protocol.messages import NodeStatus


@click.group(
    epilog="""\b
Examples:
  coord members ls
  coord members remove n3
  coord members transfer-leader n2

A node is added by starting it: coord server --name n4 --data-dir DIR --join HOST:PORT""",
)
def members() -> None:
    """Show who belongs to the cluster, and change it."""


@members.command(epilog="Example:  coord members ls -o json")
@output_option
@pass_settings
def ls(settings: Settings) -> None:
    """List the nodes: who votes, who only follows yet, and how much of the leader's log each lacks.

    Exit code 6 where a node that answers belongs to another cluster.
    """
    import asyncio

    report = asyncio.run(_look(settings))
    rows = _rows(report)
    if settings.output == "json":
        write_json({"members": rows})
    elif settings.output == "jsonl":
        for row in rows:
            write_json(row)
    elif settings.output == "plain":
        write_plain([row[column] for column in _COLUMNS] for row in rows)
    else:
        _show(settings, rows)
    strangers = [(node.status.node, node.address) for node in report.foreign if node.status is not None]
    if strangers:
        raise CommandFailed(Exit.CONFLICT, told_of_strangers(strangers))


@members.command(epilog="Example:  coord members remove n3")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also where those that are left are no majority that works.")
@pass_settings
def remove(settings: Settings, name: str, force: bool) -> None:
    """Take node NAME out of the cluster for good.

    It stops by itself when it hears of it; its data directory is of no use any more.  A leader hands over first.  Refused (exit
    code 7) where those that are left and were heard lately are no majority.
    """
    import asyncio

    left = asyncio.run(_remove(settings, name, force=force))
    settings.note(f"{name} is no member any more; left: {', '.join(left)}")


@members.command("transfer-leader", epilog="Example:  coord members transfer-leader n2")
@click.argument("name", required=False)
@pass_settings
def transfer_leader(settings: Settings, name: str | None) -> None:
    """Hand leadership to node NAME, or to whichever other node has most of the log: before a machine is taken down."""
    import asyncio

    leader = asyncio.run(_transfer(settings, name))
    settings.note(f"{leader} leads")


# --- asking ----------------------------------------------------------------------------------------------------------------------


def _client(settings: Settings) -> "AsyncClient":
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    return AsyncClient(target_of(settings).url)


async def _look(settings: Settings) -> "ClusterReport":
    async with _client(settings) as client:
        return await _report(client, settings)


async def _report(client: "AsyncClient", settings: Settings) -> "ClusterReport":
    report = await client.status(settings.timeout)
    raise_if_silent(settings, report.nodes)
    return report


async def _remove(settings: Settings, name: str, *, force: bool) -> list[str]:
    from coord_core.protocol.administration import RemoveMember

    async with _client(settings) as client:
        report = await _report(client, settings)
        await _administer(client, settings, RemoveMember(_id_of(report, name), force))
        return [member.name for member in (await _report(client, settings)).members if member.name != name]


async def _transfer(settings: Settings, name: str | None) -> str:
    from coord_core.protocol.administration import TransferLeadership
    from coord_core.types import NodeId

    async with _client(settings) as client:
        report = await _report(client, settings)
        to = name or _best_follower(report)
        await _administer(client, settings, TransferLeadership(NodeId(0) if to is None else _id_of(report, to)))
    return to or "another node"


async def _administer(client: "AsyncClient", settings: Settings, request: "Administration") -> None:
    await client.administer(request, settings.timeout)


def _id_of(report: "ClusterReport", name: str) -> Any:
    for member in report.members:
        if member.name == name:
            return member.node_id
    names = ", ".join(member.name for member in report.members)
    raise CommandFailed(Exit.NOT_FOUND, f"there is no node {name!r} in this cluster; there are {names}")


def _best_follower(report: "ClusterReport") -> str | None:
    """Return the voter besides the leader that has most of the log; it is named, so that asking again means the same node."""
    leader = report.leader
    if leader is None:
        return None
    names = {member.node_id: member.name for member in report.members}
    others = [node for node in leader.voters if node in names and names[node] != leader.node]
    best = max(others, key=lambda node: leader.matched.get(node, 0), default=None)
    return None if best is None else names[best]


# --- showing it ------------------------------------------------------------------------------------------------------------------

_COLUMNS = ("name", "id", "part", "role", "lag", "address", "peer_address")


def _rows(report: "ClusterReport") -> list[dict[str, Any]]:
    said = {status.node: status for status in report.answered}
    foreign = {node.address for node in report.foreign}
    newest = max(said.values(), key=lambda status: status.applied_index)
    return [
        {
            "name": member.name,
            "id": member.node_id,
            "part": "voter" if member.node_id in newest.voters else "learner",
            "role": said[member.name].role
            if member.name in said
            else "foreign"
            if member.client_address in foreign
            else "unreachable",
            "lag": _lag(report.leader, member.node_id),
            "address": member.client_address,
            "peer_address": member.peer_address,
        }
        for member in report.members
    ]


def _lag(leader: "NodeStatus | None", node_id: int) -> int | None:
    """Return the entries that the node's disk lacks of the leader's log; None where nobody knows."""
    matched = {} if leader is None else leader.matched
    return None if leader is None or node_id not in matched else leader.last_index - matched[node_id]  # type: ignore[index]


def _show(settings: Settings, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column.upper().replace("_", " "), justify="right" if column in ("id", "lag") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in _COLUMNS))
    console(color=settings.color).print(table)
