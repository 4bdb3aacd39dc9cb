"""Work that passes from process to process: detached sessions, each with a lock.

A *relay* is one piece of work, done in attempts.  An attempt is done by actors, one after the other: each is a process of its own,
which acquires the lock, holds it for a while, and then hands the session off, finishes, or is killed.  Now and then a second actor
comes while the first still runs, and now and then a later attempt does.  Beside what the checkers see in the log, two attempts
never believe at the same time that they hold the lock; two actors of one attempt may, as long as the lease of the first stands.
"""

import random
from collections.abc import Callable

from coord_core.client.session import Outcome, SessionState
from coord_core.client.settings import DetachedConfig
from coord_core.errors import CoordError
from coord_core.protocol.commands import Attempt, HandOff
from coord_core.protocol.operations import LockAcquire, LockRelease, Owner
from coord_core.protocol.results import Granted
from coord_core.testing.checkers.beliefs import Belief
from coord_core.testing.client import ClientProcess
from coord_core.testing.simulator import MILLISECOND
from coord_core.testing.workload import RELAYS, Books
from coord_core.types import FencingToken

#: Makes a process of a name that takes up a detached session.
Bear = Callable[[str, DetachedConfig], ClientProcess]

#: How long a session is held for the next actor.
HOLDS_MS = (300, 1_500, 3_000)


class Actor:
    """One process that has, or wants, the session of one attempt."""

    def __init__(self, relay: "Relay", process: ClientProcess, attempt: int) -> None:
        self.relay = relay
        self.process = process
        self.attempt = attempt
        self.token: FencingToken | None = None
        process.on_start = self._begin
        process.on_stirred = self._stirred

    def _begin(self) -> None:
        self.process.later(MILLISECOND, self._acquire)

    def _acquire(self) -> None:
        owner = Owner("simulated", 1, self.relay.books.name(self.process))
        wait_ms = self.relay.rng.choice((None, None, 2_000, 0))
        try:
            self.process.call(LockAcquire(self.relay.path, wait_ms, owner), self._acquired)
        except CoordError:
            self.end()

    def _acquired(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Granted):
            # Out of the session's callback: it may want to say more.
            self.process.later(MILLISECOND, self._finish)
            return
        self.token = token = outcome.token
        beliefs, process, session = self.relay.books.beliefs, self.process, self.process.session
        # Another actor of this attempt may have believed in it before: the token is the same.
        beliefs.ends(self.relay.path, token)
        life = process.life

        def stands() -> bool:
            return process.life == life and process.up and session.believes_held(self.relay.path, token, process.now_ms())

        beliefs.begins(self.relay.path, Belief(f"{process.name} (attempt {self.attempt})", token, stands))
        process.later(self.relay.rng.randint(20, 2_000) * MILLISECOND, self._what_next)
        if self.relay.rng.random() < 0.2:
            process.stop()
            self.relay.after(self.relay.rng.randint(500, 6_000) * MILLISECOND, process.resume)

    def _what_next(self) -> None:
        session = self.process.session
        if session.state in (SessionState.LOST, SessionState.CLOSED) or self.token is None:
            self.end()
        elif self.relay.books.winding_up or self.relay.rng.random() < 0.3:
            self._release()
        elif self.relay.rng.random() < 0.7:
            self._hand_off()
        else:
            self.end()  # Killed.

    def _release(self) -> None:
        assert self.token is not None
        try:
            self.process.call(LockRelease(self.relay.path, self.token), lambda outcome: self.process.later(1, self._finish))
        except CoordError:
            self.end()

    def _hand_off(self) -> None:
        session = self.process.session
        if session.session_id is None or session.attachment_id is None:
            self.end()
            return
        # What it hands off it does not believe in any more.
        if self.token is not None:
            self.relay.books.beliefs.ends(self.relay.path, self.token)
        command = HandOff(session.session_id, session.attachment_id, self.relay.rng.choice(HOLDS_MS))
        self.process.command(command, lambda outcome: self.process.later(1, self._handed_off))

    def _handed_off(self) -> None:
        self.process.session.close(self.process.now_ms(), bury=False)

    def _finish(self) -> None:
        if self.process.session.state is not SessionState.CLOSED:
            self.process.session.close(self.process.now_ms())

    def _stirred(self) -> None:
        self.relay.books.beliefs.judge_all()
        if not self.process.up:
            return
        if self.process.finished:
            self.end()
        elif self.process.session.state is SessionState.LOST:
            # It says that it has stopped, or is killed before it comes to that.
            if self.relay.rng.random() < 0.5:
                self._finish()
            else:
                self.end()

    def end(self) -> None:
        if self.token is not None:
            self.relay.books.beliefs.ends(self.relay.path, self.token)
        if self.process.up:
            self.process.kill()
        self.relay.ended(self)


class Relay:
    """One piece of work, and whoever is at it."""

    def __init__(self, number: int, bear: Bear, books: Books, rng: random.Random, after: Callable[..., object]) -> None:
        self.path = RELAYS[number % len(RELAYS)]
        self.name = f"relay {number}"
        self.books = books
        self.rng = rng
        self.after = after
        self._bear = bear
        self._attempt = 1
        self._born = 0
        self._actors: list[Actor] = []

    def start(self) -> None:
        self._next()

    def _next(self) -> None:
        """Another actor comes: of the present attempt, whether or not somebody is at it; or of a later one, or a late one."""
        if self.books.winding_up:
            return
        choice = self.rng.random()
        attempt = self._attempt
        if choice < 0.3:
            self._attempt = attempt = attempt + 1
        elif choice < 0.35:
            attempt = max(1, attempt - 1)
        if len(self._actors) < 4:
            self._born += 1
            name = f"{self.name}.{self._born}"
            config = DetachedConfig(self.name, Attempt(attempt), name.encode()[-16:])
            actor = Actor(self, self._bear(name, config), attempt)
            self._actors.append(actor)
            actor.process.start()
        self.after(self.rng.randint(100, 1_500) * MILLISECOND, self._next)

    def ended(self, actor: Actor) -> None:
        if actor in self._actors:
            self._actors.remove(actor)

    def wind_up(self) -> None:
        """All are killed: what they had is over with their leases, or has been held long enough."""
        for actor in list(self._actors):
            actor.end()
