"""The blocking client among processes, threads and signals: fork, Ctrl-C, the end of the interpreter."""

import asyncio
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coord_core
from coord_core import InvalidRequest, SessionClosed, SessionState, UsedAfterFork
from coord_core.protocol.commands import CloseSession
from coord_core.protocol.operations import Cancel, LockRelease
from tests.client.fake import FakeCluster, until
from tests.client.shells import SyncShell

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shell() -> SyncShell:
    return SyncShell()


async def in_child(work: Callable[[], Any]) -> Any:
    """Fork, run `work` in the child, and return what it returned; its exception is raised here."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(work, writing)
    os.close(writing)
    data = await asyncio.to_thread(_read_all, reading)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert status == 0, "the child did not end by itself"
    outcome = pickle.loads(data)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _child(work: Callable[[], Any], writing: int) -> None:
    signal.alarm(20)  # A child that hangs ends by itself.
    try:
        outcome = work()
    except Exception as error:  # noqa: BLE001 - told to the parent
        outcome = AssertionError(traceback.format_exc()) if not isinstance(error, UsedAfterFork) else error
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(pickle.dumps(outcome))
    os._exit(0)


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read()


# --- fork ------------------------------------------------------------------------------------------------------------------------


async def test_every_use_of_an_inherited_client_raises_in_the_child(fake: FakeCluster, shell: SyncShell) -> None:
    """Its thread is not there and its socket is the parent's; it must not hang, nor say a word on it."""
    client = shell.connect(fake.addresses)
    lock, value = client.lock("/a"), client.value("/v")
    grant = await shell.go(lock.acquire)
    uses: list[Callable[[], Any]] = [
        lock.acquire,
        lock.release,
        lock.holder,
        lock.is_held_locally,
        grant.check,
        grant.is_held_locally,
        value.get,
        client.status,
        client.wait_connected,
        client.__enter__,
        lambda: client.session.state,
        lambda: client.lock("/b"),
        lambda: client.value("/b"),
        lambda: client.close_attachment(1),
    ]

    def work() -> list[str]:
        wrong = []
        for number, use in enumerate(uses):
            try:
                use()
            except UsedAfterFork as error:
                assert "connect again in the child" in str(error)  # noqa: PT017
            else:
                wrong.append(f"use {number}")
        return wrong

    before = len(fake.log)
    assert await in_child(work) == []
    assert len(fake.log) == before
    await shell.close_all()


async def test_parent_goes_on_after_the_child_has_thrown_everything_away(fake: FakeCluster, shell: SyncShell) -> None:
    """The epoll set is shared: a child that took its copy of the socket out of it would make the parent deaf."""
    client = shell.connect(fake.addresses)
    lock = client.lock("/a")
    await shell.go(lock.acquire)

    def work() -> bool:
        nonlocal client, lock
        client.close()
        shell.clients.clear()
        del client, lock
        gc.collect()
        return True

    assert await in_child(work)
    await shell.go(lock.check)
    assert client.session.state is SessionState.CONNECTED
    assert len(fake.nodes[0].peers) == 1, "one connection, and the same"
    await shell.close_all()


async def test_child_that_connects_for_itself_works(fake: FakeCluster, shell: SyncShell) -> None:
    """What the error tells it to do."""
    url = f"coord://{','.join(fake.addresses)}/test"
    client = shell.connect(fake.addresses)
    await shell.go(client.lock("/a").acquire)

    def work() -> tuple[bool, int]:
        with coord_core.connect(url) as own:
            busy = own.lock("/a").try_lock() is None
            with own.lock("/b") as grant:
                return busy, grant.session_id

    busy, session = await in_child(work)
    assert busy
    assert session != client.session.session_id
    await shell.close_all()


async def test_child_of_a_client_that_was_never_used_is_refused_too(fake: FakeCluster, shell: SyncShell) -> None:
    """Whether it works must not depend on what the parent did before."""
    client = shell.connect(fake.addresses)
    with pytest.raises(UsedAfterFork):
        await in_child(lambda: client.lock("/a"))


async def test_fork_while_other_threads_use_the_client_does_not_hang_the_child(fake: FakeCluster, shell: SyncShell) -> None:
    """Whatever lock another thread held at that moment is held for ever in the child."""
    client = shell.connect(fake.addresses)
    stop = threading.Event()

    def hammer() -> None:
        value = client.value(f"/v{threading.get_ident()}")
        while not stop.is_set():
            value.set(b"x")

    hammers = [shell.start(hammer) for _ in range(4)]
    await until(lambda: len(fake.calls) > 20)
    lock = client.lock("/a")
    try:
        for _ in range(10):
            with pytest.raises(UsedAfterFork):
                await in_child(lock.acquire)
    finally:
        stop.set()
        await asyncio.gather(*hammers)
    await shell.close_all()


# --- interruption ----------------------------------------------------------------------------------------------------------------


def run_main(script: str, fake: FakeCluster) -> "subprocess.Popen[str]":
    """Run a script in a process of its own, because signals go to main threads; `url` is there."""
    begin = f"import coord_core, os, signal, sys, threading, time\nurl = {'coord://' + ','.join(fake.addresses)!r}\n"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", begin + script], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


async def finish(process: "subprocess.Popen[str]", said: str = "") -> str:
    out, err = await asyncio.to_thread(process.communicate, said, timeout=20)
    assert process.returncode == 0, err
    assert err == ""
    return out


