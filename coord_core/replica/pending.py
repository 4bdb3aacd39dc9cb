"""Who waits for the answer to which command.

A session's command is known by (attachment, request), so that an answer finds the connection on which it was asked last, however
often it was sent and however much later it comes (a lock granted to a waiter).  Commands outside a session are known by the index
at which they were proposed, together with the term: another leader's entry at that index is another command.

An origin is (connection, seq).  Where the connection has gone meanwhile the answer is dropped: the client asks again, and the
machine has the answer.  So nothing needs to be cleaned up when a connection closes; there are at most as many places here as
commands unanswered.
"""

from coord_core.types import AttachmentId, LogIndex, RequestNumber, Term

Origin = tuple[int, int]


class Pending:
    __slots__ = ("_calls", "_indexed")

    def __init__(self) -> None:
        self._calls: dict[tuple[AttachmentId, RequestNumber], Origin] = {}
        self._indexed: dict[LogIndex, tuple[Term, Origin]] = {}

    def __len__(self) -> int:
        return len(self._calls) + len(self._indexed)

    def expect(self, attachment: AttachmentId, request: RequestNumber, origin: Origin) -> None:
        """The latest origin gets the answer: the client sent the command again there."""
        self._calls[attachment, request] = origin

    def expect_index(self, index: LogIndex, term: Term, origin: Origin) -> None:
        self._indexed[index] = (term, origin)

    def pop(self, attachment: AttachmentId, request: RequestNumber) -> Origin | None:
        return self._calls.pop((attachment, request), None)

    def pop_index(self, index: LogIndex, term: Term) -> Origin | None:
        found = self._indexed.pop(index, None)
        return found[1] if found is not None and found[0] == term else None

    def drain(self) -> list[Origin]:
        """Forget all; return who must be sent to the next leader, in order of asking."""
        origins = [*self._calls.values(), *(origin for _, origin in self._indexed.values())]
        self._calls.clear()
        self._indexed.clear()
        return origins
