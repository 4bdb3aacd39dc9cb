"""One client process of one system, and its handle in the process that measures.

    python -m bench.peers.worker SYSTEM TTL_S USERS SERVER...

It connects as soon as its servers let it, says so, and then answers each line of stdin, `["what", {arguments}]`, with one line of
JSON.  It stays for all rounds: what a process costs when it starts is not measured, and one that has nothing to do costs nothing.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.peers import measures
from bench.peers.system import Client
from bench.peers.systems import SYSTEMS

#: Until the servers have elected a leader and taken a client; a slow disk under load takes a while.
START_S_MAX = 60.0
_TREE = Path(__file__).parents[2]


class Told:
    """What a process obeys."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._campaign: asyncio.Future[int] | None = None
        self._heard_ms: list[float] = []

    async def rate(self, **asked: Any) -> dict[str, Any]:
        return await measures.rate(self._client, **asked)

    async def handovers(self, **asked: Any) -> dict[str, Any]:
        return await measures.handovers(self._client, **asked)

    async def publish_at_rate(self, **asked: Any) -> dict[str, Any]:
        return await measures.publish_at_rate(self._client, **asked)

    async def subscribe(self, count: int) -> int:
        for _ in range(count):
            await self._client.subscribe(lambda told: self._heard_ms.append(_age_ms(told)))
        return count

    async def heard(self) -> list[float]:
        """Return the milliseconds of all that was heard since it was asked last."""
        await asyncio.sleep(0.3)
        heard, self._heard_ms = self._heard_ms, []
        return heard

    async def campaign(self, name: str) -> None:
        """Begin to; `elected` waits."""

        async def run() -> int:
            await self._client.campaign(name)
            return time.monotonic_ns()

        self._campaign = asyncio.ensure_future(run())

    async def elected(self) -> int:
        """Return when this process knew that it leads."""
        assert self._campaign is not None
        return await self._campaign

    async def resign(self) -> int:
        """Return when it began to."""
        began = time.monotonic_ns()
        await self._client.resign()
        return began


async def serve(system: str, ttl_s: int, users: int, servers: Sequence[str]) -> None:
    told = Told(await _open(lambda: SYSTEMS[system].client(servers, ttl_s), users))
    print(json.dumps("READY"), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, arguments = json.loads(line)
        try:
            print(json.dumps(await getattr(told, what)(**arguments)), flush=True)
        except Exception as error:  # noqa: BLE001 - of any library; it is told, and the other systems go on
            print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}), flush=True)


async def _open(make: Callable[[], Client], users: int) -> Client:
    end = time.monotonic() + START_S_MAX
    while True:
        client = make()
        try:
            await asyncio.wait_for(_first_use(client, users), 20)
        except Exception:  # of any library: the servers are not up yet
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.3)
        else:
            return client


async def _first_use(client: Client, users: int) -> None:
    await client.open(users)
    with contextlib.suppress(NotImplementedError):
        await client.publish(measures.message())
    with contextlib.suppress(NotImplementedError):
        await client.write(0)


def _age_ms(message: bytes) -> float:
    return (time.monotonic_ns() - int.from_bytes(message[:8], "big")) / 1e6


class Worker:
    """A context manager; `ask` waits for the answer, `tell` and `answer` are its halves."""

    def __init__(self, python: str, system: str, servers: Sequence[str], *, users: int, ttl_s: int = 30) -> None:
        command = [python, "-m", "bench.peers.worker", system, str(ttl_s), str(users), *servers]
        where = {**os.environ, "PYTHONPATH": str(_TREE), "GRPC_VERBOSITY": "NONE"}
        self.process = subprocess.Popen(
            command, cwd=_TREE, env=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        """Wait until it is connected.  Raises `RuntimeError` where it cannot."""
        self.answer()

    def tell(self, what: str, /, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client ended: {self.process.stderr.read()[-600:]}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def ask(self, what: str, /, **arguments: Any) -> Any:
        self.tell(what, **arguments)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.kill()


def _run(main: Awaitable[None]) -> None:
    import uvloop

    uvloop.run(main)  # type: ignore[arg-type]


if __name__ == "__main__":
    _run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
    os._exit(0)  # some libraries' threads would not
