"""What only a leader has: cluster time, leases, and the entries it adds of its own accord.

A leader is *ready* when it has applied its own term's first entry: before that it knows neither what time the cluster's last stamp
says nor which sessions live.  Everything here begins at that moment and ends with the leadership.

Cluster time is the time of the last applied stamp plus the leader's own monotonic time since it became ready.  Without a leader it
stands still (spec: sessions outlive a failover).
"""

import msgspec

from coord_core.machine import Machine, SessionView, refusals
from coord_core.protocol.commands import Command, ExpireSession, SetMachineVersion, Tick
from coord_core.protocol.locks import ListedSession, SessionRows
from coord_core.protocol.queries import Answer, Query, SessionInfo, SessionState
from coord_core.protocol.results import Failed
from coord_core.replica.leases import Leases
from coord_core.replica.reads import ExpiryCheck, Reads
from coord_core.types import SessionId, Term

#: Sessions whose expiry is looked at in one turn; the rest wait for the next.
EXPIRIES_A_TURN = 1_000


class Leading:
    """The state of one leadership, from ready to deposed."""

    __slots__ = (
        "_base_ms",
        "_expiring",
        "_holds",
        "_leases",
        "_machine",
        "_reads",
        "_since_ms",
        "_tick_under_way",
        "_version_under_way",
        "term",
    )

    def __init__(self, term: Term, machine: Machine, reads: Reads, now_ms: int, lease_ms: int) -> None:
        self.term = term
        self._machine = machine
        self._reads = reads
        self._base_ms = machine.time_ms
        self._since_ms = now_ms
        self._leases = Leases()
        # Detached sessions that nobody has: until when, in cluster time.
        self._holds = Leases()
        #: Sessions found dead in a confirmed round, until their Expire is applied: their keep-alives get no answer.
        self._expiring: set[SessionId] = set()
        self._tick_under_way = False
        self._version_under_way = False
        for view in machine.sessions():
            self._begin(view, lease_ms)

    def stamp_ms(self, now_ms: int) -> int:
        return self._base_ms + now_ms - self._since_ms

    def check_expiries(self, lease_ms: int) -> None:
        """Ask for a confirmed round for every lease that ran out."""
        for session in self._leases.due(lease_ms, EXPIRIES_A_TURN):
            deadline_ms = self._leases.deadline_ms(session)
            if deadline_ms is not None and not self._reads.add(ExpiryCheck(session, deadline_ms)):
                self._leases.watch_again(session)

    def own_commands(self, expired: list[SessionId], now_ms: int, version_known_to_all: int) -> list[Command]:
        """Return what the leader itself has to add to the log now."""
        commands: list[Command] = []
        for session in expired:
            view = self._machine.session(session)
            # Somebody may have taken it up since it was found dead: its generation is another then, and its lease runs.
            if view is not None and session in self._expiring:
                commands.append(ExpireSession(session, view.generation))
        for session in self._holds.due(self.stamp_ms(now_ms), EXPIRIES_A_TURN):
            view = self._machine.session(session)
            if view is not None and not view.is_leased:
                self._expiring.add(session)
                commands.append(ExpireSession(session, view.generation))
        deadline_ms = self._machine.next_deadline_ms()
        if deadline_ms is not None and deadline_ms <= self.stamp_ms(now_ms) and not self._tick_under_way:
            commands.append(Tick())
            self._tick_under_way = True
        if version_known_to_all > self._machine.version and not self._version_under_way:
            commands.append(SetMachineVersion(version_known_to_all))
            self._version_under_way = True
        return commands

    def not_proposed(self, commands: list[Command]) -> None:
        """Take back `own_commands` that consensus had no room for; they come again."""
        for command in commands:
            if type(command) is Tick:
                self._tick_under_way = False
            elif type(command) is SetMachineVersion:
                self._version_under_way = False
            elif type(command) is ExpireSession:
                self._expiring.discard(command.session)
                self._leases.watch_again(command.session)
                self._holds.watch_again(command.session)

    def still_due(self, check: ExpiryCheck) -> bool:
        """Whether nothing has renewed the lease by the time that a quorum has confirmed this leader; else watch it again.

        A lease that was renewed and ran out anew meanwhile gets a check of its own, behind the keep-alives that have come since.

        From here on nothing renews it: a keep-alive served behind the check must not be promised what the next turn takes away.
        """
        session = check.session
        if self._leases.deadline_ms(session) == check.deadline_ms:
            self._expiring.add(session)
            return True
        self._leases.watch_again(session)
        return False

    def renew(self, session: SessionId, generation: int, lease_ms: int) -> int | Failed:
        """Run a lease anew; return its TTL, 0 where no answer may be given now, or why it is not renewed."""
        view = self._machine.session(session)
        if view is not None and view.detached is not None and (view.detached.superseded or view.generation != generation):
            return refusals.superseded(view.detached.name, "attempt" if view.detached.superseded else "process")
        if session in self._expiring:
            return 0
        ttl_ms = self._leases.renew(session, lease_ms) if view is not None and view.generation == generation else None
        return refusals.session_expired(session) if ttl_ms is None else ttl_ms

    def with_leases(self, query: Query, answer: Answer, lease_ms: int) -> Answer:
        """Add to an answer what the machine does not know: how much is left of sessions' leases."""
        if type(answer) is SessionState and type(query) is SessionInfo:
            return msgspec.structs.replace(answer, lease_left_ms=self._left_ms(query.session, lease_ms))
        if type(answer) is SessionRows:
            rows = tuple(self._with_lease(row, lease_ms) for row in answer.rows)
            return SessionRows(rows, answer.more)
        return answer

    def _with_lease(self, row: ListedSession, lease_ms: int) -> ListedSession:
        return msgspec.structs.replace(row, lease_left_ms=self._left_ms(row.session, lease_ms))

    def _left_ms(self, session: SessionId, lease_ms: int) -> int | None:
        deadline_ms = self._leases.deadline_ms(session)
        return None if deadline_ms is None else max(0, deadline_ms - lease_ms)

    def ticked(self) -> None:
        self._tick_under_way = False

    def leased(self, session: SessionId, lease_ms: int) -> None:
        """A session was opened, taken up or handed off: an expiry that is under way was meant for it as it was before."""
        view = self._machine.session(session)
        if view is not None:
            self.closed(session)
            self._begin(view, lease_ms)

    def closed(self, session: SessionId) -> None:
        self._leases.end(session)
        self._holds.end(session)
        self._expiring.discard(session)

    def _begin(self, view: SessionView, lease_ms: int) -> None:
        if view.detached is None or view.detached.held_until_ms is None:
            self._leases.grant(view.session, view.ttl_ms, lease_ms)
        else:
            left_ms = view.detached.held_until_ms - self._machine.time_ms
            self._holds.grant(view.session, left_ms, self._machine.time_ms)
