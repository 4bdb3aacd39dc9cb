"""Run seeds: `python -m coord_core.testing --seed 1 --seeds 200`.

Many seeds are shared out among processes, one a core, and reported in order.  Exits with 1 where a seed failed, after printing
what was broken, the last events before it and the command that shows it again; with 130 where it was interrupted.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import click

from coord_core.testing.drills import DRILLS
from coord_core.testing.run import Failure, Report, run

#: A line of progress comes this often.
PROGRESS_S = 10.0

#: What a shell says of a command that Ctrl-C ended.
INTERRUPTED = 128 + signal.SIGINT


@click.command()
@click.option("--seed", default=1, show_default=True, help="The first seed.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="How many seeds, counting up.")
@click.option("--mix", type=click.Choice(list(DRILLS)), help="Of this character, instead of what each seed draws.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes to share many seeds.  [default: one a core]")
@click.option("--verbose", is_flag=True, help="Print every event (one seed), or a line a seed (many).")
def main(seed: int, seeds: int, mix: str | None, jobs: int | None, verbose: bool) -> None:
    """Simulate whole clusters under faults and check that nothing promised is broken."""
    if seeds == 1:
        outcome = _outcome(seed, mix, echo=verbose)
        print(outcome, file=sys.stderr if isinstance(outcome, Failure) else sys.stdout)
        sys.exit(isinstance(outcome, Failure))
    tally = Tally(range(seed, seed + seeds), mix)
    code = 0
    try:
        with closing(_outcomes(tally.seeds, mix, min(jobs or os.cpu_count() or 1, seeds))) as outcomes:
            for outcome in outcomes:
                tally.take(outcome, verbose=verbose)
    except KeyboardInterrupt:
        code = INTERRUPTED
    print(tally.summary(), flush=True)
    sys.exit(code or (1 if tally.failed else 0))


@dataclass
class Tally:
    """What many seeds came to."""

    seeds: range
    mix: str | None = None
    done: int = 0
    failed: list[int] = field(default_factory=list)
    entries: int = 0
    operations: int = 0
    leaders: int = 0
    undecided: int = 0
    virtual_s: float = 0.0
    _began_s: float = field(default_factory=time.monotonic)
    _told_s: float = field(default_factory=time.monotonic)

    def take(self, outcome: Report | Failure, *, verbose: bool) -> None:
        """Count one seed; print a failure at once, and progress now and then."""
        self.done += 1
        if isinstance(outcome, Failure):
            self.failed.append(outcome.seed)
            print(f"\n{outcome}\n", file=sys.stderr, flush=True)
        else:
            self.entries += outcome.entries
            self.operations += outcome.operations
            self.leaders += outcome.leaders
            self.undecided += outcome.undecided
            self.virtual_s += outcome.virtual_s
        if verbose:
            print(f"seed {outcome.seed}: FAILED" if isinstance(outcome, Failure) else outcome, flush=True)
        elif time.monotonic() - self._told_s >= PROGRESS_S:
            self._told_s = time.monotonic()
            print(f"{self.done} of {len(self.seeds)} seeds, {len(self.failed)} failed", flush=True)

    def summary(self) -> str:
        """Return what was run, what came of it, and how to run again what failed."""
        lines = [
            f"{self.done} seeds from {self.seeds.start} in {time.monotonic() - self._began_s:.0f} s:"
            f" {self.virtual_s / 3600:.1f} hours of {self.entries} entries, {self.leaders} leaders, {self.operations} operations",
            f"{len(self.failed)} failed",
        ]
        if self.done < len(self.seeds):
            lines.insert(0, f"interrupted: {len(self.seeds) - self.done} seeds were not run")
        if self.undecided:
            lines.append(f"the histories of {self.undecided} keys were not judged: the search for an order took too long")
        mix = f' MIX="{self.mix}"' if self.mix else ""
        lines += [f"replay: make sim SEED={seed}{mix}" for seed in sorted(self.failed)]
        return "\n".join(lines)


def _outcomes(seeds: range, mix: str | None, jobs: int) -> Generator[Report | Failure, None, None]:
    """Yield the outcome of each seed in order.  Closing it ends the processes."""
    # Ctrl-C reaches every process in the foreground: only this one is to say something.
    with multiprocessing.Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap(partial(_outcome, mix=mix), seeds)
        # They end by themselves.  Leaving the context kills them, and would wait for ever for one that is only being born.
        pool.close()
        pool.join()


def _outcome(seed: int, mix: str | None, *, echo: bool = False) -> Report | Failure:
    try:
        return run(seed, mix=None if mix is None else DRILLS[mix], echo=print if echo else None)
    except Failure as failure:
        return failure


if __name__ == "__main__":
    main()
