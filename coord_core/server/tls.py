"""TLS: one certificate a node, for clients and for the other nodes.

Clients check a node's certificate and host name against their authority.  Where the configuration names an authority (`tls.ca`),
nodes check each other's in both directions.
"""

import ssl

from coord_core.config import ServerConfig, TlsConfig
from coord_core.errors import InvalidConfig


def accepting(config: ServerConfig, *, nodes_only: bool) -> ssl.SSLContext | None:
    """Return the context of a listening address; None: no TLS.

    A port that clients and nodes share asks for a certificate without insisting: the handshake of the protocol insists, for nodes.
    """
    if not config.tls.enabled:
        return None
    context = _with_own_certificate(ssl.PROTOCOL_TLS_SERVER, config.tls)
    if config.tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED if nodes_only else ssl.CERT_OPTIONAL
    return context


def dialling(config: ServerConfig) -> ssl.SSLContext | None:
    """Return the context for connections to other nodes; None: no TLS."""
    if not config.tls.enabled:
        return None
    context = _with_own_certificate(ssl.PROTOCOL_TLS_CLIENT, config.tls)
    if config.tls.ca is None:
        # Somebody must vouch for the other node before it is shown the token: here whoever the system trusts.
        context.load_default_certs()
    return context


def _with_own_certificate(protocol: int, tls: TlsConfig) -> ssl.SSLContext:
    assert tls.cert is not None
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        fault = f"tls: {tls.cert}, {tls.key} or {tls.ca} cannot be used: {error}"
        raise InvalidConfig(fault, faults=[fault]) from error
    return context
