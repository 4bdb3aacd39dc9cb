"""Guards for Redis: comparison and writes are one script, which Redis runs in one piece.

The rule: the greatest token of a name stands under a key beside the data (`coord:fence:` and the name), and a script compares it
before it does anything.  Numbers are compared as Lua's doubles, which are exact below 2**53, and kept as they were written.

What Redis loses, the fence cannot keep: with a failover to a replica that lags, or a restart without appendonly, the latest tokens
may go together with the latest writes.  An eviction policy of `allkeys-...` may throw out a token alone: do not fence there.

In a Redis Cluster all keys of a script must be in one slot: give the fence a name with a hash tag, such as name="{report}".
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from coord_core.errors import InvalidRequest
from coord_core.fencing.tokens import Fencing, Holding, fencing_of, stale

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

PREFIX = "coord:fence:"

Value: TypeAlias = "str | bytes | int | float"

# KEYS[1]: the fence, then the caller's; ARGV[1]: the token, ARGV[2]: milliseconds to keep it or "", then the caller's.
_GUARDED = """
local newest = redis.call('GET', KEYS[1])
if newest and tonumber(newest) > tonumber(ARGV[1]) then
    return {0, newest}
end
if ARGV[2] == '' then
    redis.call('SET', KEYS[1], ARGV[1])
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
local own_keys, own_argv = {}, {}
for i = 2, #KEYS do own_keys[i - 1] = KEYS[i] end
for i = 3, #ARGV do own_argv[i - 2] = ARGV[i] end
local function write(KEYS, ARGV)
<BODY>
end
return {1, write(own_keys, own_argv)}
"""
_NOTHING = ""
_SET = "return redis.call('SET', KEYS[1], ARGV[1])"


@dataclass(frozen=True, slots=True)
class _Script:
    """A script of the caller's behind the comparison."""

    text: str
    sha1: str

    @classmethod
    def around(cls, body: str) -> "_Script":
        text = _GUARDED.replace("<BODY>", body)
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class _Fences:
    """What both forms share: everything but the sending."""

    def __init__(self, prefix: str, keep_ms: int | None) -> None:
        if keep_ms is not None and keep_ms < 1:
            raise InvalidRequest(f"keep_ms is {keep_ms}: a time to keep tokens is 1 ms or more", field="keep_ms")
        self._prefix = prefix
        self._keep_ms = "" if keep_ms is None else str(keep_ms)
        self._check = _Script.around(_NOTHING)
        self._set = _Script.around(_SET)

    def key(self, name: str) -> str:
        """Return the key under which the greatest token of a name stands."""
        return self._prefix + name

    def _arguments(self, fencing: Fencing, keys: Sequence[str | bytes], args: Sequence[Value]) -> list[Any]:
        return [1 + len(keys), self.key(fencing.name), *keys, fencing.token, self._keep_ms, *args]


class RedisFences(_Fences):
    """Writes through `client` (a `redis.Redis`) that refuse a stale token.

    `keep_ms`: how long a token is remembered after the last write under it; None: for ever.  It must be longer than a writer can be
    late: one that wakes up after it is not refused.
    """

    def __init__(self, client: "Redis", *, prefix: str = PREFIX, keep_ms: int | None = None) -> None:
        super().__init__(prefix, keep_ms)
        self._client = client

    def set(self, key: str | bytes, value: Value, holding: Holding, *, name: str | None = None) -> None:
        """SET, or raise `StaleToken` and write nothing."""
        self._run(self._set, [key], [value], fencing_of(holding, name))

    def fenced(
        self,
        script: str,
        holding: Holding,
        *,
        name: str | None = None,
        keys: Sequence[str | bytes] = (),
        args: Sequence[Value] = (),
    ) -> Any:
        """Run a Lua script of your own, or raise `StaleToken` and run nothing of it.

        It sees `keys` as KEYS and `args` as ARGV, and what it returns is returned.  Redis undoes nothing of a script that fails in
        the middle; the token stays remembered then.
        """
        return self._run(_Script.around(script), keys, args, fencing_of(holding, name))

    def check(self, holding: Holding, *, name: str | None = None) -> None:
        """Remember the token, or raise `StaleToken`; guards nothing that is written in a step of its own."""
        self._run(self._check, [], [], fencing_of(holding, name))

    def newest(self, name: str) -> int | None:
        """Return the greatest token seen; None: none yet."""
        found: Any = self._client.get(self.key(name))
        return None if found is None else int(found)

    def _run(self, script: _Script, keys: Sequence[str | bytes], args: Sequence[Value], fencing: Fencing) -> Any:
        from redis.exceptions import NoScriptError

        arguments = self._arguments(fencing, keys, args)
        try:
            reply: Any = self._client.evalsha(script.sha1, *arguments)
        except NoScriptError:
            # Redis has forgotten it, or never knew it; it knows it from here on.
            reply = self._client.eval(script.text, *arguments)
        return _result(reply, fencing)


class AsyncRedisFences(_Fences):
    """`RedisFences` for a `redis.asyncio.Redis`."""

    def __init__(self, client: "AsyncRedis", *, prefix: str = PREFIX, keep_ms: int | None = None) -> None:
        super().__init__(prefix, keep_ms)
        self._client = client

    async def set(self, key: str | bytes, value: Value, holding: Holding, *, name: str | None = None) -> None:
        """SET, or raise `StaleToken` and write nothing."""
        await self._run(self._set, [key], [value], fencing_of(holding, name))

    async def fenced(
        self,
        script: str,
        holding: Holding,
        *,
        name: str | None = None,
        keys: Sequence[str | bytes] = (),
        args: Sequence[Value] = (),
    ) -> Any:
        """Run a Lua script of your own, or raise `StaleToken` and run nothing of it; see `RedisFences.fenced`."""
        return await self._run(_Script.around(script), keys, args, fencing_of(holding, name))

    async def check(self, holding: Holding, *, name: str | None = None) -> None:
        """Remember the token, or raise `StaleToken`; guards nothing that is written in a step of its own."""
        await self._run(self._check, [], [], fencing_of(holding, name))

    async def newest(self, name: str) -> int | None:
        """Return the greatest token seen; None: none yet."""
        found: Any = await self._client.get(self.key(name))
        return None if found is None else int(found)

    async def _run(self, script: _Script, keys: Sequence[str | bytes], args: Sequence[Value], fencing: Fencing) -> Any:
        from redis.exceptions import NoScriptError

        arguments = self._arguments(fencing, keys, args)
        client: Any = self._client
        try:
            reply = await client.evalsha(script.sha1, *arguments)
        except NoScriptError:
            reply = await client.eval(script.text, *arguments)
        return _result(reply, fencing)


def _result(reply: Any, fencing: Fencing) -> Any:
    """Take apart what the script answered.  Raises `StaleToken`, and what the caller's script returned as an error."""
    passed, *rest = reply
    if not passed:
        raise stale(fencing, int(rest[0]))
    # Lua's nil ends an array.
    result = rest[0] if rest else None
    if isinstance(result, Exception):
        raise result
    return result
