"""The page of the docs that lists every bug put back in and what catches it.

`python -m tests.mutants --markdown > docs/mutations.md`; `test_table` holds that the page is the one that the tables make.
"""

from collections.abc import Iterator

from coord_core.testing.drills import DRILLS
from tests.mutants.table import MUTANTS
from tests.simulation.test_mutations import CASES

_HEAD = """\
# Bugs put back in

A test that nothing can make fail proves nothing.  So known bugs are put back in, one by one, and something must notice each.
This page is made from the tables that the tests use: `python -m tests.mutants --markdown > docs/mutations.md`.

## In the sources

`make mutants` copies the project once for each line, edits the copy, and runs every catcher named: each must fail on the copy, and
pass without the bug. `sim DRILL FIRST..LAST` are seeds of the simulator, of which one must fail
(`make sim MIX="elections" SEED=1 SEEDS=60`).
"""

_SIMULATED = """\
## In the running system

`tests/simulation/test_mutations.py`, a part of `make test`, breaks the running system in the simulator. The seeds of the drill must
find the bug and say what was broken; without the bug they find nothing.
"""


def page() -> str:
    return "\n".join([_HEAD, *_mutants(), "", _SIMULATED, *_cases(), ""])


def _mutants() -> Iterator[str]:
    yield "| | bug | seen in | caught by |"
    yield "|---|---|---|---|"
    for mutant in MUTANTS:
        catchers = ", ".join(f"`{catcher.rpartition('::')[2]}`" for catcher in mutant.catchers)
        yield f"| {mutant.bug} | {mutant.name} | {mutant.seen} | {catchers} |"


def _cases() -> Iterator[str]:
    # No seed draws the relays of itself: what the others draw would be another.
    names = {id(mix): name for name, mix in DRILLS.items()}
    yield "| bug | what is known of it | seeds | what is found |"
    yield "|---|---|---|---|"
    for mutation, mix, seeds, said in CASES:
        note = " ".join((mutation.__doc__ or "").split())
        # A bar would end the cell.
        found = said.replace("|", ", ").replace(".*", "...")
        yield f"| {mutation.__name__.replace('_', ' ')} | {note} | `{names[id(mix)]} 1..{seeds}` | {found} |"
