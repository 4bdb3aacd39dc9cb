"""A machine that another has replaced is taken apart in slices.

Letting go of a million locks at once takes as long as a full garbage collection, and the collector would have to do it: a claim and
its timer refer to each other.  Like `invariants`, this reads the private state of the package's classes; the machine must not be
used any more.
"""

from collections import deque
from collections.abc import MutableMapping
from typing import Any

from coord_core.machine.machine import Machine
from coord_core.machine.sessions import Sessions
from coord_core.machine.streams import Record

#: Letting go of so many answers takes as long as of one claim with its lock.
_ANSWERS_AN_ITEM = 8


def dismantle(machine: Machine, budget: int) -> bool:
    """Let go of about `budget` things; return whether there are more."""
    sessions = machine._sessions
    budget -= _drop_timers(machine, budget)
    for shard in machine._names.shards():
        budget -= _drop_items(shard, budget)
    for claims in (machine._locks, machine._semaphores, machine._limiters):
        for index in (claims._held, claims._waiting):
            budget -= _drop_claims(index, budget)
    streams = machine._streams
    for table in (
        machine._elections._runners,
        machine._groups._members,
        machine._topics._cursors._claims,
        machine._parking._cursors._claims,
        machine._parking._lots.of_gate,
        machine._parking._lots.by_path,
        machine.logs,
        streams._of_attachment,
        streams.by_name,
    ):
        budget -= _drop_items(table, budget)
    budget -= _drop_items(machine._topics.by_number, budget)
    budget -= _drop_items(streams._subscriptions, budget)
    budget -= _drop_records(streams._ring, budget)
    budget -= _drop_attachments(sessions, budget)
    budget -= _drop_items(sessions._sessions, budget)
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
    registry.watched.clear()
    registry.resources.clear()
    machine.end_snapshot()
    return False


def _drop_timers(machine: Machine, budget: int) -> int:
    spent = 0
    for block in machine._timers._blocks:
        while block and spent < budget:
            block.pop()[2].on_due = None
            spent += 1
    return spent


def _drop_claims(index: dict[Any, MutableMapping[Any, Any]], budget: int) -> int:
    """An attachment may have any number of claims, so its table is emptied before it goes."""
    spent = 0
    while index and spent < budget:
        number, claims = next(iter(index.items()))
        spent += 1 + _drop_items(claims, budget - spent)
        if not claims:
            del index[number]
    return spent


def _drop_attachments(sessions: Sessions, budget: int) -> int:
    """An attachment counts with its answers, which are dropped here."""
    spent = 0
    for shard in sessions._attachments:
        while shard and spent < budget:
            answers = shard.popitem()[1].window.answers
            spent += 1 + len(answers) // _ANSWERS_AN_ITEM
            answers.clear()
    return spent


def _drop_items(table: MutableMapping[Any, Any], budget: int) -> int:
    count = max(0, min(budget, len(table)))
    for _ in range(count):
        table.popitem()
    return count


def _drop_records(ring: deque[Record], budget: int) -> int:
    spent = 0
    while ring and spent < budget:
        stream = ring.pop().stream
        while stream.records and spent < budget:
            stream.records.pop()
            spent += 1
        spent += 1
    return spent
