"""Everything that can go wrong, arranged by what the caller can do about it.

    CoordError
    +-- RetryableError          try again: nothing was applied
    |   +-- NotLeader           another node leads (the client follows by itself)
    |   +-- Unavailable         no quorum, no connection, or not within the timeout
    |   +-- Busy                a bound was reached; wait and try again
    |   +-- DiskFull            a majority of nodes has no room on disk; somebody must free some
    +-- OutcomeUnknown          it may or may not have been applied: look before trying again
    +-- LostError               what you held is gone: stop acting on it
    |   +-- SessionExpired
    |   +-- SessionClosed
    |   +-- AttachmentClosed
    |   +-- Superseded          another process, or a later attempt, goes on in the caller's stead
    |   +-- LockLost
    |   +-- LeadershipLost
    |   +-- SubscriptionLost
    +-- RequestError            asking again will not help: change the request
    |   +-- InvalidUrl
    |   +-- InvalidConfig
    |   +-- InvalidRequest
    |   +-- StaleRequest
    |   +-- LimitExceeded
    |   +-- NotHolder
    |   +-- NotFound
    |   +-- WrongType
    |   +-- AuthenticationFailed
    |   +-- WrongCluster
    |   +-- Unsafe              it could do harm; it can be forced
    |   +-- UnsupportedVersion
    |   +-- ProtocolError       the other side broke the wire format
    |   +-- UsedAfterFork
    +-- NodeError               a server's own trouble; the process stops
        +-- StorageFailed
        +-- StorageCorrupt
        +-- ReleaseTooOld
        +-- NodeSuspect         what it promised or holds is not what the others know: it must not run again on its data
        +-- DataDirInUse
        +-- NodeRemoved

An expected refusal (the lock is busy) is a result, not an error.  Every error pickles (Celery and multiprocessing move them) and
carries its facts in `details`, a dict of plain values; the message is for people.

Errors cross the wire as `(code, message, details)`; `code` is the class name and `error_from_wire` finds the class again.
"""

from typing import Any


class CoordError(Exception):
    """Root of all errors of this package."""

    def __init__(self, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details)

    @property
    def code(self) -> str:
        return type(self).__name__


def _rebuild(kind: type[CoordError], message: str, details: dict[str, Any]) -> CoordError:
    return kind(message, **details)


class RetryableError(CoordError):
    """Nothing was applied; trying again may help."""


class NotLeader(RetryableError):
    """The node asked does not lead.  `details["leader"]`: client address of the leader where known."""


class Unavailable(RetryableError):
    """No quorum or no connection within the timeout."""


class Busy(RetryableError):
    """A bound of the server was reached; `details["limit"]` names it."""


class DiskFull(RetryableError):
    """The cluster takes no new commands for want of room on disk; the message names the nodes.

    Releases, reads and leases go on.
    """


class OutcomeUnknown(CoordError):
    """The command was sent and its answer did not come: it may or may not have been applied."""


class LostError(CoordError):
    """What the caller held is gone."""


class SessionExpired(LostError):
    """The cluster did not hear of this session for its TTL and has freed what it held."""


class SessionClosed(LostError):
    """The session was closed by its own client."""


class AttachmentClosed(LostError):
    """The process's attachment to its session was closed; what it acquired is free."""


class Superseded(LostError):
    """Another process of this attempt, or a later attempt, has taken the detached session up: this one must stop, for good.

    `details["by"]`: "process" or "attempt".
    """


class LockLost(LostError):
    """The lock is not held any more, or it cannot be shown that it still is."""


class LeadershipLost(LostError):
    """The caller does not lead any more, or it cannot be shown that it still does."""


class SubscriptionLost(LostError):
    """What the caller followed is not told any more; it can subscribe again."""


class RequestError(CoordError):
    """The request itself is at fault."""


class InvalidUrl(RequestError):
    """The URL cannot be understood; the message names the part."""


class InvalidConfig(RequestError):
    """The configuration has faults; `details["faults"]` lists all of them."""


class InvalidRequest(RequestError):
    """The request is malformed; the message names the field."""


class StaleRequest(RequestError):
    """A request number that its client has already counted as answered; it was not applied."""


class LimitExceeded(RequestError):
    """A size or count is over its bound; `details` has `limit` and `value`."""


class NotHolder(RequestError):
    """The caller does not hold the lock it wants to release."""


class NotFound(RequestError):
    """There is nothing under that name."""


class WrongType(RequestError):
    """The name belongs to a resource of another type; `details["type"]` names it."""


class AuthenticationFailed(RequestError):
    """The token or certificate was refused."""


class WrongCluster(RequestError):
    """The node belongs to another cluster."""


class Unsafe(RequestError):
    """Refused because it could do harm; the message says what to do first, and that it can be forced."""


class UnsupportedVersion(RequestError):
    """The two sides share no protocol version."""


class ProtocolError(RequestError):
    """Bytes that are not this protocol: a bad magic, a frame over the limit, a message that does not decode."""


class UsedAfterFork(RequestError):
    """A client made before `fork` was used in the child, which must connect for itself."""


#: What is left to do with the node of a directory on which it must not run any more; the directory itself goes before it.
START_ANEW = (
    "start the node on an empty one with --join ADDRESS --replace (without --init), to rejoin the cluster under a new node id"
)


class NodeError(CoordError):
    """A server's own trouble; the process stops and says why."""


class StorageFailed(NodeError):
    """The disk refused a write.  Nothing after it is durable; the node stops."""


class StorageCorrupt(NodeError):
    """What is on the disk is not what was written."""


class ReleaseTooOld(NodeError):
    """The log or a snapshot has something that only a newer release understands.  Nothing is damaged: start that release."""


class NodeSuspect(NodeError):
    """The others showed that this node lost what it had acknowledged, or holds another state than a majority.

    It stops, and refuses to start again on the same data directory.
    """


class DataDirInUse(NodeError):
    """Another process has the data directory."""


class NodeRemoved(NodeError):
    """The node was a member of the cluster and was removed: it has nothing more to do."""


def _leaves(kind: type[CoordError]) -> dict[str, type[CoordError]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        found.update(_leaves(child))
    return found


_BY_CODE = _leaves(CoordError)


def error_from_wire(code: str, message: str, details: dict[str, Any]) -> CoordError:
    """Return the error that `code` names; an unknown code (a newer server's) becomes a plain `CoordError`."""
    return _BY_CODE.get(code, CoordError)(message, **details)
