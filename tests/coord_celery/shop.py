"""The Celery app of these tests: its workers are subprocesses, configured by environment.

Every run of a guarded task leaves two lines in an append-only log, `start` and `end`, with key, token, process and time: what
really happened, whatever results and locks say.
"""

import json
import os
import time
from pathlib import Path

from celery import Celery
from coord_celery import init_app, singleton_task


def note(event, task, **facts):
    """Append one line: one `write` of an O_APPEND file is not mixed with others'."""
    line = {
        "event": event,
        "key": task.coord.key,
        "token": task.coord.token,
        "pid": os.getpid(),
        "task_id": task.request.id,
        "at": time.monotonic_ns(),
        **facts,
    }
    descriptor = os.open(os.environ["SHOP_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


def work(task, gate):
    """Do the work: a moment of it, or until the gate is open."""
    note("start", task)
    if gate is None:
        time.sleep(0.02)
    while gate is not None and not Path(gate).exists():
        time.sleep(0.02)
    note("end", task)
    return task.coord.token


def linger(task, *_):
    """Called between the publish of the retry and the release of the lock: let the retry overtake."""
    if task.request.kwargs.get("linger"):
        time.sleep(0.3)


def make_app(environment):
    """Return the app as `environment` configures it.  A test process has several, hence `shared=False`."""
    app = init_app(Celery("shop", set_as_current=environment is os.environ))
    app.conf.update(
        broker_url=environment.get("SHOP_BROKER", "memory://"),
        result_backend=environment.get("SHOP_RESULTS", "cache+memory://"),
        task_default_queue=environment.get("SHOP_QUEUE", "shop"),
        broker_connection_retry_on_startup=True,
        broker_transport_options={"visibility_timeout": 600},
        result_extended=True,
        worker_prefetch_multiplier=4,
        worker_pool_start_method=environment.get("SHOP_START_METHOD", "fork"),
        # A lost worker process is reported after this long (10 s by default).
        worker_lost_wait=0.2,
        coord_url=environment.get("SHOP_COORD_URL", "coord://127.0.0.1:1/?timeout=300ms"),
        coord_namespace=environment.get("SHOP_NAMESPACE"),
        coord_session_ttl=float(environment.get("SHOP_TTL", "15")),
        coord_lease_margin=float(environment.get("SHOP_MARGIN", "2")),
    )
    declare_tasks(app)
    return app


def declare_tasks(app):
    @singleton_task(app, shared=False, bind=True, unique_on=("name",))
    def guarded(self, name, gate=None):
        return work(self, gate)

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), scope="running")
    def guarded_at_run(self, name, gate=None):
        return work(self, gate)

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), scope="running", on_conflict="fail")
    def guarded_strictly(self, name, gate=None):
        return work(self, gate)

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), on_duplicate="raise")
    def guarded_loudly(self, name, gate=None):
        return work(self, gate)

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), time_limit=1)
    def guarded_with_limit(self, name, gate=None):
        return work(self, gate)

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), acks_late=True, reject_on_worker_lost=True)
    def guarded_and_redelivered(self, name, gate=None):
        return work(self, gate)

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), on_lost="raise")
    def guarded_by_exception(self, name, gate=None):
        return work(self, gate)

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), max_retries=5, on_retry=linger)
    def retried(self, name, times, countdown, linger=False):
        token = work(self, None)
        if self.request.retries < times:
            raise self.retry(countdown=countdown)
        return token

    @singleton_task(
        app,
        shared=False,
        bind=True,
        unique_on=("name",),
        on_duplicate="raise",
        autoretry_for=(ValueError,),
        retry_kwargs={"countdown": 0},
    )
    def retried_automatically(self, name, times):
        work(self, None)
        if self.request.retries < times:
            raise ValueError("again")
        return self.request.retries

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), scope="queued", on_duplicate="raise")
    def retried_in_the_queue(self, name, gate=None):
        work(self, gate)
        if gate is not None and self.request.retries == 0:
            raise self.retry(countdown=0)
        return self.request.retries

    @singleton_task(app, shared=False, bind=True, unique_on=("name",), on_lost="ignore")
    def guarded_regardless(self, name, gate=None):
        work(self, gate)
        self.coord.check()

    @singleton_task(app, shared=False, bind=True, unique_on=("name",))
    def seen_from_inside(self, name):
        holder = self.coord.holder()
        self.coord.check()
        return {"label": holder.owner.label, "pid": holder.owner.pid, "token": holder.token, "key": self.coord.key}

    @app.task(shared=False)
    def add_up(values):
        return sorted(value is None for value in values)

    @app.task(shared=False)
    def follow(previous):
        return ["followed", previous]


app = make_app(os.environ)
