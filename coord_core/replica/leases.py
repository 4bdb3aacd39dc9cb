"""Until when each session is alive, as the leader reckons it.

The lease clock is the node's monotonic clock less every stall: where two turns lie further apart than `STALL_MS`, the process was
stopped or starved, keep-alives could not be read, and nobody's lease may run meanwhile.  Leaving the rest of the gap out of the
clock moves all deadlines at once.  `STALL_MS` of it count: else a leader so busy that all its turns are long would never expire
anybody, and the dead would hold their locks for ever.

A lease only ever ends later than its client believes: the client counts from when it *sent* the keep-alive, the leader from when a
quorum had confirmed it.
"""

from heapq import heapify, heappop, heappush

from coord_core.types import SessionId

#: A gap between turns that counts as a stall.  Ticks come every 50 ms, so a healthy loop never shows one.
STALL_MS = 100

#: Fewer leases of sessions that ended than this are not worth rebuilding the heap for.
_ENDED_KEPT = 1_024


class LeaseClock:
    """Monotonic milliseconds in which stalls did not happen."""

    __slots__ = ("_last_ms", "_stalled_ms")

    def __init__(self, now_ms: int) -> None:
        self._last_ms = now_ms
        self._stalled_ms = 0

    def advance(self, now_ms: int) -> int:
        """Take note of a turn; return the lease time."""
        gap = now_ms - self._last_ms
        if gap > STALL_MS:
            self._stalled_ms += gap - STALL_MS
        self._last_ms = now_ms
        return now_ms - self._stalled_ms


class Leases:
    """The deadlines of all sessions.  Empty on a node that does not lead."""

    __slots__ = ("_deadline", "_heap", "_ttl")

    def __init__(self) -> None:
        self._deadline: dict[SessionId, int] = {}
        self._ttl: dict[SessionId, int] = {}
        # (deadline when pushed, session); stale where the lease was renewed since: pushed again when it comes up.
        self._heap: list[tuple[int, SessionId]] = []

    def grant(self, session: SessionId, ttl_ms: int, now_ms: int) -> None:
        """Begin a lease: the session was opened, or this node began to lead."""
        self._ttl[session] = ttl_ms
        self._deadline[session] = now_ms + ttl_ms
        heappush(self._heap, (now_ms + ttl_ms, session))

    def renew(self, session: SessionId, now_ms: int) -> int | None:
        """Run the lease anew; return its TTL, or None where there is no such session."""
        ttl_ms = self._ttl.get(session)
        if ttl_ms is not None:
            self._deadline[session] = now_ms + ttl_ms
        return ttl_ms

    def end(self, session: SessionId) -> None:
        self._ttl.pop(session, None)
        self._deadline.pop(session, None)
        # Most sessions are closed long before they run out: without this the heap would keep each of them until then.
        if len(self._heap) > 2 * len(self._deadline) + _ENDED_KEPT:
            self._heap = [item for item in self._heap if item[1] in self._deadline]
            heapify(self._heap)

    def due(self, now_ms: int, most: int) -> list[SessionId]:
        """Return up to `most` sessions whose lease has run out, each once until it is granted again."""
        found: list[SessionId] = []
        while self._heap and self._heap[0][0] <= now_ms and len(found) < most:
            _, session = heappop(self._heap)
            deadline = self._deadline.get(session)
            if deadline is None:
                continue
            if deadline > now_ms:
                heappush(self._heap, (deadline, session))
            else:
                found.append(session)
        return found

    def deadline_ms(self, session: SessionId) -> int | None:
        """Return when the session's lease ends, None where it has none."""
        return self._deadline.get(session)

    def watch_again(self, session: SessionId) -> None:
        """Put a session that `due` returned, and that turned out to be renewed, back under watch."""
        deadline = self._deadline.get(session)
        if deadline is not None:
            heappush(self._heap, (deadline, session))
