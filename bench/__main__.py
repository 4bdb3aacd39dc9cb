"""`python -m bench`: lock pairs and writes a second at several numbers of sessions, and the CPU time of each party.

Every round visits every workload at every number of handles, so that a busy minute of the machine hits all of them; the table shows
medians over the rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from bench.cluster import Cluster
from bench.processes import cpu_seconds_of, resident_mb


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one workload; CPU in microseconds an operation."""

    per_second: float
    p50_ms: float
    p99_ms: float
    client_us: float
    leader_us: float
    follower_us: float


def measure(cluster: Cluster, workload: str, handles: int, seconds: float) -> Measured:
    leader = cluster.leader()
    pids = [node.pid for node in cluster.nodes]
    command = [sys.executable, "-m", "bench.workload", cluster.url, workload, str(handles), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        if client.stdout.readline().strip() != "READY":
            raise RuntimeError(f"the client of workload {workload} did not start")
        before = cpu_seconds_of(pids)
        client.stdin.write("go\n")
        client.stdin.flush()
        outcome = json.loads(client.stdout.readline())
        after = cpu_seconds_of(pids)
    operations = outcome["operations"]
    used = {pid: (after[pid] - before[pid]) / operations * 1e6 for pid in pids}
    followers = [used[pid] for pid in pids if pid != leader.pid]
    return Measured(
        per_second=operations / outcome["seconds"],
        p50_ms=outcome["p50_ms"],
        p99_ms=outcome["p99_ms"],
        client_us=outcome["cpu_seconds"] / operations * 1e6,
        leader_us=used[leader.pid],
        follower_us=statistics.mean(followers) if followers else 0.0,
    )


def show(workload: str, handles: int, runs: list[Measured]) -> str:
    def median(of: Callable[[Measured], float]) -> float:
        return statistics.median(map(of, runs))

    return (
        f"{workload:>7} {handles:>8} {median(lambda run: run.per_second):>10.0f}"
        f" {median(lambda run: run.p50_ms):>8.2f} {median(lambda run: run.p99_ms):>8.2f}"
        f" {median(lambda run: run.client_us):>9.1f} {median(lambda run: run.leader_us):>9.1f}"
        f" {median(lambda run: run.follower_us):>11.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", default="1,16,64,256", help="numbers of concurrent handles (default: %(default)s)")
    parser.add_argument("--workloads", default="locks,writes", help="locks, writes or both (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    handles = [int(word) for word in options.sessions.split(",")]
    runs: dict[tuple[str, int], list[Measured]] = defaultdict(list)
    with Cluster() as cluster:
        for _ in range(options.rounds):
            for workload in options.workloads.split(","):
                for number in handles:
                    runs[workload, number].append(measure(cluster, workload, number, options.seconds))
        print("        sessions     ops/s   p50 ms   p99 ms  client us leader us follower us")
        for (workload, number), measured in runs.items():
            print(show(workload, number, measured))
        print(f"memory of a node after it, MB: {', '.join(f'{resident_mb(node.pid):.0f}' for node in cluster.nodes)}")


if __name__ == "__main__":
    main()
