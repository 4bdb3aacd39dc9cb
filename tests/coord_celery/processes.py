"""Looking at processes, and starting ones that find our packages."""

import os
import sys
from pathlib import Path

from coord_celery.board import process_started


def with_our_path(**variables: str) -> dict[str, str]:
    """Return the environment for a process that imports what this one can import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1", **variables}


def is_running(pid: int, started: int) -> bool:
    """Tell whether the process that started then still executes (a zombie does not)."""
    return started != 0 and process_started(pid) == started and _state(pid) != "Z"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def children_of(pid: int) -> list[int]:
    """Return the pids of the process's children, and of theirs."""
    parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [grandchild for child in found for grandchild in children_of(child)]


def session_of(pid: int) -> int:
    """Return the number of the process's terminal session; 0 where there is no such process."""
    return _stat(Path(f"/proc/{pid}"), 3)


def _parent(process: Path) -> int:
    return _stat(process, 1)


def _stat(process: Path, field: int) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[field])
    except OSError:
        return 0
