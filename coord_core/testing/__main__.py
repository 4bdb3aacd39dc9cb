"""Run seeds: `python -m coord_core.testing --seed 1 --seeds 200`.

Exits with 1 where a seed failed, after printing what was broken, the last events before it and the command that shows it again.
"""

import multiprocessing
import sys
from collections.abc import Iterator

import click

from coord_core.testing.run import Failure, Report, run


@click.command()
@click.option("--seed", default=1, show_default=True, help="The first seed.")
@click.option("--seeds", default=1, show_default=True, help="How many seeds, counting up.")
@click.option("--jobs", default=2, show_default=True, help="Processes to share many seeds.")
@click.option("--verbose", is_flag=True, help="Print every event (one seed), or a line a seed (many).")
def main(seed: int, seeds: int, jobs: int, verbose: bool) -> None:
    """Simulate whole clusters under faults and check that nothing promised is broken."""
    if seeds == 1:
        outcome = _outcome(seed, echo=verbose)
        print(outcome, file=sys.stderr if isinstance(outcome, Failure) else sys.stdout)
        sys.exit(isinstance(outcome, Failure))
    failed = 0
    for outcome in _outcomes(range(seed, seed + seeds), jobs):
        if isinstance(outcome, Failure):
            failed += 1
            print(f"\n{outcome}\n", file=sys.stderr)
        elif verbose:
            print(outcome, flush=True)
    print(f"{seeds} seeds from {seed}: {failed} failed")
    sys.exit(failed > 0)


def _outcomes(seeds: range, jobs: int) -> Iterator[Report | Failure]:
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(_outcome, seeds, chunksize=4)


def _outcome(seed: int, *, echo: bool = False) -> Report | Failure:
    try:
        return run(seed, echo=print if echo else None)
    except Failure as failure:
        return failure


if __name__ == "__main__":
    main()
