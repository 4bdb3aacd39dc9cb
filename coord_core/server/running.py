"""A formed node at work: the replica with its loop, its clients and its links to the other nodes."""

import random
import secrets
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

import msgspec

from coord_core.config import ServerConfig
from coord_core.errors import CoordError
from coord_core.protocol.members import Member
from coord_core.protocol.messages import Hello, Members, NodeStatus, PeerIdentity, Refused, ServerMessage, Welcome
from coord_core.raft import RaftConfig
from coord_core.replica import PeerMessage, Replica, ReplicaConfig, Roster, SnapshotConfig
from coord_core.server.admission import Admission
from coord_core.server.clients import Client, Clients
from coord_core.server.connections import Connection
from coord_core.server.handshake import check_peer
from coord_core.server.loop import NodeLoop, now_ms
from coord_core.server.peers import IncomingPeer, Peers, Ways
from coord_core.server.writer import StorageThread
from coord_core.storage.api import Restored
from coord_core.storage.room import UNMEASURED
from coord_core.types import LogIndex, NodeId


class Running:
    """Begins to take part in the cluster when made."""

    def __init__(
        self,
        config: ServerConfig,
        restored: Restored,
        own: Member,
        *,
        ways: Ways,
        storage: StorageThread,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.cluster_id = restored.bootstrap.identity.cluster_id
        self._config = config
        self._own = own
        self._storage = storage
        snapshot = restored.bootstrap.snapshot if restored.snapshot is None else restored.snapshot.info.metadata
        self._roster = Roster(restored.members, snapshot.index)
        self._began_ms = now_ms()
        self._version = _version()
        # The seed decides nothing but when this node seeks an election; the simulator has a seed of its own.
        seed = random.Random(secrets.randbits(64))
        replica = Replica(_replica_config(config, own), restored, rng=seed, now_ms=now_ms())
        self._loop = NodeLoop(
            name=own.name, replica=replica, storage=storage, outlets=self, tick_ms=config.raft.tick_ms, failed=failed
        )
        self._clients = Clients(config.limits, self._loop, self._shown_status)
        self._peers = Peers(ways, self._roster.everyone(), self._loop)
        self._peers.start()
        self.admission = Admission(restored.bootstrap, restored.members, self)

    # --- a turn's effects -------------------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[PeerMessage]) -> None:
        self._peers.send(messages)

    def deliver(self, replies: Sequence[tuple[int, ServerMessage]]) -> None:
        self._clients.deliver(replies)

    def push(self, pushes: Sequence[tuple[int, ServerMessage]]) -> None:
        self._clients.push(pushes)

    def follow(self, members: Sequence[Member], index: LogIndex) -> None:
        """The log says who belongs, and where they are."""
        self._roster.follow(members, index)
        self._peers.follow(self._roster.everyone())
        self.admission.follow(members)
        # Not those that are to come, which nobody may dial yet.
        self._clients.tell(Members(_shown(self._loop.status().members)))

    def turn_away(self, caller: PeerIdentity, error: CoordError) -> None:
        self.admission.turn_away(caller, error)

    # --- who comes in -----------------------------------------------------------------------------------------------------------

    def accept_client(self, connection: Connection) -> Client:
        """Raises `Busy` where there are as many clients as there may be."""
        self._clients.check_room()
        return self._clients.add(connection)

    def accept_peer(self, connection: Connection, hello: Hello) -> IncomingPeer:
        """Raises `WrongCluster` where the caller is no other member in its present incarnation, `NodeRemoved` where it was one."""
        member = check_peer(hello, self._own, self._roster, self._loop.status().durable_commit)
        if member.node_id not in self._roster.members:
            self._expect(member)
        elif hello.peer is not None:
            self.join(hello.peer)
        connection.who = f"node {member.name} at {connection.who}"
        connection.parser.limit = self._config.limits.peer_frame_bytes_max
        return self._peers.accept(connection, member)

    def join(self, caller: PeerIdentity) -> None:
        """A node asks to be let in, or says that it has moved."""
        known = self._roster.members.get(NodeId(caller.node_id))
        is_known = known is not None and known.incarnation == caller.incarnation
        if is_known and caller.node_id != self._own.node_id:
            # The leader may be who has moved: it is dialled there before the log can say so.
            self._expect(caller.as_member(NodeId(caller.node_id)))
        self._loop.join(caller)

    def _expect(self, member: Member) -> None:
        """Hear and dial a member as it says it is, until the log says more."""
        self._roster.expect(member)
        self._peers.follow(self._roster.everyone())

    def welcome(self, spoken: int, *, to_member: bool) -> Welcome:
        """`to_member`: to a node that has shown its incarnation."""
        known = self._loop.status()
        leader = "" if known.leader is None else known.leader.client_address
        members = known.members if to_member else _shown(known.members)
        if to_member and all(member.node_id != self._own.node_id for member in members):
            # It has joined and has not come to the entry that says so.
            members = (*members, self._own)
        return Welcome(spoken, self.cluster_id, self._own.name, members, leader)

    def status(self, seq: int = 0) -> NodeStatus:
        known, room = self._loop.status(), self._storage.room
        return NodeStatus(
            seq=seq,
            cluster_id=self.cluster_id,
            node=self._own.name,
            role=known.role,
            term=known.term,
            leader="" if known.leader is None else known.leader.client_address,
            commit_index=known.commit_index,
            applied_index=known.applied_index,
            last_index=known.last_index,
            sessions=known.sessions,
            members=known.members,
            version=self._version,
            connections=len(self._clients),
            storage_bytes=self._storage.size_bytes(),
            uptime_ms=now_ms() - self._began_ms,
            voters=tuple(sorted({*known.configuration.voters, *known.configuration.outgoing})),
            learners=known.configuration.learners,
            matched=dict(self._loop.matched()),
            disk="" if room is UNMEASURED else room.level.name.lower(),
            disk_free_bytes=room.free_bytes,
            refuses=known.refuses,
            unreached=self._peers.troubles(),
            disk_needed_bytes=room.needed_bytes,
        )

    def _shown_status(self, seq: int) -> NodeStatus:
        status = self.status(seq)
        return msgspec.structs.replace(status, members=_shown(status.members))

    # --- ending -----------------------------------------------------------------------------------------------------------------

    def halt(self) -> None:
        """Take no more turns; say nothing more to anybody.  Idempotent."""
        self._loop.stop()
        self._peers.stop()

    def stop(self) -> None:
        """Take no more turns, and tell the clients so.  Idempotent."""
        self.halt()
        self._clients.say_goodbye(Refused("Unavailable", "the node is shutting down"))

    async def stopped(self) -> None:
        await self._peers.stopped()


def _shown(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """Return the members for anyone but a member: whoever knows its incarnation can speak for a node."""
    return tuple(msgspec.structs.replace(member, incarnation="") for member in members)


def _replica_config(config: ServerConfig, own: Member) -> ReplicaConfig:
    times = config.raft
    raft = RaftConfig(
        own.node_id,
        election_timeout_ticks=times.election_timeout_ms // times.tick_ms,
        heartbeat_ticks=times.heartbeat_ms // times.tick_ms,
        announce_commits=False,
    )
    asked = config.snapshots
    snapshots = SnapshotConfig(asked.entries, asked.bytes, asked.trailing_entries, asked.trailing_bytes)
    return ReplicaConfig(raft, times.tick_ms, snapshots=snapshots)


def _version() -> str:
    try:
        return version("coord-core")
    except PackageNotFoundError:
        return "unknown"
