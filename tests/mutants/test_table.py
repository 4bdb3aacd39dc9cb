"""The gate itself does not rot: every mutant has its place in the sources, and every catcher is there.  `make mutants` runs it."""

import ast
from pathlib import Path

import pytest

from coord_core.testing.drills import DRILLS
from tests.mutants.catching import seeds_of
from tests.mutants.page import page
from tests.mutants.table import MUTANTS, Mutant
from tests.mutants.trees import ROOT, edited

IDS = [f"{mutant.bug}: {mutant.name}" for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=IDS)
def test_mutant_fits_the_sources_and_is_a_program(mutant: Mutant) -> None:
    """An old text that is not there, or there twice, raises; and what comes out must differ and compile."""
    sources = edited(mutant, ROOT)
    assert sources
    for path, source in sources.items():
        compile(source, path, "exec")
        assert source != (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", MUTANTS, ids=IDS)
def test_catchers_exist(mutant: Mutant) -> None:
    """A renamed test would leave its mutant to nobody."""
    assert mutant.catchers
    for catcher in mutant.catchers:
        seeds = seeds_of(catcher)
        if seeds is not None:
            assert seeds[0] <= seeds[1]
            assert seeds[2] in ("", *DRILLS)
            continue
        path, _, name = catcher.partition("::")
        assert name.partition("[")[0] in _tests_of(ROOT / path), catcher


def test_page_of_the_docs_is_the_one_that_the_tables_make() -> None:
    """`python -m tests.mutants --markdown > docs/mutations.md` after every change of them."""
    assert (ROOT / "docs" / "mutations.md").read_text(encoding="utf-8") == page()


def test_all_twenty_five_are_there() -> None:
    """The list has twenty, two of snapshots and three of what is told; none is left out."""
    assert [mutant.bug for mutant in MUTANTS] == sorted(mutant.bug for mutant in MUTANTS)
    assert {mutant.bug for mutant in MUTANTS} == set(range(1, 26))


def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
