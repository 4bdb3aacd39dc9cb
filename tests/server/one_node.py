"""`python -m tests.server.one_node DIRECTORY`: one node by itself, until SIGTERM.  It says its address when it leads."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

from coord_core.config import RaftTimes, ServerConfig
from coord_core.server import garbage
from coord_core.server.server import Server


async def main(path: Path) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    times = RaftTimes(tick_ms=10, election_timeout_ms=30, heartbeat_ms=10)
    server = await Server(ServerConfig(name="n1", data_dir=path, listen="127.0.0.1:0", init=True, raft=times)).start()
    await server.wait_formed()
    garbage.tame()
    while server.status().role != "leader":  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    print(server.client_address, flush=True)
    await stopped.wait()
    await server.stop()


logging.basicConfig(level=logging.INFO)
asyncio.run(main(Path(sys.argv[1])))
