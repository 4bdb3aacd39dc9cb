"""`python -m bench.failover`: how long nobody can write when the leader dies.

    python -m bench.failover --trials 20 --nodes 3        # {"signal": "KILL", "median_s": .., "worst_s": .., "all_s": [..]}
    python -m bench.failover --signal STOP                # a leader that falls silent, instead of one whose connections close

Each trial has a fresh cluster and one client that writes continually, one write after the other.  Counted is the time from the
signal to the acknowledgement of the first write that was begun after it: only another leader can have acknowledged that.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import time

from bench.cluster import Cluster
from coord_core import AsyncClient

#: Writes before the leader dies: everybody is warm.
WARM_WRITES = 200
WAIT_S_MAX = 60.0


async def trial(url: str, leader_pid: int, signum: int) -> float:
    """Return the seconds from the signal to the next write that is begun and acknowledged."""
    async with AsyncClient(f"{url}?timeout={WAIT_S_MAX:g}s") as client:
        value = client.value("/bench/failover")
        for _ in range(WARM_WRITES):
            await value.set(b"before")
        # One is under way when the signal comes, as there always is.
        under_way = asyncio.ensure_future(value.set(b"under way"))
        await asyncio.sleep(0)
        began = time.perf_counter()
        os.kill(leader_pid, signum)
        await under_way
        await value.set(b"after")
        return time.perf_counter() - began


def measure(trials: int, nodes: int, signum: int) -> list[float]:
    found = []
    for _ in range(trials):
        with Cluster(nodes) as cluster:
            leader = cluster.leader()
            try:
                found.append(asyncio.run(trial(cluster.url, leader.pid, signum)))
            finally:
                if signum == signal.SIGSTOP:
                    os.kill(leader.pid, signal.SIGCONT)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--signal", choices=("KILL", "STOP"), default="KILL")
    options = parser.parse_args()
    seconds = measure(options.trials, options.nodes, signal.Signals[f"SIG{options.signal}"])
    report = {
        "signal": options.signal,
        "nodes": options.nodes,
        "trials": options.trials,
        "median_s": round(statistics.median(seconds), 4),
        "worst_s": round(max(seconds), 4),
        "all_s": [round(each, 4) for each in seconds],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
