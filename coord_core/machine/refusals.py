"""The answers `Failed` of this package, and the checks of single fields that end in one.

A check returns None where there is nothing to object to.  Errors are named by the classes of `coord_core.errors`, so that a
misspelt code cannot be written.
"""

from coord_core import errors
from coord_core.machine.bounds import DURATION_MS_MAX, HOST_BYTES_MAX, NUMBER_MAX
from coord_core.protocol.operations import LABEL_BYTES_MAX, PATH_BYTES_MAX, Owner
from coord_core.protocol.results import Failed
from coord_core.types import AttachmentId, RequestNumber, SessionId


def refuse(error: type[errors.CoordError], message: str, **details: str | int) -> Failed:
    return Failed(error.__name__, message, details)


def invalid(field: str, message: str) -> Failed:
    return refuse(errors.InvalidRequest, f"{field}: {message}", field=field)


def over_limit(what: str, limit: int, value: int) -> Failed:
    return refuse(errors.LimitExceeded, f"{what}: at most {limit}, this would make {value}", what=what, limit=limit, value=value)


def session_expired(session: SessionId) -> Failed:
    return refuse(errors.SessionExpired, f"session {session} has expired or was closed", session=session)


def session_closed(session: SessionId) -> Failed:
    return refuse(errors.SessionClosed, f"session {session} was closed", session=session)


def attachment_closed(session: SessionId, attachment: AttachmentId) -> Failed:
    message = f"attachment {attachment} of session {session} is closed"
    return refuse(errors.AttachmentClosed, message, session=session, attachment=attachment)


def superseded(name: str, by: str) -> Failed:
    """`by`: "process" or "attempt"."""
    who = "a later attempt" if by == "attempt" else "another process"
    return refuse(errors.Superseded, f"{who} has taken up the detached session {name}: stop, and never take it up again", by=by)


def actor_left(name: str) -> Failed:
    return refuse(errors.Superseded, f"the process that had the detached session {name} has left it", by="process")


def stale_request(request: RequestNumber) -> Failed:
    return refuse(errors.StaleRequest, f"request {request} counts as answered; it was not applied", request=request)


def wrong_type(path: str, kind: str) -> Failed:
    return refuse(errors.WrongType, f"{path} is in use as a {kind}", path=path, type=kind)


def utf8_length(text: str) -> int:
    """Return the bytes of `text` in UTF-8; -1 where it cannot be encoded (a lone surrogate)."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1


def check_path(path: str) -> Failed | None:
    length = utf8_length(path)
    if length < 0 or not path.startswith("/"):
        return invalid("path", "must be UTF-8 and begin with a slash")
    if length > PATH_BYTES_MAX:
        return over_limit("bytes of a path", PATH_BYTES_MAX, length)
    return None


def check_owner(owner: Owner) -> Failed | None:
    host, label = utf8_length(owner.host), utf8_length(owner.label)
    if host < 0 or label < 0:
        return invalid("owner", "must be UTF-8")
    if host > HOST_BYTES_MAX:
        return over_limit("bytes of an owner's host", HOST_BYTES_MAX, host)
    if label > LABEL_BYTES_MAX:
        return over_limit("bytes of an owner's label", LABEL_BYTES_MAX, label)
    if not 0 <= owner.pid <= NUMBER_MAX:
        return invalid("owner", "has a process id that is none")
    return None


def check_duration(field: str, duration_ms: int, least_ms: int) -> Failed | None:
    if not least_ms <= duration_ms <= DURATION_MS_MAX:
        return invalid(field, f"must be between {least_ms} and {DURATION_MS_MAX} ms")
    return None
