"""`coord://[token@]h1:7400,h2:7400/namespace?ttl=15s`: where a cluster is and how to talk to it.

Or `coord+embedded:///directory?namespace=app&ttl=15s`: a node inside the processes of one machine, named by where its data lies.

The rule: whatever text comes, either a `ClientUrl` results or `InvalidUrl` is raised, which names the part at fault and never shows
the token.  Parsed by hand: `urllib.parse.urlsplit` refuses the port of an authority with several hosts.
"""

import difflib
import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from coord_core.errors import InvalidUrl
from coord_core.protocol.commands import SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN
from coord_core.protocol.operations import PATH_BYTES_MAX

DEFAULT_PORT = 7400
#: Half of what a path may have, so that half remains for the names inside the namespace.
NAMESPACE_BYTES_MAX = PATH_BYTES_MAX // 2
_TIMEOUT_MS_MAX = 24 * 3600 * 1000

_SCHEMES = {"coord": False, "coords": True}
_TLS_OPTIONS = ("ca", "cert", "key")
_OPTIONS = ("ttl", "timeout", *_TLS_OPTIONS)
_EMBEDDED = "coord+embedded"
_EMBEDDED_OPTIONS = ("namespace", "ttl", "timeout")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(ms|s|m|h)", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


@dataclass(frozen=True, slots=True)
class ClientUrl:
    """A parsed URL.  Shows everything but the token."""

    #: host:port of each node, IPv6 in brackets.  Of an embedded node its directory.
    addresses: tuple[str, ...]
    #: "" or "/name": put before every path.
    namespace: str = ""
    token: str = field(default="", repr=False)
    tls: bool = False
    ttl_ms: int = 15_000
    #: For calls without a timeout of their own.
    timeout_ms: int = 10_000
    #: Files in PEM: who signs the nodes' certificates; our own certificate and its key.
    ca: str = ""
    cert: str = ""
    key: str = field(default="", repr=False)
    #: The node runs inside the processes that use it.
    embedded: bool = False


def parse_url(text: str) -> ClientUrl:
    """Return what `text` says.  Raises `InvalidUrl`."""
    if not isinstance(text, str):
        raise InvalidUrl(f"the URL is not text but {type(text).__name__}", part="url")
    if text.lower().startswith(f"{_EMBEDDED}:"):
        return _parse_embedded(text)
    try:
        return _parse(text)
    except InvalidUrl as error:
        if _may_show_token(text):  # What was taken for a host or an option is then perhaps the beginning of the token.
            message = "there is an '@' behind the hosts: in a token, '/' is written %2F and '?' %3F"
            raise InvalidUrl(message, part=error.details["part"]) from None
        raise


def _may_show_token(text: str) -> bool:
    """Tell whether an '@' comes after the first '/' or '?' behind the scheme: such a token ends later than a parser thinks."""
    return "@" in "".join(re.split("[/?]", text.partition("://")[2], maxsplit=1)[1:])


def _parse(text: str) -> ClientUrl:
    scheme, found, rest = text.partition("://")
    tls = _tls_of(scheme if found else "")
    if "#" in rest:
        raise InvalidUrl("the URL has a '#': it has no fragment, and in a token a '#' is written %23", part="fragment")
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    options = _options(query, _OPTIONS, tls)
    return ClientUrl(
        addresses=_addresses(hosts),
        namespace=_namespace(path) if slash else "",
        token=_token(userinfo) if at else "",
        tls=tls,
        ttl_ms=_ttl_ms(options),
        timeout_ms=_timeout_ms(options),
        ca=options.get("ca", ""),
        cert=options.get("cert", ""),
        key=options.get("key", ""),
    )


def _parse_embedded(text: str) -> ClientUrl:
    rest = text[len(_EMBEDDED) + 1 :]
    before, _, query = rest.partition("?")
    if "#" in rest:
        raise InvalidUrl("the URL has a '#': in a directory it is written %23", part="fragment")
    if not before.startswith("///") or not before.strip("/"):
        message = "an embedded node is named by a directory, from the root: coord+embedded:///var/lib/app/coord"
        raise InvalidUrl(message, part="path")
    directory = "/" + _decoded(before, "path").strip("/")
    if not directory.isprintable():
        raise InvalidUrl(f"the directory {directory!r} has a character that cannot be shown", part="path")
    options = _options(query, _EMBEDDED_OPTIONS, tls=False)
    return ClientUrl(
        addresses=(directory,),
        namespace=_named(options.get("namespace", "")),
        ttl_ms=_ttl_ms(options),
        timeout_ms=_timeout_ms(options),
        embedded=True,
    )


def _ttl_ms(options: dict[str, str]) -> int:
    return _bounded("ttl", options.get("ttl", "15s"), SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX)


def _timeout_ms(options: dict[str, str]) -> int:
    return _bounded("timeout", options.get("timeout", "10s"), 1, _TIMEOUT_MS_MAX)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[v6]:port".  Raises `InvalidUrl`."""
    host, _, port = address.rpartition(":")
    if not host:
        raise InvalidUrl(f"{address!r} is not host:port", part="host")
    return host.removeprefix("[").removesuffix("]"), _port(port)


