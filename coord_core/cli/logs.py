"""Logging, always to stderr: a node writes one line a record, so that a line is never half a story."""

import logging
import sys

from coord_core.cli.settings import Settings


class OneLine(logging.Formatter):
    """A traceback's lines are joined: what collects logs splits them at newlines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(line for line in super().format(record).splitlines() if line.strip())


def log_as_node(settings: Settings) -> None:
    """A node's log is its voice: -q leaves warnings, -v adds debugging."""
    level = logging.WARNING if settings.quiet else logging.DEBUG if settings.verbose else logging.INFO
    _begin(OneLine(), level)


def log_as_command(settings: Settings) -> None:
    """A command says itself what its user must know; -v adds what the client notices on the way."""
    levels = (logging.ERROR, logging.INFO, logging.DEBUG)
    _begin(logging.Formatter("coord: %(message)s"), levels[min(settings.verbose, 2)])


def _begin(formatter: logging.Formatter, level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("coord").setLevel(level)
