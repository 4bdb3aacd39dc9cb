"""`python -m tests.mutants.seeds FIRST LAST`: seeds of the simulator until one fails; exits with 1 where one does, saying why."""

import sys

from coord_core.testing.run import Failure, run


def main(first: int, last: int) -> int:
    for seed in range(first, last + 1):
        try:
            run(seed)
        except Failure as failure:
            cause = " ".join(str(failure.cause).split())
            print(f"FAILED seed {seed} - {type(failure.cause).__name__}: {cause}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
