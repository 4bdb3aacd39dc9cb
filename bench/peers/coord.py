"""coord: three nodes by `coord dev`; one session and one connection a client process.

Every answer to a write comes after a majority has synced it; reads are linearizable.
"""

from collections.abc import Callable
from typing import Any

from bench.cluster import Cluster
from bench.peers.system import VALUE, Client, System
from coord_core import AsyncClient


class CoordClient(Client):
    async def open(self, users: int) -> None:
        self.client = AsyncClient(f"{self.servers[0]}?ttl={self.ttl_s}s")
        await self.client.wait_connected(10)
        self.locks = [self.client.lock(f"/bench/{id(self)}/{number}") for number in range(users)]
        self.claims = [self.client.lock("/bench/the-lock") for _ in range(users)]
        self.values = [self.client.value(f"/bench/{number}") for number in range(users)]
        self.topic = self.client.topic("/bench/topic")

    async def pair(self, number: int) -> None:
        lock = self.locks[number]
        await lock.acquire()
        await lock.release()

    async def acquire(self, number: int) -> None:
        await self.claims[number].acquire()

    async def release(self, number: int) -> None:
        await self.claims[number].release()

    async def write(self, number: int) -> None:
        await self.values[number].set(VALUE)

    async def read(self, number: int) -> None:
        await self.values[number].get()

    async def publish(self, message: bytes) -> None:
        await self.topic.publish(message)

    async def subscribe(self, heard: Callable[[bytes], object]) -> None:
        async def listen(message: Any) -> None:
            heard(message.payload)

        await self.topic.on_message(listen)

    async def campaign(self, name: str) -> None:
        self.candidacy = await self.client.election(f"/bench/{name}").enter()
        await self.candidacy.wait_elected()

    async def resign(self) -> None:
        await self.candidacy.resign()


class Coord(System):
    name = "coord"
    promise = "three nodes, synced by a majority"
    measures = frozenset({"pairs", "handovers", "writes", "reads", "publish", "fan-out", "elections"})
    client = CoordClient

    def start(self) -> None:
        cluster = self._undo.enter_context(Cluster())
        self.servers = [cluster.url]
        self.pids = [node.pid for node in cluster.nodes]
