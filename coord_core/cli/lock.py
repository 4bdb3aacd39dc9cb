"""`coord lock NAME -- CMD`: run a command while holding a lock, and end it before the lock can be another's.

Two processes are forked before anything is loaded: the command, which waits for its word (`child`), and the guard, which ends it
before the lease behind it ends (`guard`).  This process keeps the lease, moves the guard's deadline, passes signals on, and gives
the lock back when the command has ended.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from coord_core.cli.child import FORWARDED, Child
from coord_core.cli.durations import DURATION, show_duration
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.guard import Act, Guard
from coord_core.cli.processes import exit_code_of
from coord_core.cli.settings import Settings, pass_settings
from coord_core.errors import CoordError, LostError, Unavailable

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient
    from coord_core.client.lock import AsyncDistributedLock, AsyncGrant

#: Parts of the TTL left on the lease (as this process counts it, which is less than the cluster does) when the command is asked
#: to end and when it is killed.  A healthy session renews at two thirds.
ASK_TO_END_AT = 0.3
KILL_AT = 0.1
#: How often the guard's deadline is moved on: this part of the TTL, within bounds.
RENEWALS_A_TTL = 30
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

#: What ends this process while it waits for the lock; once the command runs, it gets all of `FORWARDED`.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@click.command(
    context_settings={"ignore_unknown_options": False},
    epilog="""\b
Examples:
  coord lock /jobs/nightly -- ./backup.sh --full
  coord lock /jobs/nightly --no-wait -- sh -c 'date; id'
  coord lock /jobs/nightly --wait 30s --ttl 5s -- ./import""",
)
@click.argument("name")
@click.option("--ttl", type=DURATION, help="How long the lock survives this process, or its machine, at most  [default: 15s]")
@click.option(
    "--wait", type=DURATION, help="Wait so long for the cluster and the lock, then exit with 3 or 75 (default: for ever)."
)
@click.option("--no-wait", is_flag=True, help="Exit with 75 at once if somebody has the lock, with 3 if no node leads.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_settings
def lock(settings: Settings, name: str, ttl: float | None, wait: float | None, no_wait: bool, command: tuple[str, ...]) -> int:
    """Run COMMAND while holding the lock NAME, and give the lock back when it ends.

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
    job = Job(settings, name if name.startswith("/") else f"/{name}", ttl, 0.0 if no_wait else wait)
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


async def _run(job: Job, child: Child, guard: Guard) -> int:
    from coord_core.cli.logs import log_as_command
    from coord_core.cli.target import target_of
    from coord_core.client.aio import AsyncClient

    log_as_command(job.settings)
    target = target_of(job.settings, ttl=job.ttl)
    async with AsyncClient(target.url) as client:
        handle = client.lock(job.path, label=os.path.basename(child.words[0]))
        signals = _Signals()
        with signals.ending_this_task():
            grant = await _get(job, client, handle)
        environment = {"COORD_LOCK_NAME": job.path, "COORD_FENCING_TOKEN": str(grant.token), **target.environment()}
        with signals.going_to(child):
            code = await _run_under_lease(job, _Lease(client, grant, guard), child, environment)
        await _give_back(job, handle)
    return code


# --- waiting for the lock --------------------------------------------------------------------------------------------------------