def parse_duration_ms(text: str) -> int:
    """Return the milliseconds of "500ms", "15s", "1.5m" or "2h".  Raises `InvalidUrl`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidUrl(f"{text!r} is not a duration: a number and one of ms, s, m, h, such as 15s", part="duration")
    return round(float(match[1]) * _UNIT_MS[match[2]])


def _tls_of(scheme: str) -> bool:
    tls = _SCHEMES.get(scheme.lower())
    if tls is not None:
        return tls
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme, re.ASCII):
        message = f"the scheme {scheme!r} is not one of coord://, coords:// (with TLS) and coord+embedded:// (in this process)"
        raise InvalidUrl(message, part="scheme")
    raise InvalidUrl("the URL does not begin with coord:// or coords:// (with TLS)", part="scheme")


def _addresses(hosts: str) -> tuple[str, ...]:
    addresses = tuple(_address(part.strip()) for part in hosts.split(","))
    return tuple(dict.fromkeys(addresses))


def _address(part: str) -> str:
    if part.startswith("["):
        host, closed, after = part[1:].partition("]")
        if not closed or (after and not after.startswith(":")):
            raise InvalidUrl("an IPv6 address is written [address]:port", part="host")
        return f"[{_ipv6(host)}]:{_port(after[1:]) if after else DEFAULT_PORT}"
    if part.count(":") > 1:
        raise InvalidUrl(f"the host {part!r} has several colons: an IPv6 address is written [address]:port", part="host")
    host, colon, port = part.partition(":")
    if not host:
        raise InvalidUrl("a host is empty: hosts are written host:port, with commas between them", part="host")
    if not _HOST.fullmatch(host):
        raise InvalidUrl(f"{host!r} is not the name of a host", part="host")
    return f"{host}:{_port(port) if colon else DEFAULT_PORT}"


def _ipv6(text: str) -> str:
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError:
        raise InvalidUrl(f"{text!r} is not an IPv6 address", part="host") from None


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65535:
        raise InvalidUrl(f"the port {text!r} is not a number from 1 to 65535", part="port")
    return int(text)


def _namespace(path: str) -> str:
    if "@" in path:
        raise InvalidUrl("a namespace has no '@'", part="namespace")
    return _named(_decoded(path, "namespace"))


def _named(namespace: str) -> str:
    name = namespace.strip("/")
    if not name:
        return ""
    if "//" in name or not name.isprintable():
        raise InvalidUrl(f"the namespace {name!r} has an empty part or a character that cannot be shown", part="namespace")
    if len(name.encode()) > NAMESPACE_BYTES_MAX:
        raise InvalidUrl(f"the namespace is longer than {NAMESPACE_BYTES_MAX} bytes", part="namespace")
    return f"/{name}"


def _token(userinfo: str) -> str:
    token = _decoded(userinfo, "token")
    if not token:
        raise InvalidUrl("there is an '@', but no token before it", part="token")
    return token


def _options(query: str, known: tuple[str, ...], tls: bool) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        name = _decoded(name, "options")
        if name not in known:
            raise InvalidUrl(_unknown_option(name, known), part="options", option=name[:40])
        if name in options:
            raise InvalidUrl(f"the option {name!r} is given twice", part="options", option=name)
        if name in _TLS_OPTIONS and not tls:
            raise InvalidUrl(f"the option {name!r} is for TLS: it needs coords://", part="options", option=name)
        options[name] = _decoded(value, name)
        if not options[name]:
            raise InvalidUrl(f"the option {name!r} has no value", part="options", option=name)
    if ("cert" in options) != ("key" in options):
        raise InvalidUrl("the options 'cert' and 'key' go together", part="options", option="cert")
    return options


def _unknown_option(name: str, known: tuple[str, ...]) -> str:
    if known is _EMBEDDED_OPTIONS and name in (*_TLS_OPTIONS, "token"):
        return f"there is no option {name!r}: an embedded node speaks to the processes of its machine, and guards itself"
    if name.lower() in ("token", "password", "secret"):
        return f"there is no option {name!r}: the token is written before the hosts, coord://TOKEN@host"
    near = difflib.get_close_matches(name[:40], known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"there is no option {name[:40]!r}{hint}; the options are {', '.join(known)}"


def _bounded(name: str, text: str, least_ms: int, most_ms: int) -> int:
    try:
        value_ms = parse_duration_ms(text)
    except InvalidUrl as error:
        raise InvalidUrl(f"the option {name!r}: {error.message}", part="options", option=name) from None
    if not least_ms <= value_ms <= most_ms:
        raise InvalidUrl(
            f"the option {name!r} is {text}: it must be from {_readable(least_ms)} to {_readable(most_ms)}",
            part="options",
            option=name,
        )
    return value_ms


def _readable(ms: int) -> str:
    """Write a bound as it could stand in a URL: `500ms`, `24h`."""
    for unit, unit_ms in (("h", 3_600_000), ("s", 1000)):
        if ms % unit_ms == 0:
            return f"{ms // unit_ms}{unit}"
    return f"{ms}ms"


def _decoded(text: str, part: str) -> str:
    try:
        value = unquote(text, errors="strict")
        value.encode()
    except UnicodeError:
        raise InvalidUrl(f"the {part} is not UTF-8", part=part) from None
    if "\x00" in value:
        raise InvalidUrl(f"the {part} has a zero byte", part=part)
    return value
