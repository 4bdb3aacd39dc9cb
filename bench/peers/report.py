"""What was noted, as tables: a row a figure, a column a system, and how many times another's figure coord's is.

python -m bench.peers.report FILE...      # JSON lines of one run, or of several
"""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers.measures import percentile
from bench.peers.systems import SYSTEMS

#: What is compared of a measure, how it is called, and whether more of it is better.
_SHOWN = {
    "pairs": ("a_second", "lock pairs a second", True),
    "writes": ("a_second", "writes of 128 bytes a second", True),
    "reads": ("a_second", "linearizable reads a second", True),
    "handovers": ("a_second", "handovers of one lock a second", True),
    "publish": ("a_second", "messages published a second", True),
    "fan-out": ("p50_ms", "ms from publish to subscriber, p50", False),
    "resign": ("took_ms", "ms from resign to the next leader", False),
    "death": ("took_ms", "ms from SIGKILL to the next leader, less the TTL", False),
}
_OURS = "coord"

Cells = Mapping[str, Sequence[float]]


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """Return Markdown: medians, of elections also the worst; in brackets, how many times coord's figure is better."""
    rows: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        shown = _SHOWN.get(line["measure"])
        if shown is not None and shown[0] in line:
            rows[line["measure"], line["users"]][line["system"]].append(line[shown[0]])
    names = [name for name in SYSTEMS if any(name in cells for cells in rows.values())]
    body = [_row(measure, users, cells, names) for (measure, users), cells in rows.items()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (["", "", *names], ["---"] * (len(names) + 2), *body))


def _row(measure: str, users: int, cells: Cells, names: Sequence[str]) -> list[str]:
    return [_SHOWN[measure][1], str(users), *(_cell(measure, cells, name) if name in cells else "" for name in names)]


def _cell(measure: str, cells: Cells, name: str) -> str:
    found = cells[name]
    middle = statistics.median(found)
    shown = _short(middle)
    if measure in ("resign", "death"):
        shown += f", worst {_short(max(found))}"
    if name == _OURS or _OURS not in cells or measure == "death":  # what has the TTL taken off has no ratio
        return shown
    ours = statistics.median(cells[_OURS])
    return f"{shown} ({ours / middle if _SHOWN[measure][2] else middle / ours:.2g})"


def _short(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def surroundings(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence how quiet the machine was."""
    others = [line["cores_of_others"] for line in lines if "cores_of_others" in line]
    syncs = [line["sync_ms"] for line in lines if "sync_ms" in line]
    if not others:
        return ""
    return (
        f"Others took {statistics.median(others):.2f} cores (p90 {percentile(others, 0.9):.2f});"
        f" a sync of 4 KiB {statistics.median(syncs):.2f} ms (p90 {percentile(syncs, 0.9):.2f})."
    )


def errors(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what went wrong, each once."""
    found = (line for line in lines if "error" in line)
    return sorted({f"{line['system']} {line['measure']} {line['users']}: {line['error']}" for line in found})


def whole(lines: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join([table(lines), "", surroundings(lines), *errors(lines)])


if __name__ == "__main__":
    print(whole([json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text().splitlines()]))
