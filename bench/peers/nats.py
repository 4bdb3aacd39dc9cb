"""NATS with JetStream: three servers and a stream of three replicas, by nats-py.

A publish is acknowledged by a majority of the replicas, which write to files but do not sync them.  Subscribers are ordered
consumers.  Locks and elections it has none.
"""

import asyncio
import contextlib
from collections.abc import Callable

from bench.peers.system import Client, System, free_ports


class NatsClient(Client):
    async def open(self, users: int) -> None:
        import nats
        from nats.js.api import StreamConfig

        self.nats = await nats.connect([f"nats://{server}" for server in self.servers], connect_timeout=5)
        self.stream = self.nats.jetstream(timeout=10)
        config = StreamConfig(name="BENCH", subjects=["bench"], num_replicas=3)
        with contextlib.suppress(nats.js.errors.BadRequestError):  # another process has made it
            await self.stream.add_stream(config)
        self.listening: list[asyncio.Future[None]] = []

    async def publish(self, message: bytes) -> None:
        await self.stream.publish("bench", message)

    async def subscribe(self, heard: Callable[[bytes], object]) -> None:
        from nats.js.api import ConsumerConfig, DeliverPolicy

        only_new = ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
        subscription = await self.stream.subscribe("bench", ordered_consumer=True, config=only_new)

        async def listen() -> None:
            async for message in subscription.messages:
                heard(message.data)

        self.listening.append(asyncio.ensure_future(listen()))


class Nats(System):
    name = "nats"
    promise = "three servers, a majority of three replicas, not synced"
    measures = frozenset({"publish", "fan-out"})
    client = NatsClient
    packages = ("nats-server",)
    requirements = ("nats-py==2.16.0",)
    programs = ("nats-server",)

    def start(self) -> None:
        ports = free_ports(6)
        clients, routes = ports[:3], [f"nats://127.0.0.1:{port}" for port in ports[3:]]
        for number, (port, route) in enumerate(zip(clients, routes, strict=True)):
            own = ["--addr", "127.0.0.1", "--port", str(port), "--name", f"n{number}"]
            stream = ["--jetstream", "--store_dir", str(self.directory / f"n{number}")]
            cluster = ["--cluster_name", "bench", "--cluster", route, "--routes", ",".join(routes)]
            self.run(f"n{number}", [self.program("nats-server"), *own, *stream, *cluster])
        self.servers = [f"127.0.0.1:{port}" for port in clients]
