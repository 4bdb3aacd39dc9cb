"""Reads scenario files of the datadriven form: a directive, its input, a line of dashes, and the output expected.

    # a comment
    command arg key=value key=(a,b)
    input lines
    ----
    expected lines, up to a blank one

Where the output itself has blank lines, it stands between two pairs of dash lines.  A directive that ends in a backslash goes on
in the next line; `subtest` stands alone and only names what follows.  What is not of this form raises `Malformed`: a file that
cannot be read must not pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

_DASHES = "----"
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class Malformed(Exception):
    """A scenario is not of the form, or asks for what cannot be."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Directive:
    """One command of a scenario."""

    line: int
    command: str
    #: In order; None for an argument without values: `key=v` has one, `key=(a,b)` several.
    arguments: list[tuple[str, list[str] | None]] = field(default_factory=list)
    input: str = ""
    expected: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        """The arguments without values."""
        return [key for key, values in self.arguments if values is None]

    def values(self, key: str) -> list[str]:
        """All values of `key`; `key=()` has none."""
        return [value for name, values in self.arguments if name == key for value in values or () if value]

    def has(self, key: str) -> bool:
        return any(name == key and values is not None for name, values in self.arguments)

    def one(self, key: str, default: str = "") -> str:
        return (self.values(key) or [default])[-1]

    def flag(self, key: str) -> bool:
        text = self.one(key, "false")
        if text not in _BOOLEANS:
            raise Malformed(f"{key} is neither true nor false: {text!r}")
        return _BOOLEANS[text]

    def number(self, key: str, default: int) -> int:
        return number(self.one(key, str(default)))

    def numbers(self) -> list[int]:
        """The arguments without values, all of them numbers."""
        return [number(word) for word in self.words]


def number(text: str) -> int:
    """Read a number that is not negative."""
    if not (text.isascii() and text.isdigit()):
        raise Malformed(f"not a number: {text!r}")
    return int(text)


def directive(text: str, line: int = 0) -> Directive:
    """Read one directive's line."""
    command, _, rest = text.strip().partition(" ")
    found = Directive(line, command)
    while rest := rest.strip():
        rest = _argument(found, rest)
    return found


def _argument(found: Directive, text: str) -> str:
    """Read one argument; return what follows it."""
    end = min((at for at in (text.find(" "), text.find("=")) if at >= 0), default=len(text))
    key, text = text[:end], text[end:]
    if not key:
        raise Malformed(f"an argument without a name: {text!r}", found.line)
    if not text.startswith("="):
        found.arguments.append((key, None))
        return text
    if text.startswith("=("):
        values, text = _parenthesized(text[2:], found.line)
    else:
        value, _, text = text[1:].partition(" ")
        values = [value]
    found.arguments.append((key, values))
    return text


def _parenthesized(text: str, line: int) -> tuple[list[str], str]:
    """Read `a,b)`; commas and parentheses within inner parentheses belong to the value."""
    values, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if depth == 0 and character in ",)":
            values.append(text[start:at].strip())
            start = at + 1
            if character == ")":
                return values, text[at + 1 :]
        depth += (character == "(") - (character == ")")
    raise Malformed(f"a parenthesis is not closed: {text!r}", line)


def parse(text: str) -> Iterator[Directive]:
    """Yield the directives of a scenario, in order.  Raises `Malformed` where it comes to what is none."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        begun = at
        while line.endswith("\\") and at < len(lines):
            line = line[:-1] + " " + lines[at].strip()
            at += 1
        found = directive(line, begun)
        if found.command == "subtest":
            # Only a name for what follows.
            continue
        end = next((i for i in range(at, len(lines)) if lines[i] == _DASHES), None)
        if end is None:
            raise Malformed(f"no line of dashes follows {line!r}", begun)
        found.input = "\n".join(lines[at:end]).strip()
        at, found.expected = _expected(lines, end + 1)
        yield found


def _expected(lines: list[str], at: int) -> tuple[int, list[str]]:
    found = []
    if lines[at : at + 1] == [_DASHES]:
        at += 1
        while lines[at : at + 2] != [_DASHES, _DASHES]:
            if at >= len(lines):
                raise Malformed("two lines of dashes do not close the expected text", len(lines))
            found.append(lines[at])
            at += 1
        return at + 2, found
    while at < len(lines) and lines[at].strip():
        found.append(lines[at])
        at += 1
    return at, found
