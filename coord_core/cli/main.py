"""`coord`: the command tree, the global options, and how it ends.

Rule: whatever goes wrong ends in one line on stderr that says what to do, and in an exit code of `exits`; a traceback is shown
under -vv only.
"""

import importlib
import sys
import traceback
from collections.abc import Sequence

import click

from coord_core.cli.durations import DURATION
from coord_core.cli.exits import CommandFailed, Exit, exit_of, hint_of
from coord_core.cli.output import FORMATS
from coord_core.cli.settings import Settings, color_wanted
from coord_core.errors import CoordError, InvalidConfig

#: Noun (also the module of this room that defines it, as an attribute of the same name) -> what it does.
NOUNS = {
    "config": "Look at a node's configuration without starting it.",
    "dev": "Run a cluster on this machine, for trying things out and for tests.",
    "elect": "Run a command while this process leads an election.",
    "elections": "Show who leads an election and who would, and hand leadership on.",
    "group": "Be a member of a group, list its members, and watch them come and go.",
    "lock": "Run a command while holding a lock.",
    "locks": "Show what is held and who waits, and take a lock from its holder.",
    "members": "Show who belongs to the cluster, and change it.",
    "recover": "Make a new cluster out of one node's directory, when the majority is gone for good.",
    "server": "Run one node of a cluster.",
    "sessions": "Show the sessions of the cluster, and end one.",
    "status": "Show the leader and every node.",
    "topic": "Publish and read messages, and look at topics and their consumers.",
}


class Nouns(click.Group):
    """Loads a noun's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        command: click.Command = getattr(importlib.import_module(f"coord_core.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the nouns without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(NOUNS.items()))


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"coord {version('coord-core')}")
        except PackageNotFoundError:
            click.echo("coord, from a source tree")
        ctx.exit()


@click.command(
    cls=Nouns,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  coord dev --nodes 3
  coord --url coord://127.0.0.1:7400 lock /jobs/nightly -- ./backup.sh""",
)
@click.option("--url", envvar="COORD_URL", help="The cluster: coord://host:port,host:port/namespace  [env: COORD_URL]")
@click.option("-n", "--namespace", help="Namespace; wins over the one in the URL.")
@click.option("-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print results.")
@click.option("--timeout", type=DURATION, default="10s", show_default=True, help="How long one request may take.")
@click.option(
    "--token-file",
    envvar="COORD_TOKEN_FILE",
    type=click.Path(dir_okay=False),
    help="File with the cluster's token  [env: COORD_TOKEN_FILE]",
)
@click.option("--cacert", type=click.Path(dir_okay=False), help="Who signs the nodes' certificates (PEM, with coords://).")
@click.option("--cert", type=click.Path(dir_okay=False), help="Our own certificate (PEM).")
@click.option("--key", type=click.Path(dir_okay=False), help="Its private key (PEM).")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
@click.option("-v", "--verbose", count=True, help="Say more; -vv shows tracebacks.")
@click.option("--no-color", is_flag=True, help="No colours (so do NO_COLOR and a pipe).")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version.")
@click.pass_context
def coord(
    ctx: click.Context,
    url: str | None,
    namespace: str | None,
    output: str,
    timeout: float,
    token_file: str | None,
    cacert: str | None,
    cert: str | None,
    key: str | None,
    quiet: bool,
    verbose: int,
    no_color: bool,
) -> None:
    """Locks that survive what kills their holders: run, ask and use a coord cluster."""
    ctx.obj = Settings(
        url=url or None,
        namespace=namespace,
        output=output,
        timeout=timeout,
        token_file=token_file,
        cacert=cacert,
        cert=cert,
        key=key,
        quiet=quiet,
        verbose=verbose,
        color=color_wanted(no_color),
    )


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code.  Never raises for what a user can cause."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = coord.main(arguments, prog_name="coord", standalone_mode=False)
        return result if isinstance(result, int) else Exit.OK
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()  # `coord` alone: the help as it is, not squeezed into a line
        return Exit.USAGE
    except click.UsageError as error:
        return _usage(error)
    except click.exceptions.Abort:
        return Exit.INTERRUPTED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 - the last resort of a command line: say it in one line
        return _failure(error, show_traceback=_asks_for_traceback(arguments))


def _usage(error: click.UsageError) -> int:
    place = error.ctx.command_path if error.ctx is not None else "coord"
    message = error.format_message().rstrip(".")
    _complain(f"{message}{'' if message.endswith('?') else '.'}  {_own_options(error)}See `{place} --help`.")
    return Exit.USAGE


def _own_options(error: click.UsageError) -> str:
    """An option that a noun with a COMMAND does not know is most likely the command's."""
    takes_command = error.ctx is not None and any(parameter.name == "command" for parameter in error.ctx.command.params)
    return "Options of COMMAND come after `--`.  " if takes_command and isinstance(error, click.NoSuchOption) else ""


def _failure(error: Exception, *, show_traceback: bool) -> int:
    if show_traceback:
        traceback.print_exception(error)
    match error:
        case CommandFailed():
            if error.message:
                _complain(error.message)
            return error.code
        case InvalidConfig():
            for fault in error.details.get("faults", [error.message]):
                _complain(f"configuration: {fault}")
            return Exit.USAGE
        case CoordError():
            hint = hint_of(error)
            _complain(f"{error.message}{'; ' if hint else ''}{hint}")
            return exit_of(error)
        case click.ClickException():
            _complain(error.format_message())
            return Exit.FAILED
        case OSError():
            name = f"{error.filename}: " if error.filename else ""
            _complain(f"{name}{error.strerror or error}")
            return Exit.FAILED
        case _:
            _complain(f"unexpected {type(error).__name__}: {error}; run it again with -vv for the traceback and please report it")
            return Exit.FAILED


def _complain(message: str) -> None:
    line = " ".join(message.split())
    print(f"coord: {line}", file=sys.stderr, flush=True)


def _reader_gone() -> int:
    """Stdout's reader has gone (`coord ... | head`): end quietly, and keep the interpreter's last flush from complaining."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.FAILED


def _asks_for_traceback(arguments: Sequence[str]) -> bool:
    """Whether -vv stands before the noun (options of the command behind `--` are not ours)."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return sum(word.count("v") for word in own if word in ("-v", "-vv", "-vvv")) + own.count("--verbose") >= 2


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
