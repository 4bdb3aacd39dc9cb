"""A door for services: requests that carry a stale token are refused before the application sees them.

The rule: the door remembers a token when its request comes in, so a request that is late is refused, and so is one that was sent
again.  A request that has passed may still be slow inside; where its writes go to a database, guard them there as well, in their
transaction, with the token that the door leaves for the application (`environ["coord.fencing"]`, `scope["coord.fencing"]`).

Answers: 412 where the token is stale, 400 where the header is malformed or comes twice, 428 where one is required and there is
none.  WebSockets pass.
"""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

from coord_core.errors import InvalidRequest, StaleToken
from coord_core.fencing.headers import HEADER, STALE_STATUS, parse_header, refusal
from coord_core.fencing.tokens import Fencing, Holding

#: Under which the application finds the `Fencing` of its request, where there is one.
KEY = "coord.fencing"

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
StartResponse: TypeAlias = Callable[..., Any]
WsgiApp: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Store(Protocol):
    """Remembers tokens: `MemoryFences`, `RedisFences`, `AsyncRedisFences` (ASGI only), `SqlFences(...).store(engine)`."""

    def check(self, holding: Holding, *, name: str | None = None) -> Awaitable[None] | None:
        """Remember the token, or raise `StaleToken`."""
        ...


class _Refused(Exception):
    """The answer to a request that goes no further."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class WsgiFencing:
    """A WSGI application before which stale requests are refused."""

    def __init__(self, app: WsgiApp, store: Store, *, required: bool = False) -> None:
        """`required`: refuse requests without a token."""
        self._app = app
        self._store = store
        self._required = required

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        try:
            # A server joins headers of one name with commas; two of ours are then malformed.
            fencing = _read(environ.get("HTTP_COORD_FENCING_TOKEN"), self._required)
            if fencing is not None:
                environ[KEY] = fencing
                with _refusing():
                    self._store.check(fencing)
        except _Refused as refused:
            reason = HTTPStatus(refused.status).phrase
            start_response(f"{refused.status} {reason}", _headers(refused.body))
            return [refused.body]
        return self._app(environ, start_response)


class AsgiFencing:
    """An ASGI application before which stale requests are refused.  A store that blocks is asked on a thread."""

    def __init__(self, app: AsgiApp, store: Store, *, required: bool = False) -> None:
        """`required`: refuse requests without a token."""
        self._app = app
        self._store = store
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._admit(scope)
            except _Refused as refused:
                headers = [(name.lower().encode(), value.encode()) for name, value in _headers(refused.body)]
                await send({"type": "http.response.start", "status": refused.status, "headers": headers})
                await send({"type": "http.response.body", "body": refused.body})
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        wanted = HEADER.lower().encode()
        values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted]
        fencing = _read(", ".join(values) if values else None, self._required)
        if fencing is None:
            return
        scope[KEY] = fencing
        with _refusing():
            if inspect.iscoroutinefunction(self._store.check):
                await self._store.check(fencing)
            else:
                await asyncio.to_thread(self._store.check, fencing)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn `StaleToken` into the answer."""
    try:
        yield
    except StaleToken as error:
        raise _Refused(STALE_STATUS, refusal(error)) from error


def _read(value: str | None, required: bool) -> Fencing | None:
    if value is None:
        if required:
            raise _Refused(428, _said("FencingRequired", f"this service takes requests with the header {HEADER} only"))
        return None
    try:
        return parse_header(value)
    except InvalidRequest as error:
        raise _Refused(400, _said(error.code, error.message)) from error


def _said(code: str, message: str) -> bytes:
    return json.dumps({"error": code, "message": message}).encode()


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
