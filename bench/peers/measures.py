"""What is measured, as one client process does it.  Each function returns what `rounds` writes down.

Processes on one machine share CLOCK_MONOTONIC, so a message carries the moment of its publishing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bench.peers.system import Client

#: Messages a second of the fan-out.
RATE = 200


def operation(client: Client, what: str) -> Callable[[int], Awaitable[object]]:
    """Return what one user does over and over."""
    if what == "publish":
        return lambda number: client.publish(message())
    calls = {"pairs": client.pair, "writes": client.write, "reads": client.read}
    return calls[what]


def message() -> bytes:
    """Return 128 bytes that begin with the time."""
    return time.monotonic_ns().to_bytes(8, "big") + b"m" * 120


async def rate(client: Client, what: str, users: int, seconds: float) -> dict[str, Any]:
    """Have so many users do it over and over."""
    call = operation(client, what)
    await asyncio.gather(*(call(number) for number in range(users)))  # names, connections and caches are made
    took: list[float] = []
    clock, cpu = time.perf_counter, time.process_time()
    began = clock()

    async def user(number: int) -> None:
        start = began
        while start - began < seconds:
            await call(number)
            end = clock()
            took.append(end - start)
            start = end

    await asyncio.gather(*map(user, range(users)))
    lasted = clock() - began
    return {"operations": len(took), "a_second": len(took) / lasted, "cpu_client": time.process_time() - cpu, **summary(took)}


async def handovers(client: Client, users: int, seconds: float) -> dict[str, Any]:
    """Have all of them want one lock; count how often it goes to another than the one before."""
    turns = [0] * users
    changes, last = 0, -1
    began, cpu = time.perf_counter(), time.process_time()

    async def user(number: int) -> None:
        nonlocal changes, last
        while time.perf_counter() - began < seconds:
            await client.acquire(number)
            changes, last = changes + (last != number), number
            turns[number] += 1
            await client.release(number)

    await asyncio.gather(*map(user, range(users)))
    a_second = changes / (time.perf_counter() - began)
    used = time.process_time() - cpu
    return {"operations": changes, "a_second": a_second, "cpu_client": used, "turns": [min(turns), max(turns)]}


async def publish_at_rate(client: Client, seconds: float) -> dict[str, Any]:
    """Publish at an even rate, for subscribers in another process."""
    began = time.perf_counter()
    publishing: list[asyncio.Future[None]] = []
    while (now := time.perf_counter()) - began < seconds:
        publishing.append(asyncio.ensure_future(client.publish(message())))
        await asyncio.sleep(max(0.0, began + len(publishing) / RATE - now))
    await asyncio.gather(*publishing)
    return {"published": len(publishing)}


def summary(seconds: Sequence[float]) -> dict[str, float]:
    return {"p50_ms": percentile(seconds, 0.5) * 1000, "p99_ms": percentile(seconds, 0.99) * 1000}


def percentile(values: Sequence[float], part: float) -> float:
    """Return NaN where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")
