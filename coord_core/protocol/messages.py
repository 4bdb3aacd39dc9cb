"""What client and server put into frames.

Each direction is a closed union, told apart by tag.  `seq` numbers the requests of one connection (from 1) and comes back in the
answer; it means nothing beyond the connection: what makes a command safe to send again is its request number.

A connection begins with `Hello` and `Welcome` (or `Refused`, after which the server closes).  Peers use the same handshake with
role "peer" and then speak the messages of `coord_core.raft.messages`.
"""

from typing import TypeAlias

import msgspec

from coord_core.protocol.administration import Administration
from coord_core.protocol.members import Member
from coord_core.protocol.queries import Answer, Query
from coord_core.protocol.results import Result
from coord_core.protocol.streams import Record
from coord_core.types import AttachmentId, LogIndex, NodeId, SessionId, SubscriptionId

#: First bytes of every connection, before the first frame: tells our protocol from HTTP, TLS or a port scanner.
MAGIC = b"coord\x00\x00\x01"

#: Versions this code speaks; the highest common one is used.
PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 1

CLIENT_FRAME_BYTES_MAX = 1024 * 1024
PEER_FRAME_BYTES_MAX = 16 * 1024 * 1024


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


# --- handshake -----------------------------------------------------------------------------------------------------------------


class PeerIdentity(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of itself to another.  Before it is formed, `cluster_id` is empty and `node_id` 0."""

    name: str
    incarnation: str
    peer_address: str
    client_address: str
    node_id: int = 0
    #: A node that asks to be let in: it takes the place of a member of its name whose disk is lost.
    replaces: bool = False
    #: The newest version of the machine that its release knows.
    machine_version: int = 1

    def as_member(self, node_id: NodeId) -> Member:
        """Return what it says as the cluster keeps it."""
        return Member(node_id, self.name, self.peer_address, self.client_address, self.incarnation, self.machine_version)


class Hello(_Message, frozen=True, tag=1):
    version_min: int
    version_max: int
    #: "client", "peer" (consensus messages) or "join" (a node that asks to be let in, or tells that it has moved).
    role: str
    #: Empty: any cluster (a client's first contact, a node not formed yet).
    cluster_id: str
    #: Shared secret; empty where the cluster has none.
    token: str = ""
    peer: PeerIdentity | None = None


class Welcome(_Message, frozen=True, tag=2):
    version: int
    cluster_id: str
    node: str
    #: The cluster as this node knows it: clients learn the other addresses here.
    members: tuple[Member, ...]
    #: Client address of the leader as this node knows it; empty where it knows none.
    leader: str


class Refused(_Message, frozen=True, tag=3):
    """The connection is refused or ended: an error of `coord_core.errors`, by class name.  The sender closes after it."""

    code: str
    message: str


# --- client to server ------------------------------------------------------------------------------------------------------------


class Submit(_Message, frozen=True, tag=10):
    """A command for the log, already encoded: the server passes the bytes through."""

    seq: int
    command: msgspec.Raw


class KeepAlive(_Message, frozen=True, tag=11):
    """Renew the session's lease.  Answered by `KeptAlive` after a quorum confirmed the leader, or by `Reply(Failed)`."""

    seq: int
    session: SessionId
    generation: int


class Ask(_Message, frozen=True, tag=12):
    """A linearizable read."""

    seq: int
    query: Query


class GetStatus(_Message, frozen=True, tag=13):
    """What this node knows of itself and its cluster: answered at once by any node, leader or not."""

    seq: int


class Administer(_Message, frozen=True, tag=14):
    """Change the cluster itself.  Answered by `Reply` with Done or Failed when it is in force, or by `Redirect`."""

    seq: int
    request: Administration


class Follow(_Message, frozen=True, tag=15):
    """Push the records of a subscription on this connection, from a revision on; the newest connection that says so gets them.

    Answered by `Records`, `Resync` or `NotSubscribed`, as there is something to push; by `Redirect` with seq 0 where this node does
    not lead, or leads no more.
    """

    attachment: AttachmentId
    subscription: SubscriptionId
    #: The last revision received; 0: begin with the present state.
    after: LogIndex
    #: The last revision acknowledged.
    acknowledged: LogIndex


class Acknowledge(_Message, frozen=True, tag=16):
    """Everything up to `revision` was received and worked off: more may be pushed, and who waits for it need not wait longer."""

    subscription: SubscriptionId
    revision: LogIndex


ClientMessage: TypeAlias = Hello | Submit | KeepAlive | Ask | GetStatus | Administer | Follow | Acknowledge


# --- server to client ------------------------------------------------------------------------------------------------------------


class Reply(_Message, frozen=True, tag=20):
    seq: int
    result: Result


class KeptAlive(_Message, frozen=True, tag=21):
    """The lease runs anew, `ttl_ms` from when the keep-alive was *sent* (the client's own reckoning)."""

    seq: int
    ttl_ms: int


class Told(_Message, frozen=True, tag=22):
    """The answer to `Ask`."""

    seq: int
    answer: Answer


class Redirect(_Message, frozen=True, tag=23):
    """Not applied by this node: ask the leader.  `leader` is its client address, empty where unknown.

    A command that was already proposed here may still be applied; sent again under its request number it is applied once.
    """

    seq: int
    leader: str


class NodeStatus(_Message, frozen=True, tag=24):
    seq: int
    cluster_id: str
    node: str
    role: str
    term: int
    leader: str
    commit_index: int
    applied_index: int
    last_index: int
    sessions: int
    members: tuple[Member, ...]
    version: str
    #: Open client connections and bytes on disk of this node.
    connections: int = 0
    storage_bytes: int = 0
    uptime_ms: int = 0
    #: Of the members: who votes, in either half of a joint configuration, and who only follows.
    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    #: From a leader: up to where each member's log is known to equal its own.
    matched: dict[NodeId, int] = {}
    #: Room on the node's disk: ample, low (new commands are refused) or full (no entries are taken); empty: not measured.
    disk: str = ""
    #: Bytes; -1 where it is not measured.
    disk_free_bytes: int = -1
    #: From a leader: why it refuses new commands; empty where it takes them.
    refuses: str = ""
    #: Members that this node cannot reach just now, by name: why not.
    unreached: dict[str, str] = {}
    #: Bytes that must be free until the disk is ample again; -1 where that is not known.
    disk_needed_bytes: int = -1


class Members(_Message, frozen=True, tag=25):
    """The members are others than this connection was told.  Comes unasked: a client outlives all nodes that it began with."""

    members: tuple[Member, ...]


class Records(_Message, frozen=True, tag=26):
    """What happened, in order, without gaps: the first record follows what was pushed before."""

    subscription: SubscriptionId
    records: tuple[Record, ...]


class Resync(_Message, frozen=True, tag=27):
    """What happened is not known any more, or was not asked for: the state that counts for everything up to `revision` instead."""

    subscription: SubscriptionId
    revision: LogIndex
    state: Answer


class NotSubscribed(_Message, frozen=True, tag=28):
    """There is no such subscription of this attachment (any more)."""

    subscription: SubscriptionId


ServerMessage: TypeAlias = (
    Welcome | Refused | Reply | KeptAlive | Told | Redirect | NodeStatus | Members | Records | Resync | NotSubscribed
)
