"""The story: what is done to whom, and what is looked at afterwards."""

import contextlib
import itertools
import os
import select
import signal
import threading
import time
from collections.abc import Callable

import coord_core
from examples.demo.ledger import Ledger, Run
from examples.demo.show import Show
from examples.demo.stage import MARGIN_S, TTL_S, Process, Stage

PUBLISHERS = 4
DUPLICATES = 200
WORKERS = ("anna", "bert")
#: Longer than the demo: such a task ends only with its process.
FOREVER_S = 600.0


class Story:
    def __init__(self, stage: Stage, show: Show) -> None:
        self._stage = stage
        self._show = show
        self._ledger = Ledger(stage.directory / "ledger")
        self._workers: dict[str, Process] = {}

    def tell(self) -> None:
        self.set_up()
        self.one_at_a_time()
        self.pool_process_is_killed()
        self.leader_is_killed()
        self.worker_is_stopped()
        self.worker_is_killed()
        self.look_back()

    # --- steps --------------------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        self._show.step("Set up", "Three nodes replicate the locks; two Celery workers with three processes each run the tasks.")
        began = time.monotonic()
        with self._show.waiting("starting three nodes"):
            self._stage.start_cluster()
        self._client = coord_core.connect(self._stage.url, label="demo")
        self._show.say(f"three nodes, [bold]{self._leader()}[/] leads [dim]({time.monotonic() - began:.1f} s)[/]")
        os.environ.update(self._stage.environment())
        from examples.demo.shop import declare_queue, restock  # configured by the environment

        self._restock = restock
        began = time.monotonic()
        with self._show.waiting("starting two Celery workers"):
            declare_queue()
            self._workers = {name: self._stage.start_worker(name) for name in WORKERS}
            for name in WORKERS:
                self._stage.wait_ready(name, self._workers[name])
        self._show.say(f"two workers, {' and '.join(WORKERS)} [dim]({time.monotonic() - began:.1f} s)[/]")

    def one_at_a_time(self) -> None:
        self._show.step("Duplicates", f"{PUBLISHERS} processes enqueue {DUPLICATES} tasks for the same three warehouses.")
        with self._show.waiting("publishing and working"):
            publishers = [self._stage.start_publisher(number, DUPLICATES // PUBLISHERS) for number in range(PUBLISHERS)]
            self._stage.until(lambda: self._ledger.done() >= DUPLICATES, f"all {DUPLICATES} messages are done with", 60)
            for publisher in publishers:
                publisher.wait()
        runs = len(self._ledger.runs())
        seen = f"{DUPLICATES} messages: {runs} run, {DUPLICATES - runs} skipped, {self._overlaps()}"
        self._show.claim("no two runs at once", seen, not self._ledger.overlaps() and runs > 0)

    def pool_process_is_killed(self) -> None:
        self._show.step("kill -9 for the pool process that runs a task", "Its main process sees it die and closes what it held.")
        run = self._hold("Dover")
        free_s, token = self._time_until_free("Dover", lambda: self._kill({run.pid}))
        self._show.claim("a dead pool process frees its lock at once", f"free after {free_s * 1000:.0f} ms", free_s < 1)
        self._run_next("Dover", token)

    def leader_is_killed(self) -> None:
        self._show.step("kill -9 for the node that leads", "The others elect one of them; sessions and locks live on.")
        leader = self._leader()
        running = threading.Event()
        publisher = threading.Thread(target=self._keep_publishing, args=("Esbjerg", running), daemon=True)
        with self._show.waiting("tasks are running"):
            publisher.start()
            self._stage.until(lambda: len(self._ledger.runs("Esbjerg")) >= 5, "tasks run")
            killed = time.monotonic()
            os.kill(self._stage.nodes[leader], signal.SIGKILL)
            after = lambda: [run for run in self._ledger.runs("Esbjerg") if run.start > killed]  # noqa: E731
            self._stage.until(lambda: len(after()) >= 10, "tasks run under the new leader")
            running.set()
            publisher.join()
        gap_s = self._longest_gap(killed)
        seen = f"{leader} is dead, {self._leader()} leads; the longest pause was {gap_s * 1000:.0f} ms"
        self._show.claim("work goes on without the leader", seen, gap_s < 5)

    def worker_is_stopped(self) -> None:
        self._show.step(
            "kill -STOP for a worker's main process, past the TTL",
            f"It can renew nothing (TTL {TTL_S:g} s) and fence nobody. Its watchdog kills the pool process in time.",
        )
        run = self._hold("Faro")
        worker = self._worker_of(run.pid)
        pidfd = os.pidfd_open(run.pid)
        died = []

        def stop() -> None:
            worker.send_signal(signal.SIGSTOP)
            select.select([pidfd], [], [], 3 * TTL_S)
            died.append(time.monotonic())
            self._ledger.killed[run.pid] = died[0]

        free_s, token = self._time_until_free("Faro", stop)
        os.close(pidfd)
        worker.send_signal(signal.SIGCONT)
        before_s = self._granted - died[0]
        seen = f"process dead {free_s - before_s:.1f} s after the stop, lock free {before_s:.1f} s later (margin {MARGIN_S:g} s)"
        if before_s <= 0:
            seen = f"lock free {free_s:.1f} s after the stop, and the process still ran"
        self._show.claim("a stopped worker's task is dead before its lock is free", seen, before_s > 0)
        self._run_next("Faro", token)

    def worker_is_killed(self) -> None:
        self._show.step("kill -9 for a whole worker", f"Nobody is left to clean up: the session ends with its TTL of {TTL_S:g} s.")
        run = self._hold("Genoa")
        worker = self._worker_of(run.pid)
        family = self._stage.family(worker)

        def kill() -> None:
            self._kill({worker.pid})
            self._ledger.killed.update(dict.fromkeys((pid for pid, _ in family), time.monotonic()))

        free_s, token = self._time_until_free("Genoa", kill)
        self._show.claim("a dead worker frees its locks within the TTL", f"free after {free_s:.1f} s", free_s < TTL_S + 1)
        self._run_next("Genoa", token)

    def look_back(self) -> None:
        self._show.step("Look back", "Over the whole demo, from what the tasks themselves wrote down.")
        runs = self._ledger.runs()
        self._show.claim("never two at once", f"{len(runs)} runs, {self._overlaps()}", not self._ledger.overlaps())
        falls = self._ledger.token_falls()
        seen = f"tokens {runs[0].token} to {runs[-1].token}, " + (f"{falls} out of order" if falls else "rising for every key")
        self._show.claim("fencing tokens rise, also across leaders", seen, falls == 0)

    # --- parts of steps -----------------------------------------------------------------------------------------------------------

    def _hold(self, warehouse: str) -> Run:
        """Have a task hold the warehouse's lock; return its run."""
        with self._show.waiting("a task takes the lock"):
            self._restock.delay(warehouse, FOREVER_S)
            run = self._stage.until(lambda: self._ledger.runs(warehouse), "the task runs")[-1]
        self._show.say(f"a task holds the lock of {warehouse}, token {run.token}, in process {run.pid}")
        return run

    def _time_until_free(self, warehouse: str, act: Callable[[], None]) -> tuple[float, int]:
        """Wait in the lock's queue, do something to its holder, and return how long it took to get it, and the token."""
        lock = self._client.lock(f'/celery/singleton/examples.demo.shop.restock/warehouse="{warehouse}"/lock', label="demo")
        tokens: list[int] = []

        def wait() -> None:
            with contextlib.suppress(coord_core.CoordError), lock as grant:  # an error shows as no token
                self._granted = time.monotonic()
                tokens.append(grant.token)

        waiter = threading.Thread(target=wait, daemon=True)
        with self._show.waiting("waiting for the lock to be free"):
            waiter.start()
            self._stage.until(lock.waiters, "the demo waits in the lock's queue")
            began = time.monotonic()
            act()
            waiter.join(30)
        if not tokens:
            raise TimeoutError(f"not within 30 s: the lock of {warehouse} is free")
        return self._granted - began, tokens[0]

    def _run_next(self, warehouse: str, token: int) -> None:
        """Show that the next task can have the lock."""
        with self._show.waiting("the next task runs"):
            self._restock.delay(warehouse)
            runs = self._stage.until(
                lambda: [run for run in self._ledger.runs(warehouse) if run.token > token], "the next task runs"
            )
        self._show.say(f"[dim]and the next task runs, with token {runs[0].token}[/]")

    def _keep_publishing(self, warehouse: str, enough: threading.Event) -> None:
        while not enough.wait(0.1):
            self._restock.delay(warehouse)

    def _longest_gap(self, since: float) -> float:
        starts = [since, *(run.start for run in self._ledger.runs("Esbjerg") if run.start > since)]
        return max(later - earlier for earlier, later in itertools.pairwise(starts))

    def _kill(self, pids: set[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            self._ledger.killed[pid] = time.monotonic()

    def _worker_of(self, pid: int) -> Process:
        return next(worker for worker in self._workers.values() if pid in {member for member, _ in self._stage.family(worker)})

    def _leader(self) -> str:
        def ask() -> str:
            leader = self._client.status().leader
            return "" if leader is None else leader.node

        return self._stage.until(ask, "there is a leader")

    def _overlaps(self) -> str:
        overlaps = self._ledger.overlaps()
        return f"{overlaps} overlapping" if overlaps else "none at the same time"
