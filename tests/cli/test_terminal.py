"""`coord lock` at a terminal: who may read it, Ctrl-C, Ctrl-Z and `fg`.  A pseudo-terminal plays the keyboard."""

import os
import pty
import select
import time

from tests.cli.running import COORD, Dev

SHELL = ["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"]


class Terminal:
    """A program in a session of its own, with a terminal that the test types at."""

    def __init__(self, words: list[str]) -> None:
        self.pid, self._keyboard = pty.fork()
        if self.pid == 0:
            os.execv(words[0], words)
        self._seen = b""

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def expect(self, text: str, seconds: float = 10) -> None:
        """Wait until `text` is shown, behind what was expected before."""
        wanted, end = text.encode(), time.monotonic() + seconds
        while wanted not in self._seen:
            assert time.monotonic() < end, f"{text!r} was not shown; what was: {self._seen!r}"
            if select.select([self._keyboard], [], [], 0.1)[0]:
                self._seen += os.read(self._keyboard, 4096)
        self._seen = self._seen[self._seen.index(wanted) + len(wanted) :]

    def exit_code(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._keyboard)
        return os.waitstatus_to_exitcode(status)


def lock_words(cluster: Dev, name: str, *command: str) -> list[str]:
    return [*COORD, "--url", cluster.url, "lock", name, "--", *command]


def test_command_that_reads_gets_the_terminal(cluster: Dev) -> None:
    terminal = Terminal(lock_words(cluster, "/read", "sh", "-c", "echo ready; read line; echo got $line"))
    terminal.expect("ready")
    terminal.type("hello\n")
    terminal.expect("got hello")
    assert terminal.exit_code() == 0


def test_control_c_reaches_a_command_that_never_touched_the_terminal(cluster: Dev) -> None:
    terminal = Terminal(lock_words(cluster, "/interrupt", "sh", "-c", "echo ready; exec sleep 60"))
    terminal.expect("ready")
    terminal.type("\x03")
    assert terminal.exit_code() == 130


def test_control_z_gives_the_shell_back_and_fg_continues_the_command(cluster: Dev) -> None:
    terminal = Terminal(SHELL)
    terminal.type("PS1='PRO''MPT '\n")
    terminal.expect("PROMPT ")
    terminal.type(" ".join(lock_words(cluster, "/suspend", "cat")) + "\n")
    terminal.expect("-- cat")
    terminal.type("one\n")
    terminal.expect("one\r\none\r\n")  # the terminal's echo, and what cat wrote
    terminal.type("\x1a")
    terminal.expect("PROMPT ")
    terminal.type("fg\n")
    terminal.expect("-- cat\r\n")
    terminal.type("two\n")
    terminal.expect("two\r\ntwo\r\n")
    terminal.type("\x04")
    terminal.expect("PROMPT ")
    terminal.type("echo code $?\n")
    terminal.expect("code 0")
    terminal.type("exit\n")
    assert terminal.exit_code() == 0
