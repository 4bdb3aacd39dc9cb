"""How nodes that know nothing become a cluster, once.

One node is told to form it and of which names; the others are told whom to ask, and keep asking.  When every founder is on the
line, the forming node draws the cluster's id, numbers the founders in the order in which they were named, makes that durable, and
only then answers.  Whoever is formed answers the founders for ever: a founder that did not hear the answer asks again.

What makes it safe to be killed anywhere: a node's incarnation is on its disk before anybody hears of it, and the founding is on
the forming node's disk before anybody else has it.  What makes it safe to lose a disk: the new directory has a new incarnation,
which is not in the founding, and is refused (a founder that forgot its votes could vote twice in a term: Raft, 5.2).

Asking is a connection with role "join".  The answer is `Welcome`, and then one frame with a `Bootstrap` when there is one.
"""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from coord_core.errors import CoordError, InvalidRequest, ProtocolError, RetryableError, Unavailable, WrongCluster, error_from_wire
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PeerIdentity, Refused
from coord_core.raft.messages import Configuration, SnapshotMetadata
from coord_core.server.connections import Connection
from coord_core.server.dial import dial
from coord_core.server.handshake import JOIN, make_hello, wiped
from coord_core.server.peers import Ways
from coord_core.storage.api import Bootstrap, Identity
from coord_core.types import LogIndex, NodeId, Term
from coord_core.wire import codec
from coord_core.wire.frames import encode_frame

log = logging.getLogger("coord.server")

#: How long a node that asks stays on the line before it dials again: what the network has lost is then noticed.
ON_THE_LINE_S = 5.0
DIAL_TIMEOUT_S = 2.0
PAUSE_S_MAX = 0.2

_INCARNATION_FILE = "incarnation"
_bootstrap_decoder: "msgspec.msgpack.Decoder[Bootstrap]" = msgspec.msgpack.Decoder(Bootstrap)


# --- what a node is before it is formed -----------------------------------------------------------------------------------------


