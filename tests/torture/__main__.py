"""`python -m tests.torture --minutes 10`: real nodes, real clients, and everything that can go wrong on one machine.

- `run`: one run from beginning to end.
- `nemesis`: what goes wrong.  `tests.cluster` has the nodes and the network that it goes wrong on.
- `worker`, `actor`: what the clients do.  `records`: what they write down.
- `judge`, `disks`: what must hold.  `summary`: what people are told.

The seed decides what is drawn; when exactly it happens, the machine decides.  So a seed does not replay a failure: the histories
and logs of a run that failed stay for that.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.torture.run import Plan, run
from tests.torture.summary import summary


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Torture a cluster of real processes.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--network", choices=("auto", "namespaces", "proxy"), default="auto")
    parser.add_argument("--keep", action="store_true", help="keep histories and logs of a good run too")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("ended by a signal"))
    directory = Path(tempfile.mkdtemp(prefix=f"coord-torture-{seed}-"))
    plan = Plan(options.minutes * 60, seed, options.nodes, options.clients, network=options.network)
    print(f"seed {seed}", flush=True)
    outcome = run(plan, directory, lambda line: print(line, flush=True))
    print(summary(outcome), flush=True)
    if outcome.violations or options.keep:
        print(f"histories and logs: {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
