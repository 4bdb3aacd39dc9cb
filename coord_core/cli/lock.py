"""`coord lock NAME -- CMD`: run a command while holding a lock, and end it before the lock can be another's.

Two processes are forked before anything is loaded: the command, which waits for its word (`child`), and the guard, which ends it
before the lease behind it ends (`guard`).  This process keeps the lease, moves the guard's deadline, passes signals on, and gives
the lock back when the command has ended.
"""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import click

from coord_core.cli.child import Child
from coord_core.cli.durations import DURATION, show_duration
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.guard import Guard
from coord_core.cli.leased import Lease, Signals, run_under_lease
from coord_core.cli.settings import Settings, pass_settings
from coord_core.cli.why import who
from coord_core.errors import CoordError, LostError, Unavailable

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient
    from coord_core.client.holding import AsyncGrant
    from coord_core.client.lock import AsyncDistributedLock
    from coord_core.client.semaphore import AsyncDistributedSemaphore

    Handle: TypeAlias = AsyncDistributedLock | AsyncDistributedSemaphore

#: Waiting longer than this is told to a person.
SILENT_WAIT_SECONDS = 1.0
#: Finding the leader may take so long under --no-wait (one node that is switched off costs two seconds, an election less) and at
#: least so long under --wait, which counts for the whole call; without either it is tried for ever.
FIND_SECONDS_NO_WAIT = 2.5
FIND_SECONDS_MIN = 1.0
#: Then it takes so long that the nodes are asked why; they have so long to answer.
SURVEY_AFTER_SECONDS = 0.3
SURVEY_SECONDS_MAX = 0.6
#: Giving the lock back is worth this long; then the session's end does it.
RELEASE_SECONDS_MAX = 3.0


