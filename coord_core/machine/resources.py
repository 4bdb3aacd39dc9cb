"""What every type of resource must do, and the registry that refuses one that does not.

The duty that matters: *everything an ended attachment holds or waits for goes with it, in the same log entry, in every resource.*
So `attachments_ended` is not optional, and a resource that keeps nothing for anybody says so in code.

A resource's operations are functions of (attachment, request, operation).  They answer with a result, or with None where the
request waits; then the resource answers it later, through `CurrentEntry.reply`.  The attachment is alive and the request is new:
the machine has seen to that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from coord_core.machine.names import Named
from coord_core.machine.sessions import Attachment
from coord_core.protocol.queries import Answer
from coord_core.protocol.results import Failed, Result
from coord_core.types import RequestNumber

OperationHandler: TypeAlias = Callable[[Attachment, RequestNumber, Any], Result | None]
QueryHandler: TypeAlias = Callable[[Any], Answer]
#: The state of what is bound to a path, also where nothing is; `Failed` where something of another kind is.
StateOf: TypeAlias = Callable[[str], Answer]


class Resource(Protocol):
    """One type of resource: all locks, all values."""

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]: ...

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]: ...

    @property
    def watched(self) -> Mapping[str, StateOf]:
        """What can be subscribed to, by kind; whatever is in here is told of all its changes (`Streams.emit`)."""

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        """Answer what they wait for with `answer`, free what they hold, and give it to the next in the same entry.

        All attachments that end in this entry come in one call, and all are dead before it: none of them may inherit from another.
        """

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """A detached session is about to pass to another process, or to nobody: end what belongs to the one that had it.

        Waits that do not pass on are answered with `answer`.  What it holds passes on: whoever asks for the same again, under that
        attachment, must find it (`Attachment.detached`).
        """

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        """Undo a request: end its wait or give back what it was granted, and make `answer` its answer.

        Return whether there was anything to undo.
        """

    def holdings(self, attachment: Attachment) -> int:
        """Return how many things the attachment holds."""

    def state(self) -> Any:
        """Return the state as plain data, equal for equal states."""

    @property
    def named(self) -> type[Named]:
        """What paths are bound to, one type a resource."""

    def row(self, path: str, resource: Any) -> tuple[Any, int]:
        """Return what is bound to a path as a snapshot has it, and about how many bytes that is."""

    def restore(self, rows: msgspec.Raw) -> int:
        """Take up rows from a snapshot; return how many.

        Raises `StorageCorrupt` where they are not rows of this type, KeyError where an attachment is missing.
        """


_DUTIES = ("attachments_ended", "actor_left", "withdraw", "holdings", "state", "row", "restore")


class Registry:
    __slots__ = ("by_kind", "operations", "queries", "resources", "watched")

    def __init__(self) -> None:
        #: In order of registration, which is the order in which they hear of an ended attachment.
        self.resources: list[Resource] = []
        self.operations: dict[type[Any], OperationHandler] = {}
        self.queries: dict[type[Any], QueryHandler] = {}
        #: By `Named.kind`.
        self.by_kind: dict[str, Resource] = {}
        #: By kind as well.
        self.watched: dict[str, StateOf] = {}

    def register(self, resource: Resource) -> None:
        """Add a type of resource.  Raises TypeError where it lacks a duty or claims an operation of another."""
        missing = [duty for duty in _DUTIES if not callable(getattr(resource, duty, None))]
        if missing:
            raise TypeError(f"{type(resource).__name__} cannot be registered without {', '.join(missing)}")
        taken = [kind.__name__ for kind in resource.operations if kind in self.operations]
        taken += [kind.__name__ for kind in resource.queries if kind in self.queries]
        taken += [kind for kind in (resource.named.kind,) if kind in self.by_kind]
        if taken:
            raise TypeError(f"{type(resource).__name__} claims what is another's: {', '.join(taken)}")
        self.resources.append(resource)
        self.operations.update(resource.operations)
        self.queries.update(resource.queries)
        self.by_kind[resource.named.kind] = resource
        self.watched.update(resource.watched)

    def row(self, path: str, resource: Named) -> tuple[str, Any, int]:
        """Return the kind, the row and about the bytes of what is bound to a path, for a snapshot."""
        return resource.kind, *self.by_kind[resource.kind].row(path, resource)

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        assert not any(attachment.alive for attachment in ended), "attachments die before their holdings are given away"
        for resource in self.resources:
            resource.attachments_ended(ended, answer)

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        for resource in self.resources:
            resource.actor_left(attachment, answer)

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        # A request belongs to at most one resource.
        return any(resource.withdraw(attachment, request, answer) for resource in self.resources)

    def holdings(self, attachment: Attachment) -> int:
        return sum(resource.holdings(attachment) for resource in self.resources)
