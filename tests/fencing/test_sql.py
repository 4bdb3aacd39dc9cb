"""The guard in a transaction, on a real PostgreSQL and a real SQLite."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from coord_core.errors import InvalidRequest, StaleToken
from coord_core.fencing import FencedColumn, SqlFences
from tests.cli.running import until
from tests.fencing.conftest import fresh_schema

NAME = "/jobs/nightly"

pytestmark = pytest.mark.xdist_group("fencing")

_meta = sa.MetaData()
notes = sa.Table("notes", _meta, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(100), nullable=False))
reports = sa.Table(
    "reports",
    _meta,
    sa.Column("day", sa.Integer, primary_key=True),
    sa.Column("text", sa.String(100), nullable=False),
    sa.Column("fencing_token", sa.BigInteger),
)


@pytest.fixture
def fences(engine: sa.Engine) -> SqlFences:
    found = SqlFences()
    found.create(engine)
    _meta.create_all(engine)
    return found


def texts(engine: sa.Engine) -> list[str]:
    with engine.connect() as db:
        return list(db.execute(sa.select(notes.c.text).order_by(notes.c.id)).scalars())


def write(db: sa.Connection | Session, text: str) -> None:
    db.execute(sa.insert(notes).values(text=text))


def in_transaction(engine: sa.Engine, *steps: Callable[[sa.Connection], object]) -> None:
    with engine.begin() as db:
        for step in steps:
            step(db)


# --- the rule --------------------------------------------------------------------------------------------------------------------


def test_a_greater_token_passes_and_is_remembered_an_equal_one_passes(engine: sa.Engine, fences: SqlFences):
    for token in (5, 5, 9):
        with engine.begin() as db:
            fences.guard(db, token, name=NAME)
            write(db, f"by {token}")
    with engine.connect() as db:
        assert fences.newest(db, NAME) == 9
        assert fences.newest(db, "/another") is None
    assert texts(engine) == ["by 5", "by 5", "by 9"]


@pytest.mark.parametrize("guard_first", [True, False])
def test_a_smaller_token_is_refused_with_all_that_its_transaction_wrote(engine: sa.Engine, fences: SqlFences, guard_first: bool):
    """It does not matter whether the guard comes before or after the writes."""
    with engine.begin() as db:
        fences.guard(db, 9, name=NAME)
    steps = [lambda db: fences.guard(db, 8, name=NAME), lambda db: write(db, "late")]
    with pytest.raises(StaleToken) as caught:
        in_transaction(engine, *(steps if guard_first else reversed(steps)))
    assert (caught.value.name, caught.value.token, caught.value.newest) == (NAME, 8, 9)
    assert texts(engine) == []


def test_what_is_rolled_back_was_not_seen(engine: sa.Engine, fences: SqlFences):
    """A later holder that wrote nothing has fenced nobody off."""
    with engine.connect() as db:
        fences.guard(db, 9, name=NAME)
        db.rollback()
    with engine.begin() as db:
        fences.guard(db, 5, name=NAME)


def test_names_do_not_touch_each_other(engine: sa.Engine, fences: SqlFences):
    with engine.begin() as db:
        fences.guard(db, 9, name="/a")
        fences.guard(db, 2, name="/b")


def test_greatest_token_fits(engine: sa.Engine, fences: SqlFences):
    with engine.begin() as db:
        fences.guard(db, 2**53 - 1, name=NAME)
        assert fences.newest(db, NAME) == 2**53 - 1


# --- the ways in -----------------------------------------------------------------------------------------------------------------


def test_begin_refuses_who_is_late_already_before_it_does_anything(engine: sa.Engine, fences: SqlFences):
    with fences.begin(engine, 9, name=NAME) as db:
        write(db, "new")
    with pytest.raises(StaleToken), fences.begin(engine, 8, name=NAME):
        pytest.fail("the body began")
    assert texts(engine) == ["new"]


def test_begin_rolls_back_what_raised(engine: sa.Engine, fences: SqlFences):
    def write_half() -> None:
        with fences.begin(engine, 9, name=NAME) as db:
            write(db, "half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert texts(engine) == []
    with engine.connect() as db:
        assert fences.newest(db, NAME) is None


def test_an_orm_session_is_guarded_like_a_connection(engine: sa.Engine, fences: SqlFences):
    def write_under(token: int, text: str) -> None:
        with Session(engine) as session, session.begin():
            write(session, text)
            fences.guard(session, token, name=NAME)

    write_under(9, "new")
    with pytest.raises(StaleToken):
        write_under(8, "late")
    assert texts(engine) == ["new"]


async def test_asynchronous_engines_and_sessions_are_guarded_alike(database_url: str):
    """By the same statements: the guard is one."""
    engine = create_async_engine(database_url.replace("sqlite:", "sqlite+aiosqlite:"))
    fences = SqlFences()
    await fences.create_async(engine)
    await fences.create_async(engine)
    async with engine.begin() as db:
        await db.run_sync(_meta.create_all)
    async with fences.begin_async(engine, 9, name=NAME) as db:
        await db.execute(sa.insert(notes).values(text="new"))
    with pytest.raises(StaleToken):
        async with fences.begin_async(engine, 8, name=NAME):
            pytest.fail("the body began")
    with pytest.raises(StaleToken):
        await _write_late(engine, fences)
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(sa.insert(reports).values(day=1, text="first", fencing_token=9))
        await fences.guard_async(session, 9, name=NAME)
    column = FencedColumn(reports.c.fencing_token)
    with pytest.raises(StaleToken):
        async with engine.begin() as db:
            await column.execute_async(db, sa.update(reports).values(text="late"), 8)
    async with engine.connect() as db:
        assert list((await db.execute(sa.select(notes.c.text))).scalars()) == ["new"]
    await engine.dispose()


async def _write_late(engine: AsyncEngine, fences: SqlFences) -> None:
    async with engine.begin() as db:
        await db.execute(sa.insert(notes).values(text="late"))
        await fences.guard_async(db, 8, name=NAME)


@pytest.mark.parametrize("where", ["engine", "connection"])
def test_autocommit_is_refused(engine: sa.Engine, fences: SqlFences, where: str):
    """Comparison and writes would be apart, and the guard would only look like one."""
    if where == "engine":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as db, pytest.raises(InvalidRequest, match="AUTOCOMMIT"):
            fences.guard(db, 9, name=NAME)
    else:
        with (
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db,
            pytest.raises(InvalidRequest, match="one transaction"),
        ):
            fences.guard(db, 9, name=NAME)


def test_own_transaction_control_of_sqlite_is_no_autocommit(sqlite_url: str):
    """Many programs have SQLAlchemy emit BEGIN IMMEDIATE and switch off the driver's own."""
    engine = sa.create_engine(sqlite_url)

    @sa.event.listens_for(engine, "connect")
    def _leave_it_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    fences = SqlFences()
    fences.create(engine)
    with engine.begin() as db:
        fences.guard(db, 9, name=NAME)
    with pytest.raises(StaleToken), engine.begin() as db:
        fences.guard(db, 8, name=NAME)