class _Signals:
    """Where signals go: while waiting they end this process, then they are the command's, and at the end nobody's.

    Caught from first to last, so that none of them ends this process between acquiring the lock and giving it back.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._receiver: Callable[[int], None] = _ignore
        for signum in _ENDING:
            self._loop.add_signal_handler(signum, self._came, signum)

    @contextlib.contextmanager
    def ending_this_task(self) -> Iterator[None]:
        """Within, a signal cancels the task, and the exit code tells which it was."""
        task = asyncio.current_task()
        assert task is not None
        came: list[int] = []

        def end(signum: int) -> None:
            came.append(signum)
            task.cancel()

        try:
            with self._going_to(end):
                yield
        except asyncio.CancelledError:
            if not came:
                raise
        if came:  # also where it came too late to stop the last step
            task.uncancel()
            raise CommandFailed(128 + came[0])

    @contextlib.contextmanager
    def going_to(self, child: Child) -> Iterator[None]:
        """Within, signals are passed on to the command: also those that would not end this process."""
        others = [signum for signum in FORWARDED if signum not in _ENDING]
        for signum in others:
            self._loop.add_signal_handler(signum, self._came, signum)
        try:
            with self._going_to(child.send):
                yield
        finally:
            for signum in others:
                self._loop.remove_signal_handler(signum)

    @contextlib.contextmanager
    def _going_to(self, receiver: "Callable[[int], None]") -> Iterator[None]:
        self._receiver = receiver
        try:
            yield
        finally:
            self._receiver = _ignore

    def _came(self, signum: int) -> None:
        self._receiver(signum)


def _ignore(signum: int) -> None:
    pass


async def _get(job: Job, client: "AsyncClient", handle: "AsyncDistributedLock") -> "AsyncGrant":
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


async def _acquire(job: Job, client: "AsyncClient", handle: "AsyncDistributedLock", wait: float | None) -> "AsyncGrant":
    telling = asyncio.create_task(_tell_who_has_it(job, client))
    try:
        grant = await (handle.try_lock() if wait == 0 else handle.acquire(timeout=wait))
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
        state = await client.lock_state(job.path, 100)
    except CoordError:
        return "held by somebody else"
    if state.holder is None:
        return "free again: try again"
    owner = state.holder.owner
    who = f"{owner.host}:{owner.pid}" + (f" {owner.label}" if owner.label else "")
    own = (place for place, waiter in enumerate(state.waiters) if waiter.session == client.session.session_id)
    ahead = next(own, state.waiters_total)
    return f"held by {who}, token {state.holder.token}, for {show_duration(state.holder.since_ms / 1000)}; {ahead} wait ahead"


# --- holding it ------------------------------------------------------------------------------------------------------------------


async def _run_under_lease(job: Job, lease: "_Lease", child: Child, environment: dict[str, str]) -> int:
    """Run the command to its end; return its exit code.  Raises `CommandFailed` with 76 where the lease did not last."""
    guard = lease.guard
    lease.move_deadline()
    with _watched(child, guard) as ended:
        child.start(environment)
        while not ended.is_set():
            lease.move_deadline()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(lease.interval):
                    await ended.wait()
    code = exit_code_of(child.reap())
    if guard.act is Act.NOTHING:
        return code
    how = "killed" if guard.act is Act.KILLED else "asked to end"
    raise CommandFailed(Exit.LEASE_LOST, f"the lease of {job.path} could not be renewed in time: the command was {how}")


class _Lease:
    """Moves the guard's deadline on while the grant's session lives."""

    def __init__(self, client: "AsyncClient", grant: "AsyncGrant", guard: Guard) -> None:
        self.guard = guard
        self._session = client.session
        self._grant = grant
        ttl = self._session.ttl
        self._kill_before = KILL_AT * ttl
        self._grace = (ASK_TO_END_AT - KILL_AT) * ttl
        self.interval = min(0.5, max(0.02, ttl / RENEWALS_A_TTL))

    def move_deadline(self) -> None:
        deadline = self._session.lease_deadline
        # The client's session may be a later one than the grant's: only the grant tells whether its own still stands.
        if deadline is None or not self._grant.is_held_locally():
            deadline = 0.0
        self.guard.hold_until(deadline - self._kill_before, self._grace)


@contextlib.contextmanager
def _watched(child: Child, guard: Guard) -> Iterator[asyncio.Event]:
    """Within, the event is set as soon as the command has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def look() -> None:
        if not guard.is_alive() and guard.act is Act.NOTHING:
            child.send(signal.SIGKILL)  # without its guard it must not run
        if child.poll():
            ended.set()

    loop.add_signal_handler(signal.SIGCHLD, look)
    look()
    try:
        yield ended
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)


async def _give_back(job: Job, handle: "AsyncDistributedLock") -> None:
    """Release at once; where that cannot be done now, the end of the session does it."""
    try:
        async with asyncio.timeout(RELEASE_SECONDS_MAX):
            await handle.release()
    except (CoordError, TimeoutError) as error:
        job.settings.note(
            f"coord: {job.path} could not be given back ({str(error) or 'no answer'}); it is free when the session ends"
        )
