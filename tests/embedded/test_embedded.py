"""One process with an embedded node: the two clients, its files, its beginning and its end."""

import asyncio
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import coord_core
from coord_core.errors import InvalidUrl
from tests.cli.running import coord, until
from tests.embedded.users import who_serves

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def url(directory: Path) -> str:
    return f"coord+embedded://{directory}?ttl=5s"


@pytest.fixture
def client(url: str) -> Iterator[coord_core.Client]:
    with coord_core.connect(url) as found:
        yield found


def test_locks_values_and_topics_work_as_in_a_cluster(client: coord_core.Client):
    """It is the same server behind the same client."""
    with client.lock("/a") as grant:
        assert client.lock("/a").try_lock() is None
        grant.check()
    assert client.value("/v").set(b"one") > 0
    client.topic("/t").publish(b"hello")
    with client.topic("/t").subscribe("earliest") as messages:
        assert next(iter(messages)).payload == b"hello"


async def test_asynchronous_client_works_alike_and_shares_the_node(client: coord_core.Client, url: str):
    """One node a process and directory, however many clients."""
    held = await asyncio.to_thread(client.lock("/a").acquire)
    assert held is not None
    async with await coord_core.connect_async(url) as other:
        assert await other.lock("/a").try_lock() is None
        holder = await other.lock("/a").holder()
        assert holder is not None
        assert holder.token == held.token
    assert [thread.name for thread in threading.enumerate()].count("coord-embedded") == 1
    held.check()


def test_what_was_written_is_there_again(url: str):
    """It is as durable as any node, and tokens go on rising."""
    with coord_core.connect(url) as first:
        first.value("/v").set(b"kept")
        with first.lock("/a") as grant:
            old = grant.token
    with coord_core.connect(url) as second:
        found = second.value("/v").get()
        assert found is not None
        assert found.value == b"kept"
        with second.lock("/a") as grant:
            assert grant.token > old


def test_node_stops_with_the_last_client_of_the_process(url: str, directory: Path):
    """In order: its address is taken back, its lock is free, its thread is gone."""
    first, second = coord_core.connect(url), coord_core.connect(url)
    first.wait_connected(10)
    second.wait_connected(10)
    assert who_serves(directory) == os.getpid()
    first.close()
    second.value("/v").set(b"still here")
    second.close()
    assert who_serves(directory) is None
    assert not (directory / "address").exists()
    until(lambda: "coord-embedded" not in {thread.name for thread in threading.enumerate()}, what="the thread has ended")


def test_making_a_client_starts_nothing(url: str, directory: Path):
    """As everywhere: the first use does."""
    with coord_core.connect(url):
        assert not directory.exists()


def test_namespace_is_an_option(url: str, client: coord_core.Client):
    """The path of the URL is the directory's."""
    with coord_core.connect(f"{url}&namespace=/app") as other:
        other.value("/v").set(b"in app")
        assert client.value("/v").get() is None
        found = client.value("/app/v").get()
        assert found is not None
        assert found.value == b"in app"


def test_everything_is_for_its_owner_alone(client: coord_core.Client, directory: Path):
    """Whoever may read the token may do everything."""
    client.wait_connected(10)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("token", "serving", "address"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name
    assert (directory / "address").read_text().startswith("127.0.0.1:")


def test_stranger_without_the_token_is_refused(client: coord_core.Client, directory: Path):
    """Other users of the machine can reach the port, but not the file."""
    client.wait_connected(10)
    address = (directory / "address").read_text().strip()
    with coord_core.connect(f"coord://{address}") as other, pytest.raises(coord_core.AuthenticationFailed):
        other.wait_connected(10)


def test_it_says_once_that_it_is_not_highly_available(url: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "coord.embedded"):
        for _ in range(2):
            with coord_core.connect(url) as client:
                client.wait_connected(10)
    said = [record.getMessage() for record in caplog.records if record.name == "coord.embedded"]
    assert len(said) == 1
    assert "not highly available" in said[0]


def test_node_and_cluster_are_administered_alike(client: coord_core.Client, url: str):
    """The command line is one more process that uses the directory; it lists what this one holds."""
    with client.lock("/seen/from/outside"):
        found = coord("--url", url, "-o", "plain", "locks", "ls")
    assert found.returncode == 0, found.stderr
    assert "/seen/from/outside" in found.stdout
    status = client.status()
    assert status.leader is not None
    assert len(status.members) == 1


def test_end_of_the_interpreter_stops_the_node_in_order(url: str, directory: Path):
    """Also where nobody closed the client: what it held is free, its address taken back."""
    code = f"import coord_core; lock = coord_core.connect({url!r}).lock('/a'); lock.acquire()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
    assert not (directory / "address").exists()
    with coord_core.connect(url) as client:
        assert client.lock("/a").try_lock() is not None


# --- directories that will not do ------------------------------------------------------------------------------------------------


def test_directory_of_a_node_of_a_cluster_is_refused(tmp_path: Path):
    """Two nodes on one directory is what must never be."""
    (tmp_path / "coord.db").touch()
    with coord_core.connect(f"coord+embedded://{tmp_path}") as client, pytest.raises(InvalidUrl, match="node of a cluster"):
        client.wait_connected(10)


def test_directory_with_other_files_is_refused(tmp_path: Path):
    """A mistyped path must not fill somebody's project with our files."""
    (tmp_path / "main.py").touch()
    with coord_core.connect(f"coord+embedded://{tmp_path}") as client, pytest.raises(InvalidUrl, match="other files"):
        client.lock("/a").acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["main.py"]


@pytest.mark.parametrize("place", ["file", "below a file", "read only"])
async def test_directory_that_cannot_be_written_is_refused(tmp_path: Path, place: str):
    """At the first use, with the reason, and not after a timeout."""
    (tmp_path / "file").touch()
    path = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "node", "read only": Path("/proc/coord")}[place]
    async with await coord_core.connect_async(f"coord+embedded://{path}") as client:
        with pytest.raises(InvalidUrl, match="cannot be used"):
            await client.lock("/a").acquire()


def test_damaged_data_is_named_by_the_first_call(url: str, directory: Path):
    """Nothing is served that is not what was written; the reason comes along with the timeout."""
    with coord_core.connect(url) as client:
        client.value("/v").set(b"one")
    database = directory / "node" / "coord.db"
    database.write_bytes(b"\xff" * database.stat().st_size)
    with coord_core.connect(f"{url}&timeout=500ms") as client, pytest.raises(coord_core.Unavailable, match=r"coord\.db"):
        client.wait_connected(0.5)


def test_address_that_a_crash_left_is_not_believed(url: str, directory: Path):
    """Whoever listens there by now must not be shown the token."""
    with coord_core.connect(url) as client:
        client.value("/v").set(b"one")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.setblocking(False)
        (directory / "address").write_text(f"127.0.0.1:{stranger.getsockname()[1]}\n")
        with coord_core.connect(url) as client:
            found = client.value("/v").get()
            assert found is not None
        with pytest.raises(BlockingIOError):
            stranger.accept()
