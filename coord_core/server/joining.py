"""How a node gets into a cluster: the side that asks, and the line on which it waits for the answer.

Asking is a connection with role "join".  The answer is `Welcome`, and then one frame with a `Bootstrap` when the node belongs: at
once where it does already, else when the founding (`forming`) or the entry that adds it (`admission`) is durable.

A node that asks turns to everyone it hears of: only the leader can let it in, and who that is may change.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from coord_core.errors import Busy, CoordError, NodeRemoved, ProtocolError, RetryableError, Unavailable, error_from_wire
from coord_core.protocol.messages import PeerIdentity, Refused, Welcome
from coord_core.server.connections import Connection
from coord_core.server.dial import dial
from coord_core.server.handshake import JOIN, make_hello
from coord_core.server.peers import Ways
from coord_core.server.seldom import Seldom
from coord_core.storage.api import Bootstrap
from coord_core.wire import codec
from coord_core.wire.frames import encode_frame

log = logging.getLogger("coord.server")

#: How long a node that asks stays on the line before it dials again: what the network has lost is then noticed.
ON_THE_LINE_S = 5.0
DIAL_TIMEOUT_S = 2.0
PAUSE_S_MAX = 0.2
#: A node that is not let in says so again, and louder, so often: whoever started it may wait for ever at a wrong address.
REPEAT_S = 10.0
#: Addresses that are asked at once; of what is heard of beyond them nothing is kept.
ADDRESSES_MAX = 64
#: Nodes that one node has on the line.  One more is told to ask again.
JOINERS_MAX = 256

_bootstrap_decoder: "msgspec.msgpack.Decoder[Bootstrap]" = msgspec.msgpack.Decoder(Bootstrap)


# --- the line -------------------------------------------------------------------------------------------------------------------


class Desk(Protocol):
    """Who answers: `forming.Registrar`, then `admission.Admission`."""

    def hang_up(self, joiner: "Joiner") -> None: ...


class Joiner:
    """An accepted connection of a node that asks to be let in."""

    def __init__(self, desk: Desk, connection: Connection, caller: PeerIdentity) -> None:
        self.caller = caller
        #: Whoever has taken it over answers it from then on.
        self.desk = desk
        self._connection = connection

    def answer(self, bootstrap: Bootstrap) -> None:
        """Tell it with what to begin."""
        self._connection.transport.write(encode_frame(msgspec.msgpack.encode(bootstrap)))

    def refuse(self, error: CoordError) -> None:
        self._connection.refuse(error)

    def payloads(self, payloads: list[bytes]) -> None:
        raise ProtocolError("a node that asks to be let in has nothing to say after its Hello")

    def paused(self, paused: bool) -> None:
        """One small frame is all that is ever written."""

    def lost(self, by_other_side: bool) -> None:
        self.desk.hang_up(self)


def check_line(waiting: int) -> None:
    """Raise `Busy` where so many are on the line that one more is too many."""
    if waiting >= JOINERS_MAX:
        raise Busy(f"{JOINERS_MAX} nodes wait here already to be let in; ask again in a moment", limit="nodes that join")


# --- the side that asks ---------------------------------------------------------------------------------------------------------


async def ask_until_let_in(
    ways: Ways, addresses: Sequence[str], *, is_member: bool = False, repeat_s: float = REPEAT_S
) -> Bootstrap:
    """Ask the addresses, and all others that are heard of, again and again until one answers with what to begin with.

    Raises what a node refuses for good: a name that is no founder's, a wiped disk, a wrong token.  A member (`is_member`) that says
    where it is now is stopped by nothing but its removal: at an address that it was once told there may be a stranger by now.
    """
    search = _Search(ways, NodeRemoved if is_member else CoordError, repeat_s)
    search.add(addresses)
    try:
        return await search.found()
    finally:
        await search.end()


class _Search:
    """One task an address."""

    def __init__(self, ways: Ways, final: type[CoordError], repeat_s: float) -> None:
        """`final`: of the errors that asking again does not help against, those that end the search."""
        self._ways = ways
        self._final = final
        self._repeat_s = repeat_s
        self._tasks: dict[str, asyncio.Task[Bootstrap]] = {}
        self._answer: asyncio.Future[Bootstrap] = asyncio.get_running_loop().create_future()

    def add(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            if address not in self._tasks and address != self._ways.own.peer_address and len(self._tasks) < ADDRESSES_MAX:
                self._tasks[address] = asyncio.ensure_future(self._keep_asking(address))
                self._tasks[address].add_done_callback(self._ended)

    async def found(self) -> Bootstrap:
        return await self._answer

    async def end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _ended(self, task: "asyncio.Task[Bootstrap]") -> None:
        """The first answer counts, or the first refusal for good."""
        if task.cancelled() or self._answer.done():
            return
        if (error := task.exception()) is not None:
            self._answer.set_exception(error)
        else:
            self._answer.set_result(task.result())

    async def _keep_asking(self, address: str) -> Bootstrap:
        said, clock = Seldom(self._repeat_s), asyncio.get_running_loop().time
        began = clock()
        while True:
            try:
                return await self._ask(address)
            except CoordError as error:
                is_passing = isinstance(error, RetryableError)
                if not is_passing and isinstance(error, self._final):
                    raise
                if said.is_due(error.message):
                    # For a moment it is no trouble that the other side is not there yet.
                    level = logging.INFO if clock() - began < self._repeat_s and not error.details.get("tls") else logging.WARNING
                    what = error.message.removeprefix(address).lstrip(": ")
                    log.log(level if is_passing else logging.ERROR, "joining: %s: %s", address, what)
            await asyncio.sleep(random.uniform(0.02, PAUSE_S_MAX))

    async def _ask(self, address: str) -> Bootstrap:
        answer: asyncio.Future[Bootstrap] = asyncio.get_running_loop().create_future()
        own = self._ways.own

        def take(payload: bytes) -> None:
            if answer.done():
                return
            try:
                answer.set_result(_understand(payload, own))
            except CoordError as error:
                answer.set_exception(error)

        connection, welcome = await dial(
            address,
            make_hello(JOIN, self._ways.cluster_id, self._ways.token, own),
            tls=self._ways.tls,
            timeout_s=DIAL_TIMEOUT_S,
            frame_bytes_max=self._ways.limits.client_frame_bytes_max,
            on_payload=take,
        )
        self._hear_of(welcome)

        def lost(error: Exception | None) -> None:
            if not answer.done():
                answer.set_exception(Unavailable(f"{address} hung up before this node was let in"))

        connection.watch(lost)
        try:
            async with asyncio.timeout(ON_THE_LINE_S):
                return await answer
        except TimeoutError as error:
            raise Unavailable(f"{address} has not let this node in yet") from error
        finally:
            connection.close()

    def _hear_of(self, welcome: Welcome) -> None:
        self.add(member.peer_address for member in welcome.members if member.peer_address)


def _understand(payload: bytes, own: PeerIdentity) -> Bootstrap:
    """Return the answer in `payload`.  Raises `ProtocolError`, or what the other side refused with."""
    try:
        bootstrap = codec.decode_with(_bootstrap_decoder, payload, "what a node begins with")
    except ProtocolError:
        refused = codec.decode_server(payload)
        if isinstance(refused, Refused):
            raise error_from_wire(refused.code, refused.message, {}) from None
        raise
    if bootstrap.identity.name != own.name or bootstrap.identity.incarnation != own.incarnation:
        raise ProtocolError(f"the answer was for {bootstrap.identity.name!r}, but this is {own.name!r}")
    return bootstrap
