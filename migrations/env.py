"""Alembic's entry: runs the migrations on the connection that the caller has opened.

A node migrates its own database at start (`coord_core.storage.migrate`), inside a transaction that it commits itself, so nothing
here opens a database or commits.
"""

from alembic import context
from sqlalchemy import Connection

from coord_core.storage.tables import metadata

connection: Connection | None = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Migrations run on a connection that the caller hands over: see coord_core/storage/migrate.py.")

context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
