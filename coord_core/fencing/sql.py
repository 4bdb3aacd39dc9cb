"""Guards for databases, with SQLAlchemy: the comparison is part of the transaction that writes.

The rule: one statement compares the token, remembers it and locks its row until the transaction ends.  So of two transactions with
tokens of one name, one comes wholly before the other:

- the later holder's was first: the earlier holder's statement finds the greater token, also when it had begun before or waited for
  the row, and is refused; its transaction rolls back with all it wrote;
- the earlier holder's was first: the later holder's waits for its end, and writes over a finished piece of work.

PostgreSQL: at READ COMMITTED a statement that waited compares with what is committed by then.  At REPEATABLE READ and SERIALIZABLE
the database refuses it instead (a serialization failure, 40001): nothing is written; begin again and be refused by name.
SQLite: the statement is a write, and there is one writer at a time; who waits longer than the driver's timeout gets "database is
locked", and nothing is written.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from coord_core.errors import InvalidRequest
from coord_core.fencing.tokens import NAME_BYTES_MAX, Fencing, Holding, fencing_of, stale

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

_T = TypeVar("_T")

_INSERTS: dict[str, Callable[[sa.Table], Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


class SqlFences:
    """A table of names and the greatest token seen of each, in the database that is to be guarded.

    `metadata`: yours, where your migrations are to make the table; else `create` does.
    """

    def __init__(self, table: str = "coord_fences", *, schema: str | None = None, metadata: sa.MetaData | None = None) -> None:
        self.table = sa.Table(
            table,
            sa.MetaData() if metadata is None else metadata,
            sa.Column("name", sa.String(NAME_BYTES_MAX), primary_key=True),
            sa.Column("token", sa.BigInteger, nullable=False),
            schema=schema,
        )
        self._upserts = {dialect: self._upsert(insert) for dialect, insert in _INSERTS.items()}

    # --- the table ---------------------------------------------------------------------------------------------------------------

    def create(self, engine: sa.Engine) -> None:
        """Make the table where it is not there.  Any number of processes may do so at once."""
        try:
            with engine.begin() as connection:
                connection.execute(CreateTable(self.table, if_not_exists=True))
        except sa.exc.DBAPIError:
            # PostgreSQL lets one of two that look at the same time run into the other's.
            with engine.connect() as connection:
                if not self._exists(connection):
                    raise

    async def create_async(self, engine: "AsyncEngine") -> None:
        """`create` for an asynchronous engine."""
        try:
            async with engine.begin() as connection:
                await connection.execute(CreateTable(self.table, if_not_exists=True))
        except sa.exc.DBAPIError:
            async with engine.connect() as connection:
                if not await connection.run_sync(self._exists):
                    raise

    def _exists(self, connection: sa.Connection) -> bool:
        return sa.inspect(connection).has_table(self.table.name, schema=self.table.schema)

    # --- the guard ---------------------------------------------------------------------------------------------------------------

    def guard(self, db: sa.Connection | Session, holding: Holding, *, name: str | None = None) -> None:
        """Let this transaction pass only if no later holder has written; from now to its end later holders wait for it.

        `holding`: a grant, a leadership, or a number with its `name`.  Call it in the transaction that writes, before or after the
        writes: at the end others wait for a shorter time.

        Raises `StaleToken`: let it pass through, so that the transaction rolls back.  Raises `InvalidRequest` where there is no
        transaction, because each statement commits by itself.
        """
        fencing = fencing_of(holding, name)
        connection = db.connection() if isinstance(db, Session) else db
        passed = connection.execute(self._statement(connection), {"name": fencing.name, "token": fencing.token}).first()
        _check_in_transaction(connection)
        if passed is None:
            raise stale(fencing, self._newest(connection, fencing.name))

    async def guard_async(self, db: "AsyncConnection | AsyncSession", holding: Holding, *, name: str | None = None) -> None:
        """`guard` for an asynchronous connection or session."""
        await db.run_sync(lambda sync: self.guard(sync, holding, name=name))

    @contextmanager
    def begin(self, engine: sa.Engine, holding: Holding, *, name: str | None = None) -> Iterator[sa.Connection]:
        """Open a transaction that commits only if no later holder has written by then.

        It looks once at the beginning, so that a holder who is late already begins nothing, and guards at the end: a holder that is
        stopped in the middle does not keep its successor waiting.  Raises `StaleToken`; then it has rolled back.
        """
        fencing = fencing_of(holding, name)
        with engine.begin() as connection:
            self._look(connection, fencing)
            yield connection
            self.guard(connection, fencing)

    @asynccontextmanager
    async def begin_async(
        self, engine: "AsyncEngine", holding: Holding, *, name: str | None = None
    ) -> "AsyncIterator[AsyncConnection]":
        """`begin` for an asynchronous engine."""
        fencing = fencing_of(holding, name)
        async with engine.begin() as connection:
            await connection.run_sync(self._look, fencing)
            yield connection
            await self.guard_async(connection, fencing)

    def newest(self, db: sa.Connection | Session, name: str) -> int | None:
        """Return the greatest token seen; None: none yet."""
        found: int | None = db.execute(sa.select(self.table.c.token).where(self.table.c.name == name)).scalar()
        return found

    def store(self, engine: sa.Engine) -> "SqlFenceStore":
        """Return what a middleware asks (`coord_core.fencing.http`): a transaction of its own a request."""
        return SqlFenceStore(self, engine)

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _look(self, connection: sa.Connection, fencing: Fencing) -> None:
        newest = self.newest(connection, fencing.name)
        if newest is not None and newest > fencing.token:
            raise stale(fencing, newest)

    def _newest(self, connection: sa.Connection, name: str) -> int:
        newest = self.newest(connection, name)
        assert newest is not None, "a row that refused a token is there"
        return newest

    def _statement(self, connection: sa.Connection) -> Any:
        statement = self._upserts.get(connection.dialect.name)
        if statement is None:
            known = " and ".join(sorted(self._upserts))
            message = f"fencing in {connection.dialect.name} is not offered: {known} are; see FencedColumn for other databases"
            raise InvalidRequest(message, field="engine")
        return statement

    def _upsert(self, insert: Callable[[sa.Table], Any]) -> Any:
        statement = insert(self.table).values(name=sa.bindparam("name"), token=sa.bindparam("token"))
        token = self.table.c.token
        return statement.on_conflict_do_update(
            index_elements=[self.table.c.name], set_={"token": statement.excluded.token}, where=token <= statement.excluded.token
        ).returning(token)


class SqlFenceStore:
    """`SqlFences` as a store of its own, for a door whose writes are elsewhere."""

    def __init__(self, fences: SqlFences, engine: sa.Engine) -> None:
        self._fences = fences
        self._engine = engine

    def check(self, holding: Holding, *, name: str | None = None) -> None:
        """Remember the token, or raise `StaleToken`."""
        with self._engine.begin() as connection:
            self._fences.guard(connection, holding, name=name)


class FencedColumn:
    """A column of your own table that holds the token under which each row was last written.

    Nullable (nobody has written under a token yet) or not.  Works on every database at READ COMMITTED or above.
    """

    def __init__(self, column: "sa.Column[Any]") -> None:
        if not isinstance(column.type, sa.Integer) or isinstance(column.type, sa.SmallInteger):
            raise InvalidRequest(f"{column} is no BigInteger: a token does not fit", field="column")
        self._column = column

    def execute(self, db: sa.Connection | Session, statement: sa.Update, holding: Holding, *, name: str | None = None) -> int:
        """Carry out an UPDATE where no row that it names was written by a later holder; return how many rows there were.

        Each row that is written remembers the token.  Zero: there is no such row; insert it with the token in its column, and let
        its primary key refuse the second of two that do.

        Raises `StaleToken` where one of the rows was: let it pass through, so that the transaction rolls back.
        """
        fencing = fencing_of(holding, self._column.name if name is None and isinstance(holding, int) else name)
        connection = db.connection() if isinstance(db, Session) else db
        passes = sa.or_(self._column.is_(None), self._column <= fencing.token)
        written = connection.execute(statement.where(passes).values({self._column: fencing.token})).rowcount
        _check_in_transaction(connection)
        # What was written is locked; what is left of the rows was refused, or comes from a later holder meanwhile.
        named = [] if statement.whereclause is None else [statement.whereclause]
        newest = connection.execute(sa.select(sa.func.max(self._column)).where(*named)).scalar()
        if newest is not None and newest > fencing.token:
            raise stale(fencing, newest)
        return written

    async def execute_async(
        self, db: "AsyncConnection | AsyncSession", statement: sa.Update, holding: Holding, *, name: str | None = None
    ) -> int:
        """`execute` for an asynchronous connection or session."""
        return await db.run_sync(lambda sync: self.execute(sync, statement, holding, name=name))


def _check_in_transaction(connection: sa.Connection) -> None:
    """Raise `InvalidRequest` where what was just executed stands already: comparison and writes would be apart."""
    pooled = connection.connection
    if connection.dialect.name == "sqlite":
        open_ = bool(getattr(pooled.driver_connection, "in_transaction", True))
    else:
        assert pooled.dbapi_connection is not None
        open_ = not connection.dialect.detect_autocommit_setting(pooled.dbapi_connection)
    if not open_:
        raise InvalidRequest(
            "this connection commits each statement by itself (AUTOCOMMIT): a guard and what it guards must be one transaction",
            field="isolation_level",
        )
