"""Redis: one server, by its own asyncio client with a connection for each user.

- *pair, handovers, elections*: the client's Lock, which polls every 0.1 s while it waits and expires after its timeout.
- *topics*: streams.

`Redis` keeps what it knows in memory; `RedisSynced` syncs every write (appendfsync always).  Neither is replicated: what a
failover would lose of an asynchronous replica is not counted here.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from bench.peers.system import VALUE, Client, System, free_ports


class RedisClient(Client):
    async def open(self, users: int) -> None:
        import redis.asyncio

        host, port = self.servers[0].split(":")
        self.redis = redis.asyncio.Redis(host=host, port=int(port), max_connections=users + 16)
        await self.redis.ping()
        self.locks: dict[int, Any] = {}
        self.tasks: list[asyncio.Future[None]] = []

    async def pair(self, number: int) -> None:
        lock = self.redis.lock(f"lock-{number}", timeout=30)
        await lock.acquire()
        await lock.release()

    async def acquire(self, number: int) -> None:
        lock = self.locks[number] = self.redis.lock("the-lock", timeout=30)
        await lock.acquire()

    async def release(self, number: int) -> None:
        await self.locks.pop(number).release()

    async def write(self, number: int) -> None:
        await self.redis.set(f"value-{number}", VALUE)

    async def read(self, number: int) -> None:
        await self.redis.get(f"value-{number}")

    async def publish(self, message: bytes) -> None:
        await self.redis.xadd("topic", {"m": message})

    async def subscribe(self, heard: Callable[[bytes], object]) -> None:
        newest = await self.redis.xrevrange("topic", count=1)
        self.tasks.append(asyncio.ensure_future(self._listen(newest[0][0] if newest else "0", heard)))

    async def _listen(self, last: Any, heard: Callable[[bytes], object]) -> None:
        while True:
            answer: Any = await self.redis.xread({"topic": last}, block=0, count=100)
            for _, messages in answer:
                for number, fields in messages:
                    last = number
                    heard(fields[b"m"])

    async def campaign(self, name: str) -> None:
        lock = self.locks[-1] = self.redis.lock(name, timeout=self.ttl_s, thread_local=False)
        await lock.acquire()
        self.tasks.append(asyncio.ensure_future(self._keep(lock)))

    async def _keep(self, lock: Any) -> None:
        while True:
            await asyncio.sleep(self.ttl_s / 3)
            await lock.extend(self.ttl_s, replace_ttl=True)

    async def resign(self) -> None:
        self.tasks.pop().cancel()
        await self.locks.pop(-1).release()


class Redis(System):
    name = "redis"
    promise = "one server, neither replicated nor synced"
    measures = frozenset({"pairs", "handovers", "writes", "reads", "elections"})
    client = RedisClient
    packages = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "liblua5.1-0", "libatomic1")
    requirements = ("redis>=6",)
    programs = ("redis-server",)
    options: tuple[str, ...] = ("--save", "")

    def start(self) -> None:
        (port,) = free_ports(1)
        own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        self.run("redis", [self.program("redis-server"), *own, *self.options])
        self.servers = [f"127.0.0.1:{port}"]


class RedisSynced(Redis):
    name = "redis-synced"
    promise = "one server, not replicated, synced (appendfsync always)"
    measures = frozenset({"pairs", "writes", "publish", "fan-out"})
    options = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
