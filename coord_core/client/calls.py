"""The calls of a client that wait to be sent or answered: order, window, timeouts, cancellation.

The rules:

- Calls are sent in the order in which they were made, and sent again in that order on every new connection until answered.  Those
  that free something (releases, cancels) go before the others.  Calls that share an `order` go one after the other's answer.
- At most `WINDOW_REQUESTS_MAX` numbered calls are unanswered, a part of them reserved for what frees something; the others wait
  here, up to `QUEUED_REQUESTS_MAX`.
- Every call gets exactly one outcome.  What is given up (timeout, cancel) after it was sent is withdrawn by a `Cancel`, which is
  sent until answered: so nothing that its caller has turned away from takes effect much later, and no grant stays behind.

Which node to send to, and whether a session is there to send under, is `session`'s business.  Pure.
"""

import heapq
from collections import deque
from collections.abc import Hashable
from itertools import count
from typing import TypeAlias

from coord_core.client.requests import CallId, Kind, Ledger, Request
from coord_core.client.settings import QUEUED_REQUESTS_MAX, SessionConfig
from coord_core.errors import Busy, CoordError, LostError, OutcomeUnknown, Unavailable
from coord_core.protocol.commands import WINDOW_REQUESTS_MAX
from coord_core.protocol.operations import Announcing, Cancel, Waiting
from coord_core.protocol.queries import Answer
from coord_core.protocol.results import NotGranted, Result, ValueConflict
from coord_core.protocol.streams import Announced, Joined
from coord_core.types import RequestNumber

Outcome: TypeAlias = Result | Answer | CoordError


#: Answers of which the cluster keeps only so many bytes: the values in them, or the audience that they had.
_LARGE = (ValueConflict, Joined, Announced)


