"""What really happened, read from the ledger that the tasks write."""

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Run:
    """One execution of the task's body.  Times are seconds of the monotonic clock."""

    warehouse: str
    token: int
    pid: int
    start: float
    #: None: it did not come to its end.
    end: float | None = None


class Ledger:
    def __init__(self, path: Path) -> None:
        self._path = path
        #: pid -> when it was killed.
        self.killed: dict[int, float] = {}

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def done(self) -> int:
        """How many messages the workers are done with."""
        return sum(line["event"] == "done" for line in self.lines())

    def runs(self, warehouse: str | None = None) -> list[Run]:
        """All runs in order of their start."""
        runs: dict[str, Run] = {}
        for line in self.lines():
            if line["event"] == "start":
                runs[line["task_id"]] = Run(line["warehouse"], line["token"] or 0, line["pid"], line["at"])
            elif line["event"] == "end":
                runs[line["task_id"]].end = line["at"]
        return sorted((run for run in runs.values() if warehouse in (None, run.warehouse)), key=lambda run: run.start)

    def overlaps(self) -> int:
        """How often a run began before the one before it, for the same warehouse, had ended or was killed."""
        return sum(self._end(earlier) > later.start for earlier, later in self._successive())

    def token_falls(self) -> int:
        """How often a run's token was not above that of the run before it."""
        return sum(earlier.token >= later.token for earlier, later in self._successive())

    def _successive(self) -> list[tuple[Run, Run]]:
        by_warehouse: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs():
            by_warehouse[run.warehouse].append(run)
        return [pair for runs in by_warehouse.values() for pair in itertools.pairwise(runs)]

    def _end(self, run: Run) -> float:
        return run.end or self.killed.get(run.pid, float("inf"))
