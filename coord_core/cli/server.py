"""`coord server`: one node, in the foreground, until SIGTERM or SIGINT.

The flags are the keys of `coord_core.config`, so that a fault names what was typed.  Listed here rather than derived, because
deriving them would load the configuration's rooms for `coord --help`; a test holds the list complete.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from coord_core.cli.settings import Settings, pass_settings

#: Key of the configuration -> what it means, in a line.
KEYS: Mapping[str, str] = {
    "name": "This node's name, unique in the cluster and never changed.",
    "data_dir": "Where this node keeps its state.",
    "listen": "host:port for clients and nodes (default 127.0.0.1:7400).",
    "peer_listen": "host:port for the other nodes, where it is not --listen.",
    "advertise": "host:port that clients are told to dial (default: --listen).",
    "peer_advertise": "host:port that the other nodes are told to dial.",
    "init": "Form the cluster of --founders, once; later starts ignore it.",
    "founders": "Names of all founders, with commas, this node among them; only with --init (default: a cluster of one).",
    "join": "host:port of nodes to ask for the way in, with commas: any of the cluster's; to form one, the one with --init.",
    "replace": "With --join on an empty directory: take the place of the node of this name, whose disk is lost.",
    "token_file": "File with the secret that clients and nodes must show.",
    "insecure": "Allow an address that other machines can reach without TLS and token.",
    "tls.cert": "Certificate of this node (PEM).",
    "tls.key": "Its private key (PEM).",
    "tls.ca": "Authority that the other nodes' certificates must come from (PEM).",
    "raft.tick": "Clock of consensus (default 50ms).",
    "raft.election_timeout": "Silence after which a follower seeks an election (default 300ms).",
    "raft.heartbeat": "How often an idle leader makes itself heard (default 50ms).",
    "limits.client_connections_max": "Connections of clients.",
    "limits.requests_in_flight_max": "Unanswered requests of one connection.",
    "limits.client_frame_bytes_max": "Bytes of one frame from a client.",
    "limits.peer_frame_bytes_max": "Bytes of one frame from a node.",
    "limits.client_unread_bytes_max": "Bytes of answers that a client has not read.",
    "limits.peer_unsent_bytes_max": "Bytes that a node has not taken.",
    "limits.handshake_timeout": "Time for the greeting of a new connection.",
    "snapshots.entries": "Entries after which a snapshot is due (default 50000).",
    "snapshots.bytes": "Bytes of entries after which it is due (default 67108864).",
    "snapshots.trailing_entries": "Entries of the log that stay behind it (default 10000).",
    "snapshots.trailing_bytes": "Bytes of them (default 16777216).",
    "storage.reserve_bytes": "Disk set aside, twice, for votes and releases (default 8388608).",
    "storage.low_bytes": "Free disk below which new commands are refused (default 67108864).",
    "storage.quota_bytes": "What the data directory may have altogether (default 0: all of the disk).",
}
SWITCHES = frozenset({"init", "insecure", "replace"})
#: Not on the command line, where every user of the machine could read it.
SECRETS = frozenset({"token"})


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config and a flag for every key of the configuration."""
    for key, text in reversed(tuple(KEYS.items())):
        names = (f"--{key.replace('_', '-')}", _parameter(key))
        if key in SWITCHES:
            command = click.option(*names, is_flag=True, default=None, help=text)(command)
        else:
            command = click.option(*names, help=text)(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="COORD_CONFIG",
        help="Read settings from this file (coord.toml)  [env: COORD_CONFIG]",
    )(command)


def flags_by_key(flags: Mapping[str, object]) -> dict[str, object]:
    """Return what `load_config` takes from what click gives."""
    return {key: flags[_parameter(key)] for key in KEYS}


def _parameter(key: str) -> str:
    return key.replace(".", "__")


@click.command(
    epilog="""\b
Examples:
  coord server --name n1 --data-dir n1 --listen 127.0.0.1:7401 --init --founders n1,n2,n3
  coord server --name n2 --data-dir n2 --listen 127.0.0.1:7402 --join 127.0.0.1:7401
  coord server --name n3 --data-dir n3 --listen 127.0.0.1:7403 --join 127.0.0.1:7401
  coord server --config /etc/coord/coord.toml""",
)
@config_options
@pass_settings
def server(settings: Settings, /, config_file: Path | None, **flags: object) -> None:
    """Run one node of a cluster until SIGTERM or SIGINT.

    Each setting comes from its flag, else from the environment (COORD_RAFT__ELECTION_TIMEOUT), else from the file, else from its
    default; `coord config show --origin` tells which.  One founder is started with --init and --founders, every other node with
    --join; the same command line starts them again later.  A founder that lost its disk comes back with an empty directory and
    --join ADDRESS --replace, without --init.
    """
    from coord_core.config import load_config

    config = load_config(config_file, environ=os.environ, flags=_with_global_token(settings, flags_by_key(flags)))
    from coord_core.cli.logs import log_as_node
    from coord_core.server.node import serve

    log_as_node(settings)
    serve(config)


def _with_global_token(settings: Settings, flags: dict[str, object]) -> dict[str, object]:
    """`coord --token-file F server` means the same as `coord server --token-file F`.  From the environment it comes by itself."""
    if flags["token_file"] is None and settings.token_file != os.environ.get("COORD_TOKEN_FILE"):
        flags["token_file"] = settings.token_file
    return flags
