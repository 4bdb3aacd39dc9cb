"""What else clients do: take permits, ask rate limiters, hold locks that stay closed after them, and take them from each other.

Every keeper has a *claimant*, and so has a child, with one thing to do at a time.  Beside what the checkers see in the log, a
claimant holds its client to account: what was granted is believed until it is given back or the session is over, and no longer.
"""

import random
from collections.abc import Callable

from coord_core.client.session import CallId, Outcome, SessionState
from coord_core.errors import CoordError
from coord_core.protocol.limiters import RateAcquire, RateGranted, RateRefused
from coord_core.protocol.locks import LockBreak, LockBroken
from coord_core.protocol.operations import LockAcquire, LockRelease, Operation, Owner
from coord_core.protocol.queries import LockInfo, LockState
from coord_core.protocol.results import Done, Granted, NotGranted
from coord_core.protocol.semaphores import PermitsGranted, SemaphoreAcquire, SemaphoreRelease, SemaphoreSetLimit
from coord_core.testing.client import ClientProcess
from coord_core.testing.simulator import MILLISECOND, Violation
from coord_core.testing.workload import CLOSING_LOCKS, LIMITERS, SEMAPHORES, Books, Habits
from coord_core.types import FencingToken, SessionId

#: Permits of a semaphore, where nobody set another number.
PERMITS = 3
#: Permits, milliseconds, burst.
RATE = (1, 150, 4)


