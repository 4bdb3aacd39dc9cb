"""`coord topic`: messages from and to a shell, and how far consumers have read."""

import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coord_core.cli.durations import DURATION, parse_duration
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.settings import Settings, output_option, pass_settings

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient
    from coord_core.client.topic import From, TopicMessage, TopicStatus

T = TypeVar("T")

_SIZES = {"": 1, "b": 1, "k": 1024, "kib": 1024, "m": 1024**2, "mib": 1024**2, "g": 1024**3, "gib": 1024**3, "t": 1024**4}

#: Messages that `read` shows if it is not told otherwise.
READ_LIMIT = 100


class Size(click.ParamType[int]):
    """A click parameter in bytes: 500M, 10GiB, 4096."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().lower()
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
        unit = text[len(digits) :].strip()
        if not digits.isdigit() or unit not in _SIZES:
            self.fail(f"{value!r} is not a size such as 4096, 500M or 10GiB", param, ctx)
        return int(digits) * _SIZES[unit]


@click.group(
    epilog="""\b
Examples:
  coord topic publish /orders 'new order' --key 4711
  coord topic read /orders --from 1h
  coord topic lag /orders
  coord topic seek /orders billing earliest"""
)
def topic() -> None:
    """Publish and read messages, and look at topics and their consumers."""


# --- topics ----------------------------------------------------------------------------------------------------------------------


@topic.command(epilog="Example:  coord topic create /orders --max-bytes 10GiB --max-age 30d")
@click.argument("name")
@click.option("--max-bytes", type=Size(), default="1GiB", show_default=True, help="Keep at most so much.")
@click.option("--max-records", type=click.IntRange(1), help="Keep so many messages (default: no limit).")
@click.option("--max-age", type=DURATION, default="7d", show_default=True, help="Keep messages so long; 0: for ever.")
@click.option("--update", is_flag=True, help="Change one that is there.")
@pass_settings
def create(settings: Settings, name: str, max_bytes: int, max_records: int | None, max_age: float, update: bool) -> None:
    """Make topic NAME, or change with --update what it keeps.

    Publishing makes a topic too.  What is over its limits goes from the old end, about a 64th of the limit at a time.
    """
    limits = {"max_bytes": max_bytes, "max_records": max_records, "max_age": max_age or None}

    async def work(client: "AsyncClient") -> None:
        handle = client.topic(_path(name))
        if await handle.create(**limits):  # type: ignore[arg-type]
            settings.note(f"{handle.path} is made")
        elif update:
            await handle.configure(**limits)  # type: ignore[arg-type]
            settings.note(f"{handle.path} is changed")
        else:
            raise CommandFailed(Exit.CONFLICT, f"{handle.path} is there already; --update changes what it keeps")

    _run(settings, work)


@topic.command(epilog="Example:  coord topic delete /orders")
@click.argument("name")
@pass_settings
def delete(settings: Settings, name: str) -> None:
    """Delete topic NAME with its messages and consumer groups."""
    _run(settings, lambda client: client.topic(_path(name)).delete())


@topic.command(epilog="Example:  coord topic ls /orders/ -o json")
@click.argument("prefix", default="/")
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True, help="Name at most so many.")
@output_option
@pass_settings
def ls(settings: Settings, prefix: str, limit: int) -> None:
    """List the topics whose name begins with PREFIX."""
    found = _run(settings, lambda client: client.topics(_path(prefix), limit))
    _write_list(
        settings,
        "topics",
        [
            {
                "name": each.path,
                "messages": each.end - each.earliest,
                "earliest": each.earliest,
                "end": each.end,
                "bytes": each.bytes,
                "groups": each.groups,
            }
            for each in found
        ],
        ("name", "messages", "earliest", "end", "bytes", "groups"),
    )


@topic.command(epilog="Example:  coord topic describe /orders")
@click.argument("name")
@output_option
@pass_settings
def describe(settings: Settings, name: str) -> None:
    """Show what topic NAME has and keeps, and its consumer groups."""
    info = _info(settings, name)
    kept = info.retention
    document = {
        "name": info.path,
        "number": info.number,
        "messages": info.end - info.earliest,
        "earliest": info.earliest,
        "end": info.end,
        "bytes": info.bytes,
        "max_bytes": kept.bytes,
        "max_records": kept.records,
        "max_age_s": None if kept.age_ms is None else kept.age_ms / 1000,
    }
    if settings.output in ("json", "jsonl"):
        write_json({**document, "groups": _groups(info)})
        return
    write_plain(document.items())
    for group in _groups(info):
        write_plain([(f"group {group['name']}", f"committed {group['committed']}", f"lag {group['lag']}")])


@topic.command(epilog="Example:  coord topic lag /orders")
@click.argument("name")
@output_option
@pass_settings
def lag(settings: Settings, name: str) -> None:
    """Show how far each consumer group of topic NAME has read, and who is its consumer."""
    _write_list(settings, "groups", _groups(_info(settings, name)), ("name", "committed", "lag", "consumer"))


@topic.command(epilog="Example:  coord topic seek /orders billing 2h")
@click.argument("name")
@click.argument("group")
@click.argument("to")
@pass_settings
def seek(settings: Settings, name: str, group: str, to: str) -> None:
    """Have consumer group GROUP of topic NAME go on at TO: an offset, `earliest`, `latest`, a time, or how long ago.

    Refused (exit code 6) while a consumer has the group: stop it first.
    """
    offset = _run(settings, lambda client: client.topic(_path(name)).seek(group, _from(to)))
    settings.note(f"{group} goes on at {offset}")


# --- messages --------------------------------------------------------------------------------------------------------------------


@topic.command(epilog="Example:  git log -1 | coord topic publish /deploys - --header by=ci")
@click.argument("name")
@click.argument("messages", nargs=-1, required=True)
@click.option("--key", help="Of each message.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Of each message; may be given again.")
@output_option
@pass_settings
def publish(settings: Settings, name: str, messages: tuple[str, ...], key: str | None, headers: tuple[str, ...]) -> None:
    """Publish MESSAGES to topic NAME, one after the other; `-` is what stdin has.  Ends when they are durable on a majority."""
    found = {header.partition("=")[0]: header.partition("=")[2] for header in headers}

    async def work(client: "AsyncClient") -> list[tuple[int, int]]:
        handle = client.topic(_path(name))
        places = []
        for message in messages:
            payload = sys.stdin.buffer.read() if message == "-" else message.encode(errors="surrogateescape")
            published = await handle.publish(payload, found, key)
            places.append((published.offset, int(published.revision)))
        return places

    for offset, revision in _run(settings, work):
        if settings.output in ("json", "jsonl"):
            write_json({"offset": offset, "revision": revision})
        else:
            write_plain([(offset,)])


@topic.command(epilog="Example:  coord topic read /orders --from earliest --follow -o jsonl")
@click.argument("name")
@click.option(
    "--from", "from_", default="earliest", show_default=True, help="An offset, earliest, latest, a time, or how long ago."
)
@click.option("--limit", type=click.IntRange(1), help=f"Show at most so many  [default: {READ_LIMIT}, or no limit with --follow]")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--group", help="Read as the consumer of that group, and commit what was shown; with --follow.")
@output_option
@pass_settings
def read(settings: Settings, name: str, from_: str, limit: int | None, follow: bool, group: str | None) -> None:
    """Show the messages of topic NAME.

    As `plain`, the bytes of each as they are, and a line end; as a table, with offset, time and key before them.
    """
    if group is not None and not follow:
        raise click.UsageError("--group needs --follow")
    _run(settings, lambda client: _read(settings, client, _path(name), _from(from_), limit, follow=follow, group=group))


async def _read(
    settings: Settings,
    client: "AsyncClient",
    path: str,
    from_: "From",
    limit: int | None,
    *,
    follow: bool,
    group: str | None,
) -> None:
    handle = client.topic(path, label="coord topic read")
    if not follow:
        if await handle.info() is None:
            raise CommandFailed(Exit.NOT_FOUND, f"there is no topic {path}")
        _show(settings, await handle.read(from_, limit or READ_LIMIT))
        return
    subscription = handle.subscribe(from_, group=group)
    shown = 0
    try:
        async for message in subscription:
            _show(settings, [message])
            shown += 1
            if shown == limit:
                subscription.worked_off()
                return
    finally:
        await subscription.aclose()


def _show(settings: Settings, messages: "list[TopicMessage]") -> None:
    for message in messages:
        if settings.output in ("json", "jsonl"):
            write_json(_document(message))
        elif settings.output == "plain":
            sys.stdout.buffer.write(message.payload + b"\n")
            sys.stdout.buffer.flush()
        else:
            at = message.published_at.astimezone().isoformat(timespec="seconds")
            key = "-" if message.key is None else message.key.decode(errors="replace")
            write_plain([(message.offset, at, key, message.payload.decode(errors="replace"))])


def _document(message: "TopicMessage") -> dict[str, Any]:
    return {
        "offset": message.offset,
        "revision": int(message.revision),
        "published_at": message.published_at.isoformat(timespec="milliseconds"),
        "key": None if message.key is None else message.key.decode(errors="replace"),
        "headers": {name: value.decode(errors="replace") for name, value in message.headers.items()},
        **_payload(message.payload),
    }


def _payload(payload: bytes) -> dict[str, str]:
    """As text where it is text, else in base64."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        from base64 import b64encode

        return {"payload_base64": b64encode(payload).decode()}


