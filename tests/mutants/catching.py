"""Run a catcher in a tree and say what became of it.

A catcher has *caught* a mutant when it fails as a test fails.  It has not when it could not run at all, when it hangs, or when it
fails because the mutant names what there is not: such a mutant says nothing of the bug.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

#: No catcher needs a tenth of it.
HANGS_S = 300

#: A program that fails with one of these was broken by the edit and not by the bug, or hangs.
_BROKEN = re.compile(
    r"(NameError|UnboundLocalError|AttributeError|TypeError|SyntaxError|IndentationError|ImportError|ModuleNotFoundError)\b"
    r"|Failed: Timeout"
)
_REASON = re.compile(r"^(?:FAILED|ERROR) .*? - (.*)", re.MULTILINE)
_SIM = re.compile(r"sim (?:(?P<drill>[a-z ]+) )?(?P<first>\d+)\.\.(?P<last>\d+)")


class Verdict(Enum):
    """What a catcher said."""

    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a catcher."""

    catcher: str
    verdict: Verdict
    #: Why it failed, in its own words.
    reason: str
    seconds: float
    output: str


def seeds_of(catcher: str) -> tuple[int, int, str] | None:
    """Return the first and the last seed of `sim [DRILL] FIRST..LAST`, and the drill; None where `catcher` is a pytest node id."""
    found = _SIM.fullmatch(catcher)
    return None if found is None else (int(found["first"]), int(found["last"]), found["drill"] or "")


def run_catchers(tree: Path, *catchers: str) -> Outcome:
    """Run one seed range, or some pytest node ids together, in `tree`."""
    began = time.monotonic()
    try:
        ended = subprocess.run(
            [sys.executable, *_arguments(tree, catchers)],
            cwd=tree,
            env=_environment(tree),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANGS_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(", ".join(catchers), Verdict.BROKEN, f"did not end within {HANGS_S} s", time.monotonic() - began, "")
    verdict, reason = judge(ended.returncode, ended.stdout)
    return Outcome(", ".join(catchers), verdict, reason, time.monotonic() - began, ended.stdout)


def _arguments(tree: Path, catchers: tuple[str, ...]) -> list[str]:
    seeds = seeds_of(catchers[0])
    if seeds is not None:
        return ["-m", "tests.mutants.seeds", *map(str, seeds)]
    return ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--basetemp={tree}.tmp", *catchers]


def _environment(tree: Path) -> dict[str, str]:
    # An editable installation of the checkout comes after it on the path.
    path = os.pathsep.join([str(tree), str(tree / "integrations" / "celery")])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "500", "PYTHONDONTWRITEBYTECODE": ""}


def judge(code: int, output: str) -> tuple[Verdict, str]:
    """Return what the end of a catcher means, and its reason."""
    if code == 0:
        return Verdict.PASSED, ""
    reasons = _REASON.findall(output)
    reason = reasons[-1].strip() if reasons else ""
    # Pytest ends with 1 where tests failed, with another code where it could not run them.
    if code != 1 or not reason:
        return Verdict.BROKEN, reason or f"ended with {code}: {output.strip()[-300:]}"
    return (Verdict.BROKEN if _BROKEN.match(reason) else Verdict.FAILED), reason
