"""The processes of the demo: started here, killed by the story, and none left when it is over, however it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from coord_core.cli.processes import die_with_parent

ROOT = Path(__file__).resolve().parents[2]

#: Short, so that the demo is: the default is 15 s.
TTL_S = 4.0
MARGIN_S = 1.0

T = TypeVar("T")
Process: TypeAlias = "subprocess.Popen[str]"


class Stage:
    """A directory, three nodes, and whatever workers and publishers the story asks for."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="coord-demo-"))
        self._processes: list[Process] = []
        self._seen: set[tuple[int, str]] = set()
        self.url = ""
        #: Node name -> pid.
        self.nodes: dict[str, int] = {}

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    # --- starting -----------------------------------------------------------------------------------------------------------------

    def start_cluster(self) -> None:
        command = ["-m", "coord_core.cli.main", "-q", "-o", "json", "dev", "--nodes", "3", "--data", str(self.directory / "nodes")]
        process = self._start("cluster", command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        self.url = started["url"]
        self.nodes = {node["name"]: node["pid"] for node in started["nodes"]}

    def start_worker(self, name: str) -> Process:
        options = ["-n", f"{name}@demo", "-c", "3", "-l", "info", "--without-mingle", "--without-gossip", "--without-heartbeat"]
        return self._start(name, ["-m", "celery", "-A", "examples.demo.shop", "worker", *options])

    def wait_ready(self, name: str, worker: Process) -> None:
        log = self.directory / f"{name}.log"

        def is_ready() -> bool:
            text = log.read_text()
            if worker.poll() is not None:
                raise TimeoutError(f"worker {name} ended at once: {text[-500:]}")
            return "ready." in text and "is open" in text

        self.until(is_ready, f"worker {name} is ready")

    def start_publisher(self, number: int, count: int) -> Process:
        return self._start(f"publisher-{number}", ["-m", "examples.demo.publish", str(count)])

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations" / "celery")]),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.directory),
            "DEMO_DIRECTORY": str(self.directory),
            "DEMO_COORD_URL": self.url,
            "DEMO_TTL": str(TTL_S),
            "DEMO_MARGIN": str(MARGIN_S),
        }

    def _start(self, name: str, arguments: list[str], **options: Any) -> Process:
        """Start a Python process outside the terminal's foreground group: Ctrl-C is for the demo, which then ends the others."""
        parent = os.getpid()
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *arguments],
                cwd=ROOT,
                env=self.environment(),
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
                **{"stdout": log, "text": True, **options},
            )
        self._processes.append(process)
        return process

    # --- watching -----------------------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], T], what: str, timeout: float = 30.0) -> T:
        """Return the first true value of `condition`."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout:g} s: {what}")
            time.sleep(0.01)
        return value

    def family(self, process: Process) -> set[tuple[int, str]]:
        """Everything that lives under a process, itself included, as (pid, start time): a pid alone may come again."""
        parents = {int(entry.name): _parent_and_start(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        found = {process.pid}
        while more := {pid for pid, (parent, _) in parents.items() if parent in found} - found:
            found |= more
        family = {(pid, parents[pid][1]) for pid in found if pid in parents}
        self._seen |= family
        return family

    # --- the end ------------------------------------------------------------------------------------------------------------------

    def clear(self) -> int:
        """End everything; return how many processes did not end by themselves when their parents did."""
        for process in self._processes:
            self.family(process)
        for process in reversed(self._processes):
            for signum in (signal.SIGCONT, signal.SIGTERM if process is self._processes[0] else signal.SIGKILL):
                process.send_signal(signum)
        for process in self._processes:
            process.wait()
        deadline = time.monotonic() + 5
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        self._processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)
        return len(left)

    def _left(self) -> set[tuple[int, str]]:
        return {(pid, start) for pid, start in self._seen if _parent_and_start(Path(f"/proc/{pid}"))[1] == start != ""}


def _parent_and_start(process: Path) -> tuple[int, str]:
    try:
        state, parent, *rest = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, ""
    return (0, "") if state == "Z" else (int(parent), rest[17])
