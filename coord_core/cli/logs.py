"""Logging of a node: to stderr, one line a record, so that a line is never half a story."""

import logging
import sys

from coord_core.cli.settings import Settings


class OneLine(logging.Formatter):
    """A traceback's lines are joined: what collects logs splits them at newlines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(line for line in super().format(record).splitlines() if line.strip())


def log_to_stderr(settings: Settings) -> None:
    """-q leaves warnings, -v adds debugging of coord's own rooms."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    level = logging.WARNING if settings.quiet else logging.DEBUG if settings.verbose else logging.INFO
    logging.getLogger("coord").setLevel(level)
