"""`coord locks`: what is held, why somebody waits, and taking a lock from its holder."""

import re
from typing import TYPE_CHECKING, Any

import click

from coord_core.cli.asking import client_of, run
from coord_core.cli.durations import show_duration
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.output import write_json
from coord_core.cli.rows import write_rows
from coord_core.cli.settings import Settings, output_option, pass_settings
from coord_core.cli.why import who, why_lock, why_semaphore
from coord_core.errors import NotHolder, WrongType

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient
    from coord_core.client.listing import LockListing
    from coord_core.protocol.locks import ListCursor, ListedLock, LockBroken, LockClosure, LockParty
    from coord_core.protocol.queries import LockState
    from coord_core.protocol.semaphores import SemaphoreParty, SemaphoreState

#: What a list shows where it is not told otherwise.
ROWS = 1_000
#: Who waits, and who holds permits, as `show` names them.
NAMED = 100


@click.group(
    epilog="""\b
Examples:
  coord locks ls /jobs/
  coord locks why /jobs/nightly
  coord locks break /jobs/nightly --token 4711 --reason "h1 is off the network" """,
)
def locks() -> None:
    """Show what is held and who waits, and take a lock from its holder."""


@locks.command(epilog="Example:  coord locks ls /jobs/ -o json")
@click.argument("prefix", default="/")
@click.option("--limit", type=click.IntRange(1), default=ROWS, show_default=True, help="List about so many.")
@click.option("--after", "cursor", help="Go on where an earlier list ended: its `next`.")
@output_option
@pass_settings
def ls(settings: Settings, prefix: str, limit: int, cursor: str | None) -> None:
    """List the locks and semaphores that are in use, of those whose names begin with PREFIX."""
    client = client_of(settings)
    listing: LockListing = run(client, client.list_locks(_name(prefix), limit=limit, after=_cursor(cursor)))
    following = None if listing.next is None else f"{listing.next.shard}{listing.next.after}"
    rows = [_listed(row, _namespace(settings)) for row in listing.rows]
    columns = {
        "name": lambda row: row["name"],
        "kind": lambda row: row["kind"],
        "taken": lambda row: f"{row['taken']}/{row['limit']}",
        "holder": lambda row: _told_holder(row),
        "token": lambda row: row["holder"] and row["holder"]["token"],
        "for": lambda row: row["holder"] and show_duration(row["holder"]["seconds"]),
        "waiting": lambda row: row["waiters_total"],
    }
    write_rows(settings, "locks", rows, columns, next=following)
    if following is not None:
        settings.note(f"there may be more: coord locks ls {prefix} --after {following}")


@locks.command(epilog="Example:  coord locks show /jobs/nightly -o json")
@click.argument("name")
@output_option
@pass_settings
def show(settings: Settings, name: str) -> None:
    """Show who holds the lock or semaphore NAME and who waits for it, in order.  Exit code 5 where nobody does."""
    client, path = client_of(settings), _name(name)
    state, _ = run(client, _look(client, path, NAMED))
    if _is_free(state):
        raise CommandFailed(Exit.NOT_FOUND, f"{path} is free: nobody holds it and nobody waits")
    document = _shown(path, state)
    if settings.output in ("json", "jsonl"):
        write_json(document)
        return
    parties = [{"part": "holder", **party} for party in document["holders"]]
    parties += [{"part": "waiter", **party} for party in document["waiters"]]
    columns = {
        "part": lambda row: row["part"],
        "who": lambda row: row["who"],
        "session": lambda row: row["session"],
        "token": lambda row: row["token"] or None,
        "for": lambda row: show_duration(row["seconds"]),
    }
    if settings.output == "table":
        click.echo(why_lock(path, state, None) if "closed" in document else why_semaphore(path, state, None))  # type: ignore[arg-type]
    write_rows(settings, "parties", parties, columns)


@locks.command(epilog="Example:  coord locks why /jobs/nightly")
@click.argument("name")
@output_option
@pass_settings
def why(settings: Settings, name: str) -> None:
    """Say in one sentence why somebody waits for NAME.

    Who holds it, since when, how much is left of its lease, how many wait ahead; or why and until when it is closed.
    """
    client, path = client_of(settings), _name(name)
    state, left_ms = run(client, _look(client, path, 1))
    sentence = why_lock(path, state, left_ms) if _is_lock(state) else why_semaphore(path, state, left_ms)  # type: ignore[arg-type]
    if settings.output in ("json", "jsonl"):
        write_json({**_shown(path, state), "lease_left_seconds": None if left_ms is None else left_ms / 1000, "why": sentence})
    else:
        click.echo(sentence)


