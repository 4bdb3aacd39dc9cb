"""The guard in a script, on a real Redis."""

import hashlib
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
import redis
import redis.asyncio

from coord_core.errors import InvalidRequest, StaleToken
from coord_core.fencing import AsyncRedisFences, RedisFences

NAME = "/jobs/nightly"
APPEND = "return redis.call('RPUSH', KEYS[1], ARGV[1])"

pytestmark = pytest.mark.xdist_group("fencing")


@pytest.fixture
def fences(redis_client: redis.Redis) -> RedisFences:
    return RedisFences(redis_client)


def test_set_refuses_a_smaller_token_and_writes_nothing(redis_client: redis.Redis, fences: RedisFences):
    for token in (5, 5, 9):
        fences.set("report", f"by {token}", token, name=NAME)
    with pytest.raises(StaleToken) as caught:
        fences.set("report", "late", 8, name=NAME)
    assert (caught.value.name, caught.value.token, caught.value.newest) == (NAME, 8, 9)
    assert redis_client.get("report") == b"by 9"
    assert (fences.newest(NAME), fences.newest("/another")) == (9, None)


def test_neighbours_below_2_to_the_53_are_told_apart(fences: RedisFences):
    """Lua counts in doubles; the greatest token is still exact, and comes back as it was written."""
    greatest = 2**53 - 1
    fences.check(greatest, name=NAME)
    with pytest.raises(StaleToken) as caught:
        fences.check(greatest - 1, name=NAME)
    assert caught.value.newest == fences.newest(NAME) == greatest


def test_a_script_of_ones_own_runs_behind_the_comparison(redis_client: redis.Redis, fences: RedisFences):
    """It sees its own keys and arguments only, and what it returns is returned."""
    assert fences.fenced(APPEND, 9, name=NAME, keys=["log"], args=["new"]) == 1
    with pytest.raises(StaleToken):
        fences.fenced(APPEND, 8, name=NAME, keys=["log"], args=["late"])
    assert fences.fenced("return #KEYS .. ' ' .. #ARGV", 9, name=NAME, keys=["a", "b"], args=[1, 2, 3]) == b"2 3"
    assert redis_client.lrange("log", 0, -1) == [b"new"]


@pytest.mark.parametrize(("body", "result"), [("", None), ("return nil", None), ("return {1, 2}", [1, 2]), ("return 0", 0)])
def test_whatever_a_script_returns_is_told_apart_from_a_refusal(fences: RedisFences, body: str, result: object):
    assert fences.fenced(body, 9, name=NAME) == result


def test_a_script_with_a_comment_at_its_end_stays_closed(fences: RedisFences):
    assert fences.fenced("return 1 -- done", 9, name=NAME) == 1


@pytest.mark.parametrize("body", ["return redis.error_reply('NO no')", "error('NO no')", "return redis.call('RPUSH', 'x')"])
def test_a_script_that_fails_raises_what_redis_says(fences: RedisFences, body: str):
    with pytest.raises(redis.ResponseError):
        fences.fenced(body, 9, name=NAME)


def test_a_script_that_redis_forgot_is_sent_again(redis_client: redis.Redis, fences: RedisFences):
    """After a restart, a failover or SCRIPT FLUSH; after that its hash is enough."""
    fences.set("report", "one", 5, name=NAME)
    redis_client.script_flush()
    fences.set("report", "two", 6, name=NAME)
    before = redis_client.info("commandstats")
    fences.set("report", "three", 7, name=NAME)
    after = redis_client.info("commandstats")
    assert after["cmdstat_evalsha"]["calls"] == before["cmdstat_evalsha"]["calls"] + 1
    assert after["cmdstat_eval"] == before["cmdstat_eval"]


def test_a_token_is_kept_for_ever_unless_told_otherwise(redis_client: redis.Redis, fences: RedisFences):
    fences.check(9, name=NAME)
    assert redis_client.pttl(fences.key(NAME)) == -1
    short = RedisFences(redis_client, keep_ms=60_000)
    short.check(9, name="/short")
    assert 0 < redis_client.pttl(short.key("/short")) <= 60_000
    with pytest.raises(InvalidRequest, match="keep_ms"):
        RedisFences(redis_client, keep_ms=0)


def test_a_client_that_decodes_is_as_good(redis_socket: str, redis_client: redis.Redis):
    with redis.Redis(unix_socket_path=redis_socket, decode_responses=True) as client:
        fences = RedisFences(client)
        fences.set("report", "new", 9, name=NAME)
        with pytest.raises(StaleToken) as caught:
            fences.set("report", "late", 8, name=NAME)
        assert caught.value.newest == fences.newest(NAME) == 9


@pytest_asyncio.fixture
async def async_client(redis_socket: str, redis_client: redis.Redis) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis(unix_socket_path=redis_socket)
    yield client
    await client.aclose()


async def test_asynchronous_client_is_guarded_by_the_same_script(async_client: redis.asyncio.Redis, redis_client: redis.Redis):
    fences = AsyncRedisFences(async_client)
    await fences.set("report", "new", 9, name=NAME)
    assert await fences.fenced(APPEND, 9, name=NAME, keys=["log"], args=["new"]) == 1
    redis_client.script_flush()
    with pytest.raises(StaleToken):
        await fences.set("report", "late", 8, name=NAME)
    with pytest.raises(StaleToken):
        await fences.check(8, name=NAME)
    assert await fences.newest(NAME) == 9
    with pytest.raises(StaleToken):
        RedisFences(redis_client).check(8, name=NAME)
    assert redis_client.get("report") == b"new"


def test_hash_is_the_one_that_redis_reckons(redis_client: redis.Redis):
    """EVALSHA goes by it."""
    text = "return 1"
    assert redis_client.script_load(text) == hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def test_names_and_arguments_never_become_code(redis_client: redis.Redis, fences: RedisFences):
    """They are arguments; only the script itself is text of Lua."""
    odd = "'] = 1 end redis.call('FLUSHALL') --"
    write: Callable[..., object] = fences.fenced
    write(APPEND, 9, name=odd, keys=[odd], args=[odd])
    assert (redis_client.lrange(odd, 0, -1), fences.newest(odd)) == ([odd.encode()], 9)
