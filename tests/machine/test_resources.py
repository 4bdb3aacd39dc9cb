"""The registry: no resource without its duties to the dead (DESIGN: every resource frees a dead session's holdings)."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from coord_core.machine import Machine
from coord_core.machine.names import Named
from coord_core.machine.resources import OperationHandler, QueryHandler, Registry, StateOf
from coord_core.machine.sessions import Attachment
from coord_core.protocol.operations import LockAcquire, Operation
from coord_core.protocol.queries import Query
from coord_core.protocol.results import Failed, Result
from coord_core.types import AttachmentId, RequestNumber, SessionId
from tests.machine.driver import OWNER


class Dutiful:
    """A resource that does all it must, and nothing else."""

    def __init__(self, operations: Mapping[type[Any], OperationHandler] | None = None) -> None:
        self.operations: Mapping[type[Any], OperationHandler] = operations or {}
        self.queries: Mapping[type[Any], QueryHandler] = {}
        self.named: type[Named] = type("Thing", (Named,), {"kind": f"thing {id(self)}"})
        self.heard: list[list[AttachmentId]] = []

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        self.heard.append([attachment.id for attachment in ended])

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        pass

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        return False

    def holdings(self, attachment: Attachment) -> int:
        return 0

    def state(self) -> None:
        return None

    @property
    def watched(self) -> dict[str, StateOf]:
        return {}

    def row(self, path: str, resource: Named) -> tuple[None, int]:
        return None, 0

    def restore(self, rows: msgspec.Raw) -> int:
        return 0


@pytest.mark.parametrize("duty", ["attachments_ended", "actor_left", "withdraw", "holdings", "state", "row", "restore"])
def test_resource_that_lacks_a_duty_is_refused(duty: str) -> None:
    """Above all the hook that frees what the dead held: forgetting it must fail at start, not at the first death."""
    lacking = type("Lacking", (Dutiful,), {duty: None})()
    with pytest.raises(TypeError, match=duty):
        Registry().register(lacking)


def test_operation_of_another_resource_cannot_be_claimed() -> None:
    """Which resource an operation goes to must not depend on the order of registration."""
    registry = Registry()
    registry.register(Dutiful({LockAcquire: lambda attachment, request, operation: None}))
    with pytest.raises(TypeError, match="LockAcquire"):
        registry.register(Dutiful({LockAcquire: lambda attachment, request, operation: None}))


def test_every_resource_hears_once_of_all_that_ended_together() -> None:
    """One call: only then can a resource know who must not inherit."""
    registry, resources = Registry(), [Dutiful(), Dutiful()]
    for resource in resources:
        registry.register(resource)
    dead = [Attachment(AttachmentId(number), SessionId(1), OWNER) for number in (1, 2)]
    for attachment in dead:
        attachment.alive = False
    registry.attachments_ended(dead, Failed("SessionExpired", "", {}))
    assert [resource.heard for resource in resources] == [[[1, 2]], [[1, 2]]]


def test_attachment_is_dead_before_its_holdings_are_given_away() -> None:
    """Else it could be granted what it gives back."""
    alive = Attachment(AttachmentId(1), SessionId(1), OWNER)
    with pytest.raises(AssertionError):
        Registry().attachments_ended([alive], Failed("SessionExpired", "", {}))


def test_machine_knows_every_operation_and_every_query() -> None:
    """A new one without its resource would stop every node at its first use."""
    machine = Machine()
    assert set(machine._operations) == set(Operation.__args__)
    assert set(machine._queries) == set(Query.__args__)
