"""One way to write to each of the guarded stores, for the processes that race for them."""

import http.client
from abc import ABC, abstractmethod

import redis
import sqlalchemy as sa

from coord_core.fencing import FencedColumn, RedisFences, SqlFences, fencing_header, raise_if_stale

KINDS = ("postgresql", "postgresql-guard-last", "postgresql-column", "sqlite", "redis", "http")


class Store(ABC):
    """What was accepted, in the order in which it took effect."""

    @abstractmethod
    def write(self, token: int, name: str) -> None:
        """Write under a token.  Raises `StaleToken`."""

    @abstractmethod
    def written(self) -> list[int]:
        """Return the tokens of what was accepted, first to last."""


class SqlStore(Store):
    def __init__(self, url: str, *, guard_last: bool = False) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        self._guard_last = guard_last
        self._fences = SqlFences()
        self._log = sa.Table(
            "log",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("token", sa.BigInteger),
        )

    def prepare(self) -> None:
        self._fences.create(self._engine)
        self._log.metadata.create_all(self._engine)

    def write(self, token: int, name: str) -> None:
        with self._engine.begin() as db:
            if not self._guard_last:
                self._fences.guard(db, token, name=name)
            # A number is drawn only now where the guard comes first, and then under its lock: numbers are in order of commit.
            db.execute(sa.insert(self._log).values(token=token))
            if self._guard_last:
                self.before_guard()
                self._fences.guard(db, token, name=name)

    def before_guard(self) -> None:
        """In the middle of the transaction: all is written, nothing is committed."""

    def written(self) -> list[int]:
        with self._engine.connect() as db:
            return list(db.execute(sa.select(self._log.c.token).order_by(self._log.c.id)).scalars())


class ColumnStore(Store):
    """One row; its versions are in the order in which they were written."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        self._row = sa.Table(
            "fenced_row",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("versions", sa.Text, nullable=False),
            sa.Column("fencing_token", sa.BigInteger),
        )
        self._column = FencedColumn(self._row.c.fencing_token)

    def prepare(self) -> None:
        with self._engine.begin() as db:
            self._row.metadata.create_all(db)
            db.execute(sa.insert(self._row).values(id=1, versions=""))

    def write(self, token: int, name: str) -> None:
        statement = sa.update(self._row).values(versions=self._row.c.versions + f" {token}").where(self._row.c.id == 1)
        with self._engine.begin() as db:
            assert self._column.execute(db, statement, token, name=name) == 1

    def written(self) -> list[int]:
        with self._engine.connect() as db:
            return [int(token) for token in db.execute(sa.select(self._row.c.versions)).scalar_one().split()]


class RedisStore(Store):
    def __init__(self, socket: str) -> None:
        self._client = redis.Redis(unix_socket_path=socket)
        self._fences = RedisFences(self._client)

    def write(self, token: int, name: str) -> None:
        self._fences.fenced("return redis.call('RPUSH', KEYS[1], ARGV[1])", token, name=name, keys=["log"], args=[token])

    def written(self) -> list[int]:
        return [int(token) for token in self._client.lrange("log", 0, -1)]


class HttpStore(Store):
    """A service behind a door; it answers GET with what it took."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)

    def write(self, token: int, name: str) -> None:
        status, body = self._ask("POST", fencing_header(token, name=name))
        raise_if_stale(status, body)
        assert status == 200, (status, body)

    def written(self) -> list[int]:
        return [int(token) for token in self._ask("GET", {})[1].split()]

    def _ask(self, method: str, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._address, timeout=10)
        try:
            connection.request(method, "/", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def open_store(kind: str, address: str) -> Store:
    match kind:
        case "postgresql" | "sqlite":
            return SqlStore(address)
        case "postgresql-guard-last":
            return SqlStore(address, guard_last=True)
        case "postgresql-column":
            return ColumnStore(address)
        case "redis":
            return RedisStore(address)
        case "http":
            return HttpStore(address)
    raise ValueError(kind)
