"""The entry being applied: what it says of itself, and what it causes besides its own answer.

There is one such record a machine, set anew for each entry; everything that needs the index or the cluster time reads it here.
"""

from typing import TYPE_CHECKING

from coord_core.machine.gates import Gates
from coord_core.machine.sessions import Attachment
from coord_core.machine.versions import VERSION_FIRST
from coord_core.protocol.results import Result
from coord_core.protocol.topics import TopicRecord
from coord_core.types import AttachmentId, LogIndex, RequestNumber, SessionId, SubscriptionId, TopicNumber

if TYPE_CHECKING:
    from coord_core.machine.snapshot import Snapshot


class CurrentEntry:
    __slots__ = (
        "closed",
        "closures_due",
        "emitted",
        "gates",
        "index",
        "leased",
        "records",
        "replies",
        "snapshot",
        "time_ms",
        "trimmed",
        "unsubscribed",
        "version",
    )

    def __init__(self) -> None:
        #: Strictly rising; 0 before the first entry.
        self.index = LogIndex(0)
        #: Cluster time in milliseconds: the highest stamp seen, so it never falls.
        self.time_ms = 0
        #: What decides between an old behaviour and a new one: see `versions`.
        self.version = VERSION_FIRST
        #: Answers to earlier requests, in the order in which they were made.
        self.replies: list[tuple[AttachmentId, RequestNumber, Result]] = []
        #: The sessions that were opened, taken up or handed off: who keeps their leases must look at them.
        self.leased: list[SessionId] = []
        self.closed: list[SessionId] = []
        #: Kind and path of the streams that have a record of this entry, in the order in which they got it.
        self.emitted: list[tuple[str, str]] = []
        #: The subscriptions that this entry ended.
        self.unsubscribed: list[SubscriptionId] = []
        #: Timers of this entry opened locks, which are granted at its end.
        self.closures_due = False
        #: What moved that somebody waits for outside of its queue.
        self.gates = Gates()
        #: What was published to topics, or parked.
        self.records: list[tuple[TopicNumber, TopicRecord]] = []
        #: Logs whose records below an offset are not kept any more; None: none at all, the log is gone.
        self.trimmed: list[tuple[TopicNumber, int | None]] = []
        #: The snapshot being written, which must see every window before it changes.
        self.snapshot: Snapshot | None = None

    def begin(self, index: LogIndex, time_ms: int) -> None:
        assert index > self.index, f"entry {index} comes after entry {self.index}"
        self.index = index
        # A leader whose clock stands behind its predecessor's last stamp must not turn time back.
        if time_ms > self.time_ms:
            self.time_ms = time_ms
        # New lists: the last ones were handed out.
        self.replies = []
        self.closed = []
        # Seldom used: the same as long as nothing is in them, and handed out only then.
        if self.leased:
            self.leased = []
        if self.emitted:
            self.emitted = []
        if self.unsubscribed:
            self.unsubscribed = []
        if self.records:
            self.records = []
        if self.trimmed:
            self.trimmed = []

    def reply(self, attachment: Attachment, request: RequestNumber, answer: Result) -> None:
        """Answer an earlier request, which waited until now."""
        if self.snapshot is not None:
            self.snapshot.before_attachment(attachment)
        attachment.window.settle(request, answer)
        self.replies.append((attachment.number, request, answer))
