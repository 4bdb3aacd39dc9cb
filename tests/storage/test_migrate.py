"""Tables: the short way of a fresh database and the long way of the migrations end in the same schema."""

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from coord_core.errors import StorageFailed
from coord_core.storage import migrate
from coord_core.storage.database import Database
from coord_core.storage.sqlite import SqliteStorage
from coord_core.storage.tables import metadata
from tests.storage.building import BOOTSTRAP

Open = Callable[[Path], SqliteStorage]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "empty.db")
    yield database
    database.close()


def schema(connection: Connection) -> dict[str, str]:
    statements = connection.exec_driver_sql("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {name: re.sub(r"\s+", " ", sql) for name, sql in statements}


def test_migrations_end_in_the_tables_that_a_fresh_database_gets(empty: Database, tmp_path: Path) -> None:
    """Whoever changes `tables` writes a migration, and the other way round."""
    with empty.core.begin():
        migrate.run_migrations(empty.core, "head")
        migrated = schema(empty.core)
        assert compare_metadata(MigrationContext.configure(empty.core), metadata) == []
        version = empty.core.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    fresh = create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    with fresh.connect() as connection:
        migrate.bring_up_to_date(connection, tmp_path / "fresh.db")
        assert schema(connection) == migrated
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == version == migrate.NEWEST
    fresh.dispose()


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    """The node compares with a constant, so as not to load Alembic; the constant must not lag behind."""
    config = Config()
    config.set_main_option("script_location", str(migrate.migrations_directory()))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == migrate.REVISIONS


def test_an_older_database_is_migrated_at_start(
    formed: SqliteStorage, tmp_path: Path, open_sqlite: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a migration that is not among ours yet: what the node was stays, and the tables have moved on."""
    formed.close()
    shutil.copytree(migrate.migrations_directory(), tmp_path / "migrations")
    (tmp_path / "migrations" / "versions" / "0004_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '0004'\ndown_revision = '0003'\n"
        "def upgrade():\n    op.add_column('founding', sa.Column('note', sa.Integer()))\n"
    )
    monkeypatch.setattr(migrate, "migrations_directory", lambda: tmp_path / "migrations")
    monkeypatch.setattr(migrate, "REVISIONS", (*migrate.REVISIONS, "0004"))
    monkeypatch.setattr(migrate, "NEWEST", "0004")
    storage = open_sqlite(tmp_path / "node")
    restored = storage.load()
    assert restored is not None
    assert restored.bootstrap == BOOTSTRAP
    storage.close()
    with closing(sqlite3.connect(tmp_path / "node" / "coord.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("0004",)]


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    formed: SqliteStorage, tmp_path: Path, open_sqlite: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables half changed would suit neither release: all of it is one transaction."""
    formed.close()
    shutil.copytree(migrate.migrations_directory(), tmp_path / "migrations")
    (tmp_path / "migrations" / "versions" / "0004_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '0004'\ndown_revision = '0003'\n"
        "def upgrade():\n    op.drop_table('log')\n    op.drop_table('no_such_table')\n"
    )
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "migrations_directory", lambda: tmp_path / "migrations")
        patched.setattr(migrate, "REVISIONS", (*migrate.REVISIONS, "0004"))
        patched.setattr(migrate, "NEWEST", "0004")
        with pytest.raises(StorageFailed, match="no_such_table"):
            open_sqlite(tmp_path / "node")
    restored = open_sqlite(tmp_path / "node").load()
    assert restored is not None
    assert restored.bootstrap == BOOTSTRAP


def test_a_newer_schema_is_refused(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """After a downgrade of the package: rows that this release does not know must not be guessed at."""
    formed.close()
    with closing(sqlite3.connect(tmp_path / "node" / "coord.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageFailed, match=r"newer release \(schema 9999; this one knows up to 0003\)"):
        open_sqlite(tmp_path / "node")


def test_a_newer_format_of_the_rows_is_refused(formed: SqliteStorage, tmp_path: Path, open_sqlite: Open) -> None:
    """The tables may stay while what is packed in them changes."""
    formed.close()
    with closing(sqlite3.connect(tmp_path / "node" / "coord.db")) as database, database:
        database.execute("UPDATE meta SET format = 2")
    with pytest.raises(StorageFailed, match=r"newer release \(format 2; this one knows up to 1\)"):
        open_sqlite(tmp_path / "node").load()


def test_somebody_elses_database_is_left_alone(tmp_path: Path, open_sqlite: Open) -> None:
    """A wrong path must not put our tables among theirs."""
    (tmp_path / "node").mkdir()
    with closing(sqlite3.connect(tmp_path / "node" / "coord.db")) as database, database:
        database.execute("CREATE TABLE invoices (id INTEGER)")
    (tmp_path / "node" / "mark").write_bytes(b"")
    with pytest.raises(StorageFailed, match="is a database of something else"):
        open_sqlite(tmp_path / "node")


def test_a_start_without_a_migration_does_not_load_alembic(tmp_path: Path) -> None:
    """It costs a fifth of a second of processor time, which three nodes on two cores would notice at their cold start."""
    code = (
        "import sys; from pathlib import Path; from coord_core.storage.sqlite import SqliteStorage\n"
        "for _ in range(2): SqliteStorage(Path(sys.argv[1])).close()\n"
        "sys.exit(any(name.split('.')[0] == 'alembic' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "node")], cwd=ROOT, check=True)


def test_migrations_are_found_in_a_checkout() -> None:
    """Where `make test` and `coord` from a clone run."""
    assert migrate.migrations_directory() == ROOT / "migrations"


def test_migrations_are_found_in_the_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the wheel puts them, beside this module; they come before a folder of that name above the package."""
    packaged = tmp_path / "site" / "coord_core" / "storage" / "migrations"
    for directory in (packaged, tmp_path / "site" / "migrations"):
        shutil.copytree(ROOT / "migrations", directory)
    monkeypatch.setattr(migrate, "__file__", str(packaged.parent / "migrate.py"))
    assert migrate.migrations_directory() == packaged


def test_an_installation_without_migrations_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than taking an old schema for the newest."""
    monkeypatch.setattr(migrate, "__file__", str(tmp_path / "coord_core" / "storage" / "migrate.py"))
    with pytest.raises(StorageFailed, match="installation is incomplete"):
        migrate.migrations_directory()