def test_a_database_that_is_not_known_is_refused_by_name():
    with pytest.raises(InvalidRequest, match="oracle"):
        SqlFences().guard(cast(sa.Connection, sa.create_mock_engine("oracle+oracledb://", print)), 9, name=NAME)


# --- the table -------------------------------------------------------------------------------------------------------------------


def test_many_may_make_the_table_at_once(database_url: str):
    """All workers of a service do so when it starts."""
    at_once = threading.Barrier(8)

    def create() -> None:
        engine = sa.create_engine(database_url, poolclass=sa.NullPool)
        at_once.wait()
        SqlFences().create(engine)

    for _ in range(5):
        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(create) for _ in range(8)]:
                done.result()
        with sa.create_engine(database_url, poolclass=sa.NullPool).begin() as db:
            db.execute(sa.text("DROP TABLE coord_fences"))


def test_table_may_be_made_by_ones_own_migrations(engine: sa.Engine):
    """It stands in the metadata that they compare with."""
    mine = sa.MetaData()
    fences = SqlFences("my_fences", metadata=mine)
    mine.create_all(engine)
    with engine.begin() as db:
        fences.guard(db, 9, name=NAME)
        assert db.execute(sa.text("SELECT token FROM my_fences")).scalar() == 9


# --- races -----------------------------------------------------------------------------------------------------------------------


class Waits:
    """A guard on a thread and connection of its own, while another transaction is open."""

    def __init__(self, engine: sa.Engine) -> None:
        self._threads = ThreadPoolExecutor(1)
        self._engine = engine
        self._pid: Future[int] = Future()

    def begin(self, *steps: Callable[[sa.Connection], object]) -> "Future[None]":
        return self._threads.submit(in_transaction, self._engine, self._tell_pid, *steps)

    def _tell_pid(self, db: sa.Connection) -> None:
        self._pid.set_result(db.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())

    def wait_blocked(self) -> None:
        """Return once the database says that it waits for a lock."""
        query = sa.text("SELECT count(*) FROM pg_locks WHERE pid = :pid AND NOT granted")
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            until(lambda: db.execute(query, {"pid": self._pid.result(10)}).scalar(), what="waiting for a lock")


