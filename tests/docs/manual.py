"""Takes a page apart into chapters of blocks that can be run, and runs them."""

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from coord_core.cli.main import run

_CHAPTER = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTS = re.compile(r"# prints (.+)$", re.MULTILINE)
_EXIT_CODE = re.compile(r"# exit code (\d+)$")
_UNTIL_CTRL_C = "# until Ctrl-C"
#: The cluster of all examples.
URL = "coord://h1:7400,h2:7400,h3:7400"
_SECONDS_MAX = 30


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str
    #: In the page.
    line: int


@dataclass(frozen=True, slots=True)
class Chapter:
    title: str
    blocks: tuple[Block, ...]


def chapters_of(page: str) -> list[Chapter]:
    """Return the chapters that have blocks of Python or of a shell."""
    starts = [*_CHAPTER.finditer(page)]
    ends = [*(start.start() for start in starts[1:]), len(page)]
    found = []
    for start, end in zip(starts, ends, strict=True):
        blocks = tuple(
            Block(match[1], match[2], page.count("\n", 0, match.start()) + 1) for match in _BLOCK.finditer(page, start.end(), end)
        )
        if blocks:
            found.append(Chapter(start[1], blocks))
    return found


class Reader:
    """Does what a chapter shows, in order: one namespace of names, one environment of a shell."""

    def __init__(self, page: str, cluster_url: str) -> None:
        self._page = page
        self._cluster_url = cluster_url
        self.names: dict[str, Any] = {}
        scripts = str(Path(sys.executable).parent)
        self._environment = {**os.environ, "COORD_URL": f"{cluster_url}/app", "PATH": f"{scripts}:{os.environ['PATH']}"}
        self._running: list[subprocess.Popen[bytes]] = []

    def do(self, block: Block) -> None:
        if block.language == "python":
            self._run_python(block)
        else:
            for line in block.text.splitlines():
                if line.startswith("$ "):
                    self._run_command(line.removeprefix("$ "))

    def close(self) -> None:
        """End what was begun and not ended."""
        for process in self._running:
            process.send_signal(signal.SIGINT)
        for process in self._running:
            process.communicate(timeout=_SECONDS_MAX)
        for thing in self.names.values():
            if hasattr(thing, "wait_connected") and not isinstance(thing, type):
                thing.close()

    # --- Python ------------------------------------------------------------------------------------------------------------------

    def _run_python(self, block: Block) -> None:
        code = compile("\n" * block.line + self._here(block.text), self._page, "exec")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(code, self.names)
        lines = iter(said.getvalue().splitlines())
        for expected in _PRINTS.findall(block.text):
            assert expected in lines, f"{self._page}:{block.line}: {expected!r} was not printed, but:\n{said.getvalue()}"

    def _here(self, text: str) -> str:
        return text.replace(URL, self._cluster_url)

    # --- a shell -----------------------------------------------------------------------------------------------------------------

    def _run_command(self, line: str) -> None:
        if line.startswith("export "):
            name, _, value = self._here(line).removeprefix("export ").partition("=")
            self._environment[name] = value
        elif line.endswith(_UNTIL_CTRL_C):
            self._begin(line)
        else:
            expected = _EXIT_CODE.search(line)
            words = shlex.split(line, comments=True)
            here = words[0] == "coord" and "--" not in words
            code, said = self._run_here(words[1:]) if here else self._run_there(line)
            assert code == (int(expected[1]) if expected else 0), (line, code, said)

    def _run_here(self, words: list[str]) -> tuple[int, str]:
        """In this process: an interpreter takes longer to start than such a command to run."""
        said = io.StringIO()
        with mock.patch.dict(os.environ, self._environment), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return run(words), said.getvalue()

    def _run_there(self, line: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", line], env=self._environment, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def _begin(self, line: str) -> None:
        """Begin what a reader leaves running, and wait for the first it says."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline(), f"{line} ended with {process.wait()}"


@contextlib.contextmanager
def reader(page: str, cluster_url: str) -> Iterator[Reader]:
    found = Reader(page, cluster_url)
    try:
        yield found
    finally:
        found.close()
