"""What can be set, with units and defaults: plain immutable data."""

# ruff: noqa: RUF009 - `option` only wraps `dataclasses.field`

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coord_core.config.faults import faults_of, refuse
from coord_core.config.values import parse_duration_ms, parse_list, parse_number, parse_path, parse_switch, parse_text
from coord_core.errors import InvalidConfig
from coord_core.protocol.commands import WINDOW_REQUESTS_MAX
from coord_core.protocol.messages import CLIENT_FRAME_BYTES_MAX, PEER_FRAME_BYTES_MAX


def option(parse: Callable[[Any], Any], default: Any, **more: Any) -> Any:
    return field(default=default, metadata={"parse": parse}, **more)


@dataclass(frozen=True, slots=True)
class RaftTimes:
    """Times of consensus, in milliseconds.  The same on all nodes."""

    #: The clock of consensus: both times below are whole multiples of it.
    tick_ms: int = option(parse_duration_ms, 50)
    #: A follower that heard no leader for this long, up to twice as long (drawn anew each time), seeks an election.
    #: At least 3 x heartbeat, so that one lost heartbeat deposes nobody.
    election_timeout_ms: int = option(parse_duration_ms, 300)
    #: How often an idle leader makes itself heard.
    heartbeat_ms: int = option(parse_duration_ms, 50)


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Bounds on what others can make this node hold."""

    #: One more is refused with Busy.
    client_connections_max: int = option(parse_number, 10_000)
    #: Unanswered requests of one connection; over it the node stops reading from it until answers went out.  At least four times
    #: an attachment's window: waiting acquires must not keep out the keep-alives behind them.
    requests_in_flight_max: int = option(parse_number, 4 * WINDOW_REQUESTS_MAX)
    #: Bytes of one frame from a client.  At least 512 KiB: a value (256 KiB) and what surrounds it.
    client_frame_bytes_max: int = option(parse_number, CLIENT_FRAME_BYTES_MAX)
    #: Bytes of one frame from another node.  Not below a client's.
    peer_frame_bytes_max: int = option(parse_number, PEER_FRAME_BYTES_MAX)
    #: Bytes of answers that a client has not read; over it the client is dropped.
    client_unread_bytes_max: int = option(parse_number, 16 * 1024 * 1024)
    #: Bytes to one peer that it has not taken; over it messages are dropped, and consensus sends again.
    peer_unsent_bytes_max: int = option(parse_number, 32 * 1024 * 1024)
    #: Time for magic and Hello (and TLS) of a new connection.
    handshake_timeout_ms: int = option(parse_duration_ms, 5_000)


@dataclass(frozen=True, slots=True)
class SnapshotsConfig:
    """When the log is cut, and what stays of it.  A node's own matter; the memory and the disk that its log takes follow from
    these.
    """

    #: A snapshot is taken when so many entries, or bytes of them, were applied since the last, and at least as many bytes as
    #: that has.
    entries: int = option(parse_number, 50_000)
    bytes: int = option(parse_number, 64 * 1024 * 1024)
    #: What stays of the log behind a snapshot, at most so many entries of so many bytes: a node that was away for less catches up
    #: from the log, one that was away for longer gets the snapshot.
    trailing_entries: int = option(parse_number, 10_000)
    trailing_bytes: int = option(parse_number, 16 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM files.  `cert` and `key` go together; without them there is no TLS."""

    cert: Path | None = option(parse_path, None)
    key: Path | None = option(parse_path, None)
    #: With it nodes show each other certificates of this authority and refuse others (mutual TLS).
    ca: Path | None = option(parse_path, None)

    @property
    def enabled(self) -> bool:
        return self.cert is not None and self.key is not None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that one node is told.  See `validate` for what must fit together."""

    #: For people, and for --founders; unique in the cluster, never changed.
    name: str = option(parse_text, "")
    #: Where this node's state lies.  One process at a time.
    data_dir: Path | None = option(parse_path, None)
    #: host:port for clients.  Port 0: any free one.
    listen: str = option(parse_text, "127.0.0.1:7400")
    #: host:port for the other nodes.  Empty: `listen` (the handshake tells clients and nodes apart).
    peer_listen: str = option(parse_text, "")
    #: What clients are told to dial.  Empty: `listen`; must be given where `listen` means all interfaces.
    advertise: str = option(parse_text, "")
    #: What the other nodes are told to dial.  Empty: `peer_listen`, or `advertise` where both share a port.
    peer_advertise: str = option(parse_text, "")
    #: This node forms the cluster (once; later starts ignore it).
    init: bool = option(parse_switch, False)
    #: Names of all founders, this one among them.  Only with `init`.  Empty: this node alone.
    founders: tuple[str, ...] = option(parse_list, ())
    #: host:port of nodes to ask for the way in: of a cluster that is being formed the one with `init`, else any (a node that is
    #: formed asks them only where it has moved).  Not with `init`.
    join: tuple[str, ...] = option(parse_list, ())
    #: A node with an empty directory takes the place of the member of its name, whose disk is lost.  Only with `join`; later starts
    #: ignore it.
    replace: bool = option(parse_switch, False)
    #: Shared secret of clients and nodes.  Prefer `token_file`.
    token: str = option(parse_text, "", repr=False)
    #: A file that holds the token; white space around it is ignored.
    token_file: Path | None = option(parse_path, None)
    #: Allow an address that other machines can reach without TLS and token.
    insecure: bool = option(parse_switch, False)
    raft: RaftTimes = field(default_factory=RaftTimes)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    snapshots: SnapshotsConfig = field(default_factory=SnapshotsConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)

    @property
    def shares_port(self) -> bool:
        """Clients and nodes come to one address.  Port 0 twice is two ports."""
        return not self.peer_listen or (self.peer_listen == self.listen and not self.listen.endswith(":0"))

    def secret(self) -> str:
        """Return the token, from its file where one is given.  Raises `InvalidConfig` where the file cannot be read."""
        if self.token_file is None:
            return self.token
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            fault = f"token_file {self.token_file} cannot be read: {getattr(error, 'strerror', None) or error}"
            raise InvalidConfig(fault, faults=[fault]) from error
        # An empty file must not mean a cluster that is open to all.
        refuse([] if token else [f"token_file {self.token_file} is empty"])
        return token

    def validate(self) -> None:
        """Raise `InvalidConfig` with every fault in `details["faults"]`, or return."""
        refuse(faults_of(self))
