"""Brings the tables of a database to the newest schema.

A fresh database gets the newest tables at once; an older one goes through the Alembic migrations, in one transaction; a newer
one is refused.  Which of the three it is, plain SQL tells: importing Alembic costs a fifth of a second, which a node pays only
when a migration is due.
"""

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

from coord_core.errors import StorageFailed
from coord_core.storage.tables import metadata

#: Every schema this release knows, oldest first: the revisions of `migrations/versions` (a test holds that they agree).
REVISIONS = ("0001", "0002", "0003")
NEWEST = REVISIONS[-1]

#: Alembic's own table, as Alembic makes it.
_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def bring_up_to_date(connection: Connection, path: Path) -> None:
    """Make or migrate the tables of the database at `path`, wholly or not at all.

    Raises `StorageFailed` where the schema is newer than this release, or the file is not one of ours.
    """
    with connection.begin():
        revision = _revision(connection, path)
        if revision is None:
            _create(connection)
        elif revision not in REVISIONS:
            raise StorageFailed(
                f"{path} was written by a newer release (schema {revision}; this one knows up to {NEWEST}): start that release.",
                path=str(path),
                full=False,
            )
        elif revision != NEWEST:
            run_migrations(connection, NEWEST)


def run_migrations(connection: Connection, revision: str) -> None:
    """Run the Alembic migrations up to `revision` inside the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def migrations_directory() -> Path:
    """Return where the migrations are: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).resolve()
    for directory in (here.parent / "migrations", here.parents[2] / "migrations"):
        if (directory / "env.py").is_file():
            return directory
    raise StorageFailed(f"the migrations are neither in {here.parent} nor in {here.parents[2]}: the installation is incomplete.")


def _revision(connection: Connection, path: Path) -> str | None:
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if _version.name not in tables:
        raise StorageFailed(f"{path} is a database of something else: it has no {_version.name} table.", path=str(path), full=False)
    revision: str = connection.execute(select(_version.c.version_num)).scalar_one()
    return revision


def _create(connection: Connection) -> None:
    metadata.create_all(connection)
    _version.create(connection)
    connection.execute(insert(_version), {"version_num": NEWEST})