# --- asking ----------------------------------------------------------------------------------------------------------------------


def _run(settings: Settings, work: "Callable[[AsyncClient], Coroutine[Any, Any, T]]") -> T:
    import asyncio

    from coord_core.cli.logs import log_as_command
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    log_as_command(settings)

    async def run() -> T:
        async with AsyncClient(target_of(settings).url) as client:
            return await work(client)

    return asyncio.run(run())


def _info(settings: Settings, name: str) -> "TopicStatus":
    info = _run(settings, lambda client: client.topic(_path(name)).info())
    if info is None:
        raise CommandFailed(Exit.NOT_FOUND, f"there is no topic {_path(name)}; `coord topic ls` names those that there are")
    return info


def _path(name: str) -> str:
    return name if name.startswith("/") else f"/{name}"


def _from(text: str) -> "From":
    """An offset, `earliest`, `latest`, a time (ISO 8601), or how long ago (`2h`)."""
    if text in ("earliest", "latest"):
        return text
    if text.isdigit():
        return int(text)
    try:
        return timedelta(seconds=parse_duration(text))
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is neither an offset, earliest, latest, a time such as 2026-01-31T12:00, nor how long ago such as 2h"
        raise click.UsageError(message) from None


def _groups(info: "TopicStatus") -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "committed": group.committed,
            "lag": group.lag,
            "consumer": None if group.owner is None else f"{group.owner.label or 'pid'} {group.owner.pid} on {group.owner.host}",
        }
        for group in info.groups
    ]


def _write_list(settings: Settings, what: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if settings.output == "json":
        write_json({what: rows})
    elif settings.output == "jsonl":
        for row in rows:
            write_json(row)
    elif settings.output == "plain":
        write_plain([row[column] for column in columns] for row in rows)
    else:
        from rich.table import Table

        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*("-" if row[column] is None else str(row[column]) for column in columns))
        console(color=settings.color).print(table)
