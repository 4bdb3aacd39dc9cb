"""Mutual exclusion as the world sees it: in real time, of what clients *believe*.

A client believes that it holds a lock from the moment it has the answer until it calls release, for as long as its session
says that the lease stands.  A stopped client cannot act, but it would believe again when it is resumed: so what counts is its
lease's deadline on its own clock, whether it runs or not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from coord_core.testing.simulator import Violation


@dataclass(frozen=True, slots=True)
class Belief:
    holder: str
    token: int
    #: Whether the holder's lease stands at this moment of real time.
    stands: Callable[[], bool]
    #: Of a detached session: its processes, under one token, are one holder; empty: there is one process anyway.
    session: str = ""


@dataclass
class BeliefChecks:
    """Who believes to hold what."""

    beliefs: dict[str, list[Belief]] = field(default_factory=dict)

    def begins(self, path: str, belief: Belief) -> None:
        """A client was told that it holds the lock."""
        self.beliefs.setdefault(path, []).append(belief)
        self.judge(path)

    def ends(self, path: str, token: int, holder: str = "") -> None:
        """The client gives the lock up, or died.  `holder`: this one alone, where others have the same token."""
        beliefs = self.beliefs.get(path, [])
        self.beliefs[path] = [it for it in beliefs if it.token != token or (holder and it.holder != holder)]

    def judge(self, path: str) -> None:
        """Called whenever a belief may have begun or been prolonged."""
        standing = [belief for belief in self.beliefs.get(path, ()) if belief.stands()]
        if len({(belief.session or belief.holder, belief.token) for belief in standing}) > 1:
            raise Violation(
                f"{path} is held by {' and by '.join(f'{belief.holder} (token {belief.token})' for belief in standing)}"
            )

    def judge_all(self) -> None:
        for path in self.beliefs:
            self.judge(path)
