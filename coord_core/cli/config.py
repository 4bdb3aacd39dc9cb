"""`coord config`: what a node would be told, and from where."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.server import SECRETS, config_options, flags_by_key
from coord_core.cli.settings import Settings, output_option, pass_settings
from coord_core.errors import InvalidConfig

if TYPE_CHECKING:
    from coord_core.config import ServerConfig

_JSON = ("json", "jsonl")


@click.group(epilog="Example:  coord config check --config /etc/coord/coord.toml")
def config() -> None:
    """Look at a node's configuration without starting it."""


@config.command(epilog="Example:  coord config check --config /etc/coord/coord.toml")
@config_options
@output_option
@pass_settings
def check(settings: Settings, /, config_file: Path | None, **flags: object) -> None:
    """Say whether `coord server` would accept these settings: all faults at once, and exit code 2 where there are any.

    The files that they name are opened too.
    """
    from coord_core.config import file_faults

    try:
        loaded, _ = _load(config_file, flags)
        if faults := file_faults(loaded):
            raise InvalidConfig("\n".join(faults), faults=faults)
    except InvalidConfig as error:
        if settings.output in _JSON:
            write_json({"ok": False, "faults": error.details["faults"]})
            raise CommandFailed(Exit.USAGE) from error
        raise
    if settings.output in _JSON:
        write_json({"ok": True, "faults": []})
    else:
        settings.note("coord: the configuration has no faults")


@config.command(epilog="Example:  coord config show --origin --config /etc/coord/coord.toml --raft.heartbeat 100ms")
@config_options
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@output_option
@pass_settings
def show(settings: Settings, /, origin: bool, config_file: Path | None, **flags: object) -> None:
    """Show every setting as `coord server` would see it.  A token is never shown."""
    loaded, origins = _load(config_file, flags)
    rows = [(key, value, origins.get(key, "default")) for key, value in _values(loaded)]
    if settings.output in _JSON:
        write_json({"settings": {key: {"value": value, "origin": where} for key, value, where in rows}})
        return
    shown = rows if origin else [row[:2] for row in rows]
    if settings.output == "plain":
        write_plain(shown)
    else:
        _show_table(settings, shown, ("SETTING", "VALUE", "FROM"))


def _load(config_file: Path | None, flags: dict[str, object]) -> tuple["ServerConfig", dict[str, str]]:
    from coord_core.config import load_with_origins

    return load_with_origins(config_file, environ=os.environ, flags=flags_by_key(flags))


def _values(loaded: "ServerConfig") -> Iterator[tuple[str, Any]]:
    """Every key and its value as one would write it."""
    from coord_core.config import OPTIONS

    for key, (field_path, _parse) in OPTIONS.items():
        value: Any = loaded
        for name in field_path.split("."):
            value = getattr(value, name)
        if key in SECRETS and value:
            value = "(set)"
        yield key, _written(field_path, value)


def _written(field_path: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, Path):
        return str(value)
    return f"{value}ms" if field_path.endswith("_ms") else value


def _show_table(settings: Settings, rows: list[tuple[Any, ...]], headings: tuple[str, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, _ in zip(headings, rows[0], strict=False):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell).lower() if isinstance(cell, bool) else str(cell) for cell in row))
    console(color=settings.color).print(table)
