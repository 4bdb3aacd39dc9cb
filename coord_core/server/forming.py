"""How nodes that know nothing become a cluster, once.

One node is told to form it and of which names; the others are told whom to ask, and keep asking (`joining`).  When every founder
is on the line, the forming node draws the cluster's id, numbers the founders in the order in which they were named, makes that
durable, and only then answers.  Whoever is formed answers for ever (`admission`): a founder that did not hear it asks again.

What makes it safe to be killed anywhere: a node's incarnation is on its disk before anybody hears of it, and the founding is on
the forming node's disk before anybody else has it.  What makes it safe to lose a disk: the new directory has a new incarnation,
which is not in the founding, and is refused (a founder that forgot its votes could vote twice in a term: Raft, 5.2).
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from coord_core.errors import InvalidRequest, Unavailable
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PeerIdentity
from coord_core.raft.messages import Configuration, SnapshotMetadata
from coord_core.server.connections import Connection
from coord_core.server.joining import Joiner, check_line
from coord_core.storage.api import Bootstrap, Identity
from coord_core.types import LogIndex, NodeId, Term

log = logging.getLogger("coord.server")

_INCARNATION_FILE = "incarnation"


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


def about_to_found() -> Unavailable:
    """Return what is told to whoever asks a node that waits for nobody: it may join in a moment."""
    return Unavailable("this node founds its cluster just now: ask again in a moment")


class Founding:
    """The forming node's list of who has called."""

    def __init__(self, own: PeerIdentity, founders: Sequence[str]) -> None:
        self._own = own
        self._founders = tuple(founders) or (own.name,)
        self._is_alone = not founders
        # Who is on the line now, by name, with its line.
        self._callers: dict[str, tuple[PeerIdentity, object]] = {}

    def call(self, caller: PeerIdentity, line: object) -> None:
        """Note a founder that is on the line.  Raises why it cannot be one."""
        if self._is_alone and caller.name != self._own.name:
            raise about_to_found()
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
        members = tuple(identities[name].as_member(NodeId(number)) for number, name in enumerate(self._founders, start=1))
        voters = tuple(member.node_id for member in members)
        # Founders have the ids up to this index: a node that joins later gets the index of its entry, which is none of them.
        snapshot = SnapshotMetadata(LogIndex(len(voters)), Term(1), Configuration(voters))
        return Bootstrap(_identity(cluster_id, members, self._own), members, snapshot)


def _identity(cluster_id: str, members: Sequence[Member], of: PeerIdentity) -> Identity:
    member = next(member for member in members if member.name == of.name)
    return Identity(cluster_id, member.node_id, member.name, member.incarnation)


# --- the side that answers ------------------------------------------------------------------------------------------------------


class Registrar:
    """Answers nodes that ask to be let in while this node is not formed itself; afterwards `admission` does."""

    def __init__(self, founding: Founding | None) -> None:
        #: None: this node does not form the cluster, or has done so in an earlier life.
        self.founding = founding
        self._waiting: list[Joiner] = []
        self._called = asyncio.Event()

    def admit(self, connection: Connection, caller: PeerIdentity) -> Joiner:
        """Return what the connection becomes.  Raises why it is refused."""
        if self.founding is None:
            raise Unavailable(f"this node is not formed itself: {caller.name!r} must ask the node with --init, or wait for it")
        check_line(len(self._waiting))
        joiner = Joiner(self, connection, caller)
        self.founding.call(caller, joiner)
        self._waiting.append(joiner)
        self._called.set()
        return joiner

    def welcomed(self, joiner: Joiner) -> None:
        """There is nothing to tell yet."""

    async def everyone(self) -> None:
        """Wait until every founder is on the line."""
        assert self.founding is not None
        while missing := self.founding.missing():
            log.info("forming: waiting for %s", ", ".join(missing))
            self._called.clear()
            await self._called.wait()

    def take_waiting(self) -> list[Joiner]:
        """Return who is on the line; from now on that is somebody else's business."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def hang_up(self, joiner: Joiner) -> None:
        if joiner in self._waiting:
            self._waiting.remove(joiner)
        if self.founding is not None:
            self.founding.hang_up(joiner.caller, joiner)
