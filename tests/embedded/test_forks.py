"""Children of a process that serves: they use nothing of their parent's, and keep nothing of it."""

import ast
import os
import signal
from pathlib import Path

import pytest

from tests.cli.running import until
from tests.embedded.users import User, users, who_serves


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def url(directory: Path) -> str:
    return f"coord+embedded://{directory}?ttl=3s"


def test_child_may_not_use_its_parents_client(url: str):
    """It is told at once, and the parent goes on."""
    with users() as found:
        user = User(url)
        found.append(user)
        user.do("lock = client.lock('/a'); lock.acquire()")
        assert user.do("in_child(lambda: client.lock('/b'))") == "'UsedAfterFork'"
        assert user.do("in_child(lambda: lock.release())") == "'UsedAfterFork'"
        assert user.do("lock.check()") == "None"


def test_child_that_connects_for_itself_reaches_its_parents_node(url: str, directory: Path):
    with users() as found:
        user = User(url)
        found.append(user)
        user.do("lock = client.lock('/a'); lock.acquire()")
        assert user.do("in_child(lambda: connect(url).lock('/a').try_lock())") == "'None'"
        assert who_serves(directory) == user.pid
        assert user.do("lock.check()") == "None"


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_child_that_outlives_its_parents_node_does_not_keep_the_directory(url: str, directory: Path, how: str):
    """It has a copy of every descriptor: of the lock on the directory, of the sockets that others were connected to."""
    with users() as found:
        first, second = User(url), User(url)
        found += [first, second]
        assert first.do("client.value('/v').set(b'one') > 0") == "True"
        held = second.do("lock = client.lock('/a'); lock.acquire().token")
        child, _ = ast.literal_eval(first.do("leave_child(lambda: None)"))
        try:
            if how == "killed":
                # Its pipes stay open in the child.
                first.process.kill()
                first.process.wait()
            else:
                assert first.do("client.close()") == "None"
            assert second.do("lock.check() or lock.token") == held
            assert who_serves(directory) == second.pid
        finally:
            os.kill(child, signal.SIGKILL)


def test_child_serves_on_after_its_parent(url: str, directory: Path):
    """It is a process like any other."""
    with users() as found:
        first = User(url)
        found.append(first)
        assert first.do("client.value('/v').set(b'one') > 0") == "True"
        work = "(kept.append(connect(url)), kept[0].lock('/a').acquire() is None)[1]"
        child, refused = ast.literal_eval(first.do(f"kept = []; leave_child(lambda: {work})"))
        try:
            assert refused == "False"
            first.process.kill()
            first.process.wait()
            until(lambda: who_serves(directory) == child, what="the child serves")
            second = User(url)
            found.append(second)
            assert second.do(f"client.lock('/a').holder().owner.pid == {child}") == "True"
        finally:
            os.kill(child, signal.SIGKILL)
