"""What the storage tests are made of: a founding, entries, and the state that a row of writes must leave behind."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from coord_core.protocol.members import Member
from coord_core.raft.messages import Configuration, Entry, HardState, SnapshotMetadata
from coord_core.storage.api import Batch, Bootstrap, Identity, Restored, Storage
from coord_core.types import LogIndex, NodeId, Term

IDENTITY = Identity("0123456789abcdef" * 2, NodeId(1), "north", "c0ffee")
MEMBERS = tuple(
    Member(NodeId(number), name, f"10.0.0.{number}:7700", f"10.0.0.{number}:7600", "c0ffee")
    for number, name in enumerate(("north", "east", "west"), start=1)
)
BOOTSTRAP = Bootstrap(
    IDENTITY,
    MEMBERS,
    SnapshotMetadata(LogIndex(1), Term(1), Configuration((NodeId(1), NodeId(2), NodeId(3)))),
)
#: What a formed node has before it wrote anything.
FOUNDING_STATE = HardState(Term(1), NodeId(0), LogIndex(1))


def entries(first: int, count: int, *, term: int = 1, size: int = 16) -> list[Entry]:
    """`count` entries from index `first` on, each with bytes of its own."""
    return [
        Entry(LogIndex(index), Term(term), 0, f"{index}@{term};".encode().ljust(size, b"."))
        for index in range(first, first + count)
    ]


def state(term: int, voted_for: int = 0, commit: int = 1) -> HardState:
    return HardState(Term(term), NodeId(voted_for), LogIndex(commit))


def content(storage: Storage) -> tuple[HardState, list[Entry]]:
    """What a storage holds, as far as writes can change it."""
    restored = storage.load()
    assert isinstance(restored, Restored)
    return restored.hard_state, list(restored.entries)


def random_batches(seed: int) -> Iterator[tuple[Batch, tuple[HardState, list[Entry]]]]:
    """An endless row of batches for a freshly formed node, each with what must be there after it.

    Half of them replace some of the log's end: now a few entries of a row, now many rows.
    """
    draw = random.Random(seed)
    log: list[Entry] = []
    hard_state = FOUNDING_STATE
    while True:
        first = len(log) + 2
        if log and draw.random() < 0.5:
            first -= draw.randint(1, min(len(log), draw.choice((2, 10, 40))))
        term = hard_state.term + draw.randint(0, 1)
        added = entries(first, draw.choice((0, 1, 3, 12)), term=term, size=draw.choice((8, 200)))
        new_state = state(term, draw.randint(0, 3)) if draw.random() < 0.7 or not added else None
        if added:
            log = log[: first - 2] + added
        hard_state = new_state or hard_state
        yield Batch(added, new_state), (hard_state, log)


def copy_as_after_a_crash(source: Path, target: Path) -> Path:
    """Copy the files of a storage that is still open: no close has tidied them up."""
    shutil.copytree(source, target)
    return target
