"""One request of a client, and the ledger that numbers those of one attachment.

The rule of exactly-once (dissertation, section 6.3): a request gets its number when it is first sent and keeps it; it counts as
answered only once nothing of it can happen any more.  Pure.
"""

from collections.abc import Hashable
from enum import Enum
from typing import NewType

from coord_core.client.settings import WINDOW_URGENT_MAX
from coord_core.protocol.commands import WINDOW_REQUESTS_MAX, Command
from coord_core.protocol.operations import FREEING, Operation
from coord_core.protocol.queries import Query
from coord_core.protocol.ranges import RequestRanges

#: Names a call of one `ClientSession` to its driver.  Never reused.
CallId = NewType("CallId", int)

#: Up to this far above the low-water mark an acknowledgement goes without its ranges: they would only cost bytes.
_SPAN_WITHOUT_RANGES = WINDOW_REQUESTS_MAX // 2


class Kind(Enum):
    #: A numbered operation of the attachment.
    CALL = 1
    #: A command without a number: safe to apply twice.
    COMMAND = 2
    #: A linearizable read.
    ASK = 3
    #: Opens the session, or the attachment.
    OPEN = 4
    #: Renews the lease; attached sessions ask instead whether the session lives.
    PROBE = 5
    #: Closes a session or attachment that was lost or closed here.
    BURY = 6


class Request:
    """What was asked, and how far it has come."""

    __slots__ = (
        "body",
        "call",
        "deadline_ms",
        "done",
        "kind",
        "number",
        "order",
        "sends",
        "sent_ms",
        "target",
        "trouble",
        "urgent",
        "withdrawn",
    )

    def __init__(self, call: CallId, kind: Kind, body: Operation | Query | Command | None) -> None:
        self.call = call
        self.kind = kind
        self.body = body
        #: Request number; 0 until first sent, and for everything that is not a CALL.
        self.number = 0
        #: What the cluster said when it would not take it; its end tells it on.
        self.trouble = ""
        #: How often it was sent; 0 means: certainly not applied.
        self.sends = 0
        self.sent_ms = 0
        self.deadline_ms: int | None = None
        #: Goes before others and may use the reserved part of the window: it frees something.
        self.urgent = type(body) in FREEING
        #: Calls with the same order are sent one after the other's answer.
        self.order: Hashable | None = None
        #: The caller has its outcome.
        self.done = False
        #: A Cancel is under way: not sent again, its own answer does not count.
        self.withdrawn = False
        #: Of a Cancel: what it withdraws.
        self.target: Request | None = None


class Ledger:
    """Numbers, window and acknowledgements of one attachment."""

    __slots__ = ("_answered", "_number_last", "_withholds_values", "unanswered")

    def __init__(self, number_last: int = 0) -> None:
        #: Above those of whoever had the attachment before.
        self._number_last = number_last
        self._answered = RequestRanges(number_last)
        # The cluster may be keeping an answer with a value in it, of which it keeps only so many bytes.
        self._withholds_values = False
        #: By number, rising: what was sent and is not answered.
        self.unanswered: dict[int, Request] = {}

    def has_room(self, *, urgent: bool) -> bool:
        return len(self.unanswered) < (WINDOW_URGENT_MAX if urgent else WINDOW_REQUESTS_MAX)

    def enter(self, request: Request) -> None:
        """Give the request its number."""
        self._number_last += 1
        request.number = self._number_last
        self.unanswered[self._number_last] = request

    def settle(self, request: Request, *, with_value: bool = False) -> None:
        """Count the request as answered."""
        if self.unanswered.pop(request.number, None) is not None:
            self._answered.add(request.number)
            self._withholds_values |= with_value

    def acknowledgement(self, number: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Return the low-water mark and the ranges to send along with request `number`.

        Without the ranges the cluster remembers at most `_SPAN_WITHOUT_RANGES` small answers for longer than it must.
        """
        answered = self._answered
        if number - answered.low_water <= _SPAN_WITHOUT_RANGES and not self._withholds_values:
            return answered.low_water, ()
        ranges = answered.ranges
        self._withholds_values = bool(ranges)
        return answered.low_water, ranges
