"""Reads scenario files of the datadriven form: a directive, its input, a line of dashes, and the output expected.

    # a comment
    command arg key=value key=(a,b)
    input lines
    ----
    expected lines, up to a blank one

Where the output itself has blank lines, it stands between two pairs of dash lines.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ARGUMENT = re.compile(r"([^\s=]+)(?:=(\([^)]*\)|\S*))?")


@dataclass
class Directive:
    """One command of a scenario."""

    line: int
    command: str
    #: Arguments without a value, in order.
    words: list[str] = field(default_factory=list)
    #: Arguments with values; `key=v` has one, `key=(a,b)` several, `key=()` none.
    options: dict[str, list[str]] = field(default_factory=dict)
    input: str = ""
    expected: list[str] = field(default_factory=list)

    def one(self, key: str, default: str = "") -> str:
        return self.options[key][0] if self.options.get(key) else default

    def flag(self, key: str) -> bool:
        return self.one(key) == "true"


def _arguments(directive: Directive, text: str) -> None:
    for match in _ARGUMENT.finditer(text):
        key, value = match.groups()
        if value is None:
            directive.words.append(key)
        elif value.startswith("("):
            directive.options[key] = [part.strip() for part in value[1:-1].split(",") if part.strip()]
        else:
            directive.options[key] = [value]


def parse(text: str) -> Iterator[Directive]:
    """Yield the directives of a scenario, in order."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        command, _, arguments = line.partition(" ")
        directive = Directive(at, command)
        _arguments(directive, arguments)
        entered = []
        while at < len(lines) and lines[at].strip() != "----":
            entered.append(lines[at])
            at += 1
        directive.input = "\n".join(entered).strip()
        at, directive.expected = _expected(lines, at + 1)
        yield directive


def _expected(lines: list[str], at: int) -> tuple[int, list[str]]:
    found = []
    if lines[at : at + 1] == ["----"]:
        at += 1
        while lines[at : at + 2] != ["----", "----"]:
            found.append(lines[at])
            at += 1
        return at + 2, found
    while at < len(lines) and lines[at].strip():
        found.append(lines[at])
        at += 1
    return at, found
