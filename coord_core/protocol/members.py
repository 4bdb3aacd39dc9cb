"""The nodes of a cluster as their peers and clients know them."""

import msgspec

from coord_core.types import NodeId


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One node: its name for people, its addresses, and the life of its data directory."""

    node_id: NodeId
    name: str
    #: host:port where the other nodes reach it.
    peer_address: str
    #: host:port where clients reach it.
    client_address: str
    #: Random, drawn when the data directory was made.  Empty where clients are told: it is known to nodes alone.
    incarnation: str
    #: The newest version of the machine that its release knows.
    machine_version: int = 1
