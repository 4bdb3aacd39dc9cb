"""`Coord-Fencing-Token: name="/jobs/nightly", token=1234`: a token on its way to a service.

The rule: a header that is not exactly of this form is refused, never guessed at: a token that is not understood protects nothing.
In the name everything but letters, digits and `/._-~:` is percent-encoded UTF-8.

A service believes what the header says.  Take it only from callers that you trust: a token that is far too great would lock all
others out.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from coord_core.errors import InvalidRequest, StaleToken
from coord_core.fencing.tokens import Fencing, Holding, fencing_of

HEADER = "Coord-Fencing-Token"
#: "The server does not meet one of the preconditions that the requester put on the request header fields" (RFC 9110, 15.5.13).
STALE_STATUS = 412
_FORM = re.compile(r'name="([A-Za-z0-9/._~:%-]{1,2048})", ?token=([0-9]{1,16})', re.ASCII)
_BODY_BYTES_MAX = 64 * 1024


def fencing_header(holding: Holding, *, name: str | None = None) -> dict[str, str]:
    """Return the header that shows what the caller holds, as a dict to merge into a request's headers.

    Raises `InvalidRequest` (no name, no token), `LockLost`, `LeadershipLost` (a handle that holds nothing).
    """
    fencing = fencing_of(holding, name)
    return {HEADER: f'name="{quote(fencing.name, safe="/:")}", token={fencing.token}'}


def parse_header(value: str) -> Fencing:
    """Return the token that a header's value shows.  Raises `InvalidRequest`."""
    match = _FORM.fullmatch(value.strip())
    if match is None:
        raise InvalidRequest(f'the header {HEADER} is not of the form name="/path", token=123', field=HEADER)
    try:
        name = unquote(match[1], errors="strict")
    except UnicodeError:
        raise InvalidRequest(f"the name in the header {HEADER} is not UTF-8", field=HEADER) from None
    return fencing_of(int(match[2]), name)


def refusal(error: StaleToken) -> bytes:
    """Return the body of the answer to a stale request."""
    said = {"error": "StaleToken", "message": error.message, "name": error.name, "token": error.token, "newest": error.newest}
    return json.dumps(said).encode()


def raise_if_stale(status: int, body: bytes | str) -> None:
    """Raise the `StaleToken` with which a service answered; do nothing with any other answer."""
    if status != STALE_STATUS or len(body) > _BODY_BYTES_MAX:
        return
    try:
        said: Any = json.loads(body)
    except ValueError:
        return
    if isinstance(said, Mapping) and said.get("error") == "StaleToken":
        facts = {key: said[key] for key in ("name", "token", "newest") if key in said}
        raise StaleToken(str(said.get("message", "the service has seen a later holder")), **facts)
