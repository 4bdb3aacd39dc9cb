"""Singleton tasks for Celery whose lock survives what kills your workers.

    from coord_celery import init_app, singleton_task

    app = init_app(Celery("shop"))
    app.conf.coord_url = "coord://127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403/"

    @singleton_task(app, bind=True, unique_on=("user_id",))
    def sync_user(self, user_id, full=False):
        write(..., fencing_token=self.coord.token)

See the README beside this package for what each option does and where its limits are.
"""

from coord_celery.app import init_app
from coord_celery.decorator import singleton_task
from coord_celery.errors import CoordUnavailable, DuplicateTask, LockLost, SingletonConflict, SingletonError
from coord_celery.options import SingletonOptions
from coord_celery.task import Coord, SingletonTask

__all__ = [
    "Coord",
    "CoordUnavailable",
    "DuplicateTask",
    "LockLost",
    "SingletonConflict",
    "SingletonError",
    "SingletonOptions",
    "SingletonTask",
    "init_app",
    "singleton_task",
]
