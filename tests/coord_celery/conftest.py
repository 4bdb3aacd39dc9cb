"""A real broker, a real cluster, and workers as users start them: all subprocesses."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from celery import Celery
from coord_celery.board import process_started

import coord_core
from tests.coord_celery.processes import children_of, is_running, with_our_path
from tests.coord_celery.shop import make_app
from tests.coord_celery.waiting import until


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory):
    """A redis-server of our own, on a Unix socket: no port to collide on."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.fail("the Celery tests need redis-server: run `make deps`, or install the Debian package redis-server")
    directory = tmp_path_factory.mktemp("redis")
    socket = directory / "redis.sock"
    command = [binary, "--port", "0", "--unixsocket", str(socket), "--dir", str(directory), "--save", "", "--databases", "64"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        until(lambda: answers(client), "redis-server answers")
        yield socket
    finally:
        client.close()
        process.terminate()
        process.wait()


def answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


@dataclass
class Cluster:
    url: str
    #: Node name -> pid.
    pids: dict[str, int]

    def signal(self, signum, *, but=""):
        """Signal every node, but one."""
        for name, pid in self.pids.items():
            if name != but:
                os.kill(pid, signum)


@pytest.fixture(scope="session")
def cluster():
    """Three nodes, as `coord dev` starts them."""
    command = [sys.executable, "-m", "coord_core.cli.main", "-o", "json", "dev", "--nodes", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=with_our_path())
    assert process.stdout is not None
    try:
        started = json.loads(process.stdout.readline())
        yield Cluster(started["url"], {node["name"]: node["pid"] for node in started["nodes"]})
    finally:
        process.terminate()
        process.wait()


@dataclass
class Run:
    """One execution of a task's body, as the log has it."""

    key: str
    token: int
    pid: int
    task_id: str
    start: int
    #: None: it never came to its end.
    end: int | None = None


@dataclass
class Shop:
    """The app, its broker and its workers, for one test or module: queue, namespace and log of its own."""

    directory: Path
    environment: dict[str, str]
    app: Celery
    client: coord_core.Client
    workers: list["Worker"] = field(default_factory=list)

    def task(self, name):
        return self.app.tasks[f"tests.coord_celery.shop.{name}"]

    def start_worker(self, *options, ready=True):
        worker = Worker(self, options)
        self.workers.append(worker)
        if ready:
            worker.wait_ready()
        return worker

    def gate(self):
        """Return the path of a file for which a task waits; `open_gate` makes it."""
        return str(self.directory / f"gate-{uuid.uuid4().hex}")

    def open_gate(self, gate):
        Path(gate).touch()

    def runs(self):
        """Return all runs so far, in order of their start."""
        runs = {}
        log = Path(self.environment["SHOP_LOG"])
        for line in log.read_text().splitlines() if log.exists() else ():
            facts = json.loads(line)
            name = facts["task_id"], facts["token"]
            if facts["event"] == "start":
                runs[name] = Run(facts["key"], facts["token"], facts["pid"], facts["task_id"], facts["at"])
            else:
                runs[name].end = facts["at"]
        return sorted(runs.values(), key=lambda run: run.start)

    def runs_of(self, name):
        """Return the runs for one name."""
        return [run for run in self.runs() if run.key == f'name="{name}"']

    def run_of(self, task_id, *, ended=False, what="the task runs"):
        """Wait until the task has started (or ended); return its latest run."""
        found = lambda: [run for run in self.runs() if run.task_id == task_id and (run.end or not ended)]  # noqa: E731
        return until(found, what)[-1]

    def lock(self, task_name, key):
        return self.client.lock(f"/celery/singleton/tests.coord_celery.shop.{task_name}/{key}/lock")


@dataclass
class Worker:
    """`celery worker` in a process of its own."""

    shop: Shop
    options: tuple[str, ...]

    def __post_init__(self):
        number = len(self.shop.workers)
        self.name = f"w{number}-{uuid.uuid4().hex[:6]}"
        self.log = self.shop.directory / f"{self.name}.log"
        command = [sys.executable, "-m", "celery", "-A", "tests.coord_celery.shop", "worker", "-n", f"{self.name}@localhost"]
        command += ["-l", "info", "--without-mingle", "--without-gossip", "--without-heartbeat", *self.options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self.shop.environment)
        self.pid = self.process.pid

    def wait_ready(self):
        until(lambda: self._says(" ready.") or self._ended(), "the worker is ready")
        until(lambda: self._says("is open") or self._ended(), "the worker has its session")

    def _says(self, text):
        return text in self.log.read_text(errors="replace")

    def _ended(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the worker ended with {self.process.returncode}:\n{self.log.read_text(errors='replace')}")

    def family(self):
        """Return (pid, start time) of everything that lives under this worker."""
        return [(pid, process_started(pid)) for pid in children_of(self.pid)]

    def kill(self):
        """SIGKILL the main process, and see its whole family gone."""
        family = self.family()
        self.process.kill()
        self.process.wait()
        until(lambda: not any(is_running(*member) for member in family), "the worker's processes end with it")

    def stop(self, signum=signal.SIGTERM):
        self.process.send_signal(signum)
        self.process.wait(60)


def open_shop(directory, redis_socket, cluster, *, ttl="15", margin="2", url=None):
    name = uuid.uuid4().hex[:12]
    environment = with_our_path(
        SHOP_BROKER=f"redis+socket://{redis_socket}",
        SHOP_RESULTS=f"redis+socket://{redis_socket}",
        SHOP_QUEUE=name,
        SHOP_COORD_URL=url or cluster.url,
        SHOP_NAMESPACE=name,
        SHOP_TTL=ttl,
        SHOP_MARGIN=margin,
        SHOP_LOG=str(directory / "runs.log"),
        TMPDIR=str(directory),
    )
    app = make_app(environment)
    client = coord_core.connect(f"{cluster.url.rstrip('/')}/{name}")
    return Shop(directory, environment, app, client)


def close_shop(shop):
    for worker in shop.workers:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGCONT)
            worker.kill()
    shop.app.coord_link.close()
    shop.app.close()
    shop.client.close()


@pytest.fixture
def make_shop(tmp_path, redis_socket, cluster):
    """Open a shop with settings of one's own."""
    shops = []

    def make(**settings):
        shops.append(open_shop(tmp_path, redis_socket, cluster, **settings))
        return shops[-1]

    yield make
    for shop in shops:
        close_shop(shop)


@pytest.fixture
def shop(make_shop):
    return make_shop()


def assert_no_overlap(runs, *, killed=()):
    """No two runs of one key at once, and each with a greater token than the one before.

    `killed`: (pid, time) of processes that were killed: their runs end there.
    """
    ends = dict(reversed(killed))  # the first kill counts
    by_key = defaultdict(list)
    for run in runs:
        by_key[run.key].append(run)
    for key, sequence in by_key.items():
        for earlier, later in itertools.pairwise(sequence):
            end = earlier.end or ends.get(earlier.pid)
            assert end is not None, f"{earlier} of {key} has no end, but {later} follows"
            assert end <= later.start, f"{earlier} and {later} overlap"
            assert earlier.token < later.token, f"{later} has a token that is not above {earlier}'s"
