"""Real stores for these tests: a PostgreSQL and a Redis of our own, each on a Unix socket in a directory of its own."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

_SECONDS_MAX = 30


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Run a server; yield its SQLAlchemy URL.  It refuses to run as root, so root runs it as the user that its package made."""
    postgres, initdb = _postgresql_program("postgres"), _postgresql_program("initdb")
    as_whom: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    # Not below pytest's directory, which only its owner may enter; and a socket's path is short.
    directory = Path(tempfile.mkdtemp(prefix="coord-pg-"))
    try:
        if as_whom:
            os.chown(directory, pwd.getpwnam("postgres").pw_uid, -1)
        data, log = directory / "data", directory / "log"
        initdb_command: list[str | Path] = [
            initdb,
            "-D",
            data,
            "-U",
            "coord",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        made = subprocess.run(initdb_command, capture_output=True, text=True, check=False, cwd="/", **as_whom)
        assert made.returncode == 0, made.stdout + made.stderr
        command: list[str | Path] = [postgres, "-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off"]
        process: subprocess.Popen[bytes]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd="/", **as_whom)
        try:
            url = f"postgresql+psycopg://coord@/postgres?host={directory}"
            _wait_for_database(url, process, log)
            yield url
        finally:
            # "Fast": SIGTERM would wait for clients to leave.
            process.send_signal(signal.SIGINT)
            process.wait(_SECONDS_MAX)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _postgresql_program(name: str) -> Path:
    """Debian keeps the server's programs out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if found:
        return found[-1]
    if (in_path := shutil.which(name)) is not None:
        return Path(in_path)
    pytest.fail("the tests of fencing need PostgreSQL: run `make deps`, or install the Debian package postgresql")


def _wait_for_database(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    end = time.monotonic() + _SECONDS_MAX
    while True:
        assert process.poll() is None, log.read_text()
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run a server; yield the path of its socket."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.fail("the tests of fencing need redis-server: run `make deps`, or install the Debian package redis-server")
    with tempfile.TemporaryDirectory(prefix="coord-redis-") as directory:
        socket = f"{directory}/redis.sock"
        command = [binary, "--port", "0", "--unixsocket", socket, "--dir", directory, "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_for_redis(socket, process)
            yield socket
        finally:
            process.terminate()
            process.wait(_SECONDS_MAX)


def _wait_for_redis(socket: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _SECONDS_MAX
    with redis.Redis(unix_socket_path=socket) as client:
        while True:
            assert process.poll() is None, "redis-server has ended"
            with contextlib.suppress(redis.ConnectionError):
                if client.ping():
                    return
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.02)
