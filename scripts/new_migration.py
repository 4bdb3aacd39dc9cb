"""Write the next schema migration: what tables.py has and the last migration does not.

    make migration MESSAGE="snapshots"

The file lands in migrations/versions; read it, then add its number to REVISIONS in coord_core/storage/migrate.py.
"""

import sys

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from coord_core.storage.migrate import REVISIONS, migrations_directory, run_migrations


def main(message: str) -> None:
    with create_engine("sqlite://").connect() as connection, connection.begin():
        run_migrations(connection, "head")
        config = Config()
        config.set_main_option("script_location", str(migrations_directory()))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.revision(config, message, autogenerate=True, rev_id=f"{len(REVISIONS) + 1:04d}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit('usage: make migration MESSAGE="what it does"')
    main(sys.argv[1])
