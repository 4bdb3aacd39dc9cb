"""`python -m tests.conformance FOLDER`: one line a scenario; exits with 1 where one differs, with 2 where there is none."""

import sys
from pathlib import Path

from tests.conformance.runner import run_folder


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tests.conformance FOLDER", file=sys.stderr)
        return 2
    outcomes = []
    for outcome in run_folder(Path(arguments[0])):
        print(outcome, flush=True)
        outcomes.append(outcome)
    if not outcomes:
        print(f"no scenarios (quorum/, confchange/, interaction/) in {arguments[0]}", file=sys.stderr)
        return 2
    return 1 if any(outcome.difference for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
