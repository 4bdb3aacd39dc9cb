"""ZooKeeper: three servers, by kazoo on one session to the leader.

- *pair, writes, reads*: kazoo's asynchronous calls: create an ephemeral node and delete it; set; sync and then get, which is what a
  linearizable read takes.
- *handovers, elections*: kazoo's Lock recipe, each user on a thread of its own, as it blocks.
- Topics it has none.

kazoo calls back on threads of its own; what has completed is handed to the event loop in one go, however much it is.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.peers.system import VALUE, Client, System, free_ports

_JARS = (
    *("zookeeper", "zookeeper-jute", "snappy-java", "metrics-core", "commons-cli", "log4j-1.2", "slf4j-api", "slf4j-log4j12"),
    *("netty-all", "netty-handler", "netty-common", "netty-buffer", "netty-transport", "netty-codec", "netty-resolver"),
    *("netty-transport-native-epoll", "netty-transport-native-unix-common"),
)

_LOGGING = """
log4j.rootLogger=ERROR, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.SimpleLayout
"""


class ZookeeperClient(Client):
    async def open(self, users: int) -> None:
        from kazoo.client import KazooClient

        self.loop = asyncio.get_running_loop()
        self.completed: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self.zookeeper = KazooClient(hosts=await asyncio.to_thread(_leader, self.servers), timeout=self.ttl_s)
        await asyncio.to_thread(self.zookeeper.start)
        self.place = f"/bench-{self.zookeeper.client_id[0]}"
        for number in range(users):
            await asyncio.to_thread(self.zookeeper.ensure_path, f"{self.place}/value-{number}")
        self.threads = ThreadPoolExecutor(min(users, 64) + 1)
        self.claims = [self.zookeeper.Lock("/bench/the-lock") for _ in range(users)]

    def _when_done(self, result: Any) -> "asyncio.Future[Any]":
        """Return a future of this loop for one of kazoo's."""
        future = self.loop.create_future()

        def done(result: Any) -> None:
            self.completed.append((future, result))
            if len(self.completed) == 1:
                self.loop.call_soon_threadsafe(self._hand_over)

        result.rawlink(done)
        return future

    def _hand_over(self) -> None:
        # The last is taken out only when it has been dealt with: until then whoever adds one need not call again.
        while self.completed:
            future, result = self.completed[0]
            if result.exception is None:
                future.set_result(None)
            else:
                future.set_exception(result.exception)
            self.completed.popleft()

    async def pair(self, number: int) -> None:
        path = f"{self.place}/lock-{number}"
        await self._when_done(self.zookeeper.create_async(path, b"me", ephemeral=True))
        await self._when_done(self.zookeeper.delete_async(path))

    def _blocking(self, call: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return self.loop.run_in_executor(self.threads, call, *arguments)

    async def acquire(self, number: int) -> None:
        await self._blocking(self.claims[number].acquire)

    async def release(self, number: int) -> None:
        await self._blocking(self.claims[number].release)

    async def write(self, number: int) -> None:
        await self._when_done(self.zookeeper.set_async(f"{self.place}/value-{number}", VALUE))

    async def read(self, number: int) -> None:
        path = f"{self.place}/value-{number}"
        self.zookeeper.sync_async(path)  # answered before what follows on the same session
        await self._when_done(self.zookeeper.get_async(path))

    async def campaign(self, name: str) -> None:
        self.candidacy = self.zookeeper.Lock(f"/bench/{name}")
        await self._blocking(self.candidacy.acquire)

    async def resign(self) -> None:
        await self._blocking(self.candidacy.release)


def _leader(servers: Sequence[str]) -> str:
    """Return the leader's address.  Raises `OSError` where there is none yet."""
    for server in servers:
        if b"Mode: leader" in _asked(server, b"srvr"):
            return server
    raise ConnectionError("no server of ZooKeeper leads")


def _asked(server: str, command: bytes) -> bytes:
    """Return what a server answers to one of its four-letter commands."""
    host, port = server.split(":")
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        connection.sendall(command)
        return b"".join(iter(lambda: connection.recv(4096), b""))


class Zookeeper(System):
    name = "zookeeper"
    promise = "three servers, synced by a majority"
    measures = frozenset({"pairs", "handovers", "writes", "reads", "elections"})
    client = ZookeeperClient
    packages = (
        *("zookeeper", "libzookeeper-java", "liblog4j1.2-java", "libnetty-java", "libsnappy-java", "libslf4j-java"),
        *("libdropwizard-metrics-java", "libcommons-cli-java"),
    )
    requirements = ("kazoo==2.11.0",)
    programs = ("java",)

    def start(self) -> None:
        ports = free_ports(9)
        clients, quorum, election = ports[:3], ports[3:6], ports[6:]
        members = [f"server.{n + 1}=127.0.0.1:{quorum[n]}:{election[n]}" for n in range(3)]
        logging = self.directory / "log4j.properties"
        logging.write_text(_LOGGING)
        jars = ":".join(str(self.root / f"usr/share/java/{jar}.jar") for jar in _JARS)
        options = [f"-Dlog4j.configuration=file:{logging}", "-Dzookeeper.admin.enableServer=false", "-Xmx1g", "-cp", jars]
        for number in range(3):
            data = self.directory / f"n{number}"
            data.mkdir()
            (data / "myid").write_text(str(number + 1))
            config = self.directory / f"n{number}.cfg"
            own = ["tickTime=2000", "initLimit=10", "syncLimit=5", f"dataDir={data}", f"clientPort={clients[number]}"]
            config.write_text("\n".join([*own, "maxClientCnxns=0", "4lw.commands.whitelist=srvr", *members, ""]))
            main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
            self.run(f"n{number}", [self.program("java"), *options, main, str(config)])
        self.servers = [f"127.0.0.1:{port}" for port in clients]
