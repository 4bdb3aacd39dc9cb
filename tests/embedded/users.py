"""Processes that use one directory, from outside."""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class User:
    """A running `user.py`."""

    def __init__(self, url: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.embedded.user", url],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.hear() == "ready"

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, line: str) -> str:
        """Have a line of Python done; return its value as text, or "raised ..."."""
        self.tell(line)
        return self.hear()

    def end(self) -> int:
        """Let it come to its end."""
        self.process.communicate(timeout=20)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def users() -> Iterator[list[User]]:
    """Whoever is put in is killed at the end."""
    found: list[User] = []
    try:
        yield found
    finally:
        for user in found:
            with contextlib.suppress(OSError):
                user.kill()


def who_serves(directory: Path) -> int | None:
    """Return the pid of the process that holds the directory; None: nobody does."""
    with (directory / "serving").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text else None
        return None