@pytest.fixture
def pg(postgresql_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(fresh_schema(postgresql_url))
    SqlFences().create(engine)
    _meta.create_all(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("known", [True, False], ids=["a name seen before", "a new name"])
def test_who_waited_for_a_later_holder_is_refused(pg: sa.Engine, known: bool):
    """READ COMMITTED: it compares with what was committed while it waited, not with what it saw when it began."""
    fences = SqlFences()
    if known:
        with pg.begin() as db:
            fences.guard(db, 1, name=NAME)
    with pg.connect() as later:
        fences.guard(later, 9, name=NAME)
        waiting = Waits(pg)
        done = waiting.begin(lambda db: write(db, "late"), lambda db: fences.guard(db, 8, name=NAME))
        waiting.wait_blocked()
        later.commit()
        with pytest.raises(StaleToken):
            done.result(10)
    assert texts(pg) == []


def test_who_waited_for_a_later_holder_that_gave_up_passes(pg: sa.Engine):
    fences = SqlFences()
    with pg.connect() as later:
        fences.guard(later, 9, name=NAME)
        waiting = Waits(pg)
        done = waiting.begin(lambda db: fences.guard(db, 8, name=NAME))
        waiting.wait_blocked()
        later.rollback()
        done.result(10)


def test_a_later_holder_waits_for_an_earlier_one_that_has_passed(pg: sa.Engine):
    """So it finds a finished piece of work, never half of one, and what it writes comes after it."""
    fences = SqlFences()
    with pg.connect() as earlier:
        fences.guard(earlier, 8, name=NAME)
        write(earlier, "earlier")
        waiting = Waits(pg)
        seen = sa.select(notes.c.text)
        done = waiting.begin(lambda db: fences.guard(db, 9, name=NAME), lambda db: write(db, f"after {db.scalar(seen)}"))
        waiting.wait_blocked()
        earlier.commit()
        done.result(10)
    assert texts(pg) == ["earlier", "after earlier"]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_stricter_isolation_refuses_the_late_one_too(pg: sa.Engine, level: str):
    """First the database, as it cannot serialize the two; when it begins again, the guard, by name."""
    fences, strict = SqlFences(), pg.execution_options(isolation_level=level)
    with strict.connect() as late:
        late.execute(sa.select(notes.c.id)).all()  # its snapshot is taken here
        with pg.begin() as db:
            fences.guard(db, 9, name=NAME)
        with pytest.raises(sa.exc.OperationalError, match="serialize"):
            fences.guard(late, 8, name=NAME)
    with pytest.raises(StaleToken), strict.begin() as db:
        fences.guard(db, 8, name=NAME)


def test_a_transaction_of_sqlite_that_has_read_before_is_refused_by_the_database(sqlite_url: str):
    """Its snapshot is older than the later holder's write: SQLite lets nobody write on such a one."""
    engine = sa.create_engine(sqlite_url, connect_args={"timeout": 0.1})
    fences = SqlFences()
    fences.create(engine)
    with engine.connect() as db:
        db.exec_driver_sql("PRAGMA journal_mode=wal")
    with engine.connect() as late:
        late.exec_driver_sql("BEGIN")
        fences.newest(late, NAME)
        with engine.begin() as db:
            fences.guard(db, 9, name=NAME)
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            fences.guard(late, 8, name=NAME)


# --- a column of one's own -------------------------------------------------------------------------------------------------------


def _report(day: int, text: str, token: int | None) -> dict[str, Any]:
    return {"day": day, "text": text, "fencing_token": token}


def test_column_refuses_to_overwrite_a_later_holder(engine: sa.Engine, fences: SqlFences):
    column = FencedColumn(reports.c.fencing_token)
    with engine.begin() as db:
        db.execute(sa.insert(reports), [_report(1, "none", None), _report(2, "new", 9)])
    with engine.begin() as db:
        assert column.execute(db, sa.update(reports).where(reports.c.day == 1).values(text="old"), 8) == 1
        assert column.execute(db, sa.update(reports).where(reports.c.day == 3).values(text="old"), 8) == 0
    with pytest.raises(StaleToken) as caught, engine.begin() as db:
        column.execute(db, sa.update(reports).values(text="late"), 8, name=NAME)
    assert (caught.value.name, caught.value.newest) == (NAME, 9)
    with engine.connect() as db:
        assert list(db.execute(sa.select(reports.c.text, reports.c.fencing_token).order_by(reports.c.day))) == [
            ("old", 8),
            ("new", 9),
        ]


def test_column_refuses_who_waited_for_a_later_holder(pg: sa.Engine):
    column = FencedColumn(reports.c.fencing_token)
    statement = sa.update(reports).where(reports.c.day == 1)
    with pg.begin() as db:
        db.execute(sa.insert(reports), [_report(1, "none", None)])
    with pg.connect() as later:
        column.execute(later, statement.values(text="new"), 9)
        waiting = Waits(pg)
        done = waiting.begin(lambda db: column.execute(db, statement.values(text="late"), 8))
        waiting.wait_blocked()
        later.commit()
        with pytest.raises(StaleToken):
            done.result(10)


def test_column_that_is_too_small_is_refused():
    with pytest.raises(InvalidRequest, match="BigInteger"):
        FencedColumn(sa.Column("token", sa.SmallInteger))