@locks.command("break", epilog='Example:  coord locks break /jobs/nightly --token 4711 --reason "h1 is off the network"')
@click.argument("name")
@click.option("--token", type=click.IntRange(1), required=True, help="The grant to end, as `coord locks show` tells it.")
@click.option("--reason", required=True, help="Told to the former holder, and written into the leader's log.")
@output_option
@pass_settings
def break_lock(settings: Settings, name: str, token: int, reason: str) -> None:
    """Take the lock NAME from whoever holds it under exactly this token; the first who waits has it at once.

    The holder is not asked and may go on working: make sure that it does not, or that what it writes to checks tokens.  A lock
    that is closed for a while opens.  Exit code 5: nobody holds it; 6: it is held under another token by now.
    """
    client, path = client_of(settings), _name(name)
    broken: LockBroken = run(client, _break(client, path, token, reason))
    if settings.output in ("json", "jsonl"):
        write_json({"name": path, "token": token, "holder": who(broken.holder), "by": who(broken.by), "reason": reason})
    else:
        settings.note(f"took {path} from {who(broken.holder)} (token {token})")


# --- asking ----------------------------------------------------------------------------------------------------------------------


def _namespace(settings: Settings) -> str:
    from coord_core.cli.target import target_of

    return target_of(settings).url.namespace


async def _look(client: "AsyncClient", path: str, named: int) -> "tuple[LockState | SemaphoreState, int | None]":
    """Return who holds and waits, of whichever type it is, and how much is left of the (oldest) holder's lease."""
    state: LockState | SemaphoreState
    try:
        state = await client.lock_state(path, named)
        holder: LockParty | SemaphoreParty | None = state.holder
    except WrongType as error:
        if error.details.get("type") != "semaphore":
            raise
        state = await client.semaphore(path, 1).state(named, named)
        holder = next(iter(state.holders), None)
    return state, None if holder is None else await client.session_lease_left_ms(holder.session)


async def _break(client: "AsyncClient", path: str, token: int, reason: str) -> "LockBroken":
    lock = client.lock(path)
    try:
        return await lock.break_(token, reason)
    except NotHolder:
        state = await client.lock_state(path, 0)
        last = state.holder or state.closed
        if last is None:
            raise CommandFailed(Exit.NOT_FOUND, f"{path} is free: nobody holds it") from None
        how = "held" if state.holder is not None else "closed"
        told = f"{path} is {how} under token {last.token} by now ({who(last.owner)}), not {token}: look again"
        raise CommandFailed(Exit.CONFLICT, told) from None


def _name(text: str) -> str:
    return text if text.startswith("/") else f"/{text}"


def _cursor(text: str | None) -> "ListCursor | None":
    from coord_core.protocol.locks import ListCursor

    if text is None:
        return None
    parts = re.fullmatch(r"(\d+)(/.*)?", text, re.DOTALL)
    if parts is None:
        raise click.UsageError(f"--after takes the `next` of an earlier list; {text!r} is none")
    return ListCursor(int(parts[1]), parts[2] or "")


# --- showing it ------------------------------------------------------------------------------------------------------------------


def _is_lock(state: "LockState | SemaphoreState") -> bool:
    return hasattr(state, "closed")


def _is_free(state: "LockState | SemaphoreState") -> bool:
    if _is_lock(state):
        return state.holder is None and state.closed is None  # type: ignore[union-attr]
    return state.limit is None  # type: ignore[union-attr]


def _listed(row: "ListedLock", namespace: str) -> dict[str, Any]:
    return {
        "name": row.path.removeprefix(namespace),
        "kind": row.kind,
        "limit": row.limit,
        "taken": row.taken,
        "holder": None if row.holder is None else _party(row.holder),
        "waiters_total": row.waiters_total,
        "closed": _closed(row.closed),
    }


def _shown(path: str, state: "LockState | SemaphoreState") -> dict[str, Any]:
    found: Any = state
    document: dict[str, Any] = {"name": path}
    if _is_lock(state):
        holders = () if found.holder is None else (found.holder,)
        document |= {"kind": "lock", "limit": 1, "taken": len(holders), "closed": _closed(found.closed)}
        document |= {"holders": [_party(party) for party in holders], "holders_total": len(holders)}
    else:
        document |= {"kind": "semaphore", "limit": found.limit, "set": found.set, "taken": found.taken}
        document |= {"holders": [_party(party) for party in found.holders], "holders_total": found.holders_total}
    return document | {"waiters": [_party(party) for party in found.waiters], "waiters_total": found.waiters_total}


def _party(party: "LockParty | SemaphoreParty") -> dict[str, Any]:
    owner = party.owner
    return {
        "who": who(owner),
        "host": owner.host,
        "pid": owner.pid,
        "label": owner.label,
        "session": party.session,
        "attachment": party.attachment,
        "token": party.token,
        "seconds": party.since_ms / 1000,
        "permits": getattr(party, "permits", 1),
    }


def _closed(closed: "LockClosure | None") -> dict[str, Any] | None:
    if closed is None:
        return None
    return {
        "reason": closed.reason,
        "token": closed.token,
        "who": who(closed.owner),
        "seconds_left": max(0, closed.left_ms) / 1000,
    }


def _told_holder(row: Any) -> str | None:
    if row["holder"] is not None:
        return str(row["holder"]["who"])
    closed = row["closed"]
    return None if closed is None else f"closed ({closed['reason']}), {show_duration(closed['seconds_left'])} more"
