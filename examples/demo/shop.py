"""The Celery app of the demo: one task of which no two may run at once for the same warehouse.

The broker is a directory (kombu's filesystem transport), so that nothing has to be installed; the app neither knows nor cares.

Every run writes what it does into a ledger, an append-only file: the demo believes the ledger, not the locks.
"""

import json
import os
import time
from pathlib import Path

from celery import Celery, signals
from coord_celery import init_app, singleton_task

DIRECTORY = Path(os.environ["DEMO_DIRECTORY"])

app = init_app(Celery("shop"))
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": str(DIRECTORY / "queue"),
        "data_folder_out": str(DIRECTORY / "queue"),
        "control_folder": str(DIRECTORY / "control"),
        "polling_interval": 0.05,
    },
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
