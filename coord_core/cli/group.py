"""`coord group`: be a member of a group, list its members, and watch them come and go."""

import asyncio
from typing import TYPE_CHECKING, Any

import click

from coord_core.cli.asking import client_of, run
from coord_core.cli.durations import DURATION, show_duration
from coord_core.cli.exits import Exit
from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.rows import write_rows
from coord_core.cli.settings import Settings, output_option, pass_settings

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient
    from coord_core.protocol.groups import GroupMember

#: Groups that a list shows.
ROWS = 1_000

_COLUMNS = ("member", "host", "pid", "label", "metadata", "session", "since")
_NUMBERS = frozenset({"member", "pid", "session", "since"})


@click.group(
    epilog="""\b
Examples:
  coord group join /workers --metadata 'queue=mail'
  coord group ls /workers
  coord group watch /workers -o jsonl"""
)
def group() -> None:
    """Be a member of a group, list its members, and watch them come and go."""


@group.command(epilog="Example:  coord group join /workers --metadata 'queue=mail'")
@click.argument("name")
@click.option("--metadata", default="", help="What the others see of this member.")
@click.option("--id", "label", default="coord group join", help="Who this member is, for those who look.")
@click.option("--ttl", type=DURATION, help="How long the member survives this process at most  [default: 15s]")
@click.option("--announce", type=DURATION, default="30s", show_default=True, help="How long to wait for those who were there.")
@pass_settings
def join(settings: Settings, name: str, metadata: str, label: str, ttl: float | None, announce: float) -> int:
    """Be a member of the group NAME until a signal comes.  Exit code 76 where the session is lost."""
    return asyncio.run(_join(settings, _path(name), metadata, label, ttl, announce))


@group.command(epilog="Example:  coord group ls /workers -o json")
@click.argument("name", required=False)
@output_option
@pass_settings
def ls(settings: Settings, name: str | None) -> None:
    """List the members of the group NAME, in the order in which they joined; without NAME, the groups that have any.

    A group without members is an empty list.
    """
    if name is None:
        _list_groups(settings)
        return
    rows = [_row(member) for member in asyncio.run(_members(settings, _path(name)))]
    if settings.output == "json":
        write_json({"group": _path(name), "members": rows})
    elif settings.output == "jsonl":
        for row in rows:
            write_json(row)
    elif settings.output == "plain":
        write_plain([row[column] for column in _COLUMNS] for row in rows)
    else:
        _show(settings, rows)


@group.command(epilog="Example:  coord group watch /workers -o jsonl")
@click.argument("name")
@output_option
@pass_settings
def watch(settings: Settings, name: str) -> int:
    """Print a line for everyone who joins the group NAME, leaves it or changes what it says, until a signal comes."""
    return asyncio.run(_watch(settings, _path(name)))


def _list_groups(settings: Settings) -> None:
    client = client_of(settings)
    listing = run(client, client.list_locks(limit=ROWS, kinds=("group",)))
    namespace = client.full_path("/x").removesuffix("/x")
    rows = [{"name": row.path.removeprefix(namespace), "members": row.taken} for row in listing.rows]
    write_rows(settings, "groups", rows, {"name": lambda row: row["name"], "members": lambda row: row["members"]})
    if listing.next is not None:
        settings.note(f"there are more than {len(rows)}")


def _path(name: str) -> str:
    return name if name.startswith("/") else f"/{name}"


def _client(settings: Settings, ttl: float | None = None) -> "AsyncClient":
    from coord_core.cli.logs import log_as_command
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    log_as_command(settings)
    return AsyncClient(target_of(settings, ttl=ttl).url)


async def _join(settings: Settings, path: str, metadata: str, label: str, ttl: float | None, announce: float) -> int:
    from coord_core.cli.leased import Signals

    async with _client(settings, ttl) as client:
        with Signals().ending_this_task():
            await client.wait_connected(settings.timeout)
            member = await client.group(path, label=label).join(metadata.encode(), announce)
            settings.note(f"coord: member {member.member} of {path}")
            for missing in member.unacknowledged:
                who = "somebody" if missing.owner is None else f"{missing.owner.host}:{missing.owner.pid} {missing.owner.label}"
                settings.note(f"coord: {who} has not acknowledged it ({missing.reason})")
            await member.wait_gone()
            settings.note(f"coord: the session was lost, and membership in {path} with it")
    return Exit.LEASE_LOST


async def _members(settings: Settings, path: str) -> "list[GroupMember]":
    async with _client(settings) as client:
        return list(await client.group(path).members())


async def _watch(settings: Settings, path: str) -> int:
    from coord_core.cli.leased import Signals

    async with _client(settings) as client:
        with Signals().ending_this_task():
            await client.wait_connected(settings.timeout)
            async with client.group(path).changes() as changes:
                settings.note(f"coord: watching {path}")
                async for change in changes:
                    row = {"change": change.what, **_row(change.member), "reason": change.reason or None}
                    if settings.output in ("json", "jsonl"):
                        write_json(row)
                    else:
                        who = f"{row['host']}:{row['pid']} {row['label']}".rstrip()
                        why = f" ({change.reason})" if change.reason else ""
                        print(f"{change.what} {who}, member {row['member']}{why}", flush=True)
    return Exit.OK


def _row(member: "GroupMember") -> dict[str, Any]:
    owner = member.owner
    return {
        "member": member.member,
        "host": owner.host,
        "pid": owner.pid,
        "label": owner.label,
        "metadata": member.metadata.decode(errors="backslashreplace"),
        "session": member.session,
        "since": show_duration(member.since_ms / 1000),
    }


def _show(settings: Settings, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column.upper(), justify="right" if column in _NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in _COLUMNS))
    console(color=settings.color).print(table)
