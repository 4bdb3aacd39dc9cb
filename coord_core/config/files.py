"""Whether the files that a configuration names can be used: read, and thrown away."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coord_core.errors import InvalidConfig

if TYPE_CHECKING:
    from coord_core.config.model import ServerConfig, TlsConfig


def file_faults(config: "ServerConfig") -> list[str]:
    """Return every fault of the token's file and those of TLS; for a configuration that has no faults of its own."""
    return [*_token_faults(config), *_tls_faults(config.tls)]


def _token_faults(config: "ServerConfig") -> Iterator[str]:
    try:
        config.secret()
    except InvalidConfig as error:
        yield from error.details["faults"]


def _tls_faults(tls: "TlsConfig") -> Iterator[str]:
    named = {"tls.cert": tls.cert, "tls.key": tls.key, "tls.ca": tls.ca}
    unreadable = [fault for key, path in named.items() if path is not None and (fault := _unreadable(key, path))]
    yield from unreadable
    if unreadable:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls.cert is not None:
        try:
            # Asked for a password, a node would wait at a terminal that nobody looks at.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            yield f"tls.cert {tls.cert} and tls.key {tls.key}: {_why(error)}"
    if tls.ca is not None:
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError as error:
            yield f"tls.ca {tls.ca} is no file of certificates (PEM): {error.reason or error}"


def _unreadable(key: str, path: Path) -> str:
    try:
        path.read_bytes()
    except OSError as error:
        return f"{key} {path} cannot be read: {error.strerror}"
    return ""


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    return f"no certificate and its key without a password (PEM): {reason or error}"
