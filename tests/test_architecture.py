"""The house keeps its walls: import contracts, and a few rules that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("coord_core/**/*.py"), *ROOT.glob("integrations/**/*.py")])
PURE = ("raft", "machine", "replica", "protocol")
FORBIDDEN_CALLS = re.compile(r"\b(time\.(time|monotonic)|datetime\.now|random\.(random|choice|randint)|uuid4|os\.urandom)\(")


def test_rooms_import_only_the_rows_below_them():
    """The rows of docs/architecture.md, held by import-linter."""
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name in PURE], ids=lambda p: str(p.relative_to(ROOT)))
def test_pure_rooms_ask_no_clock_and_draw_no_luck(path: Path):
    """A replica that reads a clock cannot be replayed."""
    assert not FORBIDDEN_CALLS.search(path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_opens_with_its_purpose(path: Path):
    source = path.read_text()
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), f"{path} has no docstring"


def test_no_room_is_called_utils_or_manager():
    """A name that says nothing draws in everything."""
    bad = [path for path in SOURCES if re.search(r"(utils?|helpers?|manager|misc|common)\.py$", path.name)]
    assert bad == []


def test_importing_the_client_stays_cheap():
    """Web processes import it: it must not bring the server's libraries along."""
    code = "import coord_core, sys; print([m for m in ('sqlalchemy', 'alembic', 'celery', 'click', 'rich') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
