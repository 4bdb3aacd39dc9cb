"""Running a command under a lease: what `coord lock` and `coord elect` have in common.

Signals go where they belong at each moment, the guard's deadline (`guard`) is moved on as long as the lease is renewed, and the
command's end, or the lease's, is told by the exit code.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from coord_core.cli.child import FORWARDED, Child
from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.guard import Act, Guard
from coord_core.cli.processes import exit_code_of

if TYPE_CHECKING:
    from coord_core.client.aio import AsyncClient

#: Parts of the TTL left on the lease (as this process counts it, which is less than the cluster does) when the command is asked
#: to end and when it is killed.  A healthy session renews at two thirds.
ASK_TO_END_AT = 0.3
KILL_AT = 0.1
#: How often the guard's deadline is moved on: this part of the TTL, within bounds.
RENEWALS_A_TTL = 30

#: What ends this process while it waits for the lock; once the command runs, it gets all of `FORWARDED`.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Signals:
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


async def run_under_lease(lease: "Lease", child: Child, environment: dict[str, str]) -> int:
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
    raise CommandFailed(Exit.LEASE_LOST, f"{lease.loss}: the command was {how}")


class Lease:
    """Moves the guard's deadline on while the session lives under which the command may run.

    `is_held`: whether what it was given under that session is its still, as far as this process knows; `loss`: what to say of its
    end.
    """

    def __init__(self, client: "AsyncClient", is_held: Callable[[], bool], loss: str, guard: Guard) -> None:
        self.guard = guard
        self.loss = loss
        self._session = client.session
        self._is_held = is_held
        ttl = self._session.ttl
        self._kill_before = KILL_AT * ttl
        self._grace = (ASK_TO_END_AT - KILL_AT) * ttl
        self.interval = min(0.5, max(0.02, ttl / RENEWALS_A_TTL))

    def move_deadline(self) -> None:
        deadline = self._session.lease_deadline
        # The client's session may be a later one than the grant's: only the grant tells whether its own still stands.
        if deadline is None or not self._is_held():
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