@click.command(
    context_settings={"ignore_unknown_options": False},
    epilog="""\b
Examples:
  coord lock /jobs/nightly -- ./backup.sh --full
  coord lock /jobs/nightly --no-wait -- sh -c 'date; id'
  coord lock /jobs/nightly --wait 30s --ttl 5s -- ./import
  coord lock /jobs/thumbnails -N 3 -- ./thumbnails""",
)
@click.argument("name")
@click.option("--ttl", type=DURATION, help="How long the lock survives this process, or its machine, at most  [default: 15s]")
@click.option(
    "--wait", type=DURATION, help="Wait so long for the cluster and the lock, then exit with 3 or 75 (default: for ever)."
)
@click.option("--no-wait", is_flag=True, help="Exit with 75 at once if somebody has the lock, with 3 if no node leads.")
@click.option("-N", "--permits", type=click.IntRange(1, 10_000), help="Let so many hold it at a time: a semaphore, not a lock.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_settings
def lock(
    settings: Settings,
    name: str,
    ttl: float | None,
    wait: float | None,
    no_wait: bool,
    permits: int | None,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND while holding the lock NAME, and give the lock back when it ends.

    With -N, so many may run at a time; all should say the same number, the first one's counts.

    COMMAND is started without a shell, in a process group of its own, which gets every signal sent here, with COORD_LOCK_NAME,
    COORD_FENCING_TOKEN and COORD_URL in its environment.  Its exit code is returned (128 + the signal's number where one ended it).

    If the lease cannot be renewed, the group gets SIGTERM, then SIGKILL, both before anyone else can get the lock; the exit code
    is 76. The same happens when this process is killed or stopped.  Processes that COMMAND leaves behind in its group are killed
    when it ends. What leaves the group, what was already sent elsewhere, and a machine that is paused as a whole are beyond that:
    let what COMMAND writes to check the fencing token.

    Exit codes: 75 not acquired, 76 lease lost, 3 no node answers or leads, 126 or 127 COMMAND cannot be started.
    """
    if no_wait and wait is not None:
        raise click.UsageError("--wait and --no-wait exclude each other")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, children could not be waited for
    child = Child(command)
    guard = Guard(child.pid)
    job = Job(settings, name if name.startswith("/") else f"/{name}", ttl, 0.0 if no_wait else wait, permits)
    try:
        return asyncio.run(_run(job, child, guard))
    finally:
        child.end()
        guard.stand_down()


@dataclass(frozen=True, slots=True)
class Job:
    """What to lock, and how."""

    settings: Settings
    path: str
    #: Seconds; None: what the URL says.
    ttl: float | None
    #: Seconds; None: for ever.
    wait: float | None
    #: Who may hold it at a time; None: a lock.
    permits: int | None = None


async def _run(job: Job, child: Child, guard: Guard) -> int:
    from coord_core.cli.logs import log_as_command
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    log_as_command(job.settings)
    target = target_of(job.settings, ttl=job.ttl)
    async with AsyncClient(target.url) as client:
        handle = _handle(job, client, os.path.basename(child.words[0]))
        signals = Signals()
        with signals.ending_this_task():
            grant = await _get(job, client, handle)
        environment = {"COORD_LOCK_NAME": job.path, "COORD_FENCING_TOKEN": str(grant.token), **target.environment()}
        lease = Lease(client, grant.is_held_locally, f"the lease of {job.path} could not be renewed in time", guard)
        with signals.going_to(child):
            code = await run_under_lease(lease, child, environment)
        await _give_back(job, handle)
    return code


def _handle(job: Job, client: "AsyncClient", label: str) -> "Handle":
    if job.permits is None:
        return client.lock(job.path, label=label)
    return client.semaphore(job.path, job.permits, label=label)


# --- waiting for the lock --------------------------------------------------------------------------------------------------------


async def _get(job: Job, client: "AsyncClient", handle: "Handle") -> "AsyncGrant":
    """Raises `CommandFailed`: 75 where somebody else has the lock, 3 where no node leads, or the cluster went away."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while True:
        await _find_leader(job, client)
        wait = None if job.wait is None else max(0.0, job.wait - (clock() - began))
        try:
            return await _acquire(job, client, handle, wait)
        except LostError as error:
            lost = f"lost the cluster while waiting for {job.path}: {error.message}"
            if job.wait is not None:
                raise CommandFailed(Exit.UNAVAILABLE, lost) from error
            job.settings.note(f"coord: {lost}; trying on")


async def _acquire(job: Job, client: "AsyncClient", handle: "Handle", wait: float | None) -> "AsyncGrant":
    telling = asyncio.create_task(_tell_who_has_it(job, client))
    try:
        grant = await handle.acquire(timeout=wait)
    finally:
        telling.cancel()
    if grant is None:
        raise CommandFailed(Exit.NOT_ACQUIRED, f"{job.path} is {await _who_has_it(job, client)}")
    return grant


async def _find_leader(job: Job, client: "AsyncClient") -> None:
    """Open the session; raise `CommandFailed` with 3 where no node leads for as long as was asked to wait."""
    seconds = None if job.wait is None else max(job.wait, FIND_SECONDS_MIN) if job.wait else FIND_SECONDS_NO_WAIT
    survey = asyncio.create_task(_survey(job, client))
    telling = asyncio.create_task(_tell_why_nobody_leads(job, survey, seconds))
    try:
        await client.wait_connected(seconds)
    except Unavailable as error:
        why = survey.result() if survey.done() and survey.result() else error.message
        raise CommandFailed(Exit.UNAVAILABLE, f"{job.path} not acquired: {why}") from error
    finally:
        telling.cancel()
        survey.cancel()


async def _survey(job: Job, client: "AsyncClient") -> str:
    """Ask every node why no leader is found; empty where they know of one."""
    from coord_core.cli.status import silent_ones
    from coord_core.cli.target import default_hint

    await asyncio.sleep(SURVEY_AFTER_SECONDS)
    try:
        report = await client.status(SURVEY_SECONDS_MAX)
    except CoordError:
        return ""
    silent = silent_ones(report.nodes)
    if not report.answered:
        return f"no node answers: {silent}{default_hint(job.settings)}"
    if report.leader is not None:
        return ""
    names = ", ".join(status.node for status in report.answered)
    missing = f"; not reached: {silent}" if silent else ""
    return f"no leader, or no quorum for one: {names} answer{'s' if len(report.answered) == 1 else ''}, and none leads{missing}"


async def _tell_why_nobody_leads(job: Job, survey: "asyncio.Task[str]", seconds: float | None) -> None:
    if seconds is not None and seconds <= FIND_SECONDS_NO_WAIT:
        return  # its end says it in a moment
    await asyncio.sleep(SILENT_WAIT_SECONDS)
    if why := await asyncio.shield(survey):
        job.settings.note(f"coord: waiting for {job.path}: {why}")


async def _tell_who_has_it(job: Job, client: "AsyncClient") -> None:
    await asyncio.sleep(SILENT_WAIT_SECONDS)
    with contextlib.suppress(CoordError):
        job.settings.note(f"coord: waiting for {job.path}, {await _who_has_it(job, client)}")


async def _who_has_it(job: Job, client: "AsyncClient") -> str:
    """Say it in one line: `held by host:pid label, token N, for 12 s; 3 wait ahead`."""
    try:
        if job.permits is not None:
            return await _who_has_permits(job, client, job.permits)
        state = await client.lock_state(job.path, 100)
    except CoordError:
        return "held by somebody else"
    if state.closed is not None:
        return f"closed ({state.closed.reason}) for {show_duration(max(0, state.closed.left_ms) / 1000)} more"
    if state.holder is None:
        return "free again: try again"
    own = (place for place, waiter in enumerate(state.waiters) if waiter.session == client.session.session_id)
    ahead = next(own, state.waiters_total)
    held = f"held by {who(state.holder.owner)}, token {state.holder.token}, for {show_duration(state.holder.since_ms / 1000)}"
    return f"{held}; {ahead} wait ahead"


async def _who_has_permits(job: Job, client: "AsyncClient", permits: int) -> str:
    state = await client.semaphore(job.path, permits).state(1, 100)
    own = (place for place, waiter in enumerate(state.waiters) if waiter.session == client.session.session_id)
    ahead = next(own, state.waiters_total)
    taken = f"held by as many as may: {state.taken} of {state.limit} permits are taken"
    return taken + (f", for longest by {who(state.holders[0].owner)}" if state.holders else "") + f"; {ahead} wait ahead"


async def _give_back(job: Job, handle: "Handle") -> None:
    """Release at once; where that cannot be done now, the end of the session does it."""
    try:
        async with asyncio.timeout(RELEASE_SECONDS_MAX):
            await handle.release()
    except (CoordError, TimeoutError) as error:
        job.settings.note(
            f"coord: {job.path} could not be given back ({str(error) or 'no answer'}); it is free when the session ends"
        )
