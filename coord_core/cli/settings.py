"""The global options of one run of `coord`, and the flags that commands share."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from coord_core.cli.output import FORMATS

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """What the options before the noun say."""

    #: As given; None: neither --url nor COORD_URL.
    url: str | None = None
    namespace: str | None = None
    #: One of `output.FORMATS`.
    output: str = "table"
    #: Seconds that one request may take.
    timeout: float = 10.0
    token_file: str | None = None
    #: PEM files for TLS.
    cacert: str | None = None
    cert: str | None = None
    key: str | None = None
    quiet: bool = False
    verbose: int = 0
    color: bool = True

    def note(self, line: str) -> None:
        """Tell a person something on stderr; silent under --quiet."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)


def settings_of(ctx: click.Context) -> Settings:
    return ctx.ensure_object(Settings)


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _override_output(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        settings_of(ctx).output = value


def output_option(command: F) -> F:
    """Accept `-o` after the noun too; it wins over the one before."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        expose_value=False,
        callback=_override_output,
        help="How to print results.",
    )(command)


def color_wanted(no_color: bool) -> bool:
    """NO_COLOR (no-color.org) and a stdout that is no terminal mean no as well."""
    return not no_color and not os.environ.get("NO_COLOR") and sys.stdout.isatty()
