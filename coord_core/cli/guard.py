"""A second, tiny process that ends a command before the lease behind it can end.

The process that keeps the lease cannot be trusted to do so itself: it may be stopped (SIGSTOP, a debugger), starved or killed just
when its lease runs out, and the command would go on in the belief that it holds the lock.  So the guard, forked before anything
else is loaded, watches a deadline in shared memory that the keeper moves on with each renewal, and it alone signals the group for
the lease's sake:

    lease at risk   deadline - grace      SIGTERM to the group
    lease ends      deadline              SIGKILL to the group
    keeper gone     its pipe is closed    SIGKILL to the group

The deadline is on a clock that counts suspended time (CLOCK_BOOTTIME); it lies before the end of the lease by a margin that the
keeper chooses.

What the guard cannot cover: processes that left the group (setsid, a container runtime); a pause of the guard itself together with
the command (a frozen cgroup, a paused virtual machine, a suspended laptop: the kill comes up to `LOOK_SECONDS` after the pause); a
process in an uninterruptible system call; and requests that the command had already sent.  Whatever the command writes to should
check the fencing token.
"""

import contextlib
import enum
import math
import mmap
import os
import select
import signal
import struct
import time
from typing import Final, NoReturn

from coord_core.cli.processes import signal_group

#: How long the guard sleeps at most.  poll(2) does not count suspended time, so this bounds how late it looks after a resume.
LOOK_SECONDS: Final = 0.1

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_AGAIN = b"a"  # the deadline has moved towards now: look at once
_STAND_DOWN = b"s"


class Act(enum.IntEnum):
    """What the guard has done so far."""

    NOTHING = 0
    TERMINATED = 1
    KILLED = 2


class _Shared:
    """Three aligned doubles that both processes see; each is written whole, by one side only."""

    _DEADLINE, _GRACE, _ACT = 0, 8, 16

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.deadline = math.inf
        self.grace = 0.0

    def _get(self, at: int) -> float:
        value: float = struct.unpack_from("=d", self._memory, at)[0]
        return value

    def _set(self, at: int, value: float) -> None:
        struct.pack_into("=d", self._memory, at, value)

    #: When the group is killed; infinity before the lease is held.  Written by the keeper.
    deadline = property(lambda self: self._get(self._DEADLINE), lambda self, value: self._set(self._DEADLINE, value))
    #: Seconds before the deadline at which the group is asked to end.  Written by the keeper, before the first deadline.
    grace = property(lambda self: self._get(self._GRACE), lambda self, value: self._set(self._GRACE, value))
    #: An `Act`.  Written by the guard.
    act = property(lambda self: self._get(self._ACT), lambda self, value: self._set(self._ACT, value))


class Guard:
    """The keeper's end: moves the deadline, and dismisses the guard when the command has ended."""

    def __init__(self, group: int) -> None:
        """Fork the guard of process group `group`.  Call it while this process has one thread."""
        self._shared = _Shared()
        read_end, self._pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _guard(self._shared, group, read_end)
        os.close(read_end)

    @property
    def act(self) -> Act:
        return Act(int(self._shared.act))

    def hold_until(self, deadline: float, grace: float) -> None:
        """Let the group live until `deadline` (seconds of CLOCK_BOOTTIME), and warn it `grace` seconds before."""
        earlier = deadline < self._shared.deadline
        self._shared.grace = grace
        self._shared.deadline = deadline
        if earlier:
            self._tell(_AGAIN)

    def is_alive(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def stand_down(self) -> None:
        """Dismiss the guard, after the command has ended or before it began.  Returns when it has gone."""
        self._tell(_STAND_DOWN)
        os.close(self._pipe)
        os.waitpid(self.pid, 0)

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has killed the group and gone; `act` says so
            os.write(self._pipe, word)


def _guard(shared: _Shared, group: int, pipe: int) -> NoReturn:
    """The guard's whole life.  Leaves by `os._exit`: nothing of the keeper's interpreter may run here."""
    try:
        _let_go_of_the_keeper(pipe)
        _watch(shared, group, pipe)
    finally:
        os._exit(0)


def _let_go_of_the_keeper(pipe: int) -> None:
    """Signals meant for the command must not end its guard, nor must the guard hold open what others wait to see closed."""
    os.setpgid(0, 0)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))


def _watch(shared: _Shared, group: int, pipe: int) -> None:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        now = time.clock_gettime(_CLOCK)
        deadline = shared.deadline
        if now >= deadline:
            shared.act = Act.KILLED
            signal_group(group, signal.SIGKILL)
            return
        if now >= deadline - shared.grace and shared.act == Act.NOTHING:
            shared.act = Act.TERMINATED
            signal_group(group, signal.SIGTERM)
            signal_group(group, signal.SIGCONT)  # a stopped process could not end
        next_look = deadline if shared.act else deadline - shared.grace
        if poll.poll(1000 * min(LOOK_SECONDS, max(0.0, next_look - now))):
            word = os.read(pipe, 1)
            if word == b"":
                shared.act = Act.KILLED
                signal_group(group, signal.SIGKILL)
                return
            if word == _STAND_DOWN:
                return