class Calls:
    """What one client has asked for and not been told."""

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        #: Why no leader is reached at the moment; errors tell it on.
        self.trouble = ""
        self._ids = count(1)
        #: Outcomes for the driver to hand out, in the order in which they came about.
        self.resolved: list[tuple[CallId, Outcome]] = []
        # Every call without an outcome.
        self._open: dict[CallId, Request] = {}
        # (deadline, call, request); entries of calls that are done are dropped lazily.
        self._deadlines: list[tuple[int, CallId, Request]] = []
        # Calls that wait for the answer to an earlier one of their order; an order is here while one of its calls is under way.
        self._chains: dict[Hashable, deque[Request]] = {}
        self._ledger = Ledger()
        # Numbered calls: never sent (urgent and other), and sent but to be sent again, by number.
        self._urgent: deque[Request] = deque()
        self._queue: deque[Request] = deque()
        self._again: deque[Request] = deque()
        # Reads and commands without a number: to be sent, and in flight.
        self._plain: deque[Request] = deque()
        self._plain_sent: dict[CallId, Request] = {}

    # --- in ----------------------------------------------------------------------------------------------------------------------

    def new_id(self) -> CallId:
        return CallId(next(self._ids))

    def add(self, request: Request, now_ms: int, timeout_ms: int | None, order: Hashable | None) -> None:
        """Take a call.  Raises `Busy` where too many wait; releases are always taken."""
        if len(self._open) >= QUEUED_REQUESTS_MAX and not request.urgent:
            raise Busy(f"{len(self._open)} calls of this client wait for an answer", limit=QUEUED_REQUESTS_MAX)
        self._open[request.call] = request
        self._set_deadline(request, now_ms, timeout_ms)
        if order is not None:
            request.order = order
            if order in self._chains:
                self._chains[order].append(request)
                return
            self._chains[order] = deque()
        self._enqueue(request)

    def withdraw(self, request: Request, outcome: CoordError) -> None:
        """End a call with `outcome` and see to it that it has no effect, or none that stays."""
        if not request.done and not request.withdrawn:
            self._withdraw(request, outcome)

    def cancel(self, call: CallId) -> None:
        """Give up a call; a lock it may have been granted is given back.  Nothing happens where it has its outcome already."""
        request = self._open.get(call)
        if request is not None:
            self._give_up(request, "cancelled")

    # --- out ---------------------------------------------------------------------------------------------------------------------

    def wants_session(self) -> bool:
        return bool(self._queue or self._urgent or self._again)

    def wants_link(self) -> bool:
        return bool(self._open or self._ledger.unanswered or self._urgent)

    def next_call(self, *, paused: bool) -> Request | None:
        """Return the numbered call to send next: the caller sends it at once, under `request.number`."""
        if self._again and not paused:
            return self._again.popleft()
        if self._urgent and self._ledger.has_room(urgent=True):
            return self._enter(self._urgent)
        if paused or not self._queue or not self._ledger.has_room(urgent=False):
            return None
        return self._enter(self._queue)

    def next_plain(self) -> Request | None:
        """Return the read or command to send next."""
        if not self._plain or len(self._plain_sent) >= WINDOW_REQUESTS_MAX:
            return None
        request = self._plain.popleft()
        self._plain_sent[request.call] = request
        return request

    def acknowledgement(self, number: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        return self._ledger.acknowledgement(number)

    # --- what came of it ---------------------------------------------------------------------------------------------------------

    def answered(self, request: Request, outcome: Outcome) -> None:
        """The cluster answered for good."""
        if request.kind is not Kind.CALL:
            self._plain_sent.pop(request.call, None)
        elif request.withdrawn:
            return  # The answer to its Cancel settles it: until then the cluster must not forget it.
        else:
            self._ledger.settle(request, with_value=isinstance(outcome, _LARGE))
            if request.target is not None:
                self._withdrawn(request.target)
                return
        if not request.done:
            self._resolve(request, outcome)
        if request.order is not None:
            self._next_of_order(request)

    def refused(self, request: Request) -> None:
        """The cluster was too busy to take it: send it again, after those before it."""
        if request.kind is not Kind.CALL:
            if self._plain_sent.pop(request.call, None) is not None and not request.done:
                self._plain.appendleft(request)
        elif not request.withdrawn:
            self._again.append(request)
            if len(self._again) > 1 and self._again[-2].number > request.number:
                self._again = deque(sorted(self._again, key=_number))

    def number_from(self, number_last: int) -> None:
        """Begin to number calls above this: an attachment that was another's before.  Nothing was sent under it yet."""
        assert not self._ledger.unanswered, "calls are sent once the attachment is known"
        self._ledger = Ledger(number_last)

    def connection_lost(self) -> None:
        """Nothing in flight will be answered any more: all of it is to be sent again."""
        self._again = deque(request for request in self._ledger.unanswered.values() if not request.withdrawn)
        self._plain.extendleft(reversed(self._plain_sent.values()))
        self._plain_sent.clear()

    def expire(self, now_ms: int) -> None:
        """Give up the calls whose time is over."""
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            request = heapq.heappop(self._deadlines)[2]
            if not request.done:
                self._give_up(request, "timeout")

    def next_deadline_ms(self) -> int | None:
        while self._deadlines and self._deadlines[0][2].done:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def fail_unsent(self, error: CoordError) -> None:
        """No node will have us: whatever was never sent fails with the reason."""
        for request in list(self._open.values()):
            if not request.sends:
                self._unqueue(request)
                self._resolve(request, type(error)(error.message, **error.details))
                self._next_of_order(request)

    def session_lost(self, error: LostError, *, reads_too: bool) -> None:
        """The session is gone: what was sent has an unknown outcome, what was not fails with `error`; reads go on."""
        for request in list(self._open.values()):
            if request.kind is not Kind.ASK or reads_too:
                self._resolve(request, _after_loss(request, error))
        self._ledger = Ledger()
        self._chains.clear()
        for queue in (self._urgent, self._queue, self._again, self._plain):
            queue.clear()
        self._plain_sent = {call: request for call, request in self._plain_sent.items() if not request.done}
        for request in self._open.values():
            request.order = None
            if request.call not in self._plain_sent:
                self._plain.append(request)

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _enqueue(self, request: Request) -> None:
        if request.kind is not Kind.CALL:
            self._plain.append(request)
        elif request.urgent:
            self._urgent.append(request)
        else:
            self._queue.append(request)

    def _enter(self, queue: deque[Request]) -> Request:
        request = queue.popleft()
        self._ledger.enter(request)
        return request

    def _set_deadline(self, request: Request, now_ms: int, timeout_ms: int | None) -> None:
        body = request.body
        if timeout_ms is None:
            if not isinstance(body, Waiting):
                timeout_ms = self._config.request_timeout_ms + (body.announce_ms if isinstance(body, Announcing) else 0)
            elif body.wait_ms is None:
                return
            else:
                timeout_ms = body.wait_ms + self._config.acquire_grace_ms
        request.deadline_ms = now_ms + timeout_ms
        heapq.heappush(self._deadlines, (request.deadline_ms, request.call, request))
        if len(self._deadlines) > 2 * len(self._open) + 1024:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)

    def _resolve(self, request: Request, outcome: Outcome) -> None:
        request.done = True
        del self._open[request.call]
        self.resolved.append((request.call, outcome))

    def _give_up(self, request: Request, reason: str) -> None:
        """Tell the caller what is true now, and see to it that it stays true."""
        if request.urgent:
            # Never withdrawn: the caller wants it free, and it will be, as soon as the cluster is reached.
            why = f" (last: {request.trouble})" if request.trouble else ""
            self._resolve(request, OutcomeUnknown(f"the release was not confirmed in time; it is still being sent{why}"))
        elif not request.sends:
            self._unqueue(request)
            self._resolve(request, _never_sent(request, reason, self.trouble))
            self._next_of_order(request)
        elif request.kind is Kind.CALL:
            self._withdraw(request, _unanswered(request, reason))
        else:
            self._plain_sent.pop(request.call, None)
            self._resolve(request, _unanswered(request, reason))
            self._next_of_order(request)

    def _withdraw(self, request: Request, outcome: Outcome) -> None:
        request.withdrawn = True
        if request in self._again:
            self._again.remove(request)
        cancel = Request(self.new_id(), Kind.CALL, Cancel(RequestNumber(request.number)))
        cancel.target = request
        cancel.done = True
        self._urgent.append(cancel)
        self._resolve(request, outcome)

    def _withdrawn(self, target: Request) -> None:
        self._ledger.settle(target)
        self._next_of_order(target)

    def _next_of_order(self, request: Request) -> None:
        chain = None if request.order is None else self._chains.get(request.order)
        if chain is None:
            return
        if chain:
            self._enqueue(chain.popleft())
        else:
            del self._chains[request.order]

    def _unqueue(self, request: Request) -> None:
        """Take a call that was never sent out of whatever it waits in."""
        chain = self._chains.get(request.order) if request.order is not None else None
        if chain is not None and request in chain:
            chain.remove(request)
            request.order = None  # It was not the one under way: its going lets nobody go ahead.
            return
        for queue in (self._queue, self._plain, self._urgent):
            if request in queue:
                queue.remove(request)
                return


def _number(request: Request) -> int:
    return request.number


def _never_sent(request: Request, reason: str, trouble: str) -> Outcome:
    if reason == "cancelled" and isinstance(request.body, Waiting):
        return NotGranted(reason)
    why = f" (last: {trouble})" if trouble else ""
    return Unavailable(f"no leader was reached in time, nothing was applied{why}", reason=reason)


def _unanswered(request: Request, reason: str) -> Outcome:
    if isinstance(request.body, Waiting):
        return NotGranted(reason)
    if request.kind is Kind.ASK:
        return Unavailable("the cluster did not answer in time", reason=reason)
    why = f" (last: {request.trouble})" if request.trouble else ""
    return OutcomeUnknown(f"sent, but not answered in time: it may or may not have been applied{why}", reason=reason)


def _after_loss(request: Request, error: LostError) -> CoordError:
    if request.kind is Kind.ASK or not request.sends:
        return type(error)(error.message, **error.details)
    return OutcomeUnknown(f"sent, and then {error.message}: it may or may not have been applied", lost=error.code)
