"""`coord elections`: who leads, who would, and handing leadership on."""

import asyncio
from typing import TYPE_CHECKING, Any

import click

from coord_core.cli.asking import client_of, run
from coord_core.cli.durations import show_duration
from coord_core.cli.elect import leader_document
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.rows import write_rows
from coord_core.cli.settings import Settings, output_option, pass_settings

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient
    from coord_core.protocol.elections import Candidate
    from coord_core.protocol.locks import ListedLock

#: What a list shows where it is not told otherwise.
ROWS = 1_000

_COLUMNS = ("part", "host", "pid", "label", "candidate", "epoch", "session", "since")
_NUMBERS = frozenset({"pid", "candidate", "epoch", "session", "since"})


@click.group(
    epilog="""\b
Examples:
  coord elections ls
  coord elections show /scheduler
  coord elections transfer /scheduler"""
)
def elections() -> None:
    """Show who leads an election and who would, and hand leadership on."""


@elections.command(epilog="Example:  coord elections ls /jobs/ -o json")
@click.argument("prefix", default="/")
@click.option("--limit", type=click.IntRange(1), default=ROWS, show_default=True, help="List about so many.")
@output_option
@pass_settings
def ls(settings: Settings, prefix: str, limit: int) -> None:
    """List the elections in which anybody stands, of those whose names begin with PREFIX, with who leads."""
    client = client_of(settings)
    listing = run(client, client.list_locks(_path(prefix), limit=limit, kinds=("election",)))
    namespace = client.full_path("/x").removesuffix("/x")
    rows = [_listed(row, namespace) for row in listing.rows]
    columns = {
        "name": lambda row: row["name"],
        "leader": lambda row: f"{row['host']}:{row['pid']} {row['label']}".rstrip(),
        "epoch": lambda row: row["epoch"],
        "for": lambda row: show_duration(row["since_ms"] / 1000),
        "candidates": lambda row: row["candidates"],
    }
    write_rows(settings, "elections", rows, columns)
    if listing.next is not None:
        settings.note("there are more; raise --limit or name a longer PREFIX")


@elections.command(epilog="Example:  coord elections show /scheduler -o json")
@click.argument("name")
@click.option("--limit", default=100, show_default=True, help="Name so many who wait.")
@output_option
@pass_settings
def show(settings: Settings, name: str, limit: int) -> None:
    """Show who leads the election NAME, and who waits to, the next one first.  Exit code 5 where nobody stands in it."""
    leader, waiting = asyncio.run(_ask(settings, _path(name), limit))
    if leader is None:
        raise CommandFailed(Exit.NOT_FOUND, f"nobody stands in an election {_path(name)}")
    if settings.output in ("json", "jsonl"):
        candidates = [leader_document(candidate) for candidate in waiting]
        write_json({"election": _path(name), "leader": leader_document(leader), "candidates": candidates})
    elif settings.output == "plain":
        write_plain([row[column] for column in _COLUMNS] for row in _rows(leader, waiting))
    else:
        _show(settings, _rows(leader, waiting))


@elections.command(epilog="Example:  coord elections transfer /scheduler --to 1042")
@click.argument("name")
@click.option("--to", type=int, default=0, help="Candidate to hand it to, as `show` numbers them  [default: the next]")
@pass_settings
def transfer(settings: Settings, name: str, to: int) -> None:
    """Let another candidate of the election NAME lead; the leader waits behind the others.  Exit code 5 where there is none."""
    asyncio.run(_transfer(settings, _path(name), to))


def _path(name: str) -> str:
    return name if name.startswith("/") else f"/{name}"


def _client(settings: Settings) -> "AsyncClient":
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    return AsyncClient(target_of(settings).url)


def _listed(row: "ListedLock", namespace: str) -> dict[str, Any]:
    leader = row.holder
    assert leader is not None, "an election that exists is led"
    return {
        "name": row.path.removeprefix(namespace),
        "host": leader.owner.host,
        "pid": leader.owner.pid,
        "label": leader.owner.label,
        "epoch": leader.token,
        "session": leader.session,
        "since_ms": leader.since_ms,
        "candidates": row.waiters_total,
    }


async def _ask(settings: Settings, path: str, limit: int) -> "tuple[Candidate | None, list[Candidate]]":
    async with _client(settings) as client:
        election = client.election(path)
        return await election.leader(), list(await election.candidates(limit))


async def _transfer(settings: Settings, path: str, to: int) -> None:
    async with _client(settings) as client:
        election = client.election(path)
        leader = await election.leader()
        if leader is None:
            raise CommandFailed(Exit.NOT_FOUND, f"nobody stands in an election {path}")
        if not to and not await election.candidates(1):
            raise CommandFailed(Exit.NOT_FOUND, f"nobody else stands in the election {path}")
        await election.transfer(to, epoch=leader.epoch)
        led = await election.leader()
        if led is not None:
            settings.note(f"{path} is led by {led.owner.host}:{led.owner.pid} {led.owner.label}, epoch {led.epoch}")


def _rows(leader: "Candidate", waiting: "list[Candidate]") -> list[dict[str, Any]]:
    return [
        {
            "part": "leader" if candidate is leader else "candidate",
            **{column: getattr(candidate.owner, column) for column in ("host", "pid", "label")},
            "candidate": candidate.candidate,
            "epoch": candidate.epoch or None,
            "session": candidate.session,
            "since": show_duration(candidate.since_ms / 1000),
        }
        for candidate in (leader, *waiting)
    ]


def _show(settings: Settings, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column.upper(), justify="right" if column in _NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in _COLUMNS))
    console(color=settings.color).print(table)
