"""The story that fencing is for, with real processes and real stores.

A holder is stopped in the middle of its section, for longer than its lease.  The next one gets the lock and writes.  The first one
wakes up, knows nothing of that, and writes.
"""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from coord_core.errors import StaleToken
from coord_core.fencing import Fencing, MemoryFences, WsgiFencing
from tests.cli.running import Dev
from tests.fencing.conftest import fresh_schema
from tests.fencing.stores import KINDS, ColumnStore, SqlStore, open_store

NAME = "/jobs/nightly"
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("fencing")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Dev]:
    dev = Dev("--nodes", "1")
    yield dev
    assert dev.stop() == 0


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A kind of store, and where one of it is that is empty."""
    kind: str = request.param
    if kind == "sqlite":
        address = request.getfixturevalue("sqlite_url")
    elif kind == "redis":
        request.getfixturevalue("redis_client")
        address = request.getfixturevalue("redis_socket")
    elif kind == "http":
        address = request.getfixturevalue("service")
    else:
        address = fresh_schema(request.getfixturevalue("postgresql_url"))
    store = open_store(kind, address)
    if isinstance(store, SqlStore | ColumnStore):
        store.prepare()
    return kind, address


# --- one process is stopped ------------------------------------------------------------------------------------------------------


class Writer:
    def __init__(self, url: str, place: tuple[str, str]) -> None:
        command = [sys.executable, "-m", "tests.fencing.late_writer", url, *place]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def hears(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def goes_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_holder_that_slept_over_its_lease_writes_nothing(cluster: Dev, place: tuple[str, str]):
    """Its successor's write stands."""
    url = f"{cluster.url}/late-{place[0]}?ttl=500ms"
    first = second = None
    try:
        first = Writer(url, place)
        old = int(first.hears().removeprefix("holds "))
        if place[0].endswith("guard-last"):
            assert first.hears() == "in the middle"
        os.kill(first.process.pid, signal.SIGSTOP)

        second = Writer(url, place)
        new = int(second.hears().removeprefix("holds "))
        if place[0].endswith("guard-last"):
            assert second.hears() == "in the middle"
        second.goes_on()
        assert second.hears() == "wrote"

        os.kill(first.process.pid, signal.SIGCONT)
        first.goes_on()
        assert first.hears() == f"stale {new}"
        assert new > old
        assert open_store(*place).written() == [new]
    finally:
        for writer in (first, second):
            if writer is not None:
                writer.end()


# --- many at once ----------------------------------------------------------------------------------------------------------------

WRITERS, WRITES = 6, 25


def _write_many(place: tuple[str, str], seed: int, begin: threading.Barrier) -> list[int]:
    """Write under random tokens; return those that were accepted."""
    luck, store, accepted = random.Random(seed), open_store(*place), list[int]()
    begin.wait()
    for step in range(WRITES):
        # A little greater each time, so that both answers come often.
        token = luck.randint(1, 40) + 3 * step
        try:
            store.write(token, NAME)
            accepted.append(token)
        except StaleToken:
            continue
    return accepted


# Whose guard comes last numbers its log before it, so that log does not show the order of commits.
@pytest.mark.parametrize("place", [kind for kind in KINDS if not kind.endswith("guard-last")], indirect=True)
@pytest.mark.parametrize("seed", range(2))
def test_tokens_of_what_takes_effect_never_fall(place: tuple[str, str], seed: int):
    """Whatever tokens come in whatever order from however many writers; and what was accepted is there, once."""
    begin = threading.Barrier(WRITERS)
    with ThreadPoolExecutor(WRITERS) as threads:
        running = [threads.submit(_write_many, place, 100 * seed + writer, begin) for writer in range(WRITERS)]
        accepted = [token for each in running for token in each.result()]
    written = open_store(*place).written()
    assert written == sorted(written)
    assert sorted(accepted) == written
    assert 0 < len(written) < WRITERS * WRITES, "both answers must have come"


# --- a service of our own --------------------------------------------------------------------------------------------------------


class Service:
    """Takes one request at a time, so what passes its door takes effect in that order."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        fencing = environ.get("coord.fencing")
        if isinstance(fencing, Fencing):
            self.written.append(fencing.token)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [" ".join(map(str, self.written)).encode()]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = make_server("127.0.0.1", 0, WsgiFencing(Service(), MemoryFences()), handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
