"""A process that keeps a session, and now and then a child attached to it, as a Celery main process and its pool do.

The keeper closes a dead child's attachment; it closes its own session only when no child lives on it.  A child whose session
is over ends; an orphan lives on until then.
"""

import random
from collections.abc import Callable
from typing import TypeAlias

from coord_core.client.session import Outcome, SessionState
from coord_core.protocol.commands import CloseAttachment
from coord_core.testing.callers import CallBooks, Caller
from coord_core.testing.claimants import Claimant
from coord_core.testing.client import ClientProcess
from coord_core.testing.parkers import Parker
from coord_core.testing.participants import Participant
from coord_core.testing.simulator import MILLISECOND, SECOND
from coord_core.testing.workload import Books, Habits, Worker
from coord_core.types import AttachmentId, SessionId

WORKERS = 2

Thread: TypeAlias = Worker | Participant | Claimant | Parker | Caller


class Family:
    """One keeper, its workers, and at most one living child with a worker of its own."""

    def __init__(
        self,
        keeper: ClientProcess,
        books: Books,
        calls: CallBooks,
        habits: Habits,
        rng: random.Random,
        spawn: Callable[[ClientProcess, str, SessionId], ClientProcess],
    ) -> None:
        self.keeper = keeper
        self.child: ClientProcess | None = None
        self.workers: list[Thread] = []
        self._child_workers: list[Thread] = []
        self._books = books
        self._calls = calls
        self._habits = habits
        self._rng = rng
        self._parts_rng = keeper.simulator.stream(f"parts of {keeper.name}")
        self._claims_rng = keeper.simulator.stream(f"claims of {keeper.name}")
        self._parking_rng = keeper.simulator.stream(f"parking of {keeper.name}")
        self._calls_rng = keeper.simulator.stream(f"calls of {keeper.name}")
        self._spawn = spawn
        self._children = 0
        keeper.on_start = self._begin
        keeper.on_stirred = self._keeper_stirred

    # --- the keeper ---------------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.workers = [Worker(self.keeper, self._books, self._habits, self._rng) for _ in range(WORKERS)]
        self.workers += [
            Participant(self.keeper, self._books, self._habits, self._parts_rng) for _ in range(self._habits.participants)
        ]
        self.workers += [Claimant(self.keeper, self._books, self._habits, self._claims_rng) for _ in range(self._habits.claimants)]
        self.workers += [Parker(self.keeper, self._books, self._habits, self._parking_rng) for _ in range(self._habits.parkers)]
        self.workers += [
            Caller(self.keeper, self._books, self._calls, self._habits, self._calls_rng) for _ in range(self._habits.callers)
        ]
        for worker in self.workers:
            worker.start()
        self.keeper.later(self._rng.randint(1, 4) * SECOND, self._look_after)

    def _keeper_stirred(self) -> None:
        self._books.beliefs.judge_all()
        if self.keeper.finished:
            # Closed and done: the process ends, another begins.
            self.keeper.kill()
            self.keeper.simulator.after(100 * MILLISECOND, self._begin_again)

    def _begin_again(self) -> None:
        if not self.keeper.up:
            self.keeper.start()

    def _look_after(self) -> None:
        """Now and then the keeper starts a child, ends one, or ends itself in good order."""
        if self._books.winding_up:
            return
        session = self.keeper.session
        choice = self._rng.random()
        child = self.child
        if child is not None and child.up:
            if choice < 0.5:
                self._end_child(child)
        elif choice < 0.5 and session.session_id is not None and session.state is SessionState.CONNECTED:
            self._bear(session.session_id)
        elif choice < 0.6:
            self.keeper.note("closes")
            session.close(self.keeper.now_ms())
            return
        self.keeper.later(self._rng.randint(500, 4_000) * MILLISECOND, self._look_after)

    # --- the child ----------------------------------------------------------------------------------------------------------------

    def _bear(self, session_id: SessionId) -> None:
        self._children += 1
        child = self.child = self._spawn(self.keeper, f"{self.keeper.name}.{self._children}", session_id)
        child.on_stirred = lambda: self._child_stirred(child)
        child.start()
        self._child_workers = [Worker(child, self._books, self._habits, self._rng)]
        if self._habits.participants:
            self._child_workers.append(Participant(child, self._books, self._habits, self._parts_rng))
        if self._habits.claimants:
            self._child_workers.append(Claimant(child, self._books, self._habits, self._claims_rng))
        for worker in self._child_workers:
            worker.start()

    def _child_stirred(self, child: ClientProcess) -> None:
        self._books.beliefs.judge_all()
        if child.up and child.session.state in (SessionState.LOST, SessionState.CLOSED):
            child.kill()

    def _end_child(self, child: ClientProcess) -> None:
        """The child is killed; what it held is freed, where the keeper still knows under which attachment."""
        attachment_id = child.session.attachment_id
        session_id = child.config.session_id
        child.kill()
        if attachment_id is not None and session_id is not None and session_id == self.keeper.session.session_id:
            self._bury(session_id, attachment_id)

    def _bury(self, session_id: SessionId, attachment_id: AttachmentId) -> None:
        self.keeper.note(f"closes attachment {attachment_id}")
        self.keeper.command(CloseAttachment(session_id, attachment_id), _noted)

    # --- the end ------------------------------------------------------------------------------------------------------------------

    def wind_up(self) -> None:
        """Let go of everything; the child ends."""
        if self.child is not None and self.child.up:
            self._end_child(self.child)
        for worker in self.workers:
            worker.wind_up()

    def busy(self) -> list[str]:
        """Return what is not done yet."""
        if self.keeper.session.state is SessionState.CLOSED:
            return [f"{self.keeper.name}: closing"]
        return [f"{self.keeper.name}: {worker.doing}" for worker in self.workers if worker.doing]


def _noted(outcome: Outcome) -> None:
    """Closing an attachment has no answer that the keeper waits for."""