async def test_interrupted_acquire_leaves_the_queue(fake: FakeCluster, shell: SyncShell) -> None:
    """Ctrl-C on a script that waits must not leave a waiter that is granted the lock."""
    holder = shell.connect(fake.addresses, "").lock("/a")
    await shell.go(holder.acquire)
    process = run_main(
        """
client = coord_core.connect(url)
try:
    client.lock("/a").acquire()
except KeyboardInterrupt:
    while client.lock("/a").waiters():
        pass
    print("interrupted")
""",
        fake,
    )
    await until(lambda: len(fake.calls) == 2, 20)
    process.send_signal(signal.SIGINT)
    assert await finish(process) == "interrupted\n"
    assert [type(call.operation) for call in fake.calls][-1] is Cancel
    await shell.close_all()


async def test_release_goes_through_although_its_caller_was_interrupted(fake: FakeCluster) -> None:
    """A soft time limit that strikes in `__exit__` must not leave the lock held by a session that lives on."""
    process = run_main(
        """
client = coord_core.connect(url)
lock = client.lock("/a")
lock.acquire()
def strike(number, frame):
    raise TimeoutError
signal.signal(signal.SIGUSR1, strike)
inner = lock._inner.release
async def slow(**options):
    os.kill(os.getpid(), signal.SIGUSR1)
    import asyncio
    await asyncio.sleep(0.2)
    await inner(**options)
lock._inner.release = slow
try:
    lock.release()
except TimeoutError:
    while client.lock("/a").holder() is not None:
        pass
    print("released")
""".replace("wait = threading.Lock.acquire if False else None\n", ""),
        fake,
    )
    assert await finish(process) == "released\n"
    assert LockRelease in [type(call.operation) for call in fake.calls]


# --- the end ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", ["lock = coord_core.connect(url).lock('/a'); lock.acquire()", "coord_core.connect(url).lock('/a').acquire()"]
)
async def test_end_of_the_interpreter_closes_the_session(script: str, fake: FakeCluster) -> None:
    """What it held is free at once, not after the TTL; and quietly; also where nobody refers to the client any more."""
    process = run_main(script, fake)
    await finish(process)
    assert isinstance(fake.log[-1], CloseSession)


async def test_end_of_the_interpreter_does_not_wait_for_a_dead_cluster(fake: FakeCluster) -> None:
    """A script that has done its work must end."""
    process = run_main('coord_core.connect(url).lock("/a").acquire()\nsys.stdin.readline()\n', fake)
    await until(lambda: len(fake.calls) == 1, 20)
    fake.holds = True
    began = time.monotonic()
    await finish(process, "end now\n")
    assert time.monotonic() - began < 5
    assert isinstance(fake.log[-1], CloseSession)


async def test_client_that_nobody_refers_to_closes_its_session(fake: FakeCluster, shell: SyncShell) -> None:
    """Else its thread would keep the session alive, and its locks held, for as long as the process lives."""
    client = coord_core.connect(f"coord://{fake.addresses[0]}")
    await shell.go(client.lock("/a").acquire)
    gone = weakref.ref(client)
    del client
    await until(lambda: gc.collect() >= 0 and gone() is None)
    await until(lambda: any(isinstance(command, CloseSession) for command in fake.log))


async def test_thread_ends_with_close(fake: FakeCluster, shell: SyncShell) -> None:
    """A worker that makes a client a task must not gather threads."""
    before = {thread.name for thread in threading.enumerate()}
    client = shell.connect(fake.addresses)
    await shell.go(client.wait_connected)
    assert "coord-client" in {thread.name for thread in threading.enumerate()}
    await shell.go(client.close)
    await until(lambda: "coord-client" not in {thread.name for thread in threading.enumerate()} - before)


async def test_threads_that_wait_when_another_closes_are_told(fake: FakeCluster, shell: SyncShell) -> None:
    """None may wait for ever for a loop that has ended."""
    client = shell.connect(fake.addresses)
    await shell.go(client.lock("/a").acquire)
    waits = [shell.start(client.lock("/a").acquire) for _ in range(5)]
    await until(lambda: len(fake.calls) == 6)
    await shell.go(client.close)
    for outcome in await asyncio.gather(*waits, return_exceptions=True):
        assert isinstance(outcome, SessionClosed)


async def test_blocking_call_on_the_clients_own_thread_is_refused(fake: FakeCluster, shell: SyncShell) -> None:
    """It would wait for itself."""
    client = shell.connect(fake.addresses)

    async def inside() -> None:
        client.value("/v").get()

    with pytest.raises(InvalidRequest):
        await shell.go(client.run, inside)
    await shell.close_all()


async def test_import_is_cheap() -> None:
    """Celery and Airflow import their plugins everywhere; what a name needs is loaded with its first use."""
    heavy = ["asyncio", "ssl", "msgspec", "sqlalchemy", "celery", "coord_core.server", "coord_core.client"]
    script = f"import sys, coord_core; print([name for name in {heavy} if name in sys.modules])"
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


async def test_client_loads_nothing_of_the_server() -> None:
    """A worker's memory is not for SQLAlchemy."""
    heavy = [
        "sqlalchemy",
        "celery",
        "alembic",
        "click",
        "coord_core.server",
        "coord_core.raft",
        "coord_core.machine",
        "coord_core.replica",
    ]
    script = f"import sys, coord_core; coord_core.connect; print([name for name in {heavy} if name in sys.modules])"
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
