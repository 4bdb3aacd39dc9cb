"""`coord elect NAME -- CMD`: run a command while this process leads an election, and end it before anybody else can lead.

Built like `coord lock`: the command and its guard are forked before anything is loaded.  Without a command, `--on-elected` and
`--on-lost` are run whenever this process comes to lead and leads no more; `--watch` takes no part and tells who leads.
"""

import asyncio
import os
import shlex
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from coord_core.cli.child import Child
from coord_core.cli.durations import DURATION
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.guard import Guard
from coord_core.cli.leased import Lease, Signals, run_under_lease
from coord_core.cli.output import write_json
from coord_core.cli.settings import Settings, output_option, pass_settings
from coord_core.cli.why import who
from coord_core.errors import CoordError, LostError

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient
    from coord_core.client.election import AsyncCandidacy
    from coord_core.protocol.elections import Candidate

#: Resigning is worth this long; then the session's end does it.
RESIGN_SECONDS_MAX = 3.0

#: The hook of loss waits so long for the hook of election to end, and then no longer.
HOOK_SECONDS_MAX = 10.0


@click.command(
    context_settings={"ignore_unknown_options": False},
    epilog="""\b
Examples:
  coord elect /scheduler -- ./scheduler --foreground
  coord elect /scheduler --on-elected 'systemctl start beat' --on-lost 'systemctl stop beat'
  coord elect /scheduler --watch -o jsonl""",
)
@click.argument("name")
@click.option("--id", "label", help="Who this candidate is, for those who look  [default: the command's name]")
@click.option("--ttl", type=DURATION, help="How long leadership survives this process, or its machine, at most  [default: 15s]")
@click.option("--wait", type=DURATION, help="Wait so long to be elected, then exit with 75 (default: for ever).")
@click.option("--on-elected", help="A command, without a shell, to run to its end whenever this process comes to lead.")
@click.option("--on-lost", help="A command, without a shell, to run to its end whenever it leads no more.")
@click.option("--watch", is_flag=True, help="Take no part; print a line for every leader, beginning with the present one.")
@output_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_settings
def elect(
    settings: Settings,
    name: str,
    label: str | None,
    ttl: float | None,
    wait: float | None,
    on_elected: str | None,
    on_lost: str | None,
    watch: bool,
    command: tuple[str, ...],
) -> int:
    """Stand in the election NAME, and run COMMAND while this process leads.

    Without COMMAND, the hooks are run instead.  Asked to end, it runs --on-lost to its end before anyone else can be elected;
    where the lease is lost, somebody may be elected meanwhile.

    COMMAND is started without a shell, in a process group of its own, which gets every signal sent here, with
    COORD_ELECTION_NAME, COORD_EPOCH and COORD_URL in its environment.  Its exit code is returned (128 + the signal's number where
    one ended it).

    If the lease cannot be renewed, or leadership is handed on, the group gets SIGTERM, then SIGKILL; where the lease ends, both
    before anyone else can be elected.  The exit code is 76.  Let what COMMAND writes to check the epoch: it rises with each leader.

    Exit codes: 75 not elected in time, 76 leadership lost, 3 cluster unreachable, 126 or 127 COMMAND cannot be started.
    """
    path = name if name.startswith("/") else f"/{name}"
    if watch or not command:
        if command or (watch and (on_elected or on_lost)):
            raise click.UsageError("--watch takes no part: no COMMAND, --on-elected or --on-lost")
        if not watch and not (on_elected or on_lost):
            raise click.UsageError("name a COMMAND to run, --on-elected, --on-lost, or --watch")
        if wait is not None:
            raise click.UsageError("--wait is for running a COMMAND")
        standing = Standing(settings, path, label or "coord elect", ttl, wait)
        return asyncio.run(_watch(standing) if watch else _stand(standing, on_elected, on_lost))
    if on_elected or on_lost:
        raise click.UsageError("--on-elected and --on-lost are for standing without a COMMAND")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, children could not be waited for
    child = Child(command)
    guard = Guard(child.pid)
    standing = Standing(settings, path, label or os.path.basename(command[0]), ttl, wait)
    try:
        return asyncio.run(_run(standing, child, guard))
    finally:
        child.end()
        guard.stand_down()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where to stand, and as whom."""

    settings: Settings
    path: str
    label: str
    #: Seconds; None: what the URL says.
    ttl: float | None
    #: Seconds; None: for ever.
    wait: float | None


# --- with a command --------------------------------------------------------------------------------------------------------------


async def _run(standing: Standing, child: Child, guard: Guard) -> int:
    from coord_core.cli.logs import log_as_command
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    log_as_command(standing.settings)
    target = target_of(standing.settings, ttl=standing.ttl)
    async with AsyncClient(target.url) as client:
        signals = Signals()
        with signals.ending_this_task():
            await client.wait_connected(standing.settings.timeout)
            candidacy = await _elected(standing, client)
        epoch = candidacy.epoch
        environment = {"COORD_ELECTION_NAME": standing.path, "COORD_EPOCH": str(epoch), **target.environment()}

        def leads() -> bool:
            return candidacy.epoch == epoch and candidacy.is_leader_locally()

        lease = Lease(client, leads, f"{standing.path} is not led by this process any more", guard)
        with signals.going_to(child):
            code = await run_under_lease(lease, child, environment)
        await _resign(standing, candidacy)
    return code


async def _elected(standing: Standing, client: "AsyncClient") -> "AsyncCandidacy":
    """Raises `CommandFailed`: 75 where its time is over, 3 where the cluster went away."""
    election = client.election(standing.path, label=standing.label)
    try:
        candidacy = await election.enter()
        if candidacy.epoch is None:
            standing.settings.note(f"coord: {standing.path} is led by {_name(await election.leader())}; waiting")
        epoch = await candidacy.wait_elected(standing.wait)
    except LostError as error:
        raise CommandFailed(Exit.UNAVAILABLE, f"lost the cluster while waiting for {standing.path}: {error.message}") from error
    if epoch is None:
        raise CommandFailed(Exit.NOT_ACQUIRED, f"{standing.path} is led by {_name(await election.leader())}")
    return candidacy


async def _resign(standing: Standing, candidacy: "AsyncCandidacy") -> None:
    try:
        async with asyncio.timeout(RESIGN_SECONDS_MAX):
            await candidacy.resign()
    except (CoordError, TimeoutError) as error:
        why = str(error) or "no answer"
        standing.settings.note(f"coord: could not resign from {standing.path} ({why}); the session's end does it")


# --- with hooks, or only looking -------------------------------------------------------------------------------------------------


async def _stand(standing: Standing, on_elected: str | None, on_lost: str | None) -> int:
    """Lead again and again, until a signal comes."""
    from coord_core.cli.logs import log_as_command
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    log_as_command(standing.settings)
    target = target_of(standing.settings, ttl=standing.ttl)
    hooks = _Hooks(standing, on_elected, on_lost, target.environment())
    async with AsyncClient(target.url) as client:
        try:
            with Signals().ending_this_task():
                await client.wait_connected(standing.settings.timeout)
                await client.election(standing.path, label=standing.label).on_election(hooks.elected, hooks.lost)
                await asyncio.Event().wait()
        finally:
            await hooks.lost()  # before the session is closed, and another leads
    return Exit.OK


class _Hooks:
    """Runs the hook of election, and after it the hook of loss, once for each time that this process leads."""

    def __init__(self, standing: Standing, on_elected: str | None, on_lost: str | None, environment: dict[str, str]) -> None:
        self._standing = standing
        self._on_elected = on_elected
        self._on_lost = on_lost
        self._environment = environment
        # The one that is led under and whose hook of loss has not been run; 0: none.
        self._epoch = 0
        self._electing: asyncio.Task[None] | None = None
        self._losing = asyncio.Lock()

    async def elected(self, epoch: int) -> None:
        self._epoch = epoch
        self._electing = asyncio.ensure_future(self._run(self._on_elected, "elected", epoch))
        # Shielded: the loss of leadership does not cut the hook off, it has one of its own.
        await asyncio.shield(self._electing)

    async def lost(self, _: int = 0) -> None:
        """Return when the hook has run, whoever began it."""
        async with self._losing:
            epoch, self._epoch = self._epoch, 0
            if not epoch:
                return
            if self._electing is not None:
                await asyncio.wait([self._electing], timeout=HOOK_SECONDS_MAX)
            await self._run(self._on_lost, "not elected any more", epoch)

    async def _run(self, command: str | None, what: str, epoch: int) -> None:
        self._standing.settings.note(f"coord: {what} in {self._standing.path}, epoch {epoch}")
        if command is not None:
            await _hook(self._standing, command, {"COORD_EPOCH": str(epoch), **self._environment})


async def _hook(standing: Standing, command: str, environment: dict[str, str]) -> None:
    words = shlex.split(command)
    try:
        process = await asyncio.create_subprocess_exec(
            *words, env={**os.environ, "COORD_ELECTION_NAME": standing.path, **environment}
        )
        code = await process.wait()
    except OSError as error:
        standing.settings.note(f"coord: {words[0]}: {error.strerror or error}")
        return
    if code:
        standing.settings.note(f"coord: {words[0]} ended with exit code {code}")


async def _watch(standing: Standing) -> int:
    from coord_core.cli.logs import log_as_command
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    log_as_command(standing.settings)
    async with AsyncClient(target_of(standing.settings, ttl=standing.ttl).url) as client:
        with Signals().ending_this_task():
            await client.wait_connected(standing.settings.timeout)
            async for leader in client.election(standing.path).observe():
                _show(standing, leader)
    return Exit.OK


def _show(standing: Standing, leader: "Candidate | None") -> None:
    if standing.settings.output in ("json", "jsonl"):
        write_json({"election": standing.path, "leader": None if leader is None else leader_document(leader)})
    else:
        print("nobody" if leader is None else f"{_name(leader)}, epoch {leader.epoch}", flush=True)


def leader_document(leader: "Candidate") -> dict[str, object]:
    """Return a candidate as JSON has it."""
    owner = leader.owner
    return {
        "candidate": leader.candidate,
        "epoch": leader.epoch or None,
        "session": leader.session,
        "host": owner.host,
        "pid": owner.pid,
        "label": owner.label,
        "since_ms": leader.since_ms,
    }


def _name(leader: "Candidate | None") -> str:
    return "nobody" if leader is None else who(leader.owner)
