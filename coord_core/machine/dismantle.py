"""A machine that another has replaced is taken apart in slices.

Letting go of a million locks at once takes as long as a full garbage collection, and the collector would have to do it: a claim and
its timer refer to each other.  Like `invariants`, this reads the private state of the package's classes; the machine must not be
used any more.
"""

from typing import Any

from coord_core.machine.machine import Machine


def dismantle(machine: Machine, budget: int) -> bool:
    """Let go of about `budget` things; return whether there are more."""
    locks, sessions = machine._locks, machine._sessions
    budget -= _drop_timers(machine, budget)
    tables: tuple[dict[Any, Any], ...] = (
        machine._names._bound,
        locks._held,
        locks._waiting,
        sessions._attachments,
        sessions._sessions,
    )
    for table in tables:
        budget -= _drop_items(table, budget)
    if budget <= 0:
        return True
    # The machine's own circles: its tables of what does what.
    registry = machine._registry
    machine._commands.clear()
    machine._operations.clear()
    machine._queries.clear()
    registry.operations.clear()
    registry.queries.clear()
    registry.by_kind.clear()
    registry.resources.clear()
    machine.end_snapshot()
    return False


def _drop_timers(machine: Machine, budget: int) -> int:
    heap = machine._timers._heap
    count = min(budget, len(heap))
    for _ in range(count):
        heap.pop()[2].on_due = None
    return count


def _drop_items(table: dict[Any, Any], budget: int) -> int:
    count = max(0, min(budget, len(table)))
    for _ in range(count):
        table.popitem()
    return count
