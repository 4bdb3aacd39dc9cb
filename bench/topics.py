"""Messages a second against value writes a second, and what a topic costs a node's memory: `python -m bench.topics --count 200000`.

One client keeps so many calls under way at a time, first writing values, then publishing messages of the same size, on the same
cluster; then it reads the topic from its beginning.  Prints rates, their ratio, the processor time of all nodes an operation, and
by how much each node's resident memory has grown while messages were published (the values come first, so that what every log costs
is there already).
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import coord_core
from bench.cluster import Cluster
from bench.processes import cpu_seconds_of, resident_mb


async def _keep_going(count: int, at_a_time: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Call `count` times, so many under way at a time; return calls a second."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await call(number)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_a_time)))
    return count / (time.perf_counter() - began)


async def measure(cluster: Cluster, count: int, size: int, at_a_time: int) -> dict[str, object]:
    pids = {node.name: node.pid for node in cluster.nodes}

    def cpu() -> float:
        return sum(cpu_seconds_of(pids.values()).values())

    def memory() -> dict[str, float]:
        return {name: resident_mb(pid) for name, pid in pids.items()}

    payload = b"x" * size
    async with coord_core.AsyncClient(cluster.url) as client:
        topic = client.topic("/bench")
        values = [client.value(f"/bench/{number}") for number in range(at_a_time)]
        await _keep_going(2_000, at_a_time, lambda number: values[number % at_a_time].set(payload))
        began = cpu()
        # Enough of them that each node has taken a snapshot or two.
        writes = max(60_000, count // 4)
        value_rate = await _keep_going(writes, at_a_time, lambda number: values[number % at_a_time].set(payload))
        value_cpu = (cpu() - began) / writes
        before, began = memory(), cpu()
        topic_rate = await _keep_going(count, at_a_time, lambda number: topic.publish(payload))
        topic_cpu = (cpu() - began) / count
        after = memory()
        began_s, read = time.perf_counter(), 0
        while messages := await topic.read(read, 10_000):
            read += len(messages)
        read_rate = read / (time.perf_counter() - began_s)
        at_the_end = memory()
    return {
        "messages": count,
        "bytes": size,
        "value_writes_per_s": round(value_rate),
        "messages_per_s": round(topic_rate),
        "ratio": round(topic_rate / value_rate, 3),
        "cpu_us_value": round(value_cpu * 1e6, 1),
        "cpu_us_message": round(topic_cpu * 1e6, 1),
        "read": read,
        "messages_read_per_s": round(read_rate),
        "grown_mb": {name: round(after[name] - before[name], 1) for name in pids},
        "grown_mb_after_reading": {name: round(at_the_end[name] - before[name], 1) for name in pids},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=200_000, help="messages")
    parser.add_argument("--size", type=int, default=200, help="bytes of each")
    parser.add_argument("--at-a-time", type=int, default=256, help="calls under way")
    parser.add_argument("--nodes", type=int, default=3)
    asked = parser.parse_args()
    with Cluster(asked.nodes) as cluster:
        print(json.dumps(asyncio.run(measure(cluster, asked.count, asked.size, asked.at_a_time))))


if __name__ == "__main__":
    main()
