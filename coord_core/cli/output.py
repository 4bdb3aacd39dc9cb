"""How results reach stdout: a table for people, JSON or plain lines for programs.

JSON documents are one line each and a contract: keys are added, never renamed, and `format` rises if that ever has to change.
`jsonl` is the same for a single document and one line an item for a list; `plain` is tab-separated values without headings.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "json", "jsonl", "plain")
JSON_FORMAT = 1


def write_json(document: Mapping[str, Any]) -> None:
    """Write one document as one line and flush: a reader of a pipe sees it at once."""
    sys.stdout.write(json.dumps({"format": JSON_FORMAT, **document}) + "\n")
    sys.stdout.flush()


def write_plain(rows: Iterable[Sequence[object]]) -> None:
    for row in rows:
        sys.stdout.write("\t".join("" if cell is None else str(cell) for cell in row) + "\n")
    sys.stdout.flush()


def console(*, color: bool) -> "Console":
    """Return a console on stdout; without `color` it writes text only."""
    from rich.console import Console

    return Console(no_color=not color, highlight=False, soft_wrap=True)
