"""Singleton tasks in a Celery app.

    coord dev --port 7400                           three nodes on this machine
    celery -A examples.celery.shop worker -c 4      as many workers as you like
    python -m examples.celery.publish               publish

Needs a Redis at localhost as the broker; any other does too.
"""

import time

from celery import Celery
from coord_celery import init_app, singleton_task

app = init_app(Celery("shop", broker="redis://localhost", backend="redis://localhost"))
app.conf.coord_url = "coord://127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402/shop"


@singleton_task(app, bind=True, unique_on=("user_id",), autoretry_for=(ConnectionError,), retry_backoff=True)
def sync_user(self, user_id, full=False):
    """One at a time for each user, queued or running; a retry is still the same one."""
    time.sleep(5)
    return f"user {user_id} written under token {self.coord.token}"


@singleton_task(app, unique_on=(), on_duplicate="raise", time_limit=3600)
def rebuild_index():
    """One at a time in the whole company."""
    time.sleep(20)


@singleton_task(app, key="warehouse-{warehouse}", scope="running", on_conflict="fail")
def restock(warehouse, amount):
    """Every order counts, so all are queued; but no two run at once for one warehouse."""
    time.sleep(1)


@app.task
def report(results):
    return f"{sum(result is not None for result in results)} of {len(results)} had to be done"
