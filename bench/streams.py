"""What comes out of the service, and how fast: `python -m bench.streams`.

- *publish*: one client keeps 1, 64 and 256 publishes of 128 bytes under way; each completes when it is durable on a majority.
- *fan-out*: 200 messages a second, told to 1 and 10 subscribers in another process; from the call of publish to the subscriber.
- *reads*: linearizable reads of a value, 64 under way.
- *resign*: from the call of `resign` of a leader to the next candidate knowing that it leads, in another process.
- *death*: from SIGKILL to a leader's process to the next candidate knowing it; less the TTL, which the cluster must wait.

Processes share CLOCK_MONOTONIC.  One JSON line a figure, medians of `--rounds`.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import coord_core
from bench.cluster import Cluster

SECONDS = 2.0
TTL_S = 2.0
RATE = 200


def percentile(values: Sequence[float], part: float) -> float:
    found = sorted(values)
    return found[min(len(found) - 1, int(len(found) * part))]


def say(what: str, **figures: Any) -> None:
    print(json.dumps({"what": what, **figures, "load": round(os.getloadavg()[0], 1)}), flush=True)


def message() -> bytes:
    return time.monotonic_ns().to_bytes(8, "big") + b"m" * 120


# --- how many ---------------------------------------------------------------------------------------------------------------------


async def _rate(call: Callable[[], Awaitable[object]], under_way: int) -> tuple[float, list[float]]:
    """Return calls a second, and each one's milliseconds."""
    took: list[float] = []
    began = time.perf_counter()

    async def go() -> None:
        while (start := time.perf_counter()) - began < SECONDS:
            await call()
            took.append((time.perf_counter() - start) * 1000)

    await asyncio.gather(*(go() for _ in range(under_way)))
    return len(took) / (time.perf_counter() - began), took


async def measure_rates(url: str, rounds: int) -> None:
    async with coord_core.AsyncClient(url) as client:
        topic, value = client.topic("/bench/t"), client.value("/bench/v")
        await value.set(b"v" * 128)
        handles = iter([client.value("/bench/v") for _ in range(64)] * 1_000_000)
        calls: list[tuple[str, int, Callable[[], Awaitable[object]]]] = [
            *(("publish", under_way, lambda: topic.publish(message())) for under_way in (1, 64, 256)),
            ("read", 64, lambda: next(handles).get()),
        ]
        for what, under_way, call in calls:
            found = [await _rate(call, under_way) for _ in range(rounds)]
            rates, took = [rate for rate, _ in found], [each for _, each_round in found for each in each_round]
            say(
                what,
                under_way=under_way,
                a_second=round(statistics.median(rates)),
                p50_ms=round(percentile(took, 0.5), 2),
                p99_ms=round(percentile(took, 0.99), 2),
            )


# --- how soon ---------------------------------------------------------------------------------------------------------------------


async def subscribers(url: str, count: int) -> None:
    """In a process of its own: say READY, take what is told until the input ends, print the milliseconds."""
    took: list[float] = []

    async def listen(told: Any) -> None:
        took.append((time.monotonic_ns() - int.from_bytes(told.payload[:8], "big")) / 1e6)

    async with coord_core.AsyncClient(url) as client:
        for _ in range(count):
            await client.topic("/bench/fan").on_message(listen)
        print("READY", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.sleep(0.5)
        print(json.dumps(took), flush=True)


async def measure_fan_out(url: str, rounds: int) -> None:
    async with coord_core.AsyncClient(url) as client:
        topic = client.topic("/bench/fan")
        await topic.publish(b"")
        for count in (1, 10):
            took: list[float] = []
            sent = 0
            for _ in range(rounds):
                process = _beside(url, "--subscribers", str(count))
                began = time.perf_counter()
                publishing = []
                while (now := time.perf_counter()) - began < SECONDS:
                    publishing.append(asyncio.ensure_future(topic.publish(message())))
                    await asyncio.sleep(max(0.0, began + len(publishing) / RATE - now))
                await asyncio.gather(*publishing)
                sent += len(publishing) * count
                took += await asyncio.to_thread(_ask, process)
            delivered = round(len(took) / sent, 3)
            p50, p99 = (round(percentile(took, part), 2) for part in (0.5, 0.99))
            say("fan-out", subscribers=count, p50_ms=p50, p99_ms=p99, delivered=delivered)


def candidate(url: str) -> None:
    """In a process of its own: lead when elected, resign when told to."""
    with coord_core.connect(f"{url}?ttl={int(TTL_S * 1000)}ms") as client:
        candidacy = client.election("/bench/e").enter()
        print("READY", flush=True)
        candidacy.wait_elected()
        print(time.monotonic_ns(), flush=True)
        sys.stdin.readline()
        began = time.monotonic_ns()
        candidacy.resign()
        print(began, flush=True)


def measure_elections(url: str, trials: int) -> None:
    leader = _beside(url, "--candidate")
    _line(leader)
    resigned, died = [], []
    for trial in range(2 * trials):
        successor = _beside(url, "--candidate")
        time.sleep(0.5 + 0.17 * (trial % 5))  # varies the phase against the keep-alives
        if trial % 2:
            began = time.monotonic_ns()
            leader.kill()
            died.append((int(_line(successor)) - began) / 1e9 - TTL_S)
        else:
            _tell(leader)
            began = int(_line(leader))
            resigned.append((int(_line(successor)) - began) / 1e6)
        leader.wait()
        leader = successor
    leader.kill()
    say("resign", median_ms=round(statistics.median(resigned), 2), worst_ms=round(max(resigned), 2), trials=trials)
    say("death, less the TTL", median_s=round(statistics.median(died), 3), worst_s=round(max(died), 3), ttl_s=TTL_S, trials=trials)


def _beside(url: str, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.streams", "--url", url, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ready = _line(process)
    assert ready.strip() == "READY", ready
    return process


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _ask(process: "subprocess.Popen[str]") -> list[float]:
    _tell(process)
    took: list[float] = json.loads(_line(process))
    process.wait()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=5, help="of each of the two kinds of election")
    parser.add_argument("--url", help="measure this cluster instead of a fresh one")
    parser.add_argument("--subscribers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--candidate", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subscribers:
        asyncio.run(subscribers(options.url, options.subscribers))
    elif options.candidate:
        candidate(options.url)
    elif options.url:
        _measure(options.url, options.rounds, options.trials)
    else:
        with Cluster() as cluster:
            _measure(cluster.url, options.rounds, options.trials)


def _measure(url: str, rounds: int, trials: int) -> None:
    asyncio.run(measure_rates(url, rounds))
    asyncio.run(measure_fan_out(url, rounds))
    measure_elections(url, trials)


if __name__ == "__main__":
    main()
