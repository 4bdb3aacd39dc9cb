"""What the stopped nodes have on their disks: one log, one state, and in it everything that was acknowledged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from coord_core.machine import Machine
from coord_core.protocol.commands import Call
from coord_core.protocol.operations import ValueSet
from coord_core.raft.messages import Entry, EntryKind
from coord_core.replica.building import Build
from coord_core.replica.entries import unstamp
from coord_core.storage.api import Restored
from coord_core.storage.sqlite import SqliteStorage
from tests.torture.judge import Operation


def judge_disks(directories: Sequence[Path], level: int, operations: Sequence[Operation]) -> Iterator[str]:
    """Compare the nodes up to the entry `level`, which all had applied."""
    restored = {directory.name: _load(directory) for directory in directories}
    logs: dict[str, dict[int, Entry]] = {name: {entry.index: entry for entry in one.entries} for name, one in restored.items()}
    first = max(min(log, default=level + 1) for log in logs.values())
    for index in range(first, level + 1):
        found = {log.get(index) for log in logs.values()}
        if len(found) > 1 or None in found:
            each = ", ".join(f"{name}: {_brief(log.get(index))}" for name, log in logs.items())
            yield f"entry {index} is not the same on all nodes: {each}"
    digests = {name: _machine(one, level).digest().hex()[:16] for name, one in restored.items()}
    if len(set(digests.values())) > 1:
        yield f"the state after entry {level} is not the same on all nodes: {digests}"
    longest = max(logs.values(), key=len)
    yield from _judge_acknowledged(longest, operations)


def _load(directory: Path) -> Restored:
    storage = SqliteStorage(directory)
    try:
        restored = storage.load()
    finally:
        storage.close()
    assert restored is not None, f"{directory} holds no node"
    return restored


def _machine(restored: Restored, level: int) -> Machine:
    """Return the machine after the entry `level`, made as a node makes it."""
    machine, applied = Machine(), 0
    if restored.snapshot is not None:
        build = Build(machine)
        for chunk in restored.snapshot.chunks:
            build.add(chunk)
        while build.has_work:
            build.step(1_000)
        machine, applied = build.finish(), restored.snapshot.info.metadata.index
    for entry in restored.entries:
        if applied < entry.index <= level and entry.kind == EntryKind.COMMAND and entry.data:
            machine.apply(entry.index, *unstamp(entry.data))
    return machine


def _judge_acknowledged(log: dict[int, Entry], operations: Sequence[Operation]) -> Iterator[str]:
    """What a client was told is in the log at the index that it was told, as far back as the log goes.

    A grant may have come with the entry of a release, so of a token only its entry is asked for.
    """
    first = min(log, default=0)
    for one in operations:
        if one.returned is None or one.result not in ("written", "holds"):
            continue
        index = one.returned.version or one.returned.token
        entry = log.get(index)
        is_there = entry is not None and (one.result == "holds" or _value(entry) == one.called.value)
        if index >= first and not is_there:
            yield f"entry {index} is {_brief(entry)}, but it was acknowledged as {one}"


def _value(entry: Entry) -> str | None:
    """Return what the entry writes, if it is a write."""
    match unstamp(entry.data)[1] if entry.data else None:
        case Call(operation=ValueSet(value=value)):
            return value.decode()
        case _:
            return None


def _brief(entry: Entry | None) -> str:
    if entry is None:
        return "missing"
    return f"term {entry.term}, {unstamp(entry.data)[1] if entry.data and entry.kind == EntryKind.COMMAND else 'no command'}"