class Claimant:
    """One thread of one process's life."""

    def __init__(self, process: ClientProcess, books: Books, habits: Habits, rng: random.Random) -> None:
        self._process = process
        self._books = books
        self._habits = habits
        self._rng = rng
        #: What it waits for or holds, for people; empty while it has nothing to do.
        self.doing = ""
        self._give_back_now: Callable[[], None] | None = None
        self._waits_for: CallId | None = None
        # Counts holdings: the timer of an earlier one means nothing.
        self._holding = 0

    def start(self) -> None:
        self._rest()

    def wind_up(self) -> None:
        """Give back what is held, and wait no more: a limit that was set low may let nobody go on."""
        if self._give_back_now is not None:
            self._give_back_now()
        elif self._waits_for is not None:
            self._process.later(MILLISECOND, self._cancel, self._waits_for)

    def _rest(self) -> None:
        self.doing = ""
        self._process.later(self._rng.randint(MILLISECOND, self._habits.think_us_max), self._act)

    def _act(self) -> None:
        if self._books.winding_up or self.doing or self._process.session.state is SessionState.CLOSED:
            return
        try:
            choice = self._rng.random()
            if choice < 0.4:
                self._take_permits(self._rng.choice(SEMAPHORES))
            elif choice < 0.75:
                self._take_lock(self._rng.choice(CLOSING_LOCKS))
            elif choice < 0.85:
                self._look_and_break(self._rng.choice(CLOSING_LOCKS))
            elif choice < 0.9:
                self._set_limit(self._rng.choice(SEMAPHORES))
            else:
                self._ask_limiter(self._rng.choice(LIMITERS))
        except CoordError as error:
            # An attached process whose session is over takes no more calls.
            self.doing = ""
            self._process.note(f"can do no more: {error}")

    # --- getting ------------------------------------------------------------------------------------------------------------------

    def _take_permits(self, path: str) -> None:
        owner = Owner("simulated", 1, self._books.name(self._process))
        wanted = self._rng.randint(1, PERMITS)
        self._get(SemaphoreAcquire(path, self._patience(), owner, wanted, PERMITS), PermitsGranted)

    def _take_lock(self, path: str) -> None:
        owner = Owner("simulated", 1, self._books.name(self._process))
        self._get(LockAcquire(path, self._patience(), owner, self._rng.choice((0, 300, 1_500))), Granted)

    def _patience(self) -> int | None:
        return self._rng.choice((0, 300, 2_000, None))

    def _get(self, operation: LockAcquire | SemaphoreAcquire, success: type[Granted] | type[PermitsGranted]) -> None:
        self.doing = f"get {operation}"

        def then(outcome: Outcome) -> None:
            self._waits_for = None
            match outcome:
                case Granted(token=token) | PermitsGranted(token=token) if isinstance(outcome, success):
                    self._hold(operation, token)
                case NotGranted() | CoordError():
                    self._rest()
                case _:
                    raise Violation(f"{self._process.name}: {operation} came back as {outcome}")

        self._waits_for = call = self._process.call(operation, then)
        if operation.wait_ms != 0 and self._rng.random() < self._habits.cancels:
            self._process.later(self._rng.randint(1, 1_000) * MILLISECOND, self._cancel, call)

    def _cancel(self, call: CallId) -> None:
        self._process.session.cancel(call, self._process.now_ms())

    # --- holding ------------------------------------------------------------------------------------------------------------------

    def _hold(self, operation: LockAcquire | SemaphoreAcquire, token: FencingToken) -> None:
        process = self._process
        process.note(f"holds {operation.path}, token {token}")
        self.doing = f"hold {operation.path}, token {token}"
        self._holding += 1
        session_id = process.session.session_id
        self._give_back_now = lambda: self._give_back(operation, token, session_id)
        if self._books.winding_up:
            # Not from within the session's own callback.
            process.later(MILLISECOND, self.wind_up)
        else:
            process.later(self._rng.randint(MILLISECOND, self._habits.hold_us_max), self._let_go, self._holding)

    def _let_go(self, holding: int) -> None:
        if self._give_back_now is not None and self._holding == holding:
            self._give_back_now()

    def _give_back(self, operation: LockAcquire | SemaphoreAcquire, token: FencingToken, session_id: SessionId | None) -> None:
        self._give_back_now = None
        process, session, path = self._process, self._process.session, operation.path
        believed = session.believes_held(path, token, process.now_ms())
        # None: the session was lost or closed in the turn in which the grant came.
        if session_id is None or session.session_id != session_id:
            if believed:
                raise Violation(f"{process.name} believes in {path}, token {token}, of a session that is over")
            self._rest()
            return
        if not believed and session.lease_deadline_ms is not None and process.now_ms() < session.lease_deadline_ms:
            raise Violation(f"{process.name} forgot that it holds {path} under token {token}")
        release: Operation = SemaphoreRelease(path, token)
        if isinstance(operation, LockAcquire):
            release = LockRelease(path, token, 0 if self._books.winding_up else self._rng.choice((0, 0, 400)))
        self.doing = f"give back {path}, token {token}"
        process.call(release, self._done)
        if session.believes_held(path, token, process.now_ms()):
            raise Violation(f"{process.name} believes in {path}, token {token}, which it gives back")

    # --- the rest -----------------------------------------------------------------------------------------------------------------

    def _look_and_break(self, path: str) -> None:
        self.doing = f"look at {path}"

        def then(outcome: Outcome) -> None:
            last = (outcome.holder or outcome.closed) if isinstance(outcome, LockState) else None
            if last is None or self._books.winding_up or self._process.session.state is SessionState.CLOSED:
                self._rest()
            else:
                # Not from within the session's own callback.
                self._process.later(MILLISECOND, self._break, path, last.token)

        self._process.ask(LockInfo(path), then)

    def _break(self, path: str, token: FencingToken) -> None:
        self.doing = f"break {path}, token {token}"
        owner = Owner("simulated", 1, self._books.name(self._process))
        try:
            self._process.call(LockBreak(path, token, "by chance", owner), self._done)
        except CoordError:
            self.doing = ""

    def _set_limit(self, path: str) -> None:
        self.doing = f"set the limit of {path}"
        self._process.call(SemaphoreSetLimit(path, self._rng.choice((None, None, 1, 2, 5))), self._done)

    def _ask_limiter(self, path: str) -> None:
        self.doing = f"ask {path}"
        wait_ms = self._rng.choice((0, 0, 400, 2_000))
        self._process.call(RateAcquire(path, wait_ms, self._rng.randint(1, 3), *RATE), self._done)

    def _done(self, outcome: Outcome) -> None:
        match outcome:
            case Done() | LockBroken() | RateGranted() | RateRefused() | NotGranted() | CoordError():
                self._rest()
            case _:
                raise Violation(f"{self._process.name}: {self.doing} came back as {outcome}")
