"""The command that `coord lock` runs: forked early, started late, in a process group of its own.

It is forked while this process has one thread and has loaded next to nothing, and waits on a pipe for its environment; only then
does it exec.  So no thread is ever forked, and the wait for the lock costs the command no start-up time.  Should this process be
killed, the kernel kills the command (PR_SET_PDEATHSIG) and the guard kills its group.

No shell takes part: the words are the command's own.

Job control: the group starts in the background of its terminal.  When it touches the terminal (SIGTTIN, SIGTTOU) it is lent the
foreground, where this process's group has it; when it is suspended there (Ctrl-Z), this process takes the terminal back and
suspends itself, as the shell expects; `fg` continues both.  The lease is not renewed meanwhile: after its end the command is
gone.
"""

import contextlib
import errno
import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn

from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.processes import die_with_parent, signal_group

#: What is passed on to the command's group.
FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGWINCH,
)
#: What CPython ignores for itself, but a command expects to have.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)


class Child:
    """One command, from its fork to its end."""

    def __init__(self, words: Sequence[str]) -> None:
        """Fork.  Call it while this process has one thread."""
        self.words = list(words)
        go_read, self._go = os.pipe()
        self._trouble, trouble_write = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            os.close(self._trouble)
            _become(self.words, parent, go_read, trouble_write)
        os.close(go_read)
        os.close(trouble_write)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done so itself
            os.setpgid(self.pid, self.pid)
        #: It has not been told to exec.
        self._is_waiting = True
        #: The terminal, once it was lent to the command.
        self._terminal: int | None = None
        #: As of waitpid(2); None: not reaped yet.
        self.wait_status: int | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Let it exec with `environment` added to this process's.

        Raises:
            CommandFailed: with exit code 127 (no such command) or 126 (it cannot be executed).
        """
        with contextlib.suppress(BrokenPipeError), open(self._go, "wb") as go:  # broken: the guard was faster
            self._is_waiting = False
            go.write(json.dumps(dict(environment)).encode())
        with open(self._trouble, "rb") as trouble:
            number = trouble.read()
        if number:
            self.reap()
            raise _not_started(self.words[0], int(number))

    def end(self) -> None:
        """Leave nothing of it behind, whatever became of it.  Idempotent."""
        if self._is_waiting:
            self._is_waiting = False
            os.close(self._go)
            os.close(self._trouble)
        elif self.wait_status is None:
            signal_group(self.pid, signal.SIGKILL)
        self.reap()

    def send(self, signum: int) -> None:
        """Pass a signal on to the group.  A continued command gets back the terminal that was lent to it."""
        if signum == signal.SIGCONT and self._terminal is not None:
            self._lend_terminal()
        signal_group(self.pid, signum)

    def poll(self) -> bool:
        """Look after the command; True once it has ended.  It is not reaped: its group's number stays its own until `reap`."""
        flags = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        while (seen := os.waitid(os.P_PID, self.pid, flags)) is not None:
            if seen.si_code != os.CLD_STOPPED:
                return True
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
            self._stopped(seen.si_status)
        return False

    def reap(self) -> int:
        """Collect the ended command; return its wait status.  Whatever it left behind in its group is killed: nothing guards it."""
        if self.wait_status is None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            signal_group(self.pid, signal.SIGKILL)
            _, self.wait_status = os.waitpid(self.pid, 0)
            self._take_terminal_back()
        return self.wait_status

    # --- terminal ----------------------------------------------------------------------------------------------------------------

    def _stopped(self, signum: int) -> None:
        wants_terminal = signum in (signal.SIGTTIN, signal.SIGTTOU)
        if wants_terminal and self._lend_terminal():
            signal_group(self.pid, signal.SIGCONT)
        elif wants_terminal or signum == signal.SIGTSTP:
            self._take_terminal_back()
            os.kill(os.getpid(), signal.SIGSTOP)  # the shell takes over until `fg` or `bg`
        # SIGSTOP comes from an operator who wants the command stopped, not its lease to end.

    def _lend_terminal(self) -> bool:
        """Put the command into the terminal's foreground if this process's group is there; False where it is not."""
        if self._terminal is None:
            try:
                self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return False
        if os.tcgetpgrp(self._terminal) != os.getpgrp():
            return False
        self._set_foreground(self._terminal, self.pid)
        return True

    def _take_terminal_back(self) -> None:
        if self._terminal is None:
            return
        with contextlib.suppress(OSError):  # the terminal has hung up
            if os.tcgetpgrp(self._terminal) == self.pid:
                self._set_foreground(self._terminal, os.getpgrp())

    def _set_foreground(self, terminal: int, group: int) -> None:
        """SIGTTOU is what a background process gets for this; blocked, the call succeeds (tcsetpgrp(3))."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            os.tcsetpgrp(terminal, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become(words: list[str], parent: int, go: int, trouble: int) -> NoReturn:
    """The forked side: wait for the word, then turn into the command.  Leaves by exec or `os._exit`."""
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        with open(go, "rb") as pipe:
            environment = pipe.read()
        if not environment:  # the lock was not acquired
            os._exit(0)
        for signum in _RESTORED:
            signal.signal(signum, signal.SIG_DFL)
        os.execvpe(words[0], words, {**os.environ, **json.loads(environment)})
    except OSError as error:
        os.write(trouble, str(error.errno).encode())
    finally:
        os._exit(Exit.COMMAND_NOT_FOUND)


def _not_started(command: str, number: int) -> CommandFailed:
    if number == errno.ENOENT:
        return CommandFailed(Exit.COMMAND_NOT_FOUND, f"{command}: command not found (no shell is used; for one, say: sh -c '...')")
    return CommandFailed(Exit.CANNOT_EXECUTE, f"{command}: cannot be executed: {os.strerror(number)}")
