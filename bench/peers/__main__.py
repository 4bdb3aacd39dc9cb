"""`python -m bench.peers`: coord beside the others in the same rounds; prints tables, and writes JSON lines under build/peers."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.peers import elections, install, report
from bench.peers.rounds import FIGURES, Rounds, warm_up
from bench.peers.system import System
from bench.peers.systems import SYSTEMS


def main() -> None:
    options = _options()
    names = options.systems.split(",")
    install.install(names)
    here = [name for name in names if install.is_here(SYSTEMS[name])]
    lines: list[dict[str, Any]] = []
    path = _file(options.out)
    with path.open("a") as out:

        def note(found: dict[str, Any]) -> None:
            lines.append({**found, "load": round(os.getloadavg()[0], 1)})
            out.write(json.dumps(lines[-1]) + "\n")
            out.flush()
            if not options.quiet:
                print(f"\r{found['system']:>13} {found['measure']:<10} {found['users']:<4}", end="", file=sys.stderr)

        with ExitStack() as undo:
            directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="coord-bench-", ignore_cleanup_errors=True)))
            systems = {name: undo.enter_context(_start(name, directory)) for name in here}
            _measure(systems, options, note)
    print(f"\n{report.whole(lines)}\n{path}")


def _measure(systems: Mapping[str, System], options: argparse.Namespace, note: Any) -> None:
    wanted = options.measures.split(",")
    figures = [figure for figure in FIGURES if figure.measure in wanted]
    with Rounds(systems, _python) as rounds:
        warm_up(rounds, options.warm_up)
        rounds.run(figures, options.rounds, options.seconds, note)
    electing = {name: system for name, system in systems.items() if "elections" in system.measures}
    if "resign" in wanted:
        elections.resigns(electing, _python, options.trials, note)
    if "death" in wanted:
        elections.deaths(electing, _python, options.trials, note)


def _start(name: str, directory: Path) -> System:
    own = directory / name
    own.mkdir()
    return SYSTEMS[name](own, install.ROOT)


def _python(name: str) -> str:
    """Return which interpreter has a system's client."""
    return str(install.PYTHON) if SYSTEMS[name].requirements else sys.executable


def _file(out: Path | None) -> Path:
    path = out or install.HOME / time.strftime("%Y%m%d-%H%M%S.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _options(words: Sequence[str] | None = None) -> argparse.Namespace:
    measures = ",".join(dict.fromkeys([*(figure.measure for figure in FIGURES), "resign", "death"]))
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="default: %(default)s")
    parser.add_argument("--measures", default=measures, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each figure in each round (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds of each kind of work before the first round")
    parser.add_argument("--trials", type=int, default=20, help="of each of the two kinds of election (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="append JSON lines here (default: a new file under build/peers)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
