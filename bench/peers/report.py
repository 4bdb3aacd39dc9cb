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
    """Return Markdown: medians, and of elections also the worst."""
    rows: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        shown = _SHOWN.get(line["measure"])
        if shown is not None and shown[0] in line:
            rows[line["measure"], line["users"]][line["system"]].append(line[shown[0]])
    names = [name for name in SYSTEMS if any(name in cells for cells in rows.values())]
    ratios = [name for name in names if name != _OURS] if _OURS in names else []
    head = ["", "under way", *names, *(f"{_OURS} / {name}" for name in ratios)]
    body = [_row(measure, users, cells, names, ratios) for (measure, users), cells in rows.items()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


def _row(measure: str, users: int, cells: Cells, names: Sequence[str], ratios: Sequence[str]) -> list[str]:
    _, title, _ = _SHOWN[measure]
    worst = measure in ("resign", "death")
    values = [_value(cells[name], worst=worst) if name in cells else "" for name in names]
    return [title, str(users), *values, *(_ratio(measure, cells, name) for name in ratios)]


def _value(found: Sequence[float], *, worst: bool) -> str:
    middle = statistics.median(found)
    if worst:
        return f"{_short(middle)} (worst of {len(found)}: {_short(max(found))})"
    return _short(middle)


def _short(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"


def _ratio(measure: str, cells: Cells, name: str) -> str:
    if name not in cells or _OURS not in cells or measure == "death":
        return ""
    return f"{statistics.median(cells[_OURS]) / statistics.median(cells[name]):.2f}"


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


def main(paths: Sequence[str]) -> None:
    lines = [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]
    print(table(lines))
    print(f"\n{surroundings(lines)}")
    for error in sorted({f"{line['system']} {line['measure']} {line['users']}: {line['error']}" for line in lines if "error" in line}):
        print(error)


if __name__ == "__main__":
    main(sys.argv[1:])
