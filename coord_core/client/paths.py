"""Checks of what callers pass, before anything is sent: clearer and earlier than the cluster's refusal."""

import math
from collections.abc import Mapping

from coord_core.errors import InvalidRequest, LimitExceeded
from coord_core.protocol.locks import CLOSED_MS_MAX
from coord_core.protocol.operations import LABEL_BYTES_MAX, PATH_BYTES_MAX, VALUE_BYTES_MAX
from coord_core.protocol.parking import GRACE_MS_MAX, PIECE_ID_BYTES_MAX, PIECE_KEY_BYTES_MAX
from coord_core.protocol.streams import ANNOUNCE_WAIT_MS_MAX
from coord_core.protocol.topics import HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, Headers

_WAIT_MS_MAX = 2**52


def full_path(namespace: str, path: str) -> str:
    """Return the path as the cluster knows it.  Raises `InvalidRequest`."""
    if not path.startswith("/") or path == "/":
        raise InvalidRequest(f"a path begins with '/' and names something, such as /jobs/nightly: {path!r} does not", field="path")
    full = namespace + path
    if not is_text(full, PATH_BYTES_MAX):
        raise InvalidRequest(f"the path is not UTF-8, or longer than {PATH_BYTES_MAX} bytes: {full[:60]!r}...", field="path")
    return full


def is_text(text: str, bytes_max: int) -> bool:
    """Tell whether it can be sent: UTF-8 (a lone surrogate is none) of at most so many bytes."""
    try:
        return len(text.encode()) <= bytes_max
    except UnicodeEncodeError:
        return False


def label(text: str) -> str:
    """Return the label, cut to what an owner may carry: it is for people only."""
    data = text.encode(errors="replace")
    return text if len(data) <= LABEL_BYTES_MAX else data[:LABEL_BYTES_MAX].decode(errors="ignore")


def acquire_wait_ms(timeout: float | None) -> int | None:
    """Return the milliseconds of a waiting time in seconds; None stays: without end.  Raises `InvalidRequest`."""
    if timeout is None or timeout == math.inf:
        return None
    if not 0 <= timeout * 1000 <= _WAIT_MS_MAX:
        raise InvalidRequest(f"a timeout is a number of seconds from 0, or None to wait without end: {timeout!r}", field="timeout")
    return math.ceil(timeout * 1000)


def announce_ms(timeout: float) -> int:
    """Return the milliseconds for which an announcement may wait.  Raises `InvalidRequest`."""
    if not 0 <= timeout * 1000 <= ANNOUNCE_WAIT_MS_MAX:
        most = ANNOUNCE_WAIT_MS_MAX // 1000
        raise InvalidRequest(f"a timeout is a number of seconds from 0 to {most}: {timeout!r}", field="timeout")
    return math.ceil(timeout * 1000)


def closed_ms(field: str, duration: float) -> int:
    """Return the milliseconds for which a lock is to be kept closed.  Raises `InvalidRequest`."""
    if not 0 <= duration * 1000 <= CLOSED_MS_MAX:
        raise InvalidRequest(f"{field} is a number of seconds from 0 to {CLOSED_MS_MAX // 1000}: {duration!r}", field=field)
    return math.ceil(duration * 1000)


def ttl_ms(ttl: float | None) -> int | None:
    """Return the milliseconds of a lifetime in seconds.  Raises `InvalidRequest`."""
    if ttl is None:
        return None
    if not 0 < ttl * 1000 <= _WAIT_MS_MAX:
        raise InvalidRequest(f"a ttl is a number of seconds above 0, or None: {ttl!r}", field="ttl")
    return math.ceil(ttl * 1000)


def age_ms(age: float | None) -> int | None:
    """Return the milliseconds of an age in seconds; None stays: for ever.  Raises `InvalidRequest`."""
    if age is None:
        return None
    if not 0 < age * 1000 <= _WAIT_MS_MAX:
        raise InvalidRequest(f"an age is a number of seconds above 0, or None: {age!r}", field="max_age")
    return math.ceil(age * 1000)


def patience_ms(timeout: float | None) -> int | None:
    """Return the milliseconds after which a parked piece expires; None stays: never.  Raises `InvalidRequest`."""
    if timeout is None or timeout == math.inf:
        return None
    if not 0 < timeout * 1000 <= _WAIT_MS_MAX:
        raise InvalidRequest(f"a timeout is a number of seconds above 0, or None: {timeout!r}", field="timeout")
    return math.ceil(timeout * 1000)


def grace_ms(grace: float) -> int:
    """Return the milliseconds for which a called piece is waited for.  Raises `InvalidRequest`."""
    if not 0 < grace * 1000 <= GRACE_MS_MAX:
        raise InvalidRequest(f"grace is a number of seconds above 0, at most {GRACE_MS_MAX // 1000}: {grace!r}", field="grace")
    return math.ceil(grace * 1000)


def piece_key(text: str) -> str:
    """Return the key under which a piece is parked.  Raises `InvalidRequest`."""
    return _text("key", text, PIECE_KEY_BYTES_MAX)


def piece_id(text: str) -> str:
    """Return the id of a piece.  Raises `InvalidRequest`."""
    return _text("id", text, PIECE_ID_BYTES_MAX)


def value(data: bytes) -> bytes:
    """Return the value.  Raises `InvalidRequest`, `LimitExceeded`."""
    return _bytes("a value", data, VALUE_BYTES_MAX)


def payload(data: bytes) -> bytes:
    """Return the message.  Raises `InvalidRequest`, `LimitExceeded`."""
    return _bytes("a message", data, PAYLOAD_BYTES_MAX)


def key(data: str | bytes | None) -> bytes | None:
    """Return a message's key.  Raises `InvalidRequest`, `LimitExceeded`."""
    if data is None:
        return None
    return _bytes("a key", data.encode(errors="surrogateescape") if isinstance(data, str) else data, KEY_BYTES_MAX)


def headers(given: Mapping[str, str | bytes] | None) -> Headers:
    """Return a message's headers.  Raises `InvalidRequest`, `LimitExceeded`."""
    if not given:
        return ()
    if len(given) > HEADERS_MAX:
        raise LimitExceeded(f"a message has at most {HEADERS_MAX} headers", limit=HEADERS_MAX, value=len(given))
    found = tuple((_name(name), _header(value)) for name, value in given.items())
    size = sum(len(name.encode()) + len(value) for name, value in found)
    if size > HEADERS_BYTES_MAX:
        raise LimitExceeded(f"a message's headers have at most {HEADERS_BYTES_MAX} bytes", limit=HEADERS_BYTES_MAX, value=size)
    return found


def _text(field: str, text: str, most: int) -> str:
    try:
        size = len(text.encode())
    except (AttributeError, UnicodeEncodeError):
        size = 0
    if not 1 <= size <= most:
        raise InvalidRequest(f"the {field} of a piece is text of 1 to {most} bytes: {text!r:.80}", field=field)
    return text


def _name(name: str) -> str:
    try:
        name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InvalidRequest(f"the name of a header is text: {name!r}", field="headers") from None
    return name


def _header(value: str | bytes) -> bytes:
    return _bytes("a header", value.encode(errors="surrogateescape") if isinstance(value, str) else value, HEADERS_BYTES_MAX)


def _bytes(what: str, data: bytes, most: int) -> bytes:
    if type(data) is not bytes and not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidRequest(f"{what} is bytes, not {type(data).__name__}", field="value")
    if len(data) > most:
        raise LimitExceeded(f"{what} has at most {most} bytes", limit=most, value=len(data))
    return bytes(data)
