"""`python -m tests.mutants.seeds FIRST LAST [DRILL]`: run seeds until one fails.

Exits with 1 where one does, saying why.
"""

import sys

from coord_core.testing.drills import DRILLS
from coord_core.testing.run import Failure, run


def main(first: int, last: int, drill: str = "") -> int:
    for seed in range(first, last + 1):
        try:
            run(seed, mix=DRILLS[drill] if drill else None)
        except Failure as failure:
            cause = " ".join(str(failure.cause).split())
            print(f"FAILED seed {seed} - {type(failure.cause).__name__}: {cause}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
