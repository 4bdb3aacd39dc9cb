"""The blocking forms of the election's classes; see `election`."""

from collections.abc import Sequence
from types import TracebackType

from coord_core.client.election import AsyncCandidacy, AsyncDistributedLeaderElection
from coord_core.client.listeners import Listener
from coord_core.client.sync_base import Blocking
from coord_core.client.sync_watch import Watch
from coord_core.errors import LeadershipLost, LostError
from coord_core.protocol.elections import Candidate
from coord_core.types import CandidateId, Epoch


class Candidacy(Blocking[AsyncCandidacy]):
    """One entry in an election: first it waits, then it leads, then it is over."""

    @property
    def candidate(self) -> CandidateId:
        """The log index at which it entered: nobody else's, ever."""
        return self._inner.candidate

    @property
    def epoch(self) -> Epoch | None:
        """The present epoch, as far as this process knows; None while somebody else leads.  Use it as a fencing token."""
        return self._inner.epoch

    def is_leader_locally(self) -> bool:
        """Tell whether this process may believe that it leads; costs no message.  See `AsyncCandidacy`."""
        return self._inner.is_leader_locally()

    def wait_elected(self, timeout: float | None = None) -> Epoch | None:
        """Return the epoch when this candidate leads; None where `timeout` seconds passed first.

        Raises `LostError` where the candidacy is over.
        """
        return self._client.run(lambda: self._inner.wait_elected(timeout))

    def wait_deposed(self) -> LostError:
        """Return why, when this candidate leads no more; at once where it does not lead."""
        return self._client.run(self._inner.wait_deposed)

    def resign(self) -> None:
        """Leave the election; the next candidate leads at once.  Raises as `AsyncCandidacy.resign` does."""
        self._client.run(self._inner.resign, finish=True)


class Leadership:
    """`with election.lead() as leadership:` the body begins when this process leads.

    Nothing can stop a thread from outside: ask `is_leader_locally` between steps, and give `epoch` to what you write to.
    """

    def __init__(self, election: "DistributedLeaderElection", timeout: float | None) -> None:
        self._election = election
        self._timeout = timeout
        self._candidacy: Candidacy | None = None
        self._epoch = Epoch(0)

    @property
    def path(self) -> str:
        return self._election.path

    @property
    def epoch(self) -> Epoch:
        """Under which this process was elected; unique and rising over the election's whole life."""
        return self._epoch

    def is_leader_locally(self) -> bool:
        """Tell whether this process may believe that it still leads under that epoch."""
        candidacy = self._candidacy
        return candidacy is not None and candidacy.epoch == self._epoch and candidacy.is_leader_locally()

    def __enter__(self) -> "Leadership":
        """Wait to be elected.  Raises `TimeoutError`, and as `enter` does."""
        candidacy = self._election.enter()
        try:
            epoch = candidacy.wait_elected(self._timeout)
        except BaseException:
            candidacy.resign()
            raise
        if epoch is None:
            candidacy.resign()
            raise TimeoutError(f"not elected in {candidacy.path} within {self._timeout:g} s")
        self._candidacy, self._epoch = candidacy, epoch
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Resign.  Raises `LeadershipLost` where the body did not lead all the time, unless it raised something itself."""
        assert self._candidacy is not None
        led = self.is_leader_locally()
        self._candidacy.resign()
        if not led and error is None:
            raise LeadershipLost(f"the leadership of {self._candidacy.path} was lost", epoch=self._epoch)


class DistributedLeaderElection(Blocking[AsyncDistributedLeaderElection]):
    """A handle of the election at `path`.  Made by `Client.election`; making one sends nothing."""

    def enter(self) -> Candidacy:
        """Become a candidate; return once it can be elected.  Raises as `AsyncDistributedLeaderElection.enter` does."""
        return Candidacy(self._client, self._client.run(self._inner.enter, AsyncCandidacy.resign))

    def lead(self, timeout: float | None = None) -> Leadership:
        """Return a context that is entered when this process leads.  Entering raises `TimeoutError`, and as `enter` does."""
        return Leadership(self, timeout)

    def on_election(self, listener: Listener, on_lost: Listener | None = None) -> None:
        """Be a candidate from now on, until `resign`; completes once this process can be elected.

        `listener(epoch)` is called on the callback thread whenever it is elected, `on_lost(epoch)` when it does not lead any more.
        After a lost session it enters anew.
        """
        self._client.run(lambda: self._inner.on_election(listener, on_lost))

    def resign(self) -> None:
        """Undo `on_election`: leave the election; the next candidate leads at once.  `on_lost` is not called."""
        self._client.run(self._inner.resign, finish=True)

    def is_leader(self, epoch: int) -> bool:
        """Tell, linearizably, whether the election is led under `epoch`, by whomever.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.is_leader(epoch))

    def leader(self) -> Candidate | None:
        """Return who leads, linearizably.  Raises `Unavailable`."""
        return self._client.run(self._inner.leader)

    def candidates(self, limit: int = 100) -> Sequence[Candidate]:
        """Return who waits to lead, the next one first, at most `limit`.  Raises `Unavailable`."""
        return self._client.run(lambda: self._inner.candidates(limit))

    def observe(self) -> "Watch[Candidate | None]":
        """Return the leaders, one after the other, beginning with the present one.  None: nobody leads."""
        return Watch(self._client, self._inner.observe())

    def transfer(self, candidate: int = 0, *, epoch: int | None = None) -> None:
        """Let a candidate lead (0: the next), and the leader wait behind the others.  Raises as the async form does."""
        self._client.run(lambda: self._inner.transfer(candidate, epoch=epoch))
