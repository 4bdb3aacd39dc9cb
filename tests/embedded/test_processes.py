"""Several processes on one directory: they exclude each other, and outlive the one that serves."""

import os
import signal
from pathlib import Path

import pytest

from tests.cli.running import until
from tests.embedded.users import User, users, who_serves

TTL_S = 3


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def url(directory: Path) -> str:
    return f"coord+embedded://{directory}?ttl={TTL_S}s"


def test_two_processes_exclude_each_other(url: str, directory: Path):
    with users() as found:
        first, second = User(url), User(url)
        found += [first, second]
        assert first.do("mine = client.lock('/a'); mine.acquire().path") == "'/a'"
        assert who_serves(directory) == first.pid
        assert second.do("yours = client.lock('/a'); yours.try_lock()") == "None"
        second.tell("yours.acquire(timeout=20).token > 0")
        assert first.do("len(mine.waiters())") in ("0", "1")
        assert first.do("mine.release()") == "None"
        assert second.hear() == "True"
        assert first.do("mine.try_lock()") == "None"
        assert who_serves(directory) == first.pid


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_another_process_serves_on_and_sessions_survive(url: str, directory: Path, how: str):
    """Its own session, and that of a third that neither served nor serves."""
    with users() as found:
        first = User(url)
        found.append(first)
        assert first.do("client.value('/v').set(b'one') > 0") == "True"
        assert first.do("client.lock('/of the first').acquire() is None") == "False"
        others = [User(url), User(url)]
        found += others
        held = [other.do(f"lock = client.lock('/{number}'); lock.acquire().token") for number, other in enumerate(others)]
        sessions = [other.do("client.session.session_id") for other in others]
        if how == "killed":
            first.kill()
        else:
            assert first.do("client.close()") == "None"
        assert [other.do("lock.check() or lock.token") for other in others] == held
        assert [other.do("client.session.session_id") for other in others] == sessions
        assert who_serves(directory) in [other.pid for other in others]
        assert others[0].do("client.value('/v').get().value") == "b'one'"
        # What the dead one held is free after its TTL at the latest.
        assert others[1].do(f"client.lock('/of the first').acquire(timeout={3 * TTL_S}) is None") == "False"


def test_waiter_gets_the_lock_of_a_process_that_was_killed_while_it_served(url: str, directory: Path):
    """The lock and the node die at once; the waiter's place does not."""
    with users() as found:
        first, second = User(url), User(url)
        found += [first, second]
        assert first.do("lock = client.lock('/a'); old = lock.acquire(); old is None") == "False"
        second.tell("lock = client.lock('/a'); lock.acquire().token > 0")
        until(lambda: first.do("len(lock.waiters())") == "1", what="the second waits")
        first.kill()
        assert second.hear() == "True"
        assert who_serves(directory) == second.pid


def test_directory_goes_from_hand_to_hand(url: str, directory: Path):
    """Each in turn serves and is killed; nothing that was acknowledged is lost."""
    with users() as found:
        found += [User(url) for _ in range(3)]
        written: list[int] = []
        for user in found:
            number = len(written)
            assert user.do(f"client.value('/{number}').set(b'x') > 0") == "True"
            written.append(number)
            until(lambda: who_serves(directory) is not None, what="somebody serves")
            serving = next(user for user in found if user.pid == who_serves(directory))
            if number < 2:
                serving.kill()
                found.remove(serving)
                found.append(User(url))
        last = found[-1]
        assert last.do(f"[client.value(f'/{{n}}').get() is None for n in {written}]") == str([False] * len(written))


def test_crash_leaves_a_store_that_can_be_used(url: str, directory: Path):
    """Nobody else is there: the next to come finds it."""
    with users() as found:
        first = User(url)
        found.append(first)
        assert first.do("[client.value('/v').set(b'%d' % n) for n in range(50)][-1] > 0") == "True"
        first.kill()
        second = User(url)
        found.append(second)
        assert second.do("client.value('/v').get().value") == "b'49'"


def is_stopped(pid: int) -> bool:
    """Whether the signal has reached every thread: `kill` returns before."""
    states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def test_stopped_process_keeps_the_directory(url: str, directory: Path):
    """Its lock is held, so nobody serves beside it; it goes on when it is continued."""
    with users() as found:
        first, second = User(url), User(f"{url}&timeout=500ms")
        found += [first, second]
        assert first.do("client.value('/v').set(b'one') > 0") == "True"
        assert second.do("client.value('/v').get().value") == "b'one'"
        os.kill(first.pid, signal.SIGSTOP)
        until(lambda: is_stopped(first.pid), what="every thread of the process standing still")
        assert second.do("client.value('/v').get()").startswith("raised Unavailable")
        assert who_serves(directory) == first.pid
        os.kill(first.pid, signal.SIGCONT)
        until(lambda: second.do("client.value('/v').get().value") == "b'one'", what="the node answers again")
