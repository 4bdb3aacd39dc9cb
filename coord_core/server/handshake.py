"""Who may come in: what is checked of a `Hello` before anything else is done for a connection.

Pure functions over what both sides say.  Every refusal is an error of `coord_core.errors` whose message tells the other side's
operator what to change; none repeats a token.
"""

import hmac
from dataclasses import dataclass

from coord_core.config import LOST_FOUNDER, NAME, parse_address
from coord_core.errors import (
    AuthenticationFailed,
    InvalidRequest,
    NodeRemoved,
    ProtocolError,
    Unavailable,
    UnsupportedVersion,
    WrongCluster,
)
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Hello, PeerIdentity, Welcome
from coord_core.replica import Roster, Standing
from coord_core.types import LogIndex, NodeId

CLIENT = "client"
PEER = "peer"
JOIN = "join"


@dataclass(frozen=True, slots=True)
class Doorway:
    """What one listening address lets in."""

    #: Of `CLIENT`, `PEER`, `JOIN`.
    roles: frozenset[str]
    #: Shared secret; empty where there is none.
    token: str
    #: Nodes must have shown a certificate of our authority.
    nodes_need_certificate: bool = False


def make_hello(role: str, cluster_id: str, token: str, peer: PeerIdentity) -> Hello:
    """Return how a node begins a connection to another."""
    return Hello(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, role, cluster_id, token, peer)


def admit(hello: Hello, doorway: Doorway, *, cluster_id: str, has_certificate: bool) -> int:
    """Return the protocol version to speak, or raise why the connection is refused.

    `cluster_id`: this node's, empty while it is not formed.
    """
    version = min(hello.version_max, PROTOCOL_VERSION_MAX)
    if version < max(hello.version_min, PROTOCOL_VERSION_MIN):
        raise UnsupportedVersion(
            f"this node speaks protocol versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}, the other side "
            f"{hello.version_min} to {hello.version_max}: upgrade the older one"
        )
    _check_token(hello, doorway)
    if hello.role not in (CLIENT, PEER, JOIN):
        raise ProtocolError(f"there is no role {hello.role!r}; roles are {CLIENT}, {PEER} and {JOIN}")
    if hello.role not in doorway.roles:
        raise ProtocolError(f"this port is not for role {hello.role!r}: clients and nodes have ports of their own here")
    if hello.role != CLIENT and doorway.nodes_need_certificate and not has_certificate:
        raise AuthenticationFailed("nodes must show a certificate of this cluster's authority (tls.cert and tls.key)")
    if hello.role != CLIENT:
        check_identity(hello.peer)
    if hello.cluster_id and cluster_id and hello.cluster_id != cluster_id:
        raise _foreign(hello, cluster_id)
    return version


def _foreign(hello: Hello, cluster_id: str) -> WrongCluster:
    """Both sides' operators read it, and either cluster may be the one that should not be."""
    which = f"this node belongs to cluster {cluster_id}, not to {hello.cluster_id}"
    if hello.role != PEER or hello.peer is None:
        return WrongCluster(which)
    return WrongCluster(
        f"{which}, of which node {hello.peer.name!r} at {hello.peer.peer_address} takes it for a member: it was founded anew, or "
        f"has the address of a node that is gone.  Where it should not have been founded, stop it: {LOST_FOUNDER}.  If not, take "
        "the node that is gone out of the other cluster (coord members remove)"
    )


def _check_token(hello: Hello, doorway: Doorway) -> None:
    if not doorway.token:
        return
    # Compared in constant time: how long it takes says nothing of how much was right.
    if not hmac.compare_digest(hello.token.encode(), doorway.token.encode()):
        raise AuthenticationFailed("the token was refused" if hello.token else "this cluster needs a token, and none was given")


#: Characters of an address or an incarnation that a node may tell: a host name has 253 at most.
TEXT_MAX = 300
#: Numbers stay below it (`coord_core.types`).
_NUMBER_END = 2**53


