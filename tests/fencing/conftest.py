"""The stores, started once for all tests of the room."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from tests.fencing.servers import postgresql, redis_server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[str]:
    with redis_server() as socket:
        yield socket


@pytest.fixture
def redis_client(redis_socket: str) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=redis_socket) as client:
        client.flushall()
        yield client


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=["postgresql", "sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database that has nothing in it yet."""
    if request.param == "sqlite":
        url: str = request.getfixturevalue("sqlite_url")
        return url
    return fresh_schema(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    found = sa.create_engine(database_url)
    yield found
    found.dispose()


def fresh_schema(url: str) -> str:
    """Return the URL of an empty schema in a PostgreSQL."""
    name = f"test_{next(_numbers)}"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(name))
    return f"{url}&options=-csearch_path%3D{name}"
