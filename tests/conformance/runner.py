"""Runs a folder of scenario files and says of each whether the core does what it tells.

Every file is treated alike: the folder it lies in says which kind it is, its text says the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.conformance.changing import Changing
from tests.conformance.counting import Counting
from tests.conformance.datadriven import Directive, Malformed, parse
from tests.conformance.interaction import Interaction

#: Lines that a logger wrote, not the protocol.
_LOGGED = ("INFO ", "DEBUG ", "WARN ", "ERROR ", "FATAL ")


class Kind(Protocol):
    """Answers the directives of one scenario."""

    def answer(self, directive: Directive) -> list[str]: ...


KINDS: dict[str, type[Kind]] = {"quorum": Counting, "confchange": Changing, "interaction": Interaction}


@dataclass(frozen=True)
class Outcome:
    """Of one file."""

    name: str
    #: The first difference; empty where there is none.
    difference: str = ""

    def __str__(self) -> str:
        return f"FAIL {self.name}: {self.difference}" if self.difference else f"pass {self.name}"


def _comparable(lines: list[str]) -> list[str]:
    kept = [line.rstrip() for line in lines if line.strip() and not line.strip().startswith(_LOGGED)]
    return [line for line in kept if line != "ok"]


def _difference(directive: Directive, answered: list[str]) -> str:
    expected, got = _comparable(directive.expected), _comparable(answered)
    for number in range(max(len(expected), len(got))):
        want = expected[number] if number < len(expected) else "(nothing more)"
        have = got[number] if number < len(got) else "(nothing more)"
        if want != have:
            return f"line {directive.line}, {directive.command}: expected {want.strip()!r}, got {have.strip()!r}"
    return ""


def run_file(path: Path, kind: type[Kind]) -> Outcome:
    """Run one scenario up to its first difference; a file that is no scenario, or has no directive, differs too."""
    name = f"{path.parent.name}/{path.name}"
    scene, ran = kind(), False
    try:
        for directive in parse(path.read_text(encoding="utf-8")):
            ran = True
            difference = _answered(scene, directive)
            if difference:
                return Outcome(name, difference)
    except Malformed as error:
        return Outcome(name, f"line {error.line}: malformed: {error}")
    except (OSError, UnicodeError) as error:
        return Outcome(name, f"cannot be read: {error}")
    return Outcome(name, "" if ran else "there is no directive in it")


def _answered(scene: Kind, directive: Directive) -> str:
    """Let the scene answer one directive; return the difference from what was expected."""
    where = f"line {directive.line}, {directive.command}"
    try:
        return _difference(directive, scene.answer(directive))
    except NotImplementedError as missing:
        return f"{where}: not modelled: {missing}"
    except Malformed as error:
        return f"{where}: malformed: {error}"
    # A scenario that breaks the core is a difference like any other, and the next one runs.
    except Exception as error:  # noqa: BLE001
        return f"{where}: {type(error).__name__}: {error}"


def run_folder(folder: Path) -> Iterator[Outcome]:
    """Run all scenarios below `folder`, by kind and name."""
    for kind_name, kind in KINDS.items():
        for path in sorted((folder / kind_name).glob("*.txt")):
            yield run_file(path, kind)
