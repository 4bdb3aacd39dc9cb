"""`init_app`, the settings, and which processes reach the service in which way."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from coord_celery import SingletonTask, init_app, singleton_task
from coord_celery.board import BOARD_VARIABLE, Board
from coord_celery.link import PoolChild, Producer
from coord_celery.settings import Settings

from tests.coord_celery.processes import with_our_path

URL = "coord://h1:7400,h2:7400/shop"


@pytest.fixture
def app():
    return Celery("test", broker="memory://", set_as_current=False)


def settings(app, **values):
    app.conf.update(values)
    return Settings.read(app)


def test_init_app_twice_is_once(app):
    """One link, one pair of bootsteps: a second session in a worker would fence the first one's tasks."""
    link = init_app(app).coord_link
    steps = set(app.steps["worker"])
    assert init_app(app).coord_link is link
    assert app.steps["worker"] == steps
    assert len(steps) == 2


def test_declaring_a_singleton_task_is_enough(app):
    @singleton_task(app, shared=False)
    def work():
        pass

    assert isinstance(work, SingletonTask)
    assert app.coord_link is not None


NOTHING_OPENED = """
import json, os, threading
from celery import Celery
from coord_celery import init_app, singleton_task

app = init_app(Celery("x", broker="memory://"))
app.conf.coord_url = "coord://127.0.0.1:1/"

@singleton_task(app)
def work(a):
    return a

app.finalize()
assert work(3) == work.apply((3,)).get() == 3
sockets = [fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}") and "socket" in os.readlink(f"/proc/self/fd/{fd}")]
print(json.dumps({"threads": threading.active_count(), "sockets": len(sockets)}))
"""


def test_import_init_and_eager_calls_open_nothing():
    """Celery apps are imported by web servers, schedulers, shells and before forks."""
    process = subprocess.run(
        [sys.executable, "-c", NOTHING_OPENED], env=with_our_path(), capture_output=True, text=True, check=True
    )
    assert json.loads(process.stdout) == {"threads": 1, "sockets": 0}


def test_settings_have_defaults(app):
    assert settings(app, coord_url=URL) == Settings(URL, 2)


def test_settings_go_into_the_url(app):
    values = {
        "coord_url": f"{URL}?ttl=9s&timeout=3s",
        "coord_namespace": "other/",
        "coord_session_ttl": 7.5,
        "coord_lease_margin": 1,
    }
    assert settings(app, **values) == Settings("coord://h1:7400,h2:7400/other?timeout=3s&ttl=7500ms", 1)


def test_namespace_goes_into_the_options_of_an_embedded_nodes_url(app):
    """Whose path is a directory's."""
    found = settings(app, coord_url="coord+embedded:///var/coord?namespace=old", coord_namespace="shop")
    assert found.url == "coord+embedded:///var/coord?namespace=shop"


def test_settings_are_read_with_a_django_namespace(app):
    """As `app.config_from_object("django.conf:settings", namespace="CELERY")` does."""

    class Config:
        CELERY_COORD_URL = URL
        CELERY_COORD_SESSION_TTL = 30

    app.config_from_object(Config, namespace="CELERY")
    assert settings(app) == Settings(f"{URL}?ttl=30000ms", 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "coord_url is not set; for example"),
        ({"coord_url": "redis://h"}, "coord_url.*scheme 'redis'"),
        ({"coord_url": URL, "coord_session_ttl": 0.1}, "ttl"),
        ({"coord_url": URL, "coord_session_ttl": 3}, r"coord_lease_margin \(2 s\) must be .* at most a third"),
        ({"coord_url": URL, "coord_lease_margin": 0}, "must be above 0"),
        ({"coord_url": f"{URL}?ttl=3s"}, "at most a third"),
    ],
    ids=str,
)
def test_wrong_setting_is_named(app, values, message):
    with pytest.raises(ImproperlyConfigured, match=message):
        settings(app, **values)


def test_publish_without_url_says_what_to_set(app):
    @singleton_task(app, shared=False)
    def work():
        pass

    with pytest.raises(ImproperlyConfigured, match="coord_url is not set"):
        work.delay()


def test_process_is_a_pool_child_only_under_the_owner_of_the_board(app, tmp_path, monkeypatch):
    """A program that a task starts inherits the environment; it is nobody's pool child and has a session of its own."""
    init_app(app).conf.coord_url = URL
    board = Board.create(tmp_path, margin_ns=1)
    monkeypatch.setenv(BOARD_VARIABLE, str(board.path))
    assert isinstance(app.coord_link.way(), Producer)
    board._words[1] = os.getppid()
    app.coord_link._begin_anew()
    assert isinstance(app.coord_link.way(), PoolChild)
    board.path.unlink()
    app.coord_link._begin_anew()
    assert isinstance(app.coord_link.way(), Producer)


def test_worker_refuses_green_pools(app):
    """The keep-alive thread would stand still with the greenlets."""
    from celery.concurrency.base import BasePool
    from coord_celery.step import CoordStep

    pool_cls = type("TaskPool", (BasePool,), {"__module__": "celery.concurrency.gevent"})
    worker = SimpleNamespace(pool_cls=pool_cls, steps=[], app=init_app(app))
    app.conf.coord_url = URL
    with pytest.raises(ImproperlyConfigured, match="gevent"):
        CoordStep(worker).start(worker)
