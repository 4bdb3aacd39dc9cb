"""One client process that keeps a number of handles busy for a while, and prints one JSON line about it.

    python -m bench.workload URL locks|writes HANDLES SECONDS

It prints READY when its handles are warm, starts when a line comes on stdin, and ends with the line
`{"operations": n, "seconds": s, "cpu_seconds": c, "p50_ms": .., "p99_ms": ..}`.  An operation is one acquire and release of an
uncontended lock (a pair), or one write of 128 bytes.  All handles share one session and one connection, as the tasks of one
process do.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from coord_core import AsyncClient

VALUE = b"v" * 128
Operation = Callable[[], Awaitable[object]]


def lock_pair(client: AsyncClient, number: int) -> Operation:
    lock = client.lock(f"/bench/lock-{number}")

    async def pair() -> None:
        if await lock.acquire() is None:
            raise RuntimeError("an uncontended lock was not granted")
        await lock.release()

    return pair


def value_write(client: AsyncClient, number: int) -> Operation:
    value = client.value(f"/bench/value-{number}")

    async def write() -> None:
        await value.set(VALUE)

    return write


OPERATIONS = {"locks": lock_pair, "writes": value_write}


async def keep_busy(operation: Operation, end: float, latencies: list[float]) -> None:
    clock = time.perf_counter
    begun = clock()
    while begun < end:
        await operation()
        now = clock()
        latencies.append(now - begun)
        begun = now


async def run(url: str, workload: str, handles: int, seconds: float) -> dict[str, float]:
    async with AsyncClient(url) as client:
        operations = [OPERATIONS[workload](client, number) for number in range(handles)]
        await asyncio.gather(*(operation() for operation in operations))
        print("READY", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        latencies: list[float] = []
        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.gather(*(keep_busy(operation, begun + seconds, latencies) for operation in operations))
        return summary(latencies, time.perf_counter() - begun, time.process_time() - cpu)


def summary(latencies: list[float], seconds: float, cpu_seconds: float) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        "operations": len(ordered),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))), flush=True)
