"""A node as a process of its own: `serve`, which the command line calls.  Put together it is in `server`."""

import asyncio
import contextlib
import logging
import resource
import signal
import sys
import time

import uvloop

from coord_core.config import ServerConfig
from coord_core.server import garbage
from coord_core.server.peers import BACKOFF_S_MAX, DIAL_TIMEOUT_S
from coord_core.server.server import Server

__all__ = ["Server", "serve"]

log = logging.getLogger("coord.server")

#: A node that is to found a cluster by itself listens for so long before: within it every member that is up dials one that is not.
LISTEN_FIRST_S = DIAL_TIMEOUT_S + BACKOFF_S_MAX


def serve(config: ServerConfig) -> None:
    """Run one node until SIGTERM or SIGINT; raises the error because of which it stopped otherwise.

    To be called once in a process, in its main thread: it sets signal handlers, the limit of open files, the interpreter's
    switch interval and the garbage collector.
    """
    _allow_many_files()
    _share_interpreter_readily()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config))


async def _serve(config: ServerConfig) -> None:
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    began = time.monotonic()
    # Before the node runs: a collection of all that was imported would be its first stall.
    garbage.tame()
    server = Server(config, listen_first_s=LISTEN_FIRST_S)
    asked = asyncio.ensure_future(asked_to_stop.wait())
    starting = asyncio.ensure_future(server.start())
    await asyncio.wait([starting, asked], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        return
    await starting
    garbage.keep()
    log.info("node %s started in %.2f s", config.name, time.monotonic() - began)
    ended = asyncio.ensure_future(server.wait_stopped())
    try:
        await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        await server.stop()
    await ended


def _share_interpreter_readily() -> None:
    """Let the storage thread have the interpreter soon when it comes back from the disk.

    It needs it for microseconds.  By default the loop may keep it for 5 ms, forty times as long as the write took.  In three pairs
    of runs on a busy machine that cost a leader with 64 sessions 13, 32 and 49 % of its lock pairs.
    """
    sys.setswitchinterval(0.0005)


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
