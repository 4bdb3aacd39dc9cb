"""What a guard takes for a token."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from coord_core.errors import InvalidRequest, LeadershipLost, LimitExceeded, LockLost, LostError, StaleToken
from coord_core.fencing.memory import MemoryFences
from coord_core.fencing.tokens import TOKEN_MAX, Fencing, fencing_of


@dataclass
class Grant:
    path: str
    token: int | None


@dataclass
class Leadership:
    path: str
    epoch: int | None


def test_a_grant_brings_its_name_along():
    """A lock's path names what its tokens are compared with."""
    assert fencing_of(Grant("/jobs/nightly", 7)) == Fencing("/jobs/nightly", 7)


def test_an_epoch_is_a_token():
    assert fencing_of(Leadership("/scheduler", 9)) == Fencing("/scheduler", 9)


def test_a_name_that_is_given_goes_before_the_path():
    """Two applications that share a store may share a path, too."""
    assert fencing_of(Grant("/jobs/nightly", 7), "shop:/jobs/nightly").name == "shop:/jobs/nightly"


def test_a_number_needs_a_name():
    """Such as one that came through an environment variable."""
    assert fencing_of(7, "/jobs/nightly") == Fencing("/jobs/nightly", 7)
    with pytest.raises(InvalidRequest, match="needs a name"):
        fencing_of(7)


@pytest.mark.parametrize("token", [0, -1, TOKEN_MAX + 1, True, 1.5, "7"])
def test_what_is_no_token_is_refused(token):
    """Above 2**53 a double, which Lua and JavaScript count in, does not tell neighbours apart."""
    with pytest.raises(InvalidRequest):
        fencing_of(token, "/a")


@pytest.mark.parametrize("name", ["", "a\nb", "ä" * 257])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidRequest, match="no name"):
        fencing_of(7, name)


def test_a_handle_that_holds_nothing_has_lost():
    """As its `check` says."""
    with pytest.raises(LockLost):
        fencing_of(Grant("/a", None))
    with pytest.raises(LeadershipLost):
        fencing_of(Leadership("/a", None))


def test_a_stale_token_says_by_whom_it_was_passed():
    """It is a loss: who catches `LostError` stops acting on what it held."""
    fences = MemoryFences()
    fences.check(8, name="/a")
    with pytest.raises(StaleToken) as caught:
        fences.check(7, name="/a")
    assert isinstance(caught.value, LostError)
    assert (caught.value.name, caught.value.token, caught.value.newest) == ("/a", 7, 8)


def test_fences_in_memory_forget_no_name_to_take_another():
    """A name that was thrown out would let its late writer in."""
    fences = MemoryFences(names_max=1)
    fences.check(8, name="/a")
    with pytest.raises(LimitExceeded, match="names already") as caught:
        fences.check(1, name="/b")
    assert caught.value.details == {"limit": 1, "value": 2}
    fences.check(9, name="/a")
    assert (fences.newest("/a"), fences.newest("/b")) == (9, None)


def test_importing_the_room_imports_no_database_and_no_redis():
    """Each guard is loaded when it is asked for."""
    code = "import coord_core.fencing, sys; print([m for m in ('sqlalchemy', 'redis') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_redis_guard_is_importable_without_redis():
    """redis-py is the user's, not ours."""
    code = "import sys; sys.modules['redis'] = None; from coord_core.fencing import RedisFences; print(RedisFences(None).key('/a'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "coord:fence:/a"
