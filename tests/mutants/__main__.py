"""`make mutants`: put known bugs back in, one by one, and see each caught.

First all catchers must pass on a whole copy of the checkout, then each must fail on the copy that has its bug.  Exits with 1 where
a bug survives.  Nothing is written but the output; the copies are temporary.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from tests.mutants.catching import Outcome, Verdict, run_catchers, seeds_of
from tests.mutants.page import page
from tests.mutants.table import MUTANTS, Mutant
from tests.mutants.trees import Misplaced, copy_checkout, copy_with

#: Mutants under test at a time.
JOBS = 2

_WORDS = {Verdict.FAILED: "caught by", Verdict.PASSED: "SURVIVES", Verdict.BROKEN: "IS NO MUTANT for"}


@click.command()
@click.option("--bug", type=int, help="Only this number.")
@click.option("--verbose", is_flag=True, help="Print what each catcher said.")
@click.option("--markdown", is_flag=True, help="Print docs/mutations.md and run nothing.")
def main(bug: int | None, verbose: bool, markdown: bool) -> None:
    """Put known bugs back in, one by one, and see each caught."""
    if markdown:
        print(page(), end="")
        return
    mutants = [mutant for mutant in MUTANTS if bug in (None, mutant.bug)]
    if not mutants:
        raise click.BadParameter(f"there is no bug {bug}", param_hint="--bug")
    os.nice(10)
    with tempfile.TemporaryDirectory(prefix="mutants-") as room:
        sys.exit(_gate(mutants, Path(room), verbose=verbose))


def _gate(mutants: Sequence[Mutant], room: Path, *, verbose: bool) -> int:
    began = time.monotonic()
    base = copy_checkout(room / "whole")
    faults = [outcome for outcome in _unmutated(mutants, base) if outcome.verdict is not Verdict.PASSED]
    for outcome in faults:
        print(f"{outcome.output}\nfails without any bug: {outcome.catcher}", flush=True)
    if faults:
        return 1
    print(f"all catchers pass without the bugs ({time.monotonic() - began:.0f} s)", flush=True)
    missed = 0
    with ThreadPoolExecutor(JOBS) as pool:
        for mutant, outcomes in zip(mutants, pool.map(lambda mutant: _try(mutant, base, room), mutants), strict=True):
            caught = all(outcome.verdict is Verdict.FAILED for outcome in outcomes)
            missed += not caught
            print("\n".join(_lines(mutant, outcomes, verbose=verbose or not caught)), flush=True)
    bugs = len({mutant.bug for mutant in mutants})
    print(f"bugs: {bugs}, mutants of them: {len(mutants)}, not caught: {missed} ({time.monotonic() - began:.0f} s)")
    return 1 if missed else 0


def _unmutated(mutants: Sequence[Mutant], base: Path) -> Iterator[Outcome]:
    catchers = list(dict.fromkeys(catcher for mutant in mutants for catcher in mutant.catchers))
    tests = [catcher for catcher in catchers if seeds_of(catcher) is None]
    if tests:
        yield run_catchers(base, *tests)
    for catcher in catchers:
        if seeds_of(catcher) is not None:
            yield run_catchers(base, catcher)


def _try(mutant: Mutant, base: Path, room: Path) -> list[Outcome]:
    """Return what became of each of a mutant's catchers."""
    try:
        tree = copy_with(mutant, base, Path(tempfile.mkdtemp(dir=room)) / "mutant")
    except Misplaced as misplaced:
        return [Outcome("nobody", Verdict.BROKEN, str(misplaced), 0.0, "")]
    return [run_catchers(tree, catcher) for catcher in mutant.catchers]


def _lines(mutant: Mutant, outcomes: Sequence[Outcome], *, verbose: bool) -> Iterator[str]:
    seconds = sum(outcome.seconds for outcome in outcomes)
    by = ", ".join(outcome.catcher.rpartition("::")[2] for outcome in outcomes if outcome.verdict is Verdict.FAILED)
    yield f"{mutant.bug:>2} {seconds:6.1f} s  {mutant.name}: {f'caught by {by}' if by else 'NOT CAUGHT'}"
    for outcome in outcomes if verbose else ():
        yield f"             {_WORDS[outcome.verdict]} {outcome.catcher} {outcome.reason}".rstrip()


if __name__ == "__main__":
    main()
