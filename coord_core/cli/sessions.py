"""`coord sessions`: who is connected to the cluster and holds what, and ending a session."""

from typing import Any

import click

from coord_core.cli.asking import client_of, run
from coord_core.cli.durations import show_duration
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.locks import ROWS
from coord_core.cli.rows import write_rows
from coord_core.cli.settings import Settings, output_option, pass_settings
from coord_core.cli.why import who
from coord_core.protocol.locks import ListedDetached


@click.group(
    epilog="""\b
Examples:
  coord sessions ls
  coord sessions kill 4711""",
)
def sessions() -> None:
    """Show the sessions of the cluster, and end one."""


@sessions.command(epilog="Example:  coord sessions ls -o json")
@click.option("--limit", type=click.IntRange(1), default=ROWS, show_default=True, help="List at most so many.")
@click.option("--after", type=click.IntRange(0), default=0, help="Go on where an earlier list ended: its `next`.")
@output_option
@pass_settings
def ls(settings: Settings, limit: int, after: int) -> None:
    """List the sessions, of all namespaces: whose they are, how much each holds, and how much is left of its lease."""
    client = client_of(settings)
    listing = run(client, client.list_sessions(limit=limit, after=after))
    rows = [
        {
            "session": row.session,
            "who": None if row.owner is None else who(row.owner),
            "processes": row.attachments,
            "holdings": row.holdings,
            "ttl_seconds": row.ttl_ms / 1000,
            "lease_left_seconds": None if row.lease_left_ms is None else row.lease_left_ms / 1000,
            "detached": None if row.detached is None else _detached(row.detached),
        }
        for row in listing.rows
    ]
    columns = {
        "session": lambda row: row["session"],
        "who": lambda row: row["who"],
        "processes": lambda row: row["processes"],
        "holds": lambda row: row["holdings"],
        "ttl": lambda row: show_duration(row["ttl_seconds"]),
        "lease": lambda row: None if row["lease_left_seconds"] is None else show_duration(row["lease_left_seconds"]),
    }
    if any(row["detached"] for row in rows):
        columns["detached"] = lambda row: row["detached"] and _told(row["detached"])
    write_rows(settings, "sessions", rows, columns, next=listing.next)
    if listing.next is not None:
        settings.note(f"there are more: coord sessions ls --after {listing.next}")


def _detached(row: ListedDetached) -> dict[str, Any]:
    return {
        "name": row.name,
        "attempt": row.attempt,
        "instance": row.instance,
        "superseded": row.superseded,
        "held_seconds": None if row.held_ms is None else row.held_ms / 1000,
    }


def _told(detached: dict[str, Any]) -> str:
    """Return name, attempt, and what is not as usual about it."""
    text = f"{detached['name']} #{detached['attempt']}"
    if detached["superseded"]:
        text += ", superseded"
    if detached["held_seconds"] is not None:
        text += f", handed off, held {show_duration(detached['held_seconds'])}"
    return text


@sessions.command(epilog="Example:  coord sessions kill 4711")
@click.argument("session", type=click.IntRange(1))
@pass_settings
def kill(settings: Settings, session: int) -> None:
    """End SESSION: all that it holds is free at once, in every namespace, and its calls fail.

    Its processes hear of it with their next request, at the latest when they would renew the lease.  Exit code 5: there is none.
    """
    client = client_of(settings)
    if not run(client, client.end_session(session)):
        raise CommandFailed(Exit.NOT_FOUND, f"there is no session {session}")
    settings.note(f"session {session} is ended")