def check_identity(peer: PeerIdentity | None) -> PeerIdentity:
    """Return what a node says of itself, or raise what is odd about it: it goes into the log of every node, and into their logs."""
    if peer is None:
        raise ProtocolError("a node must say who it is")
    if not NAME.fullmatch(peer.name):
        raise InvalidRequest(f"name {peer.name[:TEXT_MAX]!r} must be 1 to 64 letters, digits, dots, dashes or underscores")
    for what, text in (("peer address", peer.peer_address), ("client address", peer.client_address)):
        try:
            _, port = parse_address(text[:TEXT_MAX])
        except ValueError as error:
            raise InvalidRequest(f"{what} {text[:TEXT_MAX]!r}: {error}") from error
        if len(text) > TEXT_MAX or not port or not text.isprintable():
            raise InvalidRequest(f"{what} {text[:TEXT_MAX]!r} is none that others can dial")
    if not (0 < len(peer.incarnation) <= TEXT_MAX and peer.incarnation.isascii() and peer.incarnation.isprintable()):
        raise InvalidRequest("the incarnation is none that a data directory has")
    if not 0 <= peer.node_id < _NUMBER_END or not 0 < peer.machine_version < _NUMBER_END:
        raise InvalidRequest(f"node id {peer.node_id} and machine version {peer.machine_version} cannot both be")
    return peer


def check_peer(hello: Hello, own: Member, roster: Roster, durable_commit: LogIndex) -> Member:
    """Return the member that calls for consensus, at the addresses where it says it is now, or raise why it is none.

    Its incarnation must be the one the cluster knows: a node whose disk was wiped has forgotten its votes, and must not give them
    again under the old name (Raft, 5.2: one vote a term).
    """
    peer = hello.peer
    if peer is None or not hello.cluster_id:
        raise ProtocolError("a node that calls for consensus must say who it is and of which cluster")
    if peer.node_id <= 0 or peer.node_id == own.node_id:
        raise WrongCluster(f"node {peer.node_id} ({peer.name!r}) is no other member of this cluster")
    node_id = NodeId(peer.node_id)
    standing = roster.standing(node_id, durable_commit)
    if standing is Standing.REMOVED_SO_FAR:
        raise Unavailable(f"node {peer.name!r} ({node_id}) is being removed; ask again in a moment")
    if standing is Standing.REMOVED:
        raise NodeRemoved(
            f"node {peer.name!r} ({node_id}) was removed from cluster {hello.cluster_id}.  Its data directory is of no use "
            "any more; to bring the machine back, start it with --join on an empty one"
        )
    if standing is Standing.MEMBER:
        member = roster.members[node_id]
        if member.incarnation != peer.incarnation or member.name != peer.name:
            raise wiped(peer, member, hello.cluster_id)
    return peer.as_member(node_id)


def check_welcome(welcome: Welcome, cluster_id: str, expected: Member) -> None:
    """Raise where the node that answered is not the member that was dialled."""
    if welcome.cluster_id != cluster_id:
        raise WrongCluster(f"{expected.peer_address} belongs to cluster {welcome.cluster_id or '(none yet)'}, not to {cluster_id}")
    known = {member.name: member.incarnation for member in welcome.members}
    if welcome.node != expected.name or known.get(expected.name) != expected.incarnation:
        raise WrongCluster(f"{expected.peer_address} is node {welcome.node!r}, not the {expected.name!r} that this cluster knows")


def wiped(peer: PeerIdentity, member: Member, cluster_id: str) -> WrongCluster:
    return WrongCluster(
        f"node {peer.name!r} is not the {member.name!r} that cluster {cluster_id} knows: its data directory was lost or is another "
        "one.  It must not vote again under that name: start it on its own directory; where that is "
        "lost, on an empty one with --join ADDRESS --replace, without --init"
    )
