"""The header and the two doors."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import pytest
import redis
import sqlalchemy as sa

from coord_core.errors import InvalidRequest, StaleToken
from coord_core.fencing import (
    HEADER,
    AsgiFencing,
    AsyncRedisFences,
    Fencing,
    MemoryFences,
    RedisFences,
    SqlFences,
    WsgiFencing,
    fencing_header,
    parse_header,
    raise_if_stale,
)

NAME = "/jobs/nightly"

pytestmark = pytest.mark.xdist_group("fencing")


# --- the header ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, 'a "quoted", name', "ü/日本", "a=b;c%20", " "])
def test_header_says_what_was_put_in(name: str):
    header = fencing_header(7, name=name)
    assert list(header) == [HEADER]
    assert header[HEADER].isascii()
    assert parse_header(header[HEADER]) == Fencing(name, 7)


def test_header_is_readable():
    assert fencing_header(7, name=NAME) == {"Coord-Fencing-Token": 'name="/jobs/nightly", token=7'}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "7",
        "name=/a, token=7",
        'name="/a"',
        'name="/a", token=',
        'name="/a", token=-7',
        'name="/a", token=7.0',
        'name="/a", token=0',
        'name="/a", token=9007199254740992',
        'name="", token=7',
        'name="/a", token=7, token=8',
        'name="%ff", token=7',
        'name="/a", token=٧',
        'name="/a", token=7, name="/a", token=9',
    ],
)
def test_header_that_is_not_exactly_of_the_form_is_refused(value: str):
    """A token that is not understood protects nothing."""
    with pytest.raises(InvalidRequest):
        parse_header(value)


# --- the doors -------------------------------------------------------------------------------------------------------------------


def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(environ.get("coord.fencing")).encode()]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(scope.get("coord.fencing")).encode()})


class Door:
    """Either door, asked in one way: returns status and body."""

    def __init__(self, kind: str, store: Any, *, required: bool = False) -> None:
        self._kind = kind
        self._app: Any = (
            validator(WsgiFencing(wsgi_app, store, required=required))
            if kind == "wsgi"
            else AsgiFencing(asgi_app, store, required=required)
        )

    def ask(self, *values: str) -> tuple[int, bytes]:
        return self._ask_wsgi(values) if self._kind == "wsgi" else asyncio.run(self._ask_asgi(values))

    def _ask_wsgi(self, values: tuple[str, ...]) -> tuple[int, bytes]:
        from wsgiref.util import setup_testing_defaults

        environ: dict[str, Any] = {"QUERY_STRING": ""}
        setup_testing_defaults(environ)
        if values:
            environ["HTTP_COORD_FENCING_TOKEN"] = ",".join(values)
        said: list[str] = []
        answer = self._app(environ, lambda status, headers, *more: said.append(status))
        body = b"".join(answer)
        answer.close()
        return int(said[0].split()[0]), body

    async def _ask_asgi(self, values: tuple[str, ...]) -> tuple[int, bytes]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"coord-fencing-token", value.encode("latin-1")) for value in values]
        await self._app({"type": "http", "headers": headers}, None, send)
        return sent[0]["status"], sent[1]["body"]


def shown(token: int) -> str:
    return fencing_header(token, name=NAME)[HEADER]


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory", "redis", "sqlite"])
def store(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return MemoryFences()
    if request.param == "redis":
        return RedisFences(request.getfixturevalue("redis_client"))
    engine = sa.create_engine(request.getfixturevalue("sqlite_url"))
    fences = SqlFences()
    fences.create(engine)
    return fences.store(engine)


def test_a_stale_request_does_not_reach_the_application(kind: str, store: Any):
    """It is answered with 412 and says by whom it was passed; the caller gets the same error as from a database."""
    door = Door(kind, store)
    for token in (5, 9):
        assert door.ask(shown(token)) == (200, str(Fencing(NAME, token)).encode())
    status, body = door.ask(shown(8))
    assert (status, json.loads(body)["error"]) == (412, "StaleToken")
    with pytest.raises(StaleToken) as caught:
        raise_if_stale(status, body)
    assert (caught.value.name, caught.value.token, caught.value.newest) == (NAME, 8, 9)


def test_a_request_without_a_token_passes_unless_one_is_required(kind: str):
    assert Door(kind, MemoryFences()).ask() == (200, b"None")
    status, body = Door(kind, MemoryFences(), required=True).ask()
    assert (status, json.loads(body)["error"]) == (428, "FencingRequired")


@pytest.mark.parametrize("values", [("token=7",), (shown(7), shown(9))], ids=["malformed", "two of them"])
def test_a_header_that_cannot_be_read_is_refused(kind: str, values: tuple[str, ...]):
    """Of two nobody knows which one is meant."""
    status, body = Door(kind, MemoryFences()).ask(*values)
    assert (status, json.loads(body)["error"]) == (400, "InvalidRequest")


async def test_asgi_door_asks_an_asynchronous_store(redis_socket: str, redis_client: redis.Redis):
    client = redis.asyncio.Redis(unix_socket_path=redis_socket)
    door = Door("asgi", AsyncRedisFences(client))
    assert [(await door._ask_asgi((shown(token),)))[0] for token in (9, 8)] == [200, 412]
    await client.aclose()


async def test_asgi_door_lets_websockets_and_lifespan_pass():
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    door = AsgiFencing(app, MemoryFences(), required=True)
    for kind in ("lifespan", "websocket"):
        await door({"type": kind, "headers": []}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket"]


@pytest.mark.parametrize(("status", "body"), [(200, b"{}"), (412, b"not json"), (412, b"[]"), (412, b'{"error": "Other"}')])
def test_any_other_answer_is_left_to_the_caller(status: int, body: bytes):
    """A 412 may come from elsewhere."""
    raise_if_stale(status, body)


# --- over a socket ---------------------------------------------------------------------------------------------------------------


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    import threading

    server = make_server("127.0.0.1", 0, WsgiFencing(wsgi_app, MemoryFences()), handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield "127.0.0.1", server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_header_travels_over_a_real_connection(address: tuple[str, int]):
    import http.client

    answers = []
    for token in (9, 8):
        connection = http.client.HTTPConnection(*address, timeout=10)
        connection.request("POST", "/", b"", fencing_header(token, name=NAME))
        answer = connection.getresponse()
        answers.append((answer.status, answer.read()))
        connection.close()
    assert [status for status, _ in answers] == [200, 412]
    with pytest.raises(StaleToken):
        raise_if_stale(*answers[1])
