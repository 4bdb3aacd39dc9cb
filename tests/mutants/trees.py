"""Copies of the project, whole or with a mutant in them.  The checkout itself is only read."""

import shutil
from importlib.util import cache_from_source
from pathlib import Path

from tests.mutants.table import Mutant

ROOT = Path(__file__).resolve().parents[2]

#: What the catchers need of the checkout.
_PARTS = ("coord_core", "integrations", "migrations", "tests", "pyproject.toml")


class Misplaced(Exception):
    """A mutant's old text does not stand in its file exactly once: the table has to follow the sources."""


def copy_checkout(to: Path) -> Path:
    """Copy what the catchers need; return the copy."""
    to.mkdir()
    for part in _PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, to / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy2(source, to / part)
    return to


def copy_with(mutant: Mutant, base: Path, to: Path) -> Path:
    """Copy `base` and put the mutant into the copy.  Raises `Misplaced`."""
    sources = edited(mutant, base)
    # With what Python has compiled: only the changed files need it again.
    shutil.copytree(base, to)
    for path, source in sources.items():
        Path(cache_from_source(str(to / path))).unlink(missing_ok=True)
        (to / path).write_text(source, encoding="utf-8")
    return to


def edited(mutant: Mutant, root: Path) -> dict[str, str]:
    """Return the changed files as they are with the mutant in them.  Raises `Misplaced`."""
    sources: dict[str, str] = {}
    for edit in mutant.edits:
        source = sources.get(edit.path) or (root / edit.path).read_text(encoding="utf-8")
        if (found := source.count(edit.old)) != 1:
            raise Misplaced(f"{mutant.bug}, {mutant.name!r}: {found} times in {edit.path}, not once: {edit.old!r}")
        sources[edit.path] = source.replace(edit.old, edit.new)
    return sources
