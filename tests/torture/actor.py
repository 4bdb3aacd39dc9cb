"""One client and what it does all day: registers, locks and a counter, each call and return written down.

Values and labels are unique, so that an effect has a name.  Now and then the connection is cut right behind a call: its answer is
lost, the client sends it again, and it must not be applied twice.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

from coord_core import AsyncClient
from coord_core.client.session import SessionState
from coord_core.errors import CoordError, LostError, OutcomeUnknown
from coord_core.protocol.operations import ValueDelete, ValueSet
from coord_core.protocol.results import ValueConflict, ValueWritten
from tests.torture.records import Believed, Proved, Recorder, Turned, now_ns

THINK_S_MAX = 0.15
HOLD_S_MAX = 0.05
#: How often a belief is looked at.
LOOK_S = 0.002
CUTS = 0.08
GLANCE_S_MAX = 1.0
#: Reads under way besides what the client does otherwise; over it no more begin.
GLANCES_MAX = 8
#: Of the acquires, how many are withdrawn while they wait.
CANCELS = 0.1

REGISTERS = 6
LOCKS = 3
COUNTERS = ("/counters/a", "/counters/b")
#: This lock is used from the beginning to the end; the others change, so that their histories can be judged whole.
ONE_LOCK = "/locks/one"
#: So long the same keys are used.
REGISTER_EPOCH_S = 20
LOCK_EPOCH_S = 30


class Actor:
    """`share`: how many calls this client may make on one key."""

    def __init__(self, client: AsyncClient, name: str, recorder: Recorder, rng: random.Random, began_ns: int, share: int) -> None:
        self._client = client
        self._name = name
        self._recorder = recorder
        self._rng = rng
        self._began_ns = began_ns
        self._share = share
        self._used: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        self._names = 0
        self._glances = 0
        self._is_over = False
        client.session.on_state_change(self._turned)

    async def act(self) -> None:
        """Do one thing, and think."""
        await self._rng.choices((self._use_register, self._use_lock, self._count), (45, 35, 20))[0]()
        await asyncio.sleep(self._rng.uniform(0, THINK_S_MAX))

    async def glance(self) -> None:
        """Read now and then, whether or not earlier reads were answered.

        Who does one thing at a time waits at a leader that has fallen silent, and what it is told by it in the end is no older than
        its question: only a read that began after somebody else's write can be too old.
        """
        async with asyncio.TaskGroup() as group:
            while not self._is_over:
                await asyncio.sleep(self._rng.uniform(0, GLANCE_S_MAX))
                key = self._pick("/registers", REGISTERS, REGISTER_EPOCH_S)
                if self._glances < GLANCES_MAX and self._may_use(key):
                    group.create_task(self._glance(key))

    async def _glance(self, key: str) -> None:
        self._glances += 1
        await self._get(key)
        self._glances -= 1

    async def prove(self) -> None:
        """Do each kind of work until it succeeds."""
        for work in (self._prove_write, self._prove_lock, self._count):
            while not await work():  # noqa: ASYNC110 - the next try is the event
                await asyncio.sleep(0.05)
        self._recorder.write(Proved(now_ns(), self._name))
        self._is_over = True

    def _turned(self, state: SessionState) -> None:
        self._recorder.write(Turned(now_ns(), self._name, state.value))

    # --- registers ----------------------------------------------------------------------------------------------------------------

    async def _use_register(self) -> bool:
        key = self._pick("/registers", REGISTERS, REGISTER_EPOCH_S)
        if not self._may_use(key):
            return False
        match self._rng.choices(("get", "set", "cas", "delete"), (40, 25, 31, 4))[0]:
            case "get":
                return await self._get(key)
            case "set":
                return await self._set(key, None)
            case "cas":
                return await self._set(key, self._versions.get(key, 0))
            case _:
                return await self._delete(key, self._versions.get(key))

    async def _get(self, key: str) -> bool:
        number = self._recorder.call(self._name, key, "get")
        return await self._told_value(key, number, self._client.value(key).get())

    async def _set(self, key: str, expected: int | None) -> bool:
        value = self._unique()
        number = self._recorder.call(self._name, key, "set" if expected is None else "cas", value=value, expected=expected)
        return await self._told_value(key, number, self._write(key, value, expected))

    async def _delete(self, key: str, expected: int | None) -> bool:
        number = self._recorder.call(self._name, key, "delete", expected=expected)
        handle = self._client.value(key)
        return await self._told_value(key, number, handle._write(ValueDelete(handle._full_path, expected)))

    def _write(self, key: str, value: str, expected: int | None) -> Awaitable[ValueWritten | ValueConflict]:
        """Like `set` and `compare_and_set`, but a refusal tells what was there."""
        handle = self._client.value(key)
        return handle._write(ValueSet(handle._full_path, value.encode(), expected=expected))

    async def _told_value(self, key: str, number: int, answer: Awaitable[Any]) -> bool:
        result = await self._answer(number, answer)
        match result:
            case ValueWritten(version=version):
                self._versions[key] = version
                self._recorder.returned(number, "written", version=version)
            case ValueConflict(version=version, value=value) | (version, value):
                self._versions[key] = version
                self._recorder.returned(number, "seen", version=version, value=value.decode())
            case None:
                self._versions[key] = 0
                self._recorder.returned(number, "seen")
            case CoordError():
                return False
            case _:
                self._versions[key] = 0
                self._recorder.returned(number, "deleted")
        return True

    # --- a counter ----------------------------------------------------------------------------------------------------------------

    async def _count(self) -> bool:
        """Add one to what is there, unless somebody else does.  Exactly once, or not at all, or it is unknown."""
        key = self._rng.choice(COUNTERS)
        try:
            found = await self._client.value(key).get()
        except CoordError:
            return False
        version, count = (0, 0) if found is None else (found.version, int(found.value))
        number = self._recorder.call(self._name, key, "add", value=str(count + 1), expected=version)
        result = await self._answer(number, self._write(key, str(count + 1), version))
        match result:
            case ValueWritten(version=version):
                self._recorder.returned(number, "written", version=version)
                return True
            case ValueConflict(version=version, value=value):
                self._recorder.returned(number, "seen", version=version, value=value.decode())
        return not isinstance(result, CoordError)

    # --- locks --------------------------------------------------------------------------------------------------------------------

    async def _use_lock(self) -> bool:
        key = ONE_LOCK if self._rng.random() < 0.25 else self._pick("/locks", LOCKS, LOCK_EPOCH_S)
        if not self._may_use(key):
            return False
        if self._rng.random() < 0.15:
            return await self._look(key)
        return await self._acquire(key, self._rng.choice((0, 0.2, 2.0, 5.0)), self._rng.uniform(0, HOLD_S_MAX))

    async def _look(self, key: str) -> bool:
        number = self._recorder.call(self._name, key, "look")
        holder = await self._answer(number, self._client.lock(key).holder())
        if isinstance(holder, CoordError):
            return False
        self._recorder.returned(
            number, "held", token=0 if holder is None else holder.token, value="" if holder is None else holder.owner.label
        )
        return True

    async def _acquire(self, key: str, wait_s: float | None, hold_s: float) -> bool:
        label = self._unique()
        lock = self._client.lock(key, label=label)
        number = self._recorder.call(self._name, key, "acquire", value=label)
        patience_s = self._rng.uniform(0, wait_s or 1) if self._rng.random() < CANCELS else None
        try:
            # A wait whose session is lost may have been granted before; nobody was told, and nothing is held.
            grant = await self._answer(number, asyncio.wait_for(lock.acquire(wait_s), patience_s), lost="nothing")
        except TimeoutError:
            grant = None
        if grant is None:
            self._recorder.returned(number, "nothing")
        if grant is None or isinstance(grant, CoordError):
            return False
        self._recorder.returned(number, "holds", token=grant.token)
        await self._hold(key, int(grant.token), grant.is_held_locally, hold_s)
        return await self._release(key, lock, int(grant.token))

    async def _hold(self, key: str, token: int, is_held: Callable[[], bool], hold_s: float) -> None:
        """Note from when until when this client believed that it had the lock.

        The clock is read *before* each look: a process stopped between the two must not count the stop as belief.
        """
        began = until = looked = now_ns()
        first = True
        while is_held():
            until = looked
            if first:
                self._recorder.write(Believed(looked, self._name, key, token, began, until))
                first = False
            if until - began >= hold_s * 1e9:
                break
            await asyncio.sleep(LOOK_S)
            looked = now_ns()
        self._recorder.write(Believed(now_ns(), self._name, key, token, began, until))

    async def _release(self, key: str, lock: Any, token: int) -> bool:
        number = self._recorder.call(self._name, key, "release", token=token)
        try:
            await self._interrupted(lock.release())
        except OutcomeUnknown:
            self._recorder.returned(number, "unknown")
            return False
        except CoordError:
            # Lost before, or in the very moment: what the cluster made of it is not known.
            self._recorder.returned(number, "lost")
            return False
        self._recorder.returned(number, "released")
        return True

    # --- proofs -------------------------------------------------------------------------------------------------------------------

    async def _prove_write(self) -> bool:
        return await self._set(f"/proofs/{self._name}", None)

    async def _prove_lock(self) -> bool:
        """The one lock, which the dead may still hold: it comes free when their sessions have expired."""
        return await self._acquire(ONE_LOCK, None, 0.0)

    # --- small things -------------------------------------------------------------------------------------------------------------

    async def _answer(self, number: int, answer: Awaitable[Any], lost: str = "denied") -> Any:
        """Return what came, or the error, which is written down as what it means for the effect."""
        try:
            return await self._interrupted(answer)
        except OutcomeUnknown as error:
            self._recorder.returned(number, "unknown")
            return error
        except LostError as error:
            self._recorder.returned(number, lost, value=error.code)
            return error
        except CoordError as error:
            self._recorder.returned(number, "denied", value=error.code)
            return error

    async def _interrupted(self, answer: Awaitable[Any]) -> Any:
        if self._rng.random() >= CUTS:
            return await answer
        task = asyncio.ensure_future(answer)
        await asyncio.sleep(self._rng.choice((0, 0, 0.001, 0.005)))
        with contextlib.suppress(CoordError):
            connection = self._client.driver().connection
            if connection is not None and connection.transport is not None:
                connection.transport.abort()
        return await task

    def _pick(self, room: str, count: int, epoch_s: int) -> str:
        epoch = (now_ns() - self._began_ns) // (epoch_s * 1_000_000_000)
        return f"{room}/{epoch}/{self._rng.randrange(count)}"

    def _may_use(self, key: str) -> bool:
        """Keep histories short enough to be judged: each client has its share of a key's operations."""
        if key == ONE_LOCK:
            return True
        used = self._used.get(key, 0)
        self._used[key] = used + 1
        return used < self._share

    def _unique(self) -> str:
        self._names += 1
        return f"{self._name}/{self._names}"
