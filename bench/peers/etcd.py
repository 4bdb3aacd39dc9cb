"""etcd: three members, by aetcd on one channel to the leader.

- *pair*: one transaction (create where absent) under a lease that the process keeps, then one delete.  aetcd's own lock makes a
  lease for each acquire, and is half as fast.
- *handovers, elections*: the server's Lock and Unlock calls, which queue in order of arrival; aetcd has no stubs for them, so the
  two messages that they take are declared here.
- *topics*: one key a message, and a watch of their prefix, which is what etcd has for it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from bench.peers.system import VALUE, Client, System, free_ports


class EtcdClient(Client):
    async def open(self, users: int) -> None:
        self.etcd = await _leader(self.servers)
        self.lease = await self.etcd.lease(self.ttl_s)
        self.keeping = asyncio.ensure_future(self._keep_alive())
        self.lock, self.unlock = _lock_calls(self.etcd.channel)
        self.leases = [await self.etcd.lease(3600) for _ in range(min(users, 64))]
        self.held: dict[int, bytes] = {}
        self.prefix = b"/bench/%d/" % time.monotonic_ns()
        self.published = 0

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self.ttl_s / 3)
            await self.lease.refresh()

    async def pair(self, number: int) -> None:
        key, made = self.prefix + b"lock/%d" % number, self.etcd.transactions
        done, _ = await self.etcd.transaction([made.create(key) == 0], [made.put(key, b"me", lease=self.lease)], [])
        assert done, "an uncontended lock was not granted"
        await self.etcd.delete(key)

    async def acquire(self, number: int) -> None:
        self.held[number] = await self.lock(b"/bench/the-lock", self.leases[number].id)

    async def release(self, number: int) -> None:
        await self.unlock(self.held.pop(number))

    async def write(self, number: int) -> None:
        await self.etcd.put(self.prefix + b"value/%d" % number, VALUE)

    async def read(self, number: int) -> None:
        await self.etcd.get(self.prefix + b"value/%d" % number)

    async def publish(self, message: bytes) -> None:
        self.published += 1
        await self.etcd.put(b"/bench/topic" + self.prefix + b"%012d" % self.published, message)

    async def subscribe(self, heard: Callable[[bytes], object]) -> None:
        watch = await self.etcd.watch_prefix(b"/bench/topic")

        async def listen() -> None:
            async for event in watch:
                heard(event.kv.value)

        self.listening = [*getattr(self, "listening", ()), asyncio.ensure_future(listen())]

    async def campaign(self, name: str) -> None:
        self.held[-1] = await self.lock(f"/bench/{name}".encode(), self.lease.id)

    async def resign(self) -> None:
        await self.unlock(self.held.pop(-1))


async def _leader(servers: Sequence[str]) -> Any:
    """Return a client that is connected to the leader: what is asked of another member costs it a hop."""
    import aetcd

    host, port = servers[0].split(":")
    async with aetcd.Client(host, int(port), timeout=2) as first:
        leader = urlsplit((await first.status()).leader.client_urls[0])
    client = aetcd.Client(leader.hostname, leader.port, timeout=60)
    await client.connect()
    return client


def _lock_calls(channel: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the calls of etcd's lock service (v3lock.proto): lock a name under a lease, which gives a key; unlock that key."""
    request, answer = _message("LockRequest", name=12, lease=3), _message("LockResponse", header=12, key=12)
    by_key, anything = _message("UnlockRequest", key=12), _message("UnlockResponse", header=12)
    lock = channel.unary_unary("/v3lockpb.Lock/Lock", request.SerializeToString, answer.FromString)
    unlock = channel.unary_unary("/v3lockpb.Lock/Unlock", by_key.SerializeToString, anything.FromString)

    async def do_lock(name: bytes, lease: int) -> bytes:
        key: bytes = (await lock(request(name=name, lease=lease))).key
        return key

    async def do_unlock(key: bytes) -> None:
        await unlock(by_key(key=key))

    return do_lock, do_unlock


def _message(message: str, /, **fields: int) -> Any:
    """Declare a protobuf message whose fields are numbered in order; their types by protobuf's numbers (3: int64, 12: bytes)."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name=f"{message}.proto", package="bench", syntax="proto3")
    declared = file.message_type.add(name=message)
    for number, (field, kind) in enumerate(fields.items(), 1):
        declared.field.add(name=field, number=number, type=kind, label=1)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{message}"))


class Etcd(System):
    name = "etcd"
    promise = "three members, synced by a majority"
    measures = frozenset({"pairs", "handovers", "writes", "reads", "publish", "fan-out", "elections"})
    client = EtcdClient
    packages = ("etcd-server",)
    requirements = ("aetcd==1.0.0", "protobuf>=6,<8")
    programs = ("etcd",)

    def start(self) -> None:
        ports = free_ports(6)
        clients, peers = ports[:3], [f"http://127.0.0.1:{port}" for port in ports[3:]]
        cluster = ",".join(f"n{number}={peer}" for number, peer in enumerate(peers))
        for number, (port, peer) in enumerate(zip(clients, peers, strict=True)):
            own = f"http://127.0.0.1:{port}"
            options = {
                "name": f"n{number}",
                "data-dir": f"n{number}",
                "listen-client-urls": own,
                "advertise-client-urls": own,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": cluster,
                "quota-backend-bytes": str(8 * 10**9),
                "log-level": "error",
            }
            self.run(f"n{number}", [self.program("etcd"), *(f"--{name}={value}" for name, value in options.items())])
        self.servers = [f"127.0.0.1:{port}" for port in clients]
