"""The Celery app of the demo: one task of which no two may run at once for the same warehouse.

The broker is a file (kombu's SQLAlchemy transport over SQLite), so that nothing has to be installed.

Every run writes what it does into a ledger, an append-only file: the demo believes the ledger, not the locks.
"""

import contextlib
import json
import os
import sqlite3
import time
from pathlib import Path

from celery import Celery, signals
from coord_celery import init_app, singleton_task
from kombu.transport.sqlalchemy import Transport
from sqlalchemy.pool import NullPool

DIRECTORY = Path(os.environ["DEMO_DIRECTORY"])
BROKER = DIRECTORY / "broker.sqlite"

Transport.polling_interval = 0.05  # seconds; this transport takes it from nowhere else

app = init_app(Celery("shop"))
app.conf.update(
    broker_url=f"sqla+sqlite:///{BROKER}",
    # A connection for each statement: none is taken along by a fork.
    broker_transport_options={"connect_args": {"timeout": 30}, "poolclass": NullPool},
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=1,
    coord_url=os.environ["DEMO_COORD_URL"],
    coord_session_ttl=float(os.environ["DEMO_TTL"]),
    coord_lease_margin=float(os.environ["DEMO_MARGIN"]),
)


@singleton_task(app, bind=True, unique_on=("warehouse",), scope="running")
def restock(self, warehouse, seconds=0.03):
    """Something that must not be done twice at once.  `self.coord.token` would go with every write."""
    write("start", self.request.id, warehouse=warehouse, token=self.coord.token)
    time.sleep(seconds)
    write("end", self.request.id)


def declare_queue():
    """Make the broker's file before there are two workers who would both make it."""
    with contextlib.closing(sqlite3.connect(BROKER)) as file:
        file.execute("PRAGMA journal_mode=WAL")
    with app.connection_for_write() as connection:
        app.amqp.queues[app.conf.task_default_queue](connection.default_channel).declare()


@signals.task_postrun.connect
def count(task_id, **_):
    """One line for every message that a worker is done with, whether it was run or skipped."""
    write("done", task_id)


def write(event, task_id, **facts):
    """Append a line to the ledger: one write call, so that lines of several processes are not mixed."""
    line = json.dumps({"event": event, "task_id": task_id, "pid": os.getpid(), "at": time.monotonic(), **facts}) + "\n"
    descriptor = os.open(DIRECTORY / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