def read_or_draw_incarnation(data_dir: Path) -> str:
    """Return the incarnation of a directory that is not formed yet; drawn once and durable before it is returned."""
    path = data_dir / _INCARNATION_FILE
    if path.exists():
        return path.read_text(encoding="ascii").strip()
    incarnation = secrets.token_hex(16)
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="ascii") as file:
        file.write(incarnation + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    _sync(data_dir)
    return incarnation


def forget_incarnation(data_dir: Path) -> None:
    """Remove the file once the founding is stored.

    The storage is the authority then.  Should it be lost and the rest of the directory stay, the node must come back as a stranger.
    """
    path = data_dir / _INCARNATION_FILE
    if path.exists():
        path.unlink()
        _sync(data_dir)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- the founding, without I/O --------------------------------------------------------------------------------------------------


class Founding:
    """The forming node's list of who has called."""

    def __init__(self, own: PeerIdentity, founders: Sequence[str]) -> None:
        self._own = own
        self._founders = tuple(founders) or (own.name,)
        # Who is on the line now, by name, with its line.
        self._callers: dict[str, tuple[PeerIdentity, object]] = {}

    def call(self, caller: PeerIdentity, line: object) -> None:
        """Note a founder that is on the line.  Raises why it cannot be one."""
        if caller.name not in self._founders:
            raise InvalidRequest(
                f"{caller.name!r} is not among the founders of this cluster ({', '.join(self._founders)}): "
                "name it in --founders of the node with --init, or correct its --name"
            )
        if caller.name == self._own.name:
            raise InvalidRequest(f"the node with --init is named {caller.name!r} too: every node needs a name of its own")
        known = self._callers.get(caller.name)
        if known is not None and known[0].incarnation != caller.incarnation:
            raise InvalidRequest(
                f"another node named {caller.name!r} at {known[0].peer_address} waits already: every node needs a name of its own"
            )
        self._callers[caller.name] = (caller, line)

    def hang_up(self, caller: PeerIdentity, line: object) -> None:
        """A line was closed: this founder has to call again (it may come with another disk)."""
        known = self._callers.get(caller.name)
        if known is not None and known[1] is line:
            del self._callers[caller.name]

    def missing(self) -> list[str]:
        return [name for name in self._founders if name != self._own.name and name not in self._callers]

    def is_founder(self, name: str) -> bool:
        return name in self._founders

    def close(self, cluster_id: str) -> Bootstrap:
        """Return the founding, from the forming node's view.  Everyone must be on the line."""
        identities = {name: caller for name, (caller, _) in self._callers.items()} | {self._own.name: self._own}
        members = tuple(_member(NodeId(number), identities[name]) for number, name in enumerate(self._founders, start=1))
        voters = tuple(member.node_id for member in members)
        snapshot = SnapshotMetadata(LogIndex(1), Term(1), Configuration(voters))
        return Bootstrap(_identity(cluster_id, members, self._own), members, snapshot)


def bootstrap_for(formed: Bootstrap, caller: PeerIdentity) -> Bootstrap:
    """Return the founding from the view of a founder that asks.  Raises where the caller is none, or has lost its disk."""
    cluster_id = formed.identity.cluster_id
    member = next((member for member in formed.members if member.name == caller.name), None)
    if member is None:
        names = ", ".join(member.name for member in formed.members)
        raise WrongCluster(f"cluster {cluster_id} is formed already, of {names}; {caller.name!r} is none of them")
    if member.name == formed.identity.name:
        raise InvalidRequest(f"this node is named {caller.name!r} too: every node needs a name of its own")
    if member.incarnation != caller.incarnation:
        raise wiped(caller, member, cluster_id)
    return Bootstrap(_identity(cluster_id, formed.members, caller), formed.members, formed.snapshot)


def _member(node_id: NodeId, peer: PeerIdentity) -> Member:
    return Member(node_id, peer.name, peer.peer_address, peer.client_address, peer.incarnation)


def _identity(cluster_id: str, members: Sequence[Member], of: PeerIdentity) -> Identity:
    member = next(member for member in members if member.name == of.name)
    return Identity(cluster_id, member.node_id, member.name, member.incarnation)


# --- the side that answers ------------------------------------------------------------------------------------------------------


class Registrar:
    """Answers nodes that ask to be formed, before and after this node is formed itself."""

    def __init__(self, founding: Founding | None) -> None:
        #: None: this node does not form the cluster, or has done so in an earlier life.
        self.founding = founding
        self._formed: Bootstrap | None = None
        self._waiting: list[Joiner] = []
        self._called = asyncio.Event()

    def formed(self, bootstrap: Bootstrap) -> None:
        """This node is formed, durably: answer those who wait, and everyone from now on."""
        self._formed = bootstrap
        waiting, self._waiting = self._waiting, []
        for joiner in waiting:
            try:
                joiner.answer()
            except CoordError as error:  # it called with another disk while the founding was being written
                joiner.refuse(error)

    def admit(self, connection: Connection, caller: PeerIdentity | None) -> "Joiner":
        """Return what the connection becomes.  Raises why it is refused."""
        if caller is None:
            raise ProtocolError("a node that asks to be formed must say who it is")
        joiner = Joiner(self, connection, caller)
        if self._formed is not None:
            bootstrap_for(self._formed, caller)
        elif self.founding is None:
            raise Unavailable(f"this node is not formed itself: {caller.name!r} must ask the node with --init, or wait for it")
        else:
            self.founding.call(caller, joiner)
            self._waiting.append(joiner)
            self._called.set()
        return joiner

    async def everyone(self) -> None:
        """Wait until all founders are on the line."""
        assert self.founding is not None
        while missing := self.founding.missing():
            log.info("forming: waiting for %s", ", ".join(missing))
            self._called.clear()
            await self._called.wait()

    def bootstrap_for(self, caller: PeerIdentity) -> Bootstrap | None:
        return None if self._formed is None else bootstrap_for(self._formed, caller)

    def hang_up(self, joiner: "Joiner") -> None:
        if joiner in self._waiting:
            self._waiting.remove(joiner)
        if self.founding is not None:
            self.founding.hang_up(joiner.caller, joiner)


class Joiner:
    """An accepted connection of a node that asks to be formed."""

    def __init__(self, registrar: Registrar, connection: Connection, caller: PeerIdentity) -> None:
        self.caller = caller
        self._registrar = registrar
        self._connection = connection

    def answer(self) -> None:
        """Send the founding if there is one, from the caller's view."""
        bootstrap = self._registrar.bootstrap_for(self.caller)
        if bootstrap is not None:
            self._connection.transport.write(encode_frame(msgspec.msgpack.encode(bootstrap)))

    def refuse(self, error: CoordError) -> None:
        self._connection.refuse(error)

    def payloads(self, payloads: list[bytes]) -> None:
        raise ProtocolError("a node that asks to be formed has nothing to say after its Hello")

    def paused(self, paused: bool) -> None:
        """One small frame is all that is ever written."""

    def lost(self, by_other_side: bool) -> None:
        self._registrar.hang_up(self)


# --- the side that asks ---------------------------------------------------------------------------------------------------------


async def ask_until_formed(ways: Ways, addresses: Sequence[str]) -> Bootstrap:
    """Ask all addresses, again and again, until one answers with the founding.

    Raises what a node refuses for good: a name that is no founder's, a wiped disk, a wrong token.
    """
    tasks = [asyncio.ensure_future(_keep_asking(ways, address)) for address in addresses]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_asking(ways: Ways, address: str) -> Bootstrap:
    last = ""
    while True:
        try:
            return await _ask(ways, address)
        except RetryableError as error:
            if error.message != last:
                last = error.message
                log.info("joining: %s: %s", address, error.message)
        await asyncio.sleep(random.uniform(0.02, PAUSE_S_MAX))


async def _ask(ways: Ways, address: str) -> Bootstrap:
    answer: asyncio.Future[Bootstrap] = asyncio.get_running_loop().create_future()

    def take(payload: bytes) -> None:
        if answer.done():
            return
        try:
            answer.set_result(_understand(payload, ways.own))
        except CoordError as error:
            answer.set_exception(error)

    connection, _ = await dial(
        address,
        make_hello(JOIN, "", ways.token, ways.own),
        tls=ways.tls,
        timeout_s=DIAL_TIMEOUT_S,
        frame_bytes_max=ways.limits.client_frame_bytes_max,
        on_payload=take,
    )

    def lost(error: Exception | None) -> None:
        if not answer.done():
            answer.set_exception(Unavailable(f"{address} hung up before the cluster was formed"))

    connection.watch(lost)
    try:
        async with asyncio.timeout(ON_THE_LINE_S):
            return await answer
    except TimeoutError as error:
        raise Unavailable(f"{address} has not formed the cluster yet") from error
    finally:
        connection.close()


def _understand(payload: bytes, own: PeerIdentity) -> Bootstrap:
    """Return the founding in `payload`.  Raises `ProtocolError`, or what the other side refused with."""
    try:
        bootstrap = codec.decode_with(_bootstrap_decoder, payload, "a founding")
    except ProtocolError:
        refused = codec.decode_server(payload)
        if isinstance(refused, Refused):
            raise error_from_wire(refused.code, refused.message, {}) from None
        raise
    if bootstrap.identity.name != own.name or bootstrap.identity.incarnation != own.incarnation:
        raise ProtocolError(f"a founding came for {bootstrap.identity.name!r}, but this is {own.name!r}")
    return bootstrap
