"""What must fit together in a configuration: every fault in words that say what to change."""

import re
from collections.abc import Iterator
from dataclasses import fields
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from coord_core.config.values import parse_address
from coord_core.errors import InvalidConfig
from coord_core.protocol.commands import WINDOW_REQUESTS_MAX
from coord_core.protocol.messages import CLIENT_FRAME_BYTES_MAX

if TYPE_CHECKING:
    from coord_core.config.model import ServerConfig

#: Of a node.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Hosts that mean every interface: one can listen on them and nobody can dial them.
WILDCARDS: Final = ("", "0.0.0.0", "::")
#: A checkpoint of what a quiet moment leaves, and a few transactions.
RESERVE_BYTES_MIN: Final = 1024 * 1024
#: What whoever starts a founder on an empty directory has to know, wherever that is noticed.
LOST_FOUNDER: Final = "a founder that lost its disk comes back with an empty directory and --join ADDRESS --replace, without --init"


def faults_of(config: "ServerConfig") -> list[str]:
    """Return every fault."""
    return [
        *_identity_faults(config),
        *_address_faults(config),
        *_forming_faults(config),
        *_secrecy_faults(config),
        *_number_faults(config),
        *_storage_faults(config),
    ]


def refuse(faults: list[str]) -> None:
    if faults:
        raise InvalidConfig("the configuration has faults:\n" + "\n".join(f"  - {fault}" for fault in faults), faults=faults)


def _identity_faults(config: "ServerConfig") -> Iterator[str]:
    if not config.name:
        yield "name is missing: give this node a name that no other node of the cluster has"
    elif not NAME.fullmatch(config.name):
        yield f"name {config.name!r} must be 1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first"
    if config.data_dir is None:
        yield "data_dir is missing: name the directory where this node keeps its state"


def _address_faults(config: "ServerConfig") -> Iterator[str]:
    for key in ("listen", "peer_listen", "advertise", "peer_advertise"):
        value = getattr(config, key)
        if value and (fault := _address_fault(value, advertised=key.endswith("advertise"))):
            yield f"{key} {value!r}: {fault}"
    for address in config.join:
        if fault := _address_fault(address, advertised=True):
            yield f"join {address!r}: {fault}"
    if not config.listen:
        yield "listen is missing: give host:port"
    if _is_wildcard(config.listen) and not config.advertise:
        yield f"advertise is missing: listen {config.listen!r} means every interface, so say which host:port clients shall dial"
    if _is_wildcard(config.peer_listen) and not config.peer_advertise:
        yield f"peer_advertise is missing: peer_listen {config.peer_listen!r} means every interface, so say what nodes shall dial"


def _address_fault(value: str, *, advertised: bool) -> str | None:
    try:
        host, port = parse_address(value)
    except ValueError as error:
        return str(error)
    if advertised and (host in WILDCARDS or port == 0):
        return "expected a host and port that others can dial"
    return None


def _is_wildcard(address: str) -> bool:
    return bool(address) and _host(address) in WILDCARDS


def _host(address: str) -> str | None:
    try:
        return parse_address(address)[0]
    except ValueError:
        return None


def _forming_faults(config: "ServerConfig") -> Iterator[str]:
    if config.init and config.join:
        yield (
            "init and join exclude each other: exactly one founder forms the cluster (init), all other nodes join; and "
            + LOST_FOUNDER
        )
    if config.founders and not config.init:
        yield "founders is only for the node with init: the others learn the founders from it"
    if config.founders and config.name not in config.founders:
        yield f"name {config.name!r} is not among the founders ({', '.join(config.founders)}): the node with init is one of them"
    if config.replace and config.init:
        yield f"replace and init exclude each other: {LOST_FOUNDER}"
    elif config.replace and not config.join:
        yield "replace is only for a node with join: it asks the cluster to take the place of a lost one"
    for name in sorted({name for name in config.founders if config.founders.count(name) > 1}):
        yield f"founder {name!r} is named twice: every node needs a name of its own"


def _secrecy_faults(config: "ServerConfig") -> Iterator[str]:
    tls = config.tls
    if (tls.cert is None) != (tls.key is None):
        yield "tls.cert and tls.key go together: give both or none"
    if tls.ca is not None and not tls.enabled:
        yield "tls.ca needs tls.cert and tls.key"
    if config.token and config.token_file is not None:
        yield "token and token_file exclude each other"
    has_token = bool(config.token) or config.token_file is not None
    if config.insecure or (tls.enabled and has_token):
        return
    missing = [what for what, there in (("tls.cert and tls.key", tls.enabled), ("token_file", has_token)) if not there]
    for key in ("listen", "peer_listen"):
        address = getattr(config, key)
        if address and not _is_loopback(address):
            yield (
                f"{key} {address!r} can be reached from other machines without {' and '.join(missing)}: set "
                f"{' and '.join(missing)}, or listen on 127.0.0.1, or, in a network that you trust wholly, set insecure"
            )


def _is_loopback(address: str) -> bool:
    host = _host(address)
    if host is None or host == "localhost":
        return True  # what cannot be parsed is reported elsewhere
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _number_faults(config: "ServerConfig") -> Iterator[str]:
    raft, limits = config.raft, config.limits
    for section, values in (("raft", raft), ("limits", limits), ("snapshots", config.snapshots)):
        for one in fields(values):
            if getattr(values, one.name) <= 0:
                yield f"{section}.{one.name.removesuffix('_ms')} must be more than 0"
    if raft.tick_ms > 0:
        for name in ("election_timeout_ms", "heartbeat_ms"):
            if getattr(raft, name) % raft.tick_ms:
                yield f"raft.{name.removesuffix('_ms')} ({getattr(raft, name)}ms) is no multiple of raft.tick ({raft.tick_ms}ms)"
    if raft.election_timeout_ms < 3 * raft.heartbeat_ms:
        yield f"raft.election_timeout ({raft.election_timeout_ms}ms) is below 3 x raft.heartbeat ({raft.heartbeat_ms}ms)"
    if limits.requests_in_flight_max < 4 * WINDOW_REQUESTS_MAX:
        yield f"limits.requests_in_flight_max must be at least {4 * WINDOW_REQUESTS_MAX}"
    if limits.client_frame_bytes_max < CLIENT_FRAME_BYTES_MAX // 2:
        yield f"limits.client_frame_bytes_max must be at least {CLIENT_FRAME_BYTES_MAX // 2}"
    if limits.peer_frame_bytes_max < limits.client_frame_bytes_max:
        yield "limits.peer_frame_bytes_max is below limits.client_frame_bytes_max: nodes must pass on what clients may send"


def _storage_faults(config: "ServerConfig") -> Iterator[str]:
    storage = config.storage
    if storage.reserve_bytes < RESERVE_BYTES_MIN:
        yield f"storage.reserve_bytes must be at least {RESERVE_BYTES_MIN}"
    if storage.low_bytes < 2 * storage.reserve_bytes:
        yield f"storage.low_bytes ({storage.low_bytes}) is below 2 x storage.reserve_bytes ({storage.reserve_bytes})"
    least = 2 * (storage.low_bytes + storage.reserve_bytes)
    if storage.quota_bytes and storage.quota_bytes < least:
        yield f"storage.quota_bytes must be 0 (none) or at least 2 x (storage.low_bytes + storage.reserve_bytes), here {least}"
